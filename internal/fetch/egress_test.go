package fetch

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"chantal"
)

func isRefused(err error) bool {
	refused := (*chantal.RefusedError)(nil)
	return errors.As(err, &refused)
}

func TestAddressesThatNobodyIsSentTo(t *testing.T) {
	e := NewEgress([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::ffff:172.20.0.0/112"), netip.MustParsePrefix("fd00:1::/32")}, nil)
	for address, ok := range map[string]bool{
		"0.0.0.0": false, "0.1.2.3": false, "127.0.0.1": false, "127.255.255.254": false,
		"10.0.0.1": false, "10.255.255.255": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false,
		"100.64.0.1": false, "100.127.255.255": false, "169.254.169.254": false, "224.0.0.1": false, "239.1.1.1": false,
		"255.255.255.255": false, "192.0.0.192": false,
		"::": false, "::1": false, "::7f00:1": false, "fe80::1": false, "fe80::1%eth0": false, "febf::1": false,
		"fc00::1": false, "fdff::1": false, "fec0::1": false, "ff02::1": false,
		"::ffff:10.0.0.1": false, "::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false,
		"64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b::c0a8:1": false, "64:ff9b:1::808:808": false,
		"2002:7f00:1::": false, "2002:a00:1::1": false, "2002:c0a8:101::": false,
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "64:ff9b::a01:203": true, "10.2.0.1": false, "172.20.0.9": true, "172.21.0.9": false,
		"fd00:1::5": true, "fd00:2::5": false,
		"1.1.1.1": true, "172.15.0.1": true, "172.32.0.1": true, "100.63.0.1": true, "100.128.0.1": true, "126.0.0.1": true, "169.253.0.1": true,
		"192.0.2.1": true, "198.51.100.1": true, "203.0.113.5": true, "198.18.0.1": true,
		"2001:db8::1": true, "2606:4700::1": true, "64:ff9b::808:808": true, "2002:808:808::1": true, "::ffff:8.8.8.8": true,
	} {
		err := e.Control("tcp", net.JoinHostPort(address, "80"), nil)
		if (err == nil) != ok {
			t.Errorf("%s: error %v, want reachable: %v", address, err, ok)
		}
		if err != nil && (!isRefused(err) || !strings.Contains(err.Error(), "egress.allow_private")) {
			t.Errorf("%s: error %v, want a RefusedError that names egress.allow_private", address, err)
		}
	}
	if err := e.Control("unix", "/run/some.sock", nil); !isRefused(err) {
		t.Errorf("unix socket: error %v, want a RefusedError", err)
	}
}

func TestPortsOfHostsThatNobodyConfigured(t *testing.T) {
	e := NewEgress(nil, nil)
	e.AllowHosts("Mirror.example.org:873")
	for hostport, ok := range map[string]bool{
		"mirror.example.org:80": true, "mirror.example.org:443": true, "mirror.example.org:1024": true, "mirror.example.org:65535": true,
		"mirror.example.org:22": false, "mirror.example.org:25": false, "mirror.example.org:1023": false, "mirror.example.org:0": false,
		"mirror.example.org:873": true, "mirror.example.org.:873": false, "other.example.org:873": false,
		"mirror.example.org": false, "mirror.example.org:65536": false, "mirror.example.org:http": false,
	} {
		if err := e.CheckPort(hostport); (err == nil) != ok || err != nil && !isRefused(err) {
			t.Errorf("%s: error %v, want allowed: %v", hostport, err, ok)
		}
	}
}

func TestRefusalComesThroughHTTP(t *testing.T) {
	asked := false
	srv := serve(t, func(http.ResponseWriter, *http.Request) { asked = true })
	port := mustURL(t, srv.URL).Port()
	c := newClient(t, Options{Egress: NewEgress(nil, nil)})
	// Many spellings of this machine, some of which only a resolver accepts.
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "[::1]"} {
		_, err := c.Fetch(t.Context(), &Request{URL: "http://" + host + ":" + port})
		if !isRefused(err) {
			t.Errorf("%s: error %v, want a RefusedError", host, err)
		}
	}
	for _, host := range []string{"0177.0.0.1", "2130706433", "0x7f.1", "127.1", "[127.0.0.1]", "localhost.", "127.0.0.1."} {
		if resp, err := c.Fetch(t.Context(), &Request{URL: "http://" + host + ":" + port}); err == nil {
			resp.Body.Close()
			t.Errorf("%s was reached", host)
		}
	}
	if asked {
		t.Error("a request arrived")
	}
}

func TestConfiguredUpstreamIsExemptButNotWhereItRedirects(t *testing.T) {
	private := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "private") })
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, private.URL, http.StatusFound)
			return
		}
		fmt.Fprint(w, "configured")
	})
	e := NewEgress(nil, nil)
	e.AllowHosts(HostPort(mustURL(t, srv.URL)))
	c := newClient(t, Options{Egress: e})
	if _, body, err := get(t, c, &Request{URL: srv.URL}); err != nil || body != "configured" {
		t.Errorf("configured: %q, %v", body, err)
	}
	if _, _, err := get(t, c, &Request{URL: srv.URL + "/away"}); !isRefused(err) {
		t.Errorf("redirected: error %v, want a RefusedError", err)
	}
	e.AllowHosts(HostPort(mustURL(t, private.URL)))
	if _, body, err := get(t, c, &Request{URL: srv.URL + "/away"}); err != nil || body != "private" {
		t.Errorf("redirected to another configured one: %q, %v", body, err)
	}
}

