package fetch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"chantal"
)

// connectTimeout bounds one dial, all addresses of a host together, and one TLS
// handshake. It is shorter than the usual timeout of a request: a client waits
// for the next mirror.
const connectTimeout = 10 * time.Second

// refused are the networks that nobody may be sent to. Documentation and
// benchmark networks are not among them: some sites use them for real.
var refused = []struct {
	what string
	net  netip.Prefix
}{
	{"unspecified", netip.MustParsePrefix("0.0.0.0/8")},
	{"private", netip.MustParsePrefix("10.0.0.0/8")},
	{"shared (RFC 6598)", netip.MustParsePrefix("100.64.0.0/10")},
	{"loopback", netip.MustParsePrefix("127.0.0.0/8")},
	{"link-local", netip.MustParsePrefix("169.254.0.0/16")},
	{"private", netip.MustParsePrefix("172.16.0.0/12")},
	{"reserved (RFC 6890)", netip.MustParsePrefix("192.0.0.0/24")},
	{"private", netip.MustParsePrefix("192.168.0.0/16")},
	{"multicast", netip.MustParsePrefix("224.0.0.0/4")},
	{"reserved or broadcast", netip.MustParsePrefix("240.0.0.0/4")},
	{"unspecified, loopback or IPv4-compatible", netip.MustParsePrefix("::/96")},
	// Which of its bits are the IPv4 address is the site's choice (RFC 8215),
	// so what such an address stands for cannot be told.
	{"local NAT64", netip.MustParsePrefix("64:ff9b:1::/48")},
	{"unique local", netip.MustParsePrefix("fc00::/7")},
	{"link-local", netip.MustParsePrefix("fe80::/10")},
	{"site-local", netip.MustParsePrefix("fec0::/10")},
	{"multicast", netip.MustParsePrefix("ff00::/8")},
}

// The forms in which an IPv6 address carries an IPv4 one.
var (
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
	sixTo = netip.MustParsePrefix("2002::/16")
)

// Egress decides which addresses may be dialled, on the resolved address at
// every dial, so that neither a redirect nor a name that changes its address
// leads where nobody may go. It is safe for concurrent use.
type Egress struct {
	allow []netip.Prefix
	own   func() []netip.AddrPort
	hosts atomic.Pointer[map[string]bool] // configured upstreams, as canonical writes them
}

// NewEgress returns an Egress that exempts allowPrivate from its rules. own
// returns the addresses that Chantal itself listens on, an unspecified one
// standing for every address of this machine; they are refused to everybody.
// It is called at each dial and may be nil.
func NewEgress(allowPrivate []netip.Prefix, own func() []netip.AddrPort) *Egress {
	e := &Egress{own: own}
	e.AllowHosts()
	for _, p := range allowPrivate {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		e.allow = append(e.allow, p.Masked())
	}
	return e
}

// AllowHosts exempts the configured upstreams, given as HostPort writes them,
// and no others any more. Only dials to that very host and port are exempt,
// whatever they resolve to.
func (e *Egress) AllowHosts(hostports ...string) {
	hosts := make(map[string]bool, len(hostports))
	for _, hostport := range hostports {
		hosts[canonical(hostport)] = true
	}
	e.hosts.Store(&hosts)
}

// HostPort returns the "host:port" that is dialled for u, with the scheme's
// port where u names none.
func HostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		switch u.Scheme {
		case "https":
			port = "443"
		case "socks5", "socks5h":
			port = "1080"
		default:
			port = "80"
		}
	}
	return canonical(net.JoinHostPort(u.Hostname(), port))
}

// canonical spells a host:port in one way: names in lower case, addresses in
// their shortest form. A trailing dot stays, since with a search list it makes
// another name.
func canonical(hostport string) string {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return strings.ToLower(hostport)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	return strings.ToLower(net.JoinHostPort(host, port))
}

func (e *Egress) configured(hostport string) bool { return (*e.hosts.Load())[canonical(hostport)] }

// CheckPort returns a *chantal.RefusedError unless hostport's port may be
// reached: 80, 443 and those from 1024 on, and any port of a configured
// upstream.
func (e *Egress) CheckPort(hostport string) error {
	_, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return &chantal.RefusedError{What: "connection to " + strconv.Quote(hostport), Why: "it is not a host with a port"}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err == nil && (n == 80 || n == 443 || n >= 1024) || e.configured(hostport) {
		return nil
	}
	return &chantal.RefusedError{
		What: "connection to " + hostport,
		Why:  "only the ports 80, 443 and those from 1024 on are reached on hosts that no configured repository names; egress.allow_private does not change that, add it as upstream of a repository",
	}
}

