package proxy

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"chantal"
	"chantal/mirror"
	"chantal/snapshot"
)

// statusError is an error that belongs to HTTP alone.
type statusError struct {
	status int
	say    string
}

func (e *statusError) Error() string { return e.say }

// rangeError says that a file has nothing of the ranges asked for.
type rangeError struct{ size int64 }

func (e *rangeError) Error() string {
	return fmt.Sprintf("the file has %d bytes, and nothing of the ranges asked for", e.size)
}

// authError asks for credentials, which carry the ref.
type authError struct{ say string }

func (e *authError) Error() string { return e.say }

// problem is an error as clients see it (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	ID     string `json:"id"` // stands in the log, too

	contentRange string // of a 416
}

// statusOf is the one table from errors to status codes.
func statusOf(err error) (status int, next string) {
	var (
		own         *statusError
		part        *rangeError
		auth        *authError
		bad         *snapshot.BadRefError
		unsupported *snapshot.UnsupportedError
		unknown     *snapshot.UnknownError
		instant     *mirror.NoInstantError
		refused     *chantal.RefusedError
		mismatch    *chantal.MismatchError
		full        *chantal.DiskError
		upstream    *chantal.UpstreamError
		misdirected *MisdirectedError
	)
	switch {
	case errors.As(err, &own):
		return own.status, ""
	case errors.As(err, &part):
		return http.StatusRequestedRangeNotSatisfiable, "ask for the whole file"
	case errors.As(err, &auth):
		return http.StatusProxyAuthRequired, ""
	case errors.As(err, &misdirected):
		return http.StatusMisdirectedRequest, ""
	case errors.As(err, &bad):
		return http.StatusNotFound, "write REPO@REF with a snapshot's name or an instant"
	case errors.As(err, &unsupported):
		return http.StatusNotImplemented, "leave that part of the ref away"
	case errors.As(err, &unknown):
		return http.StatusNotFound, ""
	case errors.As(err, &instant):
		if instant.First.IsZero() {
			return http.StatusNotFound, "`chantal list generations` shows what was observed"
		}
		return http.StatusNotFound, "its first instant is " + instantRef(instant.First)
	case errors.As(err, &refused):
		return http.StatusForbidden, ""
	case errors.Is(err, chantal.ErrOffline):
		return http.StatusGatewayTimeout, "start the server without --offline, with upstream in reach, to fetch it"
	case errors.As(err, &full), errors.Is(err, chantal.ErrNotKept):
		return http.StatusServiceUnavailable, "make room on the server's disk, or see what its log says about the disk; then try again, it goes on by itself"
	case errors.As(err, &mismatch):
		return http.StatusBadGateway, "upstream is probably being updated: try again; `chantal explain URL` shows what is promised"
	case errors.As(err, &upstream):
		if upstream.Status == http.StatusLoopDetected {
			return http.StatusLoopDetected, "the upstream leads back to this server: check its URL, and the proxy it is reached by"
		}
		if upstream.Status != 0 && upstream.Err != nil {
			return http.StatusBadGateway, "upstream answers, but not with what a repository has there; `chantal status` shows the last errors"
		}
		if upstream.Status >= 400 && upstream.Status < 500 && upstream.Status != http.StatusTooManyRequests && upstream.Status != http.StatusRequestTimeout {
			return http.StatusBadGateway, "check the upstream URL and its credentials"
		}
		return http.StatusServiceUnavailable, "try again when upstream can be reached; `chantal status` shows the last errors"
	case errors.Is(err, fs.ErrNotExist):
		return http.StatusNotFound, "`chantal explain URL` shows what the path resolves to"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, "try again"
	}
	return http.StatusInternalServerError, "the server's log says more under this id"
}

// Fail answers with an error.
func (h *Handler) Fail(w http.ResponseWriter, r *http.Request, err error) { h.fail(w, r, err) }

// fail answers with an error: as a problem document where the client reads
// JSON, else as one line of text. Some clients only retry when there is a body.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, next := statusOf(err)
	p := problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: err.Error(), ID: strings.ToLower(rand.Text()[:10])}
	if next != "" {
		p.Detail += "; " + next
	}
	var part *rangeError
	if errors.As(err, &part) {
		p.contentRange = fmt.Sprintf("bytes */%d", part.size)
	}
	level := slog.LevelInfo
	switch {
	case status == http.StatusInternalServerError:
		level = slog.LevelError
	case status == http.StatusNotFound, status == http.StatusPreconditionFailed, status == http.StatusRequestedRangeNotSatisfiable:
		level = slog.LevelDebug
	}
	h.Log.Log(r.Context(), level, "answered with an error", "id", p.ID, "status", status, "method", r.Method, "url", r.URL.Redacted(), "client", r.RemoteAddr, "error", err)
	h.Metrics.failure(status)
	writeProblem(w, r, p)
}

func writeProblem(w http.ResponseWriter, r *http.Request, p problem) {
	header := w.Header()
	for key := range header {
		if key != "Connection" {
			delete(header, key)
		}
	}
	body := []byte(fmt.Sprintf("%d %s: %s (id %s)\n", p.Status, p.Title, strings.ReplaceAll(p.Detail, "\n", " "), p.ID))
	kind := "text/plain; charset=utf-8"
	if acceptsJSON(r.Header.Get("Accept")) {
		body, _ = json.Marshal(p)
		kind = "application/problem+json"
	}
	header.Set("Content-Type", kind)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	switch p.Status {
	case http.StatusRequestedRangeNotSatisfiable:
		header.Set("Content-Range", p.contentRange)
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		header.Set("Retry-After", "2")
	case http.StatusProxyAuthRequired:
		header.Set("Proxy-Authenticate", `Basic realm="chantal ref"`)
	case http.StatusMethodNotAllowed:
		header.Set("Allow", allowed)
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

func acceptsJSON(accept string) bool {
	return strings.Contains(accept, "application/json") || strings.Contains(accept, "application/problem+json") || strings.Contains(accept, "+json")
}
