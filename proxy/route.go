package proxy

import (
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"chantal"
	"chantal/mirror"
	"chantal/snapshot"
)

// target is what a request means.
type target struct {
	forward bool           // the client believes to talk to upstream
	tls     bool           // inside an intercepted connection
	url     *url.URL       // forward: what it asked for
	folded  bool           // written http://HTTPS///host/path
	own     http.Handler   // one of Chantal's own pages; the rest is unset
	repo    *mirror.Repo   // nil: belongs to no known repository
	path    string         // in the repository, decoded
	base    string         // the escaped URL path that the repository's own paths follow
	began   chantal.Digest // the root that the URL names, as our lists of mirrors make them; "" for none
	ref     snapshot.Ref
	pinned  bool // the URL itself names the ref
	state   *snapshot.State
	probed  error // why discovery did not recognise a repository
}

// route finds out what a request means.
func (h *Handler) route(r *http.Request) (*target, error) {
	if authority, _, ok := Intercepted(r.Context()); ok {
		u := *r.URL
		u.Scheme, u.Host = "https", strings.TrimSuffix(authority, ":443")
		return h.forward(r, &u, connOf(r.Context()).ref, true)
	}
	if r.URL.Host == "" || h.isOwn(r, r.URL) {
		return h.mirrorURL(r)
	}
	u := *r.URL
	folded := strings.EqualFold(u.Host, "https")
	if folded {
		if err := unfoldHTTPS(&u); err != nil {
			return nil, err
		}
	}
	ref, err := h.proxyRef(r)
	if err != nil {
		return nil, err
	}
	t, err := h.forward(r, &u, ref, false)
	if err == nil {
		t.folded = folded
	}
	return t, err
}

// unfoldHTTPS turns http://HTTPS///host/path, which means an https upstream,
// into https://host/path.
func unfoldHTTPS(u *url.URL) error {
	rest := strings.TrimLeft(u.EscapedPath(), "/")
	host, p, _ := strings.Cut(rest, "/")
	made, err := url.Parse("https://" + host + "/" + p)
	if err != nil || made.Hostname() == "" {
		return &statusError{http.StatusBadRequest, "after http://HTTPS/// comes a host: http://HTTPS///mirror.example.org/path"}
	}
	made.RawQuery = u.RawQuery
	*u = *made
	return nil
}

// localAddr returns the address that the request came to.
func localAddr(r *http.Request) string {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return local.String()
	}
	return r.Host
}

// isOwn reports whether an absolute URL leads to this very server.
func (h *Handler) isOwn(r *http.Request, u *url.URL) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		return false
	}
	ip, port, err := net.SplitHostPort(local.String())
	if err != nil {
		return false
	}
	asked := u.Port()
	if asked == "" {
		asked = "80"
	}
	if asked != port {
		return false
	}
	host := strings.ToLower(u.Hostname())
	if host != ip && net.ParseIP(host) == nil {
		if addrs, err := net.DefaultResolver.LookupHost(r.Context(), host); err == nil && slices.Contains(addrs, ip) {
			return true
		}
	}
	return host == ip || slices.Contains(h.OwnNames, host) || host == "localhost" && net.ParseIP(ip).IsLoopback()
}

// mirrorURL reads /{repo}[@{ref}]/{path}. Each segment is decoded once, before
// repository, ref and recording are split.
func (h *Handler) mirrorURL(r *http.Request) (*target, error) {
	raw := r.URL.EscapedPath()
	first, rest, slash := strings.Cut(strings.TrimPrefix(raw, "/"), "/")
	if first == "" && strings.Trim(rest, "/") == "" {
		return &target{own: http.RedirectHandler("/-/ui/", http.StatusFound)}, nil
	}
	if first == "-" {
		return h.ownPage(r, rest)
	}
	name, err := url.PathUnescape(first)
	if err != nil {
		return nil, &statusError{http.StatusBadRequest, "the URL is not encoded properly"}
	}
	refText := connOf(r.Context()).ref
	pinned := false
	if i := strings.IndexAny(name, "@~"); i >= 0 {
		refText = strings.TrimPrefix(name[i:], "@")
		if name[i] == '~' {
			refText = snapshot.Live + name[i:]
		}
		if refText == "" {
			return nil, &statusError{http.StatusNotFound, "after @ comes a ref: /" + name[:i] + "@live/"}
		}
		name, pinned = name[:i], true
	}
	repo := h.Mirror.Repo(name)
	if repo == nil {
		return nil, h.noRepo(name)
	}
	t := &target{repo: repo, base: "/" + first + "/", pinned: pinned}
	if t.path, err = decode(rest); err != nil {
		return nil, err
	}
	if !slash {
		return &target{own: t.redirect("").handler}, nil
	}
	t.enter()
	return t, h.resolveRef(t, refText)
}