// Control is a net.Dialer's Control for dials to hosts that nobody configured:
// it checks the address that a name was resolved to.
func (e *Egress) Control(_, address string, _ syscall.RawConn) error {
	return e.check("", address, false)
}

// proxyKey is the context key of the outbound proxy (its HostPort) that a
// request goes through, which makes the dial to it exempt. It is bound to the
// request so that nobody can name the proxy as an upstream.
type proxyKey struct{}

// DialContext dials addr ("host:port", network "tcp", "tcp4" or "tcp6") if the
// rules allow it; it serves as http.Transport's DialContext and for CONNECT
// tunnels. The error is, or wraps, a *chantal.RefusedError where they do not.
func (e *Egress) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	proxy, _ := ctx.Value(proxyKey{}).(string)
	exempt := e.configured(addr) || proxy != "" && proxy == canonical(addr)
	if !exempt {
		if err := e.CheckPort(addr); err != nil {
			return nil, err
		}
	}
	d := net.Dialer{
		Timeout: connectTimeout,
		Control: func(_, address string, _ syscall.RawConn) error { return e.check(addr, address, exempt) },
	}
	return d.DialContext(ctx, network, addr)
}

// check judges the resolved address of a dial to the host:port asked ("" if
// not known).
func (e *Egress) check(asked, address string, exempt bool) error {
	what := "connection to " + address
	if asked != "" && asked != address {
		what += " (" + asked + ")"
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &chantal.RefusedError{What: what, Why: "only TCP addresses are dialled; egress.allow_private does not change that"}
	}
	if e.isOwn(ap) {
		return &chantal.RefusedError{What: what, Why: "the address is Chantal's own; neither egress.allow_private nor an upstream allows that"}
	}
	if exempt {
		return nil
	}
	if kind := e.judge(ap.Addr()); kind != "" {
		return &chantal.RefusedError{
			What: what,
			Why:  fmt.Sprintf("the address is %s, and neither an upstream of a configured repository nor in egress.allow_private", kind),
		}
	}
	return nil
}

// judge returns what is wrong with an address, or "".
func (e *Egress) judge(a netip.Addr) string {
	// A zone would keep every prefix from matching.
	a = a.WithZone("").Unmap()
	inner := embedded(a)
	for _, p := range e.allow {
		if p.Contains(a) || p.Contains(inner) {
			return ""
		}
	}
	for _, r := range refused {
		if r.net.Contains(a) || r.net.Contains(inner) {
			return r.what
		}
	}
	return ""
}

// embedded returns the IPv4 address that a translator or tunnel makes of a
// (RFC 6052, RFC 3056), or a itself.
func embedded(a netip.Addr) netip.Addr {
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixTo.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

// isOwn reports whether a connection to ap would arrive at one of Chantal's
// listeners.
func (e *Egress) isOwn(ap netip.AddrPort) bool {
	if e.own == nil {
		return false
	}
	a := ap.Addr().WithZone("").Unmap()
	for _, l := range e.own() {
		if l.Port() != ap.Port() {
			continue
		}
		// Linux takes a connection to the unspecified address to loopback.
		la := l.Addr().WithZone("").Unmap()
		switch {
		case la == a, a.IsUnspecified() && la.IsLoopback():
			return true
		case la.IsUnspecified() && (a.IsLoopback() || a.IsUnspecified() || onThisMachine(a)):
			return true
		}
	}
	return false
}

// onThisMachine reports whether a is an address of one of this machine's
// interfaces.
func onThisMachine(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		// It cannot be told, so the careful answer is the right one: only
		// dials to a port that Chantal itself listens on come here.
		return true
	}
	for _, ia := range addrs {
		if n, ok := ia.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == a {
				return true
			}
		}
	}
	return false
}

// checkTarget judges what an outbound proxy would be asked for. The proxy
// resolves names, so only what can be told from the spelling is checked:
// ports, addresses, this machine's own name, and numeric hosts in an odd form.
func (e *Egress) checkTarget(u *url.URL) error {
	hostport := HostPort(u)
	if e.configured(hostport) {
		return nil
	}
	if err := e.CheckPort(hostport); err != nil {
		return err
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		ap := netip.AddrPortFrom(a, portOf(hostport))
		return e.check(hostport, ap.String(), false)
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	numeric := last == "" || strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x")
	if numeric || last == "localhost" {
		return &chantal.RefusedError{
			What: "request for " + hostport + " through the outbound proxy",
			Why:  "the host is local or an address in an odd form, and neither an upstream of a configured repository nor in egress.allow_private",
		}
	}
	return nil
}

func portOf(hostport string) uint16 {
	_, port, _ := net.SplitHostPort(hostport)
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}
