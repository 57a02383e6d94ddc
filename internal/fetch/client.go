package fetch

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"chantal"
)

// maxRedirects is how many redirects one request follows.
const maxRedirects = 10

// Options say how a Client talks to upstreams.
type Options struct {
	Egress    *Egress                               // nil: public addresses only
	UserAgent string                                // "chantal" if empty; a request's own header wins
	Via       string                                // added to Via, "1.1 chantal-7f3a"; "" adds none
	Timeout   time.Duration                         // until an answer begins, and without progress of its body; 0 is 30 s
	PerHost   int                                   // how many downloads of one host go on at a time, for keeping connections; 0 is 4
	Proxy     func(*http.Request) (*url.URL, error) // the outbound proxy; nil for none
	Roots     *x509.CertPool                        // the authorities trusted for TLS; nil for the system's
	Log       *slog.Logger                          // nil for none
}

// Client is a Source that asks over HTTP/1.1 and HTTP/2. It never decompresses,
// always verifies TLS, and keeps connections for reuse.
//
// It gives up on a host that takes longer than a third of Options.Timeout, or
// ten seconds, to connect or to shake hands for TLS; on an answer whose header is
// not there in Options.Timeout; and on a body that, while it is being read,
// brings less than 1 KiB a second for that long. An origin that answered 429 or
// 503 with Retry-After (RFC 9110, 10.2.3) is not asked again, by anybody and for
// anything, before that time has passed, at most ten minutes; one that could not
// be connected to in a second or more, not for 15 s by those who have a fallback.
type Client struct {
	o         Options
	transport *http.Transport
	passing   *http.Transport // for requests that are not our own
	holds     *holds
	logins    atomic.Pointer[logins]
}

// proxyURLKey is the context key of the *url.URL of the outbound proxy of a
// request, decided once per request so that the dial's exemption agrees.
type proxyURLKey struct{}

// New returns a Client. Close its idle connections with CloseIdleConnections.
func New(o Options) *Client {
	o.UserAgent = cmp.Or(o.UserAgent, "chantal")
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	o.PerHost = cmp.Or(o.PerHost, 4)
	if o.Egress == nil {
		o.Egress = NewEgress(nil, nil)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	connect := min(connectTimeout, o.Timeout/3)
	c := &Client{
		o: o, holds: newHolds(),
		transport: &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) {
				u, _ := r.Context().Value(proxyURLKey{}).(*url.URL)
				return u, nil
			},
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, connect)
				defer cancel()
				return o.Egress.DialContext(ctx, network, addr)
			},
			TLSClientConfig:     &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: connect,
			ForceAttemptHTTP2:   true,
			// A connection that carries many requests and is dead would fail
			// each of them, one timeout after the other.
			HTTP2:              &http.HTTP2Config{SendPingTimeout: o.Timeout / 2, PingTimeout: connect},
			DisableCompression: true,
			MaxIdleConns:       256,
			// What is urgent does not count among the downloads.
			MaxIdleConnsPerHost:    2 * o.PerHost,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 1 << 20,
			ReadBufferSize:         64 << 10,
		},
	}
	c.passing = c.transport.Clone()
	c.passing.ResponseHeaderTimeout = o.Timeout
	c.SetCredentials(nil)
	return c
}

// CloseIdleConnections closes the connections kept for reuse.
func (c *Client) CloseIdleConnections() {
	c.transport.CloseIdleConnections()
	c.passing.CloseIdleConnections()
}

// Fetch asks for r.URL and follows redirects.
func (c *Client) Fetch(ctx context.Context, r *Request) (*Response, error) {
	start, err := parseURL(r.URL)
	if err != nil {
		return nil, err
	}
	if r.Method != "" && r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil, fmt.Errorf("fetching %s: method %s is not one that can be asked again", bare(start), r.Method)
	}
	within, stop := ctx, context.CancelFunc(func() {})
	if r.Within > 0 {
		within, stop = context.WithTimeoutCause(ctx, r.Within, fmt.Errorf("it took longer than %s: %w", r.Within, context.DeadlineExceeded))
	}
	resp, err := c.follow(ctx, within, r, start)
	if err != nil || resp.Body == http.NoBody {
		stop()
		return resp, err
	}
	resp.Body.(*body).stop = stop
	return resp, nil
}

