package proxy

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// ownPage finds the page below /-/ that a request means.
func (h *Handler) ownPage(r *http.Request, rest string) (*target, error) {
	name, _, _ := strings.Cut(rest, "/")
	var page http.Handler
	switch name {
	case "at":
		return h.atURL(r, rest)
	case "healthz", "readyz":
		page = text("ok\n", "text/plain; charset=utf-8")
	case "metrics":
		page = h.Metrics.Handler()
	case "ca.pem":
		if h.CA == nil {
			return nil, &statusError{http.StatusNotFound, "there is no CA: set forward.intercept: configured"}
		}
		page = text(string(h.CA), "application/x-pem-file")
	case "api":
		if !strings.HasPrefix(rest, "api/v1/") {
			return nil, &statusError{http.StatusNotFound, "the API is below /-/api/v1/"}
		}
		page = h.API
	case "key.asc", "key.gpg":
		armored, binary, err := h.Key()
		if err != nil {
			return nil, fmt.Errorf("the signing key: %w", err)
		}
		page = text(string(armored), "application/pgp-keys")
		if name == "key.gpg" {
			page = text(string(binary), "application/octet-stream")
		}
	case "ui":
		return nil, &statusError{http.StatusNotImplemented, "/-/" + name + " is not in this version"}
	default:
		return nil, &statusError{http.StatusNotFound, "/-/" + rest + " is none of /-/healthz, /-/readyz, /-/metrics, /-/ca.pem, /-/key.asc, /-/api/v1/"}
	}
	open := name == "healthz" || name == "readyz" || name == "key.asc" || name == "key.gpg" // no secrets, nor anything that could become one
	if !open && !h.ownHost(r.Host) {
		return nil, &statusError{http.StatusForbidden, "the Host header names " + r.Host + ", which is not this server: pages in a browser could reach it by such a name"}
	}
	return &target{own: page}, nil
}

// ownHost reports whether a Host header can be meant for this server: an
// address, a name without a domain, or a name of its own. Others may have been
// made to resolve here by somebody else (DNS rebinding).
func (h *Handler) ownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	return net.ParseIP(host) != nil || !strings.Contains(host, ".") || slices.Contains(h.OwnNames, host)
}

func text(s, kind string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write([]byte(s))
	})
}
