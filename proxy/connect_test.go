package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

const testPatience = 10 * time.Second

// content is what the inner handler serves, longer than any buffer on the way.
var content = bytes.Repeat([]byte("0123456789abcdef"), 20_000)

// A connectBench is a server that answers CONNECT, on loopback, and what it
// has seen.
type connectBench struct {
	t       *testing.T
	connect *Connect
	server  *httptest.Server
	ca      *CA
	logged  *lockedBuffer
	dialed  atomic.Int64
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newConnectBench starts a server that intercepts mirror.example.org and
// late.example.org, of which the CA covers the first; other hosts it looks for
// at the address far.
func newConnectBench(t *testing.T, far string) *connectBench {
	b := &connectBench{t: t, logged: &lockedBuffer{}, ca: testCA(t, time.Now, "mirror.example.org")}
	b.connect = NewConnect(ConnectOptions{
		CA:        b.ca,
		Intercept: func(host string) bool { return host == "mirror.example.org" || host == "late.example.org" },
		Tunnel:    true,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			b.dialed.Add(1)
			if far == "" {
				return checkedDial(ctx, network, addr)
			}
			return new(net.Dialer).DialContext(ctx, network, far)
		},
		Inner:  http.HandlerFunc(serveContent),
		Refuse: refusePlainly,
		Log:    slog.New(slog.NewTextHandler(b.logged, nil)),
	})
	b.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := strings.Cut(r.Header.Get("Chantal-Test-Ref"), " ")
		b.connect.ServeHTTP(w, r.WithContext(WithRef(r.Context(), user)))
	}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testPatience)
		defer cancel()
		if err := b.connect.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		b.server.Close()
	})
	return b
}

// checkedDial refuses loopback, as the dialer does that clients' wishes go
// through.
func checkedDial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		if host, _, _ := net.SplitHostPort(address); net.ParseIP(host).IsLoopback() {
			return &chantal.RefusedError{What: address, Why: "a private address"}
		}
		return nil
	}}
	return d.DialContext(ctx, network, addr)
}

func refusePlainly(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	var (
		refused     *chantal.RefusedError
		upstream    *chantal.UpstreamError
		misdirected *MisdirectedError
	)
	switch {
	case errors.As(err, &refused):
		status = http.StatusForbidden
	case errors.As(err, &misdirected):
		status = http.StatusMisdirectedRequest
	case errors.As(err, &upstream):
		status = http.StatusServiceUnavailable
	}
	http.Error(w, err.Error(), status)
}

