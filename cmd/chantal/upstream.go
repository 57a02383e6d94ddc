package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"chantal/internal/config"
	"chantal/internal/fetch"
)

// upstreams are the hosts that a configuration names, and what they ask for.
type upstreams struct {
	hosts       []string // as fetch.HostPort writes them
	credentials []fetch.Credential
}

// readUpstreams collects the hosts that configured repositories name. What a
// URL says of itself comes before the repository's credentials, and those
// before netrc; the credentials are for the hosts of upstream: alone, as
// others, of files or lists of mirrors, may belong to somebody else.
func readUpstreams(cfg *config.Config, warn func(string, ...any)) (u upstreams, err error) {
	netrc := sync.OnceValues(func() (config.Netrc, error) {
		n, open, err := config.LoadNetrc(cfg.Egress.Netrc)
		for _, path := range open {
			warn("a file with credentials can be read by everybody on this machine; chmod o-r would change that", "file", path)
		}
		return n, err
	})
	for _, c := range cfg.Repos {
		for i, raw := range slices.Concat(c.Upstream, c.Files, mirrorLists(c)) {
			at, err := url.Parse(raw)
			if err != nil {
				return u, fmt.Errorf("%s has an upstream that is no URL", c.Name)
			}
			u.hosts = append(u.hosts, fetch.HostPort(at))
			login := c.Credentials
			if i >= len(c.Upstream) {
				login = config.Credentials{}
			}
			if at.User != nil {
				password, _ := at.User.Password()
				login = config.Credentials{Username: at.User.Username(), Password: password}
			}
			if login == (config.Credentials{}) {
				n, err := netrc()
				if err != nil {
					return u, &failure{Exit: 2, Message: err.Error(), Next: "name readable files with egress.netrc or NETRC, or none", Err: err}
				}
				login = n.Find(at)
			}
			if login != (config.Credentials{}) {
				u.credentials = append(u.credentials, fetch.Credential{
					Repo: c.Name, Origin: at, Username: login.Username, Password: login.Password, Token: login.Token,
				})
			}
		}
	}
	return u, nil
}

// mirrorLists returns the URLs of a repository's lists of mirrors.
func mirrorLists(c config.Repo) []string {
	return slices.DeleteFunc([]string{c.Mirrorlist, c.Metalink}, func(s string) bool { return s == "" })
}

// bare returns upstream URLs without userinfo. Only the client for upstreams
// gets to see credentials: what does not know them cannot write them anywhere.
func bare(urls []string) ([]string, error) {
	list := make([]string, len(urls))
	for i, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("entry %d is no URL", i+1)
		}
		u.User = nil
		list[i] = u.String()
	}
	return list, nil
}

// outbound returns the choice of an outbound proxy: the configured one, or
// what the environment names.
func outbound(e config.Egress) (func(*http.Request) (*url.URL, error), error) {
	if e.Proxy == "" {
		return http.ProxyFromEnvironment, nil
	}
	u, err := url.Parse(e.Proxy)
	if err != nil {
		return nil, fmt.Errorf("egress.proxy is no URL")
	}
	return fetch.Through(u, e.NoProxy), nil
}

// secretive reports whether a configuration has credentials in itself.
func secretive(cfg *config.Config) bool {
	texts := []string{cfg.Egress.Proxy}
	for _, c := range cfg.Repos {
		if c.Credentials != (config.Credentials{}) {
			return true
		}
		texts = slices.Concat(texts, c.Upstream, c.Files, mirrorLists(c))
	}
	return slices.ContainsFunc(texts, func(raw string) bool {
		u, err := url.Parse(raw)
		return err == nil && u.User != nil
	})
}
