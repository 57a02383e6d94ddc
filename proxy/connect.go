package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/elazarl/goproxy"

	"chantal"
)

const (
	tunnelPort     = "443"
	tunnelIdle     = 10 * time.Minute      // without a byte in either direction
	tunnelQuiet    = time.Second           // a tunnel so long without a byte is closed first at shutdown
	tunnelDial     = 30 * time.Second      // for the connection to the far end
	shutdownPoll   = 50 * time.Millisecond // between looks at the tunnels that are left
	innerHandshake = 30 * time.Second      // for TLS, and for each request's head
	innerIdle      = 3 * time.Minute       // between two requests of an intercepted connection
)

// ConnectOptions says how CONNECT requests are answered. Dial, Refuse and Log
// are required, and so is Inner with a CA.
type ConnectOptions struct {
	// CA signs for intercepted hosts; nil turns interception off.
	CA *CA
	// Intercept reports whether host (lower case, no port) belongs to a
	// configured repository. It is called for every CONNECT.
	Intercept func(host string) bool
	// Tunnel says whether connections to other hosts are passed on.
	Tunnel bool
	// Dial opens connections for tunnels. It has to refuse, with a
	// *chantal.RefusedError somewhere in its error, addresses that clients may
	// not reach.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Inner answers the requests inside intercepted connections. They are
	// origin-form; Intercepted tells where the client believes to be.
	Inner http.Handler
	// Refuse answers a request that is not accepted: with a
	// *chantal.RefusedError, *chantal.UpstreamError or *MisdirectedError.
	Refuse func(w http.ResponseWriter, r *http.Request, err error)
	Log    *slog.Logger
}

// A MisdirectedError says that a request inside an intercepted connection
// names another server than the CONNECT did (421, RFC 9110, 15.5.20).
type MisdirectedError struct {
	Host      string // what the request names
	Authority string // what the CONNECT named
}

func (e *MisdirectedError) Error() string {
	return fmt.Sprintf("a request for %s on a connection to %s; open a connection for each host", e.Host, e.Authority)
}

// Connect answers CONNECT requests (RFC 9110, 9.3.6): it speaks TLS itself for
// hosts of configured repositories, passes bytes on for others, or refuses.
// It is safe for concurrent use.
type Connect struct {
	o      ConnectOptions
	engine *goproxy.ProxyHttpServer

	inner    *http.Server // nil without a CA
	handover *handover

	tunnels   tunnels
	uncovered sync.Map // hosts that were warned of
}

// NewConnect returns a Connect. Shutdown ends what it starts.
func NewConnect(o ConnectOptions) *Connect {
	c := &Connect{o: o, tunnels: tunnels{open: map[*tunnel]struct{}{}}}
	c.engine = c.newEngine()
	if o.CA == nil {
		return c
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	c.inner = &http.Server{
		Handler:           http.HandlerFunc(c.serveInner),
		Protocols:         protocols,
		ReadHeaderTimeout: innerHandshake,
		IdleTimeout:       innerIdle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if client, ok := conn.(*tls.Conn).NetConn().(*clientConn); ok {
				ctx = context.WithValue(ctx, interceptedKey{}, client)
			}
			return ctx
		},
	}
	c.handover = &handover{
		conns:  make(chan net.Conn),
		closed: make(chan struct{}),
		config: &tls.Config{
			// Clients that know no better offer h2 too.
			NextProtos: []string{"http/1.1"},
			// The name in the ClientHello may be missing; the one in the
			// CONNECT is what the client checks the certificate for.
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return o.CA.Certificate(hello.Conn.(*clientConn).host)
			},
		},
	}
	go func() {
		if err := c.inner.Serve(c.handover); !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("intercepted connections are no longer answered", "error", err)
		}
	}()
	return c
}

