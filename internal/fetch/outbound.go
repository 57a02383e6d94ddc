package fetch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/proxy"
)

// Through returns, for Options.Proxy, the choice of proxy for every request but
// those to the hosts in except. Each of these is "*", a name, which stands for
// the names below it too, an address, or a network (10.0.0.0/8), all but "*"
// and networks with or without a port. Unlike for a proxy from the environment
// there are no other exceptions: loopback goes through it unless it is named.
func Through(via *url.URL, except []string) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		host, port, err := net.SplitHostPort(HostPort(r.URL))
		if err != nil {
			return nil, err
		}
		for _, entry := range except {
			if exempts(entry, host, port) {
				return nil, nil
			}
		}
		return via, nil
	}
}

func exempts(entry, host, port string) bool {
	entry = strings.ToLower(strings.TrimSpace(entry))
	a, notAddress := netip.ParseAddr(host)
	if network, err := netip.ParsePrefix(entry); err == nil {
		return notAddress == nil && network.Contains(a)
	}
	if h, p, err := net.SplitHostPort(entry); err == nil {
		if p != port {
			return false
		}
		entry = h
	}
	if b, err := netip.ParseAddr(strings.Trim(entry, "[]")); err == nil {
		return notAddress == nil && a == b.Unmap()
	}
	if entry == "*" {
		return true
	}
	name := strings.TrimPrefix(strings.TrimPrefix(entry, "*"), ".")
	host = strings.TrimSuffix(host, ".")
	return name != "" && (host == name || strings.HasSuffix(host, "."+name))
}

// Passing returns what hands on requests that are somebody else's, any method:
// as they are, under the rules of Egress, through the outbound proxy where there
// is one. No credentials are added, no redirect is followed.
func (c *Client) Passing() http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		ctx, err := c.route(r.Context(), r)
		if err != nil {
			return nil, err
		}
		r = r.WithContext(ctx)
		if _, proxied := ctx.Value(proxyURLKey{}).(*url.URL); proxied && r.URL.Scheme == "http" && r.URL.Opaque != "" && !strings.HasPrefix(r.URL.Opaque, "//") {
			u := *r.URL // a proxy is asked for the whole URL, a server for the path
			u.Opaque = "//" + u.Host + u.Opaque
			r.URL = &u
		}
		return c.passing.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// DialContext opens a connection to addr (host:port, for TLS) under the rules
// of Egress, through the outbound proxy where there is one. The error is, or
// wraps, a *chantal.RefusedError where the rules forbid it.
func (c *Client) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "https", Host: addr}}
	ctx, err := c.route(ctx, req)
	if err != nil {
		return nil, err
	}
	via, _ := ctx.Value(proxyURLKey{}).(*url.URL)
	if via == nil {
		return c.o.Egress.DialContext(ctx, network, addr)
	}
	if via.Scheme == "socks5" || via.Scheme == "socks5h" {
		return c.dialSOCKS(ctx, via, network, addr)
	}
	conn, err := c.o.Egress.DialContext(ctx, network, HostPort(via))
	if err != nil {
		return nil, fmt.Errorf("connecting to the outbound proxy: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	through, err := c.connect(ctx, conn, via, addr)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connecting through the outbound proxy: %w", err)
	}
	return through, nil
}

// connect asks the proxy at the other end of conn for a tunnel to addr.
func (c *Client) connect(ctx context.Context, conn net.Conn, via *url.URL, addr string) (net.Conn, error) {
	if via.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: via.Hostname(), RootCAs: c.o.Roots, MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{"User-Agent": {c.o.UserAgent}}}
	if via.User != nil {
		password, _ := via.User.Password()
		req.Header.Set("Proxy-Authorization", basic(via.User.Username(), password))
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	in := bufio.NewReader(io.LimitReader(conn, maxConnectAnswer))
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d to CONNECT", resp.StatusCode)
	}
	early, _ := in.Peek(in.Buffered())
	if len(early) == 0 {
		return conn, nil
	}
	return &earlyConn{conn, io.MultiReader(bytes.NewReader(early), conn)}, nil
}

const maxConnectAnswer = 64 << 10 // bytes of a proxy's answer to CONNECT

// earlyConn is a connection whose first bytes have been read already.
type earlyConn struct {
	net.Conn
	from io.Reader
}

func (c *earlyConn) Read(p []byte) (int, error) { return c.from.Read(p) }

// dialSOCKS asks a SOCKS proxy (RFC 1928), which resolves the name itself.
func (c *Client) dialSOCKS(ctx context.Context, via *url.URL, network, addr string) (net.Conn, error) {
	var auth *proxy.Auth
	if via.User != nil {
		password, _ := via.User.Password()
		auth = &proxy.Auth{User: via.User.Username(), Password: password}
	}
	d, err := proxy.SOCKS5(network, HostPort(via), auth, egressDialer{c.o.Egress})
	if err != nil {
		return nil, fmt.Errorf("the outbound proxy: %w", err)
	}
	return d.(proxy.ContextDialer).DialContext(ctx, network, addr)
}

// egressDialer is an Egress as package proxy wants it.
type egressDialer struct{ *Egress }

// Dial is not called for what can be given a context.
func (d egressDialer) Dial(network, addr string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, addr)
}
