package proxy

import (
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"

	"chantal"
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
	switch {
	case t.tls && !read:
		return &answer{handler: h.pass(t.url)}, nil
	case t.tls, read && (h.PassOther || h.Mirror.Shaped(t.url.Path)):
		return h.cached(r, t.url)
	case h.PassOther:
		return &answer{handler: h.pass(t.url)}, nil
	}
	return nil, &chantal.RefusedError{
		What: t.url.Redacted(),
		Why:  "it belongs to no package repository that this proxy knows or recognises; configure the repository, or set forward.other: pass",
	}
}

// cached answers from the HTTP cache.
func (h *Handler) cached(r *http.Request, u *url.URL) (*answer, error) {
	got, err := h.Cache.Open(r.Context(), u.String(), r.Header)
	if err != nil {
		return nil, err
	}
	a := &answer{header: got.Header, state: cacheStatus[got.Cache], dated: true}
	if got.File != nil {
		a.file = got.File
		a.etag = got.Header.Get("Etag")
		a.cache = got.Header.Get("Cache-Control")
		a.reopen = func() (*answer, error) { return h.cached(r, u) }
		return a, nil
	}
	a.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer got.Body.Close()
		a.setHeader(w.Header())
		w.Header().Del("Accept-Ranges")
		w.Header().Set("Cache-Status", "chantal; fwd=uri-miss")
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

// pass hands a request on as it is.
func (h *Handler) pass(u *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Transport: h.Pass,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL = u
			p.Out.Host = u.Host
			p.Out.Header.Add("Via", "1.1 "+h.Via)
			p.Out.Header.Del("Proxy-Authorization")
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var refused *chantal.RefusedError
			if !errors.As(err, &refused) {
				err = &chantal.UpstreamError{URL: u.Redacted(), Err: err}
			}
			h.fail(w, r, err)
		},
	}
}
