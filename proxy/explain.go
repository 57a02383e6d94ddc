package proxy

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"chantal"
	"chantal/mirror"
)

// Explained says how a URL would be answered.
type Explained struct {
	mirror.Explanation
	Repo, Ref, Path string
	Status          int      // what a request would get, as far as can be told without asking upstream
	Lists           []string // for a root that lists of mirrors lead to: the paths of our own, on this server
	Reason, Next    string   // for an error
}

// Explain says what a URL resolves to: a mirror URL of this server, its path
// alone, or an upstream URL as a forward proxy is asked for it. Nothing is
// fetched.
func (h *Handler) Explain(ctx context.Context, raw, listen string) (Explained, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Explained{}, &statusError{http.StatusBadRequest, "that is no URL: " + err.Error()}
	}
	t, err := h.meant(ctx, u, listen)
	if err != nil {
		return failed(Explained{}, err), nil
	}
	if t.own != nil {
		return Explained{Status: http.StatusOK, Reason: "one of this server's own pages"}, nil
	}
	if t.repo == nil {
		return h.homeless(u), nil
	}
	e := Explained{Repo: t.repo.Name, Ref: t.ref.String(), Path: t.path}
	if err := t.signable(); err != nil {
		return failed(e, err), nil
	}
	path := t.repo.Canonical(t.path)
	root, lists := t.repo.OwnLists()
	form, isList := t.repo.OwnList(path)
	if isList {
		path = root
	}
	_, page := t.repo.Derives(path)
	if page != "" {
		path = page
	}
	if root != "" && path == root {
		for _, p := range lists {
			e.Lists = append(e.Lists, "/"+t.repo.Name+"@"+t.ref.String()+"/"+p)
		}
	}
	at, err := t.state.At(t.repo.Name)
	if err != nil {
		return failed(e, err), nil
	}
	if e.Explanation, err = t.repo.Explain(ctx, path, at.Line(), at.At); err != nil {
		return failed(e, err), nil
	}
	switch {
	case t.ref.Signed && e.Kind == chantal.Root.String():
		e.Digests, e.Size, e.Verdict = nil, 0, "signed here when it is asked for; what it is made of: "+e.Verdict
	case t.began != "" && path == root && !slices.Contains(e.Digests, t.began):
		e.Verdict = "a list of mirrors named the root of another generation: that is answered while it is retained, and 404 then"
	case page != "":
		e.Verdict = "made here, when it is asked for, of the page " + page + ": " + e.Verdict
	case isList:
		e.Verdict = "a " + form + " made here, which leads to this repository alone; its root: " + e.Verdict
	}
	if e.Stored {
		e.Status = http.StatusOK
		return e, nil
	}
	e.Reason = e.Verdict
	switch {
	case !t.state.Live && e.Generation == 0:
		e.Status = http.StatusNotFound
	case h.Mirror.Offline:
		e.Status, e.Next = http.StatusGatewayTimeout, "the server is offline: start it without --offline to fetch it"
	case e.Generation != 0:
		e.Status = http.StatusOK
	}
	return e, nil
}

// meant returns what a request for u would mean.
func (h *Handler) meant(ctx context.Context, u *url.URL, listen string) (*target, error) {
	r := (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}}).WithContext(ctx)
	if u.Host == "" || h.leadsHere(u, listen) {
		return h.mirrorURL(r)
	}
	if strings.EqualFold(u.Host, "https") {
		if err := unfoldHTTPS(u); err != nil {
			return nil, err
		}
	}
	return h.locate(r, u, "live")
}

// homeless says what becomes of a URL that belongs to no known repository.
func (h *Handler) homeless(u *url.URL) Explained {
	e := Explained{Status: http.StatusForbidden, Reason: "it belongs to no repository that is known yet"}
	switch {
	case h.Mirror.Shaped(u.Path):
		e.Status = http.StatusOK
		e.Reason = "it looks like a package, but belongs to no known repository: passed and cached by HTTP's rules, and part of no snapshot"
	case h.PassOther:
		e.Status, e.Reason = http.StatusOK, "it belongs to no known repository and is passed (forward.other)"
	case h.Discover:
		e.Next = "the first request for the repository's InRelease, repomd.xml or project page lets it be recognised"
	default:
		e.Next = "configure the repository, or set forward.discover: true"
	}
	return e
}

func failed(e Explained, err error) Explained {
	e.Status, e.Next = statusOf(err)
	e.Reason = err.Error()
	return e
}

// leadsHere reports whether a URL names the address that this server listens
// on.
func (h *Handler) leadsHere(u *url.URL, listen string) bool {
	_, port, err := net.SplitHostPort(listen)
	if err != nil || u.Port() != port && (u.Port() != "" || port != "80") {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return ip != nil && (ip.IsLoopback() || strings.HasPrefix(listen, u.Hostname()+":")) || h.ownHost(u.Host) && ip == nil
}