// follow asks for start and follows redirects. within is ctx or the same with
// the request's own bound.
func (c *Client) follow(ctx, within context.Context, r *Request, start *url.URL) (*Response, error) {
	u := start
	seen := map[string]bool{}
	for hop := 0; ; hop++ {
		seen[u.String()] = true
		x, err := c.ask(within, r, start, u)
		if err != nil {
			return nil, failure(ctx, bare(u), err)
		}
		next, err := redirect(x.resp, u, r.NoFollow)
		switch {
		case err != nil:
		case next == nil:
			return c.answer(ctx, r, u, x)
		case hop == maxRedirects:
			err = fmt.Errorf("it redirects more than %d times", maxRedirects)
		case seen[next.String()]:
			err = fmt.Errorf("it redirects in a circle, to %s", next)
		}
		drain(x.resp.Body)
		x.cancel(nil)
		if err != nil {
			return nil, &chantal.UpstreamError{URL: bare(u), Status: x.resp.StatusCode, Err: err}
		}
		u = next
	}
}

// parseURL refuses what is not an absolute HTTP URL.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		// The error repeats what it cannot read, and that may be a password.
		return nil, &chantal.RefusedError{What: "upstream URL", Why: "it cannot be read as a URL (RFC 3986)"}
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, &chantal.RefusedError{What: "upstream URL " + bare(u), Why: "only http and https URLs with a host are fetched"}
	}
	return u, nil
}

// bare returns u as messages show it: without userinfo.
func bare(u *url.URL) string {
	v := *u
	v.User = nil
	return v.String()
}