// newEngine returns a goproxy that does nothing by itself: its constructor
// would read the environment for proxies, and its defaults tunnel everything
// and sign with a key that everybody has.
func (c *Connect) newEngine() *goproxy.ProxyHttpServer {
	engine := &goproxy.ProxyHttpServer{
		Logger: slog.NewLogLogger(c.o.Log.Handler(), slog.LevelDebug),
		NonproxyHandler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.o.Refuse(w, r, &chantal.RefusedError{What: r.Method, Why: "only CONNECT is answered here"})
		}),
		Tr: &http.Transport{
			DialContext:     c.o.Dial,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		},
		ConnectionErrHandler: func(conn io.Writer, _ *goproxy.ProxyCtx, err error) {
			c.o.Log.Debug("a tunnel ended", "error", err)
		},
		// The far end was dialled before the client was told anything.
		ConnectDialWithReq: func(r *http.Request, _, _ string) (net.Conn, error) {
			if p, ok := r.Context().Value(planKey{}).(*plan); ok && p.tunnel != nil {
				return p.tunnel.far, nil
			}
			return nil, errors.New("no tunnel was opened for this request")
		},
	}
	reject := &goproxy.ConnectAction{Action: goproxy.ConnectReject}
	accept := &goproxy.ConnectAction{Action: goproxy.ConnectAccept}
	intercept := &goproxy.ConnectAction{Action: goproxy.ConnectHijack, Hijack: c.handOver}
	engine.OnRequest().HandleConnectFunc(func(host string, ctx *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		p, ok := ctx.Req.Context().Value(planKey{}).(*plan)
		switch {
		case !ok:
			return reject, host
		case p.tunnel != nil:
			return accept, host
		default:
			return intercept, host
		}
	})
	return engine
}

// A plan is what was decided about one CONNECT: a tunnel, or interception.
type plan struct {
	host, authority string
	ref             any
	tunnel          *tunnel // nil to intercept
	hijacked        bool    // the connection is ours
}

type (
	planKey        struct{}
	refKey         struct{}
	interceptedKey struct{}
)

// WithRef returns a context that carries ref from a CONNECT request to those
// inside of its connection, where Intercepted returns it.
func WithRef(ctx context.Context, ref any) context.Context {
	return context.WithValue(ctx, refKey{}, ref)
}

// Intercepted returns, in the context of a request inside an intercepted
// connection, the host:port that the CONNECT named (lower case) and what
// WithRef had put into its context, nil if nothing. ok is false in all other
// contexts.
func Intercepted(ctx context.Context) (authority string, ref any, ok bool) {
	conn, ok := ctx.Value(interceptedKey{}).(*clientConn)
	if !ok {
		return "", nil, false
	}
	return conn.authority, conn.ref, true
}

// Intercepts reports whether a CONNECT to authority would be answered by this
// server itself.
func (c *Connect) Intercepts(authority string) bool {
	host, port, err := splitAuthority(authority)
	return err == nil && c.intercepts(host, port)
}

func (c *Connect) intercepts(host, port string) bool {
	if c.o.CA == nil || c.o.Intercept == nil || !c.o.Intercept(host) {
		return false
	}
	if n, err := strconv.Atoi(port); err != nil || (port != tunnelPort && n < 1024) {
		return false
	}
	if c.o.CA.Covers(host) {
		return true
	}
	if _, warned := c.uncovered.LoadOrStore(host, true); !warned {
		c.o.Log.Warn("this host was configured after the CA was made, so its connections are tunnelled and not cached; have a new CA made and give it to the clients",
			"host", host, "ca_hosts", strings.Join(c.o.CA.Hosts(), " "))
	}
	return false
}

// ServeHTTP answers a CONNECT that its caller has found to be allowed. A value
// that WithRef put into the request's context reaches the requests inside.
// Tunnels outlive the call.
func (c *Connect) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		c.engine.NonproxyHandler.ServeHTTP(w, r)
		return
	}
	p, err := c.decide(r)
	if err != nil {
		c.o.Refuse(w, r, err)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), planKey{}, p))
	c.engine.ServeHTTP(&hijackWriter{ResponseWriter: w, plan: p}, r)
	if p.hijacked {
		return
	}
	if p.tunnel != nil {
		p.tunnel.close()
	}
	c.o.Refuse(w, r, errors.New("CONNECT "+p.authority+": the connection cannot be taken over"))
}