// serveContent says in its header what it knows of its connection.
func serveContent(w http.ResponseWriter, r *http.Request) {
	authority, ref, ok := Intercepted(r.Context())
	w.Header().Set("Seen", fmt.Sprint(r.URL.String(), " ", authority, " ", ref, " ", ok))
	w.Header().Set("Client", r.RemoteAddr)
	w.Header().Set("ETag", `"abc"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Unix(1_700_000_000, 0), bytes.NewReader(content))
}

// client returns an HTTP client that goes through the bench and trusts its CA.
func (b *connectBench) client(roots *x509.CertPool) *http.Client {
	tr := &http.Transport{
		Proxy:              func(*http.Request) (*url.URL, error) { return url.Parse(b.server.URL) },
		ProxyConnectHeader: http.Header{"Chantal-Test-Ref": {"prod"}},
		TLSClientConfig:    &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2:  true, // offers h2, as many clients do
	}
	b.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: testPatience}
}

// raw opens a connection and sends head on it.
func (b *connectBench) raw(head string) (net.Conn, *bufio.Reader) {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.server.Listener.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testPatience)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		b.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// status reads the answer to a CONNECT and what a refusal says.
func (b *connectBench) status(r *bufio.Reader) (status int, body string) {
	b.t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		b.t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.StatusCode, ""
	}
	resp.Body = io.NopCloser(io.LimitReader(r, max(resp.ContentLength, 0)))
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// do sends a request and returns the answer with its body read.
func do(t *testing.T, c *http.Client, method, url string, header map[string]string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestInterceptedConnection(t *testing.T) {
	b := newConnectBench(t, "")
	c := b.client(b.ca.testPool())
	const u = "https://mirror.example.org/debian/pool/a.deb?x=%2B"

	resp, body := do(t, c, "GET", u, nil)
	if !bytes.Equal(body, content) || resp.ContentLength != int64(len(content)) {
		t.Errorf("GET: got %d bytes, Content-Length %d, want %d", len(body), resp.ContentLength, len(content))
	}
	if resp.ProtoMajor != 1 {
		t.Errorf("the connection speaks %s, want HTTP/1.1", resp.Proto)
	}
	want := "/debian/pool/a.deb?x=%2B mirror.example.org:443 prod true"
	if diff := cmp.Diff(want, resp.Header.Get("Seen")); diff != "" {
		t.Errorf("what the inner handler sees (-want +got):\n%s", diff)
	}
	firstConn := resp.Header.Get("Client")

	resp, body = do(t, c, "HEAD", u, nil)
	if len(body) != 0 || resp.ContentLength != int64(len(content)) {
		t.Errorf("HEAD: got %d bytes, Content-Length %d", len(body), resp.ContentLength)
	}
	resp, body = do(t, c, "GET", u, map[string]string{"Range": "bytes=16-31"})
	if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, content[16:32]) {
		t.Errorf("Range: got %s with %q", resp.Status, body)
	}
	resp, _ = do(t, c, "GET", u, map[string]string{"Range": "bytes=900000-"})
	if resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("Range beyond the end: got %s", resp.Status)
	}
	resp, body = do(t, c, "GET", u, map[string]string{"If-None-Match": `"abc"`})
	if resp.StatusCode != http.StatusNotModified || len(body) != 0 {
		t.Errorf("If-None-Match: got %s with %d bytes", resp.Status, len(body))
	}
	resp, body = do(t, c, "GET", u, map[string]string{"Range": "bytes=0-3,100-105"})
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	mr := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for part, err := mr.NextPart(); err == nil; part, err = mr.NextPart() {
		text, _ := io.ReadAll(part) // what is missing shows below
		parts = append(parts, string(text))
	}
	if diff := cmp.Diff([]string{"0123", "456789"}, parts); diff != "" {
		t.Errorf("multipart ranges (-want +got):\n%s", diff)
	}
	if got := resp.Header.Get("Client"); got != firstConn {
		t.Errorf("the last request came over %s, the first over %s: not kept alive", got, firstConn)
	}
	if n := b.dialed.Load(); n != 0 {
		t.Errorf("interception dialled %d times", n)
	}
}

func TestInterceptedRequestForAnotherHost(t *testing.T) {
	b := newConnectBench(t, "")
	c := b.client(b.ca.testPool())
	for host, want := range map[string]int{
		"mirror.example.org":      http.StatusOK,
		"MIRROR.example.org:443":  http.StatusOK,
		"mirror.example.org:8443": http.StatusMisdirectedRequest,
		"other.example.net":       http.StatusMisdirectedRequest,
		"127.0.0.1":               http.StatusMisdirectedRequest,
	} {
		resp, body := do(t, c, "GET", "https://mirror.example.org/x", map[string]string{"Host": host})
		if resp.StatusCode != want {
			t.Errorf("Host %s: got %s (%.80s), want %d", host, resp.Status, body, want)
		}
	}

	tlsConn := b.innerTLS("mirror.example.org")
	for _, tc := range []struct {
		request string
		want    string
	}{
		{"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200 OK"},
		{"CONNECT other.example.net:443 HTTP/1.1\r\nHost: other.example.net:443\r\n\r\n", "403 Forbidden"},
		{"GET http://mirror.example.org/x HTTP/1.1\r\nHost: mirror.example.org\r\nConnection: close\r\n\r\n", "421 Misdirected Request"},
	} {
		if _, err := io.WriteString(tlsConn, tc.request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(tlsConn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if resp.Status != tc.want {
			t.Errorf("%q: got %s, want %s", tc.request, resp.Status, tc.want)
		}
	}
}

// innerTLS opens an intercepted connection by hand; name is what the
// ClientHello names, which may be nothing.
func (b *connectBench) innerTLS(name string) *tls.Conn {
	b.t.Helper()
	conn, r := b.raw("CONNECT mirror.example.org:443 HTTP/1.1\r\nHost: mirror.example.org:443\r\n\r\n")
	if status, body := b.status(r); status != http.StatusOK {
		b.t.Fatalf("CONNECT: %d %s", status, body)
	}
	config := &tls.Config{ServerName: name, RootCAs: b.ca.testPool()}
	if name == "" {
		config.InsecureSkipVerify = true // crypto/tls demands a name else; it is checked below
	}
	tlsConn := tls.Client(conn, config)
	if err := tlsConn.Handshake(); err != nil {
		b.t.Fatal(err)
	}
	return tlsConn
}

func TestInterceptionWithoutServerName(t *testing.T) {
	b := newConnectBench(t, "")
	leaf := b.innerTLS("").ConnectionState().PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "mirror.example.org", Roots: b.ca.testPool()}); err != nil {
		t.Error(err)
	}
}

// prefixConn swallows the proxy's answer on the first read, so that a TLS
// client can send its ClientHello in the same packet as the CONNECT.
type prefixConn struct {
	net.Conn
	head   string
	r      *bufio.Reader
	status string
}

func (c *prefixConn) Write(p []byte) (int, error) {
	if c.head == "" {
		return c.Conn.Write(p)
	}
	_, err := c.Conn.Write(append([]byte(c.head), p...))
	c.head = ""
	return len(p), err
}

func (c *prefixConn) Read(p []byte) (int, error) {
	if c.status == "" {
		resp, err := http.ReadResponse(c.r, &http.Request{Method: http.MethodConnect})
		if err != nil {
			return 0, err
		}
		c.status = resp.Proto + " " + resp.Status
	}
	return c.r.Read(p)
}

func TestEarlyClientHello(t *testing.T) {
	far := httptest.NewTLSServer(http.HandlerFunc(serveContent))
	defer far.Close()
	b := newConnectBench(t, far.Listener.Addr().String())
	for host, roots := range map[string]*x509.CertPool{
		"mirror.example.org": b.ca.testPool(),
		"example.com":        far.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, // what httptest's certificate is for
	} {
		for _, proto := range []string{"HTTP/1.0", "HTTP/1.1"} {
			conn, r := b.raw("")
			pre := &prefixConn{Conn: conn, r: r, head: fmt.Sprintf("CONNECT %s:443 %s\r\nHost: %[1]s:443\r\n\r\n", host, proto)}
			tlsConn := tls.Client(pre, &tls.Config{ServerName: host, RootCAs: roots})
			if _, err := fmt.Fprintf(tlsConn, "GET /x HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
				t.Fatalf("%s with %s: %v", host, proto, err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(tlsConn), nil)
			if err != nil {
				t.Fatalf("%s with %s: %v", host, proto, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(body, content) {
				t.Errorf("%s with %s: got %d bytes, error %v", host, proto, len(body), err)
			}
			if want := proto + " 200 Connection established"; pre.status != want {
				t.Errorf("%s: CONNECT answered with %q, want %q", host, pre.status, want)
			}
		}
	}
}

func TestTunnelIsUntouchedTLS(t *testing.T) {
	far := httptest.NewTLSServer(http.HandlerFunc(serveContent))
	defer far.Close()
	b := newConnectBench(t, far.Listener.Addr().String())
	c := b.client(far.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs)
	resp, body := do(t, c, "GET", "https://example.com/x", nil)
	if !bytes.Equal(body, content) {
		t.Errorf("got %d bytes, want %d", len(body), len(content))
	}
	if !resp.TLS.PeerCertificates[0].Equal(far.Certificate()) {
		t.Error("the client saw another certificate than the far end's")
	}
	if diff := cmp.Diff("/x  <nil> false", resp.Header.Get("Seen")); diff != "" {
		t.Errorf("what the far end sees (-want +got):\n%s", diff)
	}
}

// listen answers every connection to the returned address with serve.
func listen(t *testing.T, serve func(conn *net.TCPConn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() { l.Close(); running.Wait() })
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { defer conn.Close(); serve(conn.(*net.TCPConn)) })
		}
	})
	return l.Addr().String()
}

// The far end here answers only when the client's stream has ended, so it
// hangs unless each direction is closed by itself.
func TestTunnelPassesHalfClose(t *testing.T) {
	far := listen(t, func(conn *net.TCPConn) {
		all, err := io.ReadAll(conn)
		if err == nil {
			_, err = conn.Write(all)
		}
		if err != nil {
			t.Error(err)
		}
	})
	b := newConnectBench(t, far)
	const early = "early\x00bytes"
	conn, r := b.raw("CONNECT other.example.net:443 HTTP/1.0\r\n\r\n" + early)
	if status, body := b.status(r); status != http.StatusOK {
		t.Fatalf("CONNECT: %d %s", status, body)
	}
	if _, err := conn.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]byte(early), content...); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes back, sent %d", len(got), len(want))
	}
	b.waitForTunnels(0)
}

func (b *connectBench) waitForTunnels(want int) {
	b.t.Helper()
	for deadline := time.Now().Add(testPatience); ; time.Sleep(5 * time.Millisecond) {
		b.connect.tunnels.mu.Lock()
		got := len(b.connect.tunnels.open)
		b.connect.tunnels.mu.Unlock()
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%d tunnels are open, want %d", got, want)
		}
	}
}

func TestConnectRefuses(t *testing.T) {
	b := newConnectBench(t, "")
	for target, want := range map[string]string{
		"other.example.net:22":   "403 port 443 only",
		"other.example.net:8443": "403 port 443 only",
		"mirror.example.org:22":  "403 port 443 only",
		"other.example.net:0":    "403 names a host and a port",
		"other.example.net":      "403 names a host and a port",
		"127.0.0.1:443":          "403 a private address",
		"[::1]:443":              "403 a private address",
	} {
		_, r := b.raw("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n")
		status, body := b.status(r)
		code, text, _ := strings.Cut(want, " ")
		if fmt.Sprint(status) != code || !strings.Contains(body, text) {
			t.Errorf("CONNECT %s: got %d %q, want %s", target, status, body, want)
		}
	}
	if n := b.dialed.Load(); n != 2 {
		t.Errorf("dialled %d times, want 2: the ports and names are refused before that", n)
	}
	b.waitForTunnels(0)

	b.connect.o.Tunnel = false
	_, r := b.raw("CONNECT other.example.net:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	if status, body := b.status(r); status != http.StatusForbidden || !strings.Contains(body, "forward.connect") {
		t.Errorf("without tunnels: got %d %q", status, body)
	}
	if !b.connect.Intercepts("Mirror.example.org:443") || b.connect.Intercepts("other.example.net:443") {
		t.Error("Intercepts says otherwise than ServeHTTP does")
	}
}

func TestUnreachableFarEndIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	b := newConnectBench(t, nobody)
	_, r := b.raw("CONNECT other.example.net:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	if status, body := b.status(r); status != http.StatusServiceUnavailable {
		t.Errorf("got %d %q, want 503", status, body)
	}
}

// A host that was configured after the CA was made has to go on working.
func TestHostBeyondTheConstraintIsTunnelled(t *testing.T) {
	far := httptest.NewTLSServer(http.HandlerFunc(serveContent))
	defer far.Close()
	b := newConnectBench(t, far.Listener.Addr().String())
	for range 2 {
		conn, r := b.raw("CONNECT late.example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n")
		if status, body := b.status(r); status != http.StatusOK {
			t.Fatalf("CONNECT: %d %s", status, body)
		}
		tlsConn := tls.Client(conn, &tls.Config{ServerName: "example.com", RootCAs: far.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs})
		if err := tlsConn.Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(b.logged.String(), "late.example.org"); n != 1 {
		t.Errorf("the host is named %d times in the log, want once:\n%s", n, b.logged)
	}
}

func TestShutdownDoesNotHang(t *testing.T) {
	far := listen(t, func(conn *net.TCPConn) { io.Copy(io.Discard, conn) })
	b := newConnectBench(t, far)
	c := b.client(b.ca.testPool())
	do(t, c, "GET", "https://mirror.example.org/x", nil) // leaves an idle connection
	_, r := b.raw("CONNECT other.example.net:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	if status, _ := b.status(r); status != http.StatusOK {
		t.Fatal(status)
	}
	b.waitForTunnels(1)
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	if err := b.connect.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown with nothing under way: %v", err)
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("the tunnel is still open")
	}
	b.waitForTunnels(0)
	_, r = b.raw("CONNECT other.example.net:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	if status, _ := b.status(r); status != http.StatusServiceUnavailable {
		t.Errorf("a tunnel after Shutdown: got %d", status)
	}
	if _, err := c.Get("https://mirror.example.org/x"); err == nil {
		t.Error("an intercepted request was answered after Shutdown")
	}
}

func TestShutdownCutsBusyTunnelsAtItsDeadline(t *testing.T) {
	far := listen(t, func(conn *net.TCPConn) {
		for {
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	b := newConnectBench(t, far)
	_, r := b.raw("CONNECT other.example.net:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	if status, _ := b.status(r); status != http.StatusOK {
		t.Fatal(status)
	}
	ctx, cancel := context.WithTimeout(t.Context(), tunnelQuiet+tunnelQuiet/2)
	defer cancel()
	if err := b.connect.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: got error %v, want its deadline: the tunnel carried bytes all along", err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reading to the end of the tunnel: %v", err)
	}
	b.waitForTunnels(0)
}
