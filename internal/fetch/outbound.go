package fetch

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Through returns, for Options.Proxy, the choice of proxy for every request but
// those to the hosts in except. Each of these is "*", a name, which stands for
// the names below it too, an address, or a network (10.0.0.0/8), all but "*"
// and networks with or without a port. Unlike for a proxy from the environment
// there are no other exceptions: loopback goes through it unless it is named.
func Through(proxy *url.URL, except []string) func(*http.Request) (*url.URL, error) {
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
		return proxy, nil
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