// decide opens the tunnel if there is to be one, so that a failure can still
// be answered.
func (c *Connect) decide(r *http.Request) (*plan, error) {
	host, port, err := splitAuthority(r.Host)
	if err != nil {
		return nil, &chantal.RefusedError{What: "CONNECT " + r.Host, Why: err.Error()}
	}
	p := &plan{host: host, authority: net.JoinHostPort(host, port), ref: r.Context().Value(refKey{})}
	what := "CONNECT " + p.authority
	switch {
	case c.intercepts(host, port):
		return p, nil
	case !c.o.Tunnel:
		return nil, &chantal.RefusedError{What: what, Why: "tunnels are switched off (forward.connect: tunnel would allow them)"}
	case port != tunnelPort:
		return nil, &chantal.RefusedError{What: what, Why: "tunnels lead to port " + tunnelPort + " only; no setting allows others"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), tunnelDial)
	defer cancel()
	far, err := c.o.Dial(ctx, "tcp", p.authority)
	if err != nil {
		var refused *chantal.RefusedError
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		return nil, &chantal.UpstreamError{URL: "https://" + p.authority, Err: err}
	}
	if p.tunnel = c.tunnels.add(far); p.tunnel == nil {
		return nil, &chantal.UpstreamError{URL: "https://" + p.authority, Err: errors.Join(http.ErrServerClosed, far.Close())}
	}
	return p, nil
}

// handOver accepts the CONNECT and gives the connection to the inner server.
func (c *Connect) handOver(r *http.Request, client net.Conn, _ *goproxy.ProxyCtx) {
	if _, err := fmt.Fprintf(client, "HTTP/1.%d 200 Connection established\r\n\r\n", min(r.ProtoMinor, 1)); err != nil {
		c.o.Log.Debug("the client of a CONNECT went away", "host", r.Host, "error", err)
		client.Close()
		return
	}
	c.handover.give(client)
}

// serveInner answers a request inside an intercepted connection. Whatever
// scheme and host it names, it is meant for the server that the client sees.
func (c *Connect) serveInner(w http.ResponseWriter, r *http.Request) {
	authority, _, ok := Intercepted(r.Context())
	switch {
	case !ok:
		c.o.Refuse(w, r, errors.New("a request came from no intercepted connection"))
	case r.Method == http.MethodConnect:
		c.o.Refuse(w, r, &chantal.RefusedError{What: "CONNECT " + r.Host, Why: "this is a connection to " + authority + " and no proxy"})
	case !sameAuthority(r.Host, authority) || r.URL.Scheme == "http":
		c.o.Refuse(w, r, &MisdirectedError{Host: r.Host, Authority: authority})
	default:
		c.o.Inner.ServeHTTP(w, r)
	}
}

// Shutdown ends everything: it lets requests inside intercepted connections
// and tunnels that carry bytes finish until ctx ends, and cuts them then, with
// ctx's error. It stands beside the outer server's Shutdown, which does not
// know of connections that were taken over.
func (c *Connect) Shutdown(ctx context.Context) error {
	inner := make(chan error, 1)
	go func() {
		if c.inner == nil {
			inner <- nil
			return
		}
		err := c.inner.Shutdown(ctx)
		if err != nil {
			err = errors.Join(err, c.inner.Close())
		}
		inner <- err
	}()
	err := c.tunnels.shutdown(ctx)
	return errors.Join(<-inner, err)
}

// splitAuthority returns host (lower case, without trailing dot or brackets)
// and port.
func splitAuthority(authority string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(authority)
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || host == "" || portErr != nil || n == 0 {
		return "", "", errors.New("a CONNECT names a host and a port, as in mirror.example.org:443")
	}
	return host, strconv.FormatUint(n, 10), nil
}

// sameAuthority reports whether a Host field names authority; the port 443 may
// be left out, and HTTP/1.0 has no such field.
func sameAuthority(field, authority string) bool {
	if field == "" {
		return true
	}
	if _, _, err := net.SplitHostPort(field); err != nil {
		field = net.JoinHostPort(strings.Trim(field, "[]"), tunnelPort)
	}
	host, port, err := splitAuthority(field)
	return err == nil && net.JoinHostPort(host, port) == authority
}

// A hijackWriter gives goproxy, which forgets what the server has read ahead,
// a connection that begins with these bytes: a client need not wait for the
// answer before it sends its ClientHello.
type hijackWriter struct {
	http.ResponseWriter
	plan *plan
}

func (w *hijackWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.plan.hijacked = true
	client := &clientConn{Conn: conn, plan: w.plan}
	early, _ := buf.Reader.Peek(buf.Reader.Buffered()) // no error: it is all there
	client.early = slices.Clone(early)
	if t := w.plan.tunnel; t != nil {
		return t.join(client), buf, nil
	}
	return client, buf, nil
}

// A clientConn is the client's side after a CONNECT. It has no WriteTo and no
// ReadFrom: those of a TCP connection would pass by the early bytes.
type clientConn struct {
	net.Conn
	*plan
	early []byte // what came before the CONNECT was answered
}

