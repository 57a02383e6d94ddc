package proxy

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"chantal"
	"chantal/internal/httpcache"
	"chantal/mirror"
)

// other answers a forward request that belongs to no repository: packages are
// passed and cached by HTTP's rules; inside an intercepted connection
// everything is passed, as the client believes to talk to that host; the rest
// is passed or refused, as the configuration says.
func (h *Handler) other(r *http.Request, t *target) (*answer, error) {
	if !t.state.Live {
		return nil, &statusError{http.StatusNotFound, t.url.Redacted() + " belongs to no known repository, and under ref " + t.ref.String() + " only repositories are answered"}
	}
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	if t.probed != nil && !errors.Is(t.probed, mirror.ErrUnknown) {
		// It has the shape of a repository, but could not be recognised.
		return nil, t.probed
	}
	packaged := h.Mirror.Shaped(t.url.Path)
	switch {
	case !t.tls && !h.PassOther && !(read && packaged):
		return nil, &chantal.RefusedError{
			What: t.url.Redacted(),
			Why:  "it belongs to no package repository that this proxy knows or recognises; configure the repository, or set forward.other: pass",
		}
	case read:
		return h.cached(r, httpcache.Request{Method: r.Method, URL: t.upstream(r), Header: r.Header}, packaged)
	case h.Mirror.Offline:
		return nil, &chantal.UpstreamError{URL: t.url.Redacted(), Err: chantal.ErrOffline}
	}
	if final, err := lastForward(r); final != nil || err != nil {
		return final, err
	}
	to, err := asSpelled(t.upstream(r))
	if err != nil {
		return nil, err
	}
	return &answer{handler: h.pass(to)}, nil
}

// cached answers from the HTTP cache. packaged says that the URL names a
// package: a web page in its place is an error.
func (h *Handler) cached(r *http.Request, q httpcache.Request, packaged bool) (*answer, error) {
	got, err := h.Cache.Open(r.Context(), q)
	if err != nil {
		return nil, err
	}
	a := &answer{header: got.Header, state: cacheStatus[got.Cache], dated: true}
	if got.File != nil {
		a.file, a.repo = got.File, q.Repo
		a.etag = got.Header.Get("Etag")
		if a.etag == "" && got.File.Digest != "" {
			a.etag = `"` + got.File.Digest.Hex() + `"`
		}
		a.cache = got.Header.Get("Cache-Control")
		a.reopen = func() (*answer, error) {
			again := q
			again.Header = q.Header.Clone()
			delete(again.Header, "Cache-Control") // upstream's word has just come
			delete(again.Header, "Pragma")
			return h.cached(r, again, packaged)
		}
		return a, nil
	}
	if kind, _, _ := strings.Cut(got.Header.Get("Content-Type"), ";"); packaged && got.Status == http.StatusOK && strings.EqualFold(strings.TrimSpace(kind), "text/html") {
		got.Body.Close()
		return nil, &chantal.UpstreamError{URL: redacted(q.URL), Status: got.Status, Err: errors.New("it answered with a web page in place of a package; perhaps the network wants a login first")}
	}
	a.state = passedStatus(got)
	a.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer got.Body.Close()
		a.setHeader(w.Header())
		h.Metrics.answer(a, 0)
		if got.Header.Get("Accept-Ranges") == "" {
			w.Header().Del("Accept-Ranges")
		}
		w.WriteHeader(got.Status)
		if r.Method == http.MethodHead {
			return
		}
		if _, err := io.Copy(w, got.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	return a, nil
}

// unkept answers for a file of a repository that the mirror does not keep: by
// the rules of HTTP, from the first of its upstreams that has an answer. The
// client's own credentials are not for those.
func (h *Handler) unkept(r *http.Request, t *target, e *mirror.UnkeptError) (a *answer, err error) {
	header := r.Header.Clone()
	delete(header, "Authorization")
	delete(header, "Cookie")
	for _, u := range e.URLs {
		if r.URL.RawQuery != "" {
			u += "?" + r.URL.RawQuery
		}
		a, err = h.cached(r, httpcache.Request{Repo: t.repo.Name, Method: r.Method, URL: u, Header: header}, false)
		if err == nil {
			return a, nil
		}
	}
	return nil, err
}

// passedStatus is the Cache-Status of an answer that is no stored file.
func passedStatus(a *httpcache.Answer) string {
	switch {
	case a.Cache == chantal.Hit:
		return cacheStatus[chantal.Hit]
	case a.Bypass:
		return "chantal; fwd=bypass"
	}
	return "chantal; fwd=miss"
}

func redacted(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Redacted()
	}
	return raw
}

// pass hands a request on as it is, but for what concerns one connection only.
func (h *Handler) pass(to *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Transport: h.Pass,
		ErrorLog:  slog.NewLogLogger(h.Log.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host = to, to.Host
			p.Out.Header.Set("Via", strings.Join(append(p.In.Header.Values("Via"), h.via), ", "))
			// It is no use to offer a protocol to upstream that the answer
			// cannot be switched to here.
			p.Out.Header.Del("Upgrade")
			p.Out.Header.Del("Connection")
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Set("Via", strings.Join(append(resp.Header.Values("Via"), h.via), ", "))
			resp.Header.Set("Cache-Status", "chantal; fwd=method")
			if !safe(resp.Request.Method) && resp.StatusCode < 400 {
				h.Cache.Invalidate("", to.Scheme+"://"+to.Host+to.RequestURI(), resp.Header)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var refused *chantal.RefusedError
			if !errors.As(err, &refused) {
				err = &chantal.UpstreamError{URL: to.Redacted(), Err: err}
			}
			h.fail(w, r, err)
		},
	}
}

// safe reports whether a method changes nothing (RFC 9110, 9.2.1).
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions || method == http.MethodTrace
}

// asSpelled parses a URL so that path and query are sent byte for byte, also
// where net/url would escape otherwise.
func asSpelled(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, &statusError{http.StatusBadRequest, "the URL cannot be read"}
	}
	_, rest, _ := strings.Cut(raw, "://")
	path, _, _ := strings.Cut(strings.TrimPrefix(rest, u.Host), "?")
	if u.EscapedPath() != path {
		u.Opaque = path
	}
	return u, nil
}
