package fetch

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

// outboundProxy is a proxy that takes every name to one address, and notes what
// it was asked for and by whom.
type outboundProxy struct {
	to string // host:port

	mu    sync.Mutex
	asked []string
}

func (p *outboundProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI+" "+r.Header.Get("Proxy-Authorization")+r.Header.Get("Authorization"))
	p.mu.Unlock()
	if r.Method != http.MethodConnect {
		fmt.Fprint(w, "by proxy")
		return
	}
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	near, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		far.Close()
		return
	}
	fmt.Fprint(near, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { defer far.Close(); io.Copy(far, buf) }()
	go func() { defer near.Close(); io.Copy(near, far) }()
}

func (p *outboundProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.asked...)
}

// behindProxy returns a client whose only way out is a proxy that wants a
// password, and a TLS server that it leads to.
func behindProxy(t *testing.T, wrap func(http.Handler) *httptest.Server) (*Client, *outboundProxy) {
	t.Helper()
	far := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "far ", r.Header.Get("Authorization"), r.Header.Get("Proxy-Authorization"))
	}))
	t.Cleanup(far.Close)
	p := &outboundProxy{to: mustURL(t, far.URL).Host}
	srv := wrap(p)
	t.Cleanup(srv.Close)
	via := mustURL(t, srv.URL)
	via.User = url.UserPassword("me", "s3cret")
	pool := x509.NewCertPool()
	pool.AddCert(far.Certificate()) // good for example.com, and the same for all of httptest
	return newClient(t, Options{Egress: NewEgress(nil, nil), Roots: pool, Proxy: Through(via, nil)}), p
}

const proxyLogin = "Basic bWU6czNjcmV0" // me:s3cret

func TestOutboundProxyGetsItsOwnCredentialsAndUpstreamItsOwn(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			c, p := behindProxy(t, wrap)
			c.SetCredentials([]Credential{{Repo: "r", Origin: mustURL(t, "https://example.com"), Token: "up"}})
			if _, body, err := get(t, c, &Request{Repo: "r", URL: "https://example.com/x"}); err != nil || body != "far Bearer up" {
				t.Errorf("https: %q, %v; want upstream's answer, without the proxy's password", body, err)
			}
			if _, body, err := get(t, c, &Request{Repo: "r", URL: "http://example.com/x"}); err != nil || body != "by proxy" {
				t.Errorf("http: %q, %v", body, err)
			}
			want := []string{"CONNECT example.com:443 " + proxyLogin, "GET http://example.com/x " + proxyLogin}
			if diff := cmp.Diff(want, p.requests()); diff != "" {
				t.Errorf("the proxy was asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTunnelsAndPassedRequestsTakeTheProxyToo(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			c, p := behindProxy(t, wrap)
			conn, err := c.DialContext(t.Context(), "tcp", "example.com:443")
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			r, err := http.NewRequestWithContext(t.Context(), "POST", "http://example.com/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Passing().RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			want := []string{"CONNECT example.com:443 " + proxyLogin, "POST http://example.com/x " + proxyLogin}
			if diff := cmp.Diff(want, p.requests()); diff != "" {
				t.Errorf("the proxy was asked (-want +got):\n%s", diff)
			}
		})
	}
}

// socksServer is a SOCKS proxy (RFC 1928, RFC 1929) that takes every name to one
// address. It tells what it was asked for, and by whom.
func socksServer(t *testing.T, to string, asked chan<- string) string {
	return rawServer(t, func(near net.Conn) {
		buf := make([]byte, 512)
		io.WriteString(near, "\x05\x02")
		n, err := near.Read(buf)
		if err != nil {
			return
		}
		login := string(buf[:n])
		io.WriteString(near, "\x01\x00")
		if n, err = near.Read(buf); err != nil || n < 7 {
			return
		}
		asked <- fmt.Sprintf("%q wants %q", login, buf[3:n])
		far, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer far.Close()
		io.WriteString(near, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
		go func() { defer far.Close(); io.Copy(far, near) }()
		io.Copy(near, far)
	})
}

func TestTheOutboundProxyMaySpeakSOCKS(t *testing.T) {
	far := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "far") })
	asked := make(chan string, 2)
	via := mustURL(t, "socks5://me:s3cret@"+mustURL(t, socksServer(t, mustURL(t, far.URL).Host, asked)).Host)
	c := newClient(t, Options{Egress: NewEgress(nil, nil), Proxy: Through(via, nil)})
	if _, body, err := get(t, c, &Request{URL: "http://mirror.example.org/"}); err != nil || body != "far" {
		t.Fatalf("%q, %v", body, err)
	}
	conn, err := c.DialContext(t.Context(), "tcp", "mirror.example.org:443")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for _, port := range []string{"\x00P", "\x01\xbb"} {
		want := fmt.Sprintf("%q wants %q", "\x01\x02me\x06s3cret", "\x03\x12mirror.example.org"+port)
		if got := <-asked; got != want {
			t.Errorf("asked as %s, want %s", got, want)
		}
	}
	if _, err := c.DialContext(t.Context(), "tcp", "10.0.0.1:443"); !isRefused(err) {
		t.Errorf("a private target: error %v, want a RefusedError", err)
	}
}