func (c *clientConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// A tunnel is two connections that end together, at the latest when no byte
// has come from either for tunnelIdle.
type tunnel struct {
	far   *tunnelEnd
	owner *tunnels
	idle  *time.Timer
	last  atomic.Int64 // Unix nanoseconds of the last byte

	mu     sync.Mutex
	near   *tunnelEnd // nil until the client's connection was taken over
	closed bool
}

// join adds the client's connection.
func (t *tunnel) join(client net.Conn) net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.near = &tunnelEnd{Conn: client, tunnel: t}
	if t.closed {
		client.Close()
	}
	return t.near
}

func (t *tunnel) touch() {
	t.last.Store(time.Now().UnixNano())
	t.idle.Reset(tunnelIdle)
}

func (t *tunnel) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	t.idle.Stop()
	t.far.Conn.Close()
	if t.near != nil {
		t.near.Conn.Close()
	}
	t.owner.remove(t)
}

// A tunnelEnd is one connection of a tunnel. With CloseWrite and CloseRead
// goproxy closes the directions one by one, as clients do that end their
// request with the end of their stream.
type tunnelEnd struct {
	net.Conn
	tunnel *tunnel
}

func (e *tunnelEnd) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	if n > 0 {
		e.tunnel.touch()
	}
	return n, err
}

func (e *tunnelEnd) Write(p []byte) (int, error) {
	n, err := e.Conn.Write(p)
	if n > 0 {
		e.tunnel.touch()
	}
	return n, err
}

// Close ends the whole tunnel.
func (e *tunnelEnd) Close() error {
	e.tunnel.close()
	return nil
}

// CloseWrite passes the end of one stream on. A connection that cannot do so
// is closed whole, or its other side would wait in vain.
func (e *tunnelEnd) CloseWrite() error {
	if half, ok := e.half(); ok {
		return half.CloseWrite()
	}
	return e.Close()
}

// CloseRead does nothing: goproxy calls it at the end of the stream only.
func (e *tunnelEnd) CloseRead() error { return nil }

type writeCloser interface{ CloseWrite() error }

// half finds what can close one direction, below wrappers if need be.
func (e *tunnelEnd) half() (writeCloser, bool) {
	conn := e.Conn
	if client, ok := conn.(*clientConn); ok {
		conn = client.Conn
	}
	for {
		if half, ok := conn.(writeCloser); ok {
			return half, true
		}
		wrapped, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil, false
		}
		conn = wrapped.NetConn()
	}
}

// tunnels knows the open ones.
type tunnels struct {
	mu     sync.Mutex
	open   map[*tunnel]struct{}
	closed bool
}

// add returns a tunnel to far, or nil after shutdown has begun.
func (s *tunnels) add(far net.Conn) *tunnel {
	t := &tunnel{owner: s}
	t.far = &tunnelEnd{Conn: far, tunnel: t}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.open[t] = struct{}{}
	t.idle = time.AfterFunc(tunnelIdle, t.close)
	t.touch()
	return t
}

func (s *tunnels) remove(t *tunnel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, t)
}

// closeQuiet lets no more be added, closes those without a byte since before
// and returns how many are left.
func (s *tunnels) closeQuiet(before time.Time) int {
	s.mu.Lock()
	s.closed = true
	var quiet []*tunnel
	for t := range s.open {
		if t.last.Load() <= before.UnixNano() {
			quiet = append(quiet, t)
		}
	}
	left := len(s.open) - len(quiet)
	s.mu.Unlock()
	for _, t := range quiet {
		t.close()
	}
	return left
}

func (s *tunnels) shutdown(ctx context.Context) error {
	poll := time.NewTicker(shutdownPoll)
	defer poll.Stop()
	for s.closeQuiet(time.Now().Add(-tunnelQuiet)) > 0 {
		select {
		case <-ctx.Done():
			s.closeQuiet(time.Now().Add(tunnelIdle)) // all of them, whatever they carry now
			return ctx.Err()
		case <-poll.C:
		}
	}
	return nil
}

// A handover is the inner server's listener: its connections come from
// CONNECT requests. Close has to wake Accept, or the server never shuts down.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	config *tls.Config
}

// give waits until the server takes conn, and closes it when there is no
// server any more.
func (h *handover) give(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.closed:
		conn.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return tls.Server(conn, h.config), nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handover) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero} }