// exchange is one request that was answered. cancel has to be called when the
// body is no longer needed; its cause, if any, is why the body fails.
type exchange struct {
	resp   *http.Response
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// ask sends one request and waits for the answer's header.
func (c *Client) ask(ctx context.Context, r *Request, start, u *url.URL) (*exchange, error) {
	req := &http.Request{
		Method: cmp.Or(r.Method, http.MethodGet),
		URL:    u, Host: u.Host, Header: c.header(r, start, u),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	ctx, err := c.route(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := c.holds.check(u, r.Fallback); err != nil {
		return nil, err
	}
	if u == start {
		req.URL = exact(ctx, r.URL, u)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.o.Timeout, func() { cancel(silence(c.o.Timeout)) })
	started := time.Now()
	resp, err := c.transport.RoundTrip(req.WithContext(ctx))
	timer.Stop()
	if err != nil {
		c.holds.failed(u, err, time.Since(started))
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	c.holds.note(u, resp)
	c.o.Log.DebugContext(ctx, "asked upstream", "url", bare(u), "method", req.Method, "status", resp.StatusCode)
	return &exchange{resp, ctx, cancel}, nil
}

// exact returns u so that its path is sent as spelled in raw, also with bytes
// that net/url would escape or leave as they are: some servers tell the
// spellings apart, and signatures in URLs cover them.
func exact(ctx context.Context, raw string, u *url.URL) *url.URL {
	_, rest, _ := strings.Cut(raw, "://")
	i := strings.IndexByte(rest, '/')
	if i < 0 {
		return u
	}
	path := rest[i:]
	if end := strings.IndexAny(path, "?#"); end >= 0 {
		path = path[:end]
	}
	if path == u.EscapedPath() || strings.ContainsAny(rest[:i], "?#") || strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return u
	}
	out := *u
	out.Opaque = path
	if _, proxied := ctx.Value(proxyURLKey{}).(*url.URL); proxied && u.Scheme == "http" || strings.HasPrefix(path, "//") {
		out.Opaque = "//" + u.Host + path // net/http puts the scheme before it
	}
	return &out
}

// silence is the cause of a request that was given up.
func silence(d time.Duration) error {
	return fmt.Errorf("it was silent, or all but silent, for %s: %w", d, context.DeadlineExceeded)
}

// route decides on the outbound proxy of a request.
func (c *Client) route(ctx context.Context, req *http.Request) (context.Context, error) {
	if c.o.Proxy == nil {
		return ctx, nil
	}
	proxy, err := c.o.Proxy(req)
	if err != nil {
		return nil, fmt.Errorf("choosing the outbound proxy: %w", err)
	}
	if proxy == nil {
		return ctx, nil
	}
	if err := c.o.Egress.checkTarget(req.URL); err != nil {
		return nil, err
	}
	ctx = context.WithValue(ctx, proxyURLKey{}, proxy)
	return context.WithValue(ctx, proxyKey{}, HostPort(proxy)), nil
}

// header makes the request's fields. What a client sent for the first host
// (start) in confidence does not follow a redirect to another one.
func (c *Client) header(r *Request, start, u *url.URL) http.Header {
	h := EndToEnd(r.Header)
	for _, name := range []string{"Host", "Content-Length", "Referer"} {
		delete(h, name)
	}
	same := u.Scheme == start.Scheme && HostPort(u) == HostPort(start)
	if !same {
		delete(h, "Authorization")
		delete(h, "Cookie")
	}
	if h.Get("User-Agent") == "" {
		h.Set("User-Agent", c.o.UserAgent)
	}
	if c.o.Via != "" {
		h["Via"] = []string{strings.Join(append(h["Via"], c.o.Via), ", ")}
	}
	if !r.Encoded || h.Get("Accept-Encoding") == "" {
		h.Set("Accept-Encoding", "identity")
	}
	if r.Accept != "" || h.Get("Accept") == "" {
		h.Set("Accept", cmp.Or(r.Accept, "*/*"))
	}
	if r.ETag != "" {
		h.Set("If-None-Match", r.ETag)
	}
	if !r.Modified.IsZero() {
		h.Set("If-Modified-Since", r.Modified.UTC().Format(http.TimeFormat))
	}
	if r.Offset > 0 {
		h.Set("Range", "bytes="+strconv.FormatInt(r.Offset, 10)+"-")
		if r.IfRange != "" {
			h.Set("If-Range", r.IfRange)
		}
	}
	if r.NoCache {
		h.Set("Cache-Control", "no-cache")
	}
	if same && start.User != nil {
		password, _ := start.User.Password()
		h.Set("Authorization", basic(start.User.Username(), password))
	} else if auth := c.logins.Load().at(r.Repo, u); auth != "" {
		h.Set("Authorization", auth)
	}
	return h
}

// redirect returns where an answer leads, or nil if it is not a redirect that
// can be followed.
func redirect(resp *http.Response, u *url.URL, noFollow bool) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	location := resp.Header.Get("Location")
	if location == "" || noFollow {
		return nil, nil
	}
	to, err := url.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("it redirects to what is not a URL")
	}
	next := u.ResolveReference(to)
	next.User, next.Fragment, next.RawFragment = nil, "", ""
	switch {
	case next.Host == "" || next.Scheme != "http" && next.Scheme != "https":
		return nil, fmt.Errorf("it redirects to %s, which is not an http or https URL", next)
	case u.Scheme == "https" && next.Scheme == "http":
		return nil, fmt.Errorf("it redirects from https to %s, which is never followed", next)
	}
	return next, nil
}

// drain reads the rest of a small body, so that its connection can be used
// again, and closes it.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 4<<10)
	body.Close()
}

// failure is the error of a request, to the URL shown, that got no answer or
// half of one.
func failure(ctx context.Context, shown string, err error) error {
	if refused := (*chantal.RefusedError)(nil); errors.As(err, &refused) {
		return refused
	}
	if known := (*chantal.UpstreamError)(nil); errors.As(err, &known) {
		return known
	}
	if ctx.Err() != nil {
		return fmt.Errorf("fetching %s: %w", shown, ctx.Err())
	}
	if oe := (*net.OpError)(nil); errors.As(err, &oe) {
		err = oe // without the layers around it
	}
	return &chantal.UpstreamError{URL: shown, Err: err}
}