func TestTargetsAreCheckedThoughTheProxyConnects(t *testing.T) {
	c, p := behindProxy(t, httptest.NewServer)
	for _, target := range []string{"127.0.0.1:443", "localhost:443", "[::1]:443", "10.0.0.1:8443", "0x7f.1:443", "mirror.example.org:22"} {
		if _, err := c.DialContext(t.Context(), "tcp", target); !isRefused(err) {
			t.Errorf("tunnel to %s: error %v, want a RefusedError", target, err)
		}
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Passing().RoundTrip(r); !isRefused(err) {
			t.Errorf("passing to %s: error %v, want a RefusedError", target, err)
		}
	}
	if asked := p.requests(); len(asked) > 0 {
		t.Errorf("the proxy was asked for %q", asked)
	}
}

func TestAProxyThatFailsIsToldWithoutItsPassword(t *testing.T) {
	answer := "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
	refusing := rawServer(t, func(conn net.Conn) { io.WriteString(conn, answer) })
	endless := rawServer(t, func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		for range 1 << 20 {
			if _, err := io.WriteString(conn, "X-More: of the same\r\n"); err != nil {
				return
			}
		}
	})
	mute := rawServer(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
	gone := serve(t, nil)
	gone.Close()
	for name, base := range map[string]string{"refuses": refusing, "goes on and on": endless, "says nothing": mute, "is gone": gone.URL} {
		via := mustURL(t, base)
		via.User = url.UserPassword("me", "s3cret")
		c := newClient(t, Options{Egress: NewEgress(nil, nil), Proxy: Through(via, nil), Timeout: 300 * time.Millisecond})
		_, err := c.Fetch(t.Context(), &Request{URL: "https://mirror.example.org/"})
		if ue := (*chantal.UpstreamError)(nil); !errors.As(err, &ue) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: error %v, want an UpstreamError without the password", name, err)
		}
		ctx, cancel := testContext(t, 300*time.Millisecond)
		conn, err := c.DialContext(ctx, "tcp", "mirror.example.org:443")
		cancel()
		if err == nil {
			conn.Close()
		}
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s, tunnel: error %v, want one without the password", name, err)
		}
	}
}

func TestHostsThatTheProxyIsNotAskedFor(t *testing.T) {
	via := mustURL(t, "http://proxy.example.org:3128")
	except := []string{"example.net", ".example.com", "*.example.edu", "10.0.0.0/8", "fd00::/8", "192.0.2.7", "[2001:db8::1]", "ported.example.org:8080", " Spaced.Example.ORG "}
	choose := Through(via, except)
	for target, direct := range map[string]bool{
		"http://example.net/": true, "http://a.example.net/": true, "http://notexample.net/": false, "https://EXAMPLE.net./": true,
		"http://example.com/": true, "http://a.example.com/": true, "http://a.example.edu/": true,
		"http://10.1.2.3/": true, "http://11.1.2.3/": false, "http://[::ffff:10.1.2.3]/": true, "http://[fd00::1]/": true,
		"http://192.0.2.7:8080/": true, "http://192.0.2.8/": false, "http://[2001:db8::1]/": true, "http://[2001:db8::2]/": false,
		"http://ported.example.org:8080/": true, "http://ported.example.org/": false, "https://spaced.example.org/": true,
		"http://localhost/": false, "http://127.0.0.1/": false, "http://mirror.example.org/": false,
	} {
		u, err := choose(&http.Request{URL: mustURL(t, target)})
		if err != nil || (u == nil) != direct {
			t.Errorf("%s: proxy %v, %v; want direct %v", target, u, err, direct)
		}
	}
	if u, err := Through(via, []string{"*"})(&http.Request{URL: mustURL(t, "http://x.example.org/")}); u != nil || err != nil {
		t.Errorf("* : proxy %v, %v", u, err)
	}
}