// atURL reads /-/at/{ref}/{host}/{path}: an upstream URL under a ref, for
// clients that can name repositories by their host only.
func (h *Handler) atURL(r *http.Request, rest string) (*target, error) {
	parts := strings.SplitN(rest, "/", 4)
	if len(parts) < 4 {
		return nil, &statusError{http.StatusNotFound, "write /-/at/REF/HOST/PATH"}
	}
	ref, err := url.PathUnescape(parts[1])
	if err != nil {
		return nil, &statusError{http.StatusBadRequest, "the URL is not encoded properly"}
	}
	p, err := decode(parts[3])
	if err != nil {
		return nil, err
	}
	t, err := h.locate(r, &url.URL{Scheme: "http", Host: parts[2], Path: "/" + p, RawQuery: r.URL.RawQuery}, ref)
	if err != nil {
		return nil, err
	}
	if t.repo == nil {
		return nil, &statusError{http.StatusNotFound, "http://" + parts[2] + "/" + p + " belongs to no known repository; `chantal list repos` shows what there is"}
	}
	t.forward, t.pinned = false, true
	t.base = "/-/" + strings.TrimSuffix(rest, strings.TrimPrefix(t.path, t.repo.Prefix()))
	t.enter()
	return t, nil
}

// decode turns the escaped rest of a URL into a repository path: every segment
// decoded once, "." and empty segments dropped.
func decode(rest string) (string, error) {
	segs := strings.Split(rest, "/")
	kept := segs[:0]
	for i, seg := range segs {
		s, err := url.PathUnescape(seg)
		switch {
		case err != nil:
			return "", &statusError{http.StatusBadRequest, "the URL is not encoded properly"}
		case strings.Contains(s, "/"):
			return "", &statusError{http.StatusBadRequest, "%2F in a path segment is not a separator, and no repository has such names"}
		case s == "" && i == len(segs)-1 && len(kept) > 0:
			kept = append(kept, "")
		case s != "" && s != ".":
			kept = append(kept, s)
		}
	}
	return strings.Join(kept, "/"), nil
}

func (h *Handler) noRepo(name string) error {
	var have []string
	for _, r := range h.Mirror.Repos() {
		have = append(have, r.Name)
	}
	say := "there is no repository " + name + " here"
	if len(have) == 0 {
		say += ", nor any other yet: configure one, or use this server as a proxy"
	} else {
		say += "; there is: " + strings.Join(have[:min(len(have), 20)], ", ")
	}
	return &statusError{http.StatusNotFound, say}
}

func (h *Handler) resolveRef(t *target, text string) error {
	ref, err := snapshot.Parse(text)
	if err != nil {
		return err
	}
	t.ref = ref
	t.state, err = h.Names.Resolve(ref)
	return err
}

// forward finds the repository that an absolute URL belongs to, and recognises
// new ones.
func (h *Handler) forward(r *http.Request, u *url.URL, refText string, tls bool) (*target, error) {
	t, err := h.locate(r, u, refText)
	if err != nil {
		return nil, err
	}
	t.tls = tls
	if passes := t.state.Live && (tls || h.PassOther) && !h.Mirror.Offline; t.repo == nil && !passes {
		t.repo, t.path = h.Mirror.FindDerived(u)
	}
	if t.repo == nil && t.state.Live && h.Discover && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		if t.repo, t.path, err = h.Mirror.Discover(r.Context(), u, r.Header.Get("Accept")); err != nil {
			t.repo, t.probed = nil, err
		}
	}
	if t.repo != nil {
		own := strings.TrimSuffix(strings.TrimPrefix(t.path, t.repo.Prefix()), "/")
		t.base = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), own)
	}
	t.enter()
	return t, nil
}

// locate finds the known repository that an absolute URL belongs to.
func (h *Handler) locate(r *http.Request, u *url.URL, refText string) (*target, error) {
	t := &target{forward: true, url: u}
	if err := h.resolveRef(t, refText); err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, &statusError{http.StatusBadRequest, "only http and https URLs can be asked for"}
	}
	if slices.Contains(strings.Split(u.Path, "/"), "..") || strings.ContainsRune(u.Path, 0) {
		return nil, &chantal.RefusedError{What: "the path of " + u.Redacted(), Why: "it leads out of the repository"}
	}
	if found, err := h.place(t, u); found || err != nil {
		return t, err
	}
	if t.repo, t.path = h.Mirror.FindList(u); t.repo == nil {
		t.repo, t.path = h.Mirror.Find(r.Context(), u)
	}
	return t, nil
}

