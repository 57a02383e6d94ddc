// Package proxy answers HTTP requests: it finds out by which door a request
// came (mirror URL, forward proxy, CONNECT), which repository, ref and path it
// means, opens that in the ref's view, and writes the answer.
//
// A request is first resolved to an answer, with nothing written; one function
// writes answers, one table turns errors into status codes.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"chantal"
	"chantal/internal/httpcache"
	"chantal/mirror"
	"chantal/snapshot"
)

// Options are what a Handler works with.
type Options struct {
	Mirror  *mirror.Mirror
	Names   *snapshot.Names
	Cache   *httpcache.Cache // for what belongs to no repository
	Connect *Connect
	Pass    http.RoundTripper // for what passes unchanged inside an intercepted connection; its dialer must be the checked one
	API     http.Handler      // below /-/api/v1/
	Metrics *Metrics
	CA      []byte                                     // certificate of the own CA in PEM; nil where there is none
	Signer  func() (chantal.Signer, error)             // signs roots anew
	Key     func() (armored, binary []byte, err error) // the public half of its key

	Clients    []netip.Prefix // who may use the server
	Discover   bool           // recognise repositories that are not configured
	PassOther  bool           // fetch what belongs to no repository, instead of refusing it
	RequireRef bool           // 407 to forward requests that name no ref
	NoTunnel   bool           // refuse CONNECT to what is not intercepted
	OwnNames   []string       // host names that lead to this server, lower case
	Via        string         // the own pseudonym in Via, to see loops
	Log        *slog.Logger
}

// Handler answers requests. It is safe for concurrent use.
type Handler struct {
	Options
	pages *pages
	via   string   // what is added to Via
	conns sync.Map // net.Conn → *mirror.Conn, of open connections
}

// New returns a Handler.
func New(o Options) *Handler { return &Handler{Options: o, pages: newPages(), via: "1.1 " + o.Via} }

// ServeHTTP resolves the request and writes the answer.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := h.admit(r)
	frame(w, r, err)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	r = paced(w, r)
	if r.Method == http.MethodConnect {
		h.connect(w, r)
		return
	}
	a, err := h.resolve(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.write(w, r, a)
}

// admit refuses clients that may not use the server, and requests that nobody
// should send.
func (h *Handler) admit(r *http.Request) error {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && !permitted(h.Clients, addr.Addr().Unmap()) {
		return &statusError{http.StatusForbidden, addr.Addr().String() + " may not use this server; add its network to clients: in the configuration"}
	}
	return h.checkMessage(r)
}

func permitted(clients []netip.Prefix, a netip.Addr) bool {
	for _, p := range clients {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// resolve finds the answer to a request; nothing is written yet.
func (h *Handler) resolve(r *http.Request) (*answer, error) {
	t, err := h.route(r)
	if err != nil {
		return nil, err
	}
	a, err := h.find(r, t)
	if err == nil && t.forward {
		a.via = h.via
	}
	return a, err
}

// find finds the answer for a target.
func (h *Handler) find(r *http.Request, t *target) (*answer, error) {
	switch {
	case t.own != nil:
		return &answer{handler: t.own}, nil
	case t.repo == nil:
		return h.other(r, t)
	case r.Method == http.MethodOptions:
		return &answer{handler: http.HandlerFunc(options)}, nil
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return nil, &statusError{http.StatusMethodNotAllowed, "repositories are read only: use GET or HEAD"}
	}
	if canonical := t.repo.Canonical(t.path); canonical != t.path {
		return t.redirect(canonical), nil
	}
	view, err := h.view(r, t)
	if err != nil {
		return nil, err
	}
	if form, ok := t.repo.OwnList(t.path); ok {
		return h.mirrorList(r, t, view, form)
	}
	if deriver, page := t.repo.Derives(t.path); page != "" {
		return h.derived(r, t, view, deriver, page)
	}
	a, err := h.open(r, t, view)
	var unkept *mirror.UnkeptError
	if errors.As(err, &unkept) {
		return h.unkept(r, t, unkept)
	}
	return a, err
}

// connKey is the context key of what is known of a connection.
type connKey struct{}

// conn is what is known of a connection: the ref that its listener is bound to.
type conn struct {
	*mirror.Conn
	ref string
}

// connOf returns the connection of a request; of one inside an intercepted
// connection that is the one which the CONNECT came by.
func connOf(ctx context.Context) conn {
	if _, outer, ok := Intercepted(ctx); ok {
		c, _ := outer.(conn)
		return c
	}
	c, _ := ctx.Value(connKey{}).(conn)
	return c
}

// client says who asks, for the view of live.
func client(r *http.Request) mirror.Client {
	host := r.RemoteAddr
	if i := strings.LastIndexByte(host, ':'); i > 0 {
		host = host[:i]
	}
	return mirror.Client{
		Conn:    connOf(r.Context()).Conn,
		Name:    host + " " + r.UserAgent(),
		Query:   r.URL.RawQuery != "",
		NoCache: strings.Contains(strings.ToLower(r.Header.Get("Cache-Control")), "no-cache"),
	}
}
