// Package config turns a configuration file and the environment into checked
// settings. It finds every mistake in one pass and says where each one is. It
// reads the file and nothing else: whether a key file exists, an address can
// be bound or an upstream answers is for those who use the settings.
package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"chantal"
)

// Config holds the settings. The zero value is not usable; Default and Parse
// make one.
type Config struct {
	File      string // where the settings were read; "" for none
	Listen    string // host:port; the host may be empty
	Listeners []Listener
	Data      string         // the data directory as the file names it; "" where it does not, see DataDir
	Clients   []netip.Prefix // who may use the proxy; masked
	History   time.Duration  // how long observed generations stay reachable
	Cache     Cache
	Forward   Forward
	Egress    Egress
	Download  Download
	Scrub     Scrub
	GC        GC
	Signing   Signing
	Repos     []Repo
}

// Listener is a further address, bound to a ref.
type Listener struct {
	Address string // host:port; the host may be empty
	Ref     string // REF[+signed][~RECORDING]
}

// Cache limits what is kept.
type Cache struct {
	MaxSize int64 // bytes; 0 for no limit
}

// Signing names the key that what is published here is signed with.
type Signing struct {
	Key            string // path of an OpenPGP private key; "" for one of its own, made on first use
	PassphraseFile string // path of a file with its passphrase; "" where it has none
}

// GC says when what nothing needs is freed without being asked for.
type GC struct {
	Every time.Duration // 0 for never
}

// Scrub says how the whole store is read in the background.
type Scrub struct {
	Every     time.Duration // from the beginning of a pass to that of the next; 0 for never
	Bandwidth int64         // bytes per second; 0 for no limit
}

// The words of Forward.
const (
	Deny       = "deny"       // Other, Connect: answer 403
	Pass       = "pass"       // Other: forward it
	Tunnel     = "tunnel"     // Connect: pass the bytes through
	Off        = "off"        // Intercept: never
	Configured = "configured" // Intercept: hosts of configured repositories
)

// Forward says what the forward proxy does.
type Forward struct {
	Discover   bool   // recognise repositories that are not configured
	Other      string // Deny or Pass: plain requests that belong to no repository
	Connect    string // Tunnel or Deny: CONNECT to public hosts on port 443
	Intercept  string // Off or Configured
	RequireRef bool   // 407 to anonymous proxy requests
}

// Egress says where Chantal may connect to.
type Egress struct {
	AllowPrivate []netip.Prefix // private upstreams that clients may name; masked
	Offline      bool           // answer from the store only
	Proxy        string         // the outbound proxy, an http, https or socks5 URL; "" leaves it to the environment
	NoProxy      []string       // hosts that Proxy is not asked for: names, addresses, networks, each with or without a port
	Netrc        []string       // files with credentials of configured upstreams, the first that names a host wins
}

// Download says how upstreams are asked.
type Download struct {
	Parallel  int           // downloads at a time
	PerHost   int           // downloads at a time from one host
	Bandwidth []Bandwidth   // of all downloads together, the first that holds; without any no limit
	Retries   int           // attempts after the first
	Timeout   time.Duration // without any progress
}

// Bandwidth is a limit that holds at a time of the day.
type Bandwidth struct {
	From, To time.Duration // since midnight, local time; To may be before From, and is 24 hours for the end of the day
	Rate     int64         // bytes per second; 0 for no limit
}

// always reports a limit that holds all day.
func (b Bandwidth) always() bool { return b.From == 0 && b.To == day }

// The types of repositories.
const (
	Apt     = "apt"
	RPM     = "rpm"
	PyPI    = "pypi"
	Generic = "generic"
)

// Repo is one configured repository.
type Repo struct {
	Name        string
	Type        string        // Apt, RPM, PyPI or Generic
	Upstream    []string      // absolute http or https URLs as written, failover in order; at least one, or a list of mirrors
	Credentials Credentials   // for every host of Upstream whose URL has no userinfo
	Keyring     string        // path of the keys that have to have signed the roots; "" for none
	Refresh     time.Duration // how long a tree is served without asking upstream again
	Files       []string      // absolute http or https URLs of hosts that pages may link to; nil for any public host
	Sync        *Sync         // nil where the file has none

	Mirrorlist  string        // absolute http or https URL of a list of mirrors, which follow Upstream; "" for none
	Metalink    string        // the same, where the list also says which roots are right; at most one of the two is set
	ListRefresh time.Duration // how long a list of mirrors is used without asking for it again
}

// Credentials are what an upstream asks for: a user name with a password, or a
// token. The zero value is none.
type Credentials struct {
	Username string
	Password string
	Token    string // a bearer token (RFC 6750), in place of the others
}

// Sync says what a full mirror of the repository holds, and when it is made.
type Sync struct {
	chantal.Selection
	PackageLists []ListFile    // beside Packages or Projects
	Every        time.Duration // 0 for never by itself
	Schedule     string        // five fields as crontab(5) has them, in place of Every; "" for none
}

// ListFile is a file with names of packages or projects.
type ListFile struct {
	Path         string // as written; relative to the configuration file
	Line, Column int    // where the configuration names it
}

// Default returns the settings that hold without a file.
func Default() *Config {
	return &Config{
		Listen: "127.0.0.1:8180",
		Clients: prefixes("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
			"169.254.0.0/16", "fc00::/7", "fe80::/10"),
		History:  30 * day,
		Forward:  Forward{Discover: true, Other: Deny, Connect: Tunnel, Intercept: Off},
		Download: Download{Parallel: 8, PerHost: 4, Retries: 5, Timeout: 30 * time.Second},
		Scrub:    Scrub{Every: 30 * day, Bandwidth: 10 << 20},
		GC:       GC{Every: day},
	}
}

// environment takes over what other clients take from the environment.
func (e *Egress) environment(getenv func(string) string) {
	if path := getenv("NETRC"); path != "" {
		e.Netrc = []string{path}
	}
	if list := cmp.Or(getenv("NO_PROXY"), getenv("no_proxy")); list != "" {
		e.NoProxy = strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	}
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// Load reads the file at path, expanding variables from the process's
// environment; "" stands for an empty one. Mistakes in the file are returned as Errors,
// all of them.
func Load(path string) (*Config, error) {
	if path == "" {
		return Parse("", nil, os.Getenv)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, text, os.Getenv)
}

// Parse reads a configuration; name stands for it in messages and becomes
// File. getenv answers ${VAR} and ${VAR:-default}; an empty answer counts as
// not set. It also answers NETRC and NO_PROXY, the defaults of two settings. A
// key without a value leaves the default. Mistakes are returned as
// Errors, all of them, in the order of the file.
func Parse(name string, text []byte, getenv func(string) string) (*Config, error) {
	d := newDecoder(name, getenv)
	c := Default()
	c.File = name
	c.Egress.environment(getenv)
	d.config(c, string(text))
	if len(d.errs) > 0 {
		d.errs.sort()
		return nil, d.errs
	}
	return c, nil
}