// redirect answers with the canonical place of the target.
func (t *target) redirect(canonical string) *answer {
	if t.forward {
		canonical = strings.TrimPrefix(canonical, t.repo.Prefix())
	}
	u := url.URL{Path: canonical}
	return &answer{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		loc := t.base + u.EscapedPath()
		if r.URL.RawQuery != "" {
			loc += "?" + r.URL.RawQuery
		}
		w.Header().Set("Location", loc)
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusMovedPermanently)
	})}
}

// view returns the view of the target's ref.
func (h *Handler) view(r *http.Request, t *target) (chantal.View, error) {
	if err := t.signable(); err != nil {
		return nil, err
	}
	base, err := h.stateView(r, t)
	if err != nil || !t.ref.Signed {
		return base, err
	}
	place := mirror.Place{Ref: t.ref.String(), Shared: !t.pinned}
	if !t.state.Live && !t.state.Named {
		place.Ref = ""
	}
	return t.repo.Signed(base, place, h.Signer), nil
}

// signable refuses +signed where the repository's roots cannot be signed anew.
func (t *target) signable() error {
	if t.ref.Signed && !t.repo.Signs() {
		return &snapshot.UnsupportedError{Ref: t.ref.String(), Part: "+signed for repositories of type " + t.repo.Type}
	}
	return nil
}

// stateView returns the view of the target's state, as it was published.
func (h *Handler) stateView(r *http.Request, t *target) (chantal.View, error) {
	if t.state.Live {
		if t.repo.Retired {
			return nil, &statusError{http.StatusNotFound, "repository " + t.repo.Name + " is no longer configured: only its snapshots and instants are answered, /" + t.repo.Name + "@REF/"}
		}
		c := client(r)
		c.Began = t.began
		return t.repo.Live(c), nil
	}
	at, err := t.state.At(t.repo.Name)
	if err != nil {
		return nil, err
	}
	return t.repo.At(at.Line(), at.At, !t.state.Named && !t.repo.Retired), nil
}

var leadingInstant = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

// proxyRef returns the ref that a forward request selects: by the proxy's user
// name, else by the listener, else live.
func (h *Handler) proxyRef(r *http.Request) (string, error) {
	user := proxyUser(r.Header.Get("Proxy-Authorization"))
	switch listener := connOf(r.Context()).ref; {
	case user != "":
		return user, nil
	case listener != "":
		return listener, nil
	case h.RequireRef:
		return "", &authError{"this proxy serves no anonymous requests: give a ref as the proxy user, http://live:x@" + localAddr(r)}
	}
	return snapshot.Live, nil
}

// proxyUser returns the user of Basic credentials. An instant with colons in it
// is matched first, as the first colon would cut it.
func proxyUser(header string) string {
	scheme, encoded, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return ""
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return ""
	}
	skip := len(leadingInstant.Find(text))
	user, _, _ := strings.Cut(string(text[skip:]), ":")
	return string(text[:skip]) + user
}

// connect answers CONNECT. Only what is intercepted can be held to another ref
// than live.
func (h *Handler) connect(w http.ResponseWriter, r *http.Request) {
	ref, err := h.proxyRef(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	parsed, err := snapshot.Parse(ref)
	if err == nil {
		_, err = h.Names.Resolve(parsed)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if !h.Connect.Intercepts(r.Host) {
		if h.Mirror.Offline {
			h.fail(w, r, &chantal.UpstreamError{URL: "https://" + r.Host, Err: chantal.ErrOffline})
			return
		}
		refusal := ""
		switch {
		case parsed.Name != snapshot.Live || parsed.Signed:
			refusal = "under ref " + ref + " only hosts of configured repositories can be reached over https, with forward.intercept: configured; use an http:// source or a mirror URL"
		case h.NoTunnel:
			refusal = "this proxy tunnels no https (forward.connect: deny); use an http:// source, http://HTTPS///host/path or a mirror URL"
		}
		if refusal != "" {
			h.fail(w, r, &statusError{http.StatusForbidden, refusal})
			return
		}
	}
	h.Connect.ServeHTTP(w, r.WithContext(WithRef(r.Context(), conn{connOf(r.Context()).Conn, ref})))
}