func TestOwnListenersAreNeverReached(t *testing.T) {
	srv := serve(t, func(http.ResponseWriter, *http.Request) {})
	at := netip.MustParseAddrPort(mustURL(t, srv.URL).Host)
	for name, own := range map[string]netip.AddrPort{
		"as bound":       at,
		"unspecified":    netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()),
		"unspecified v6": netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port()),
		"mapped":         netip.AddrPortFrom(netip.AddrFrom16(at.Addr().As16()), at.Port()),
	} {
		e := NewEgress([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, func() []netip.AddrPort { return []netip.AddrPort{own} })
		e.AllowHosts(at.String())
		for _, host := range []string{"127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]"} {
			addr := fmt.Sprintf("%s:%d", host, at.Port())
			conn, err := e.DialContext(t.Context(), "tcp", addr)
			if err == nil {
				conn.Close()
			}
			if !isRefused(err) {
				t.Errorf("%s, dialling %s: error %v, want a RefusedError", name, addr, err)
			}
		}
		other := serve(t, func(http.ResponseWriter, *http.Request) {})
		if conn, err := e.DialContext(t.Context(), "tcp", mustURL(t, other.URL).Host); err != nil {
			t.Errorf("%s: another port on this machine: %v", name, err)
		} else {
			conn.Close()
		}
	}
}

func TestOutboundProxyAloneIsExempt(t *testing.T) {
	var asked []string
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.RequestURI)
		fmt.Fprint(w, "by proxy")
	})
	proxyURL := mustURL(t, proxy.URL)
	direct := false
	c := newClient(t, Options{Egress: NewEgress(nil, nil), Proxy: func(*http.Request) (*url.URL, error) {
		if direct {
			return nil, nil
		}
		return proxyURL, nil
	}})
	if _, body, err := get(t, c, &Request{URL: "http://mirror.example.org/x"}); err != nil || body != "by proxy" {
		t.Fatalf("through the proxy: %q, %v", body, err)
	}
	for _, u := range []string{
		"http://127.0.0.1:8080/", "http://10.0.0.1/", "http://[::1]/", "http://localhost/", "http://a.localhost./", "http://0x7f.1/",
		"http://2130706433/", "http://127.1/", "http://mirror.example.org:22/", proxy.URL + "/",
	} {
		if _, _, err := get(t, c, &Request{URL: u}); !isRefused(err) {
			t.Errorf("%s through the proxy: error %v, want a RefusedError", u, err)
		}
	}
	direct = true
	if _, _, err := get(t, c, &Request{URL: proxy.URL + "/"}); !isRefused(err) {
		t.Errorf("the proxy as an upstream: error %v, want a RefusedError", err)
	}
	if len(asked) != 1 || asked[0] != "http://mirror.example.org/x" {
		t.Errorf("the proxy was asked for %q", asked)
	}
}
