package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// config decodes the whole file into c, which holds the defaults.
func (d *decoder) config(c *Config, text string) {
	if body := d.root(text); body != nil {
		d.mapping(body, "", d.table(c))
	}
}

// table is every key of a file. It is what Parse reads by and what Schema
// describes; the defaults are what c holds.
func (d *decoder) table(c *Config) fields {
	return fields{
		"listen":    one(d, &c.Listen, address(), "the address for mirror URLs, forward proxy and /-/"),
		"listeners": d.listeners(&c.Listeners),
		"data":      one(d, &c.Data, anyText(), "where everything is kept; --data and CHANTAL_DATA come before it"),
		"clients":   many(d, &c.Clients, network(), "who may use the server; others get 403"),
		"history":   one(d, &c.History, duration(), "how long older generations still answer in live"),
		"cache": d.section("cache", "what is kept", fields{
			"max_size": one(d, &c.Cache.MaxSize, amount(), "artifacts that no name pins are evicted beyond it; no limit by default"),
		}),
		"forward": d.section("forward", "what the forward proxy does", fields{
			"discover":    one(d, &c.Forward.Discover, boolean(), "recognise repositories on hosts that are not configured"),
			"other":       one(d, &c.Forward.Other, oneOf(Deny, Pass), "proxy requests that belong to no repository: deny (403) or pass"),
			"connect":     one(d, &c.Forward.Connect, oneOf(Tunnel, Deny), "CONNECT to public hosts on port 443: tunnel or deny"),
			"intercept":   one(d, &c.Forward.Intercept, oneOf(Off, Configured), "configured: answer CONNECT for hosts of configured repositories with the own CA"),
			"require_ref": one(d, &c.Forward.RequireRef, boolean(), "407 to proxy requests without a user name, which is the ref"),
		}),
		"egress": d.section("egress", "where Chantal may connect to, and how", fields{
			"allow_private": many(d, &c.Egress.AllowPrivate, network(), "private addresses and networks that clients may name as upstreams"),
			"offline":       one(d, &c.Egress.Offline, boolean(), "answer from the store only"),
			"proxy":         one(d, &c.Egress.Proxy, proxyURL(), "an outbound proxy, an http, https or socks5 URL; the environment's by default"),
			"no_proxy":      many(d, &c.Egress.NoProxy, anyText(), "hosts that the outbound proxy is not asked for; NO_PROXY by default"),
			"netrc":         many(d, &c.Egress.Netrc, anyText(), "files in netrc format with credentials of configured upstreams; NETRC by default"),
		}),
		"download": d.section("download", "how upstreams are asked", fields{
			"parallel":  one(d, &c.Download.Parallel, atLeastOne(), "downloads at a time"),
			"per_host":  one(d, &c.Download.PerHost, atLeastOne(), "downloads at a time from one host"),
			"bandwidth": d.bandwidth(&c.Download.Bandwidth, "download.bandwidth", "bytes per second of all downloads together, always or by time of day; no limit by default"),
			"retries":   one(d, &c.Download.Retries, atLeastZero(), "attempts after the first"),
			"timeout":   one(d, &c.Download.Timeout, duration(), "how long an answer may take to begin, and a body may stand still"),
		}),
		"scrub": d.section("scrub", "how the whole store is read again in the background", fields{
			"every":     one(d, &c.Scrub.Every, duration(), "from the beginning of a pass to that of the next; 0s for never"),
			"bandwidth": one(d, &c.Scrub.Bandwidth, rate(), "bytes per second that this may read; 0 for no limit"),
		}),
		"gc": d.section("gc", "when what nothing needs is freed by itself", fields{
			"every": one(d, &c.GC.Every, duration(), "from one time to the next; 0s for never"),
		}),
		"signing": d.section("signing", "what is published here is signed with it", fields{
			"key":             one(d, &c.Signing.Key, anyText(), "a file with an OpenPGP private key; by default one of its own, made on first use"),
			"passphrase_file": one(d, &c.Signing.PassphraseFile, anyText(), "a file with the passphrase of the key"),
		}),
		"repos": d.repos(&c.Repos),
	}
}

// sequence is a key with a list of mappings. item returns the keys of one
// entry, which where names in messages; done is called when it has been read.
func (d *decoder) sequence(where, says string, item func(where string) fields, done func(where string, n ast.Node, keys map[string]*token.Position)) field {
	return field{
		says: says, schema: schema{"type": []string{"array", "null"}, "items": item(where).schema()},
		decode: func(n ast.Node) {
			for i, entry := range d.items(n, false) {
				here := fmt.Sprintf("%s[%d]", where, i)
				keys := d.mapping(entry, here, item(here))
				done(here, entry, keys)
			}
		},
	}
}

func (d *decoder) listeners(into *[]Listener) field {
	var l Listener
	seen := map[string]bool{}
	return d.sequence("listeners", "further addresses, each bound to a ref", func(string) fields {
		l = Listener{}
		return fields{
			"address": one(d, &l.Address, address(), "the address, HOST:PORT").required(),
			"ref":     one(d, &l.Ref, refText(), "what those get who come by it, unless they name another").required(),
		}
	}, func(where string, _ ast.Node, keys map[string]*token.Position) {
		if l.Address != "" && seen[l.Address] {
			d.fail(keys["address"], "address %q of %s comes a second time", l.Address, where)
		}
		seen[l.Address] = true
		*into = append(*into, l)
	})
}

// bandwidth is a rate, or a list of rates by time of day.
func (d *decoder) bandwidth(into *[]Bandwidth, where, says string) field {
	var b Bandwidth
	before := 0
	list := d.sequence(where, says, func(string) fields {
		b, before = Bandwidth{}, len(d.errs)
		return fields{
			"from": one(d, &b.From, clock(), "when it begins, local time; with to, or neither for the rest of the day"),
			"to":   one(d, &b.To, clock(), "when it ends; earlier than from for a span over midnight"),
			"rate": one(d, &b.Rate, rate(), "bytes per second; 0 or unlimited for no limit").required(),
		}
	}, func(where string, n ast.Node, keys map[string]*token.Position) {
		switch {
		case len(d.errs) > before:
			return
		case (keys["from"] == nil) != (keys["to"] == nil):
			d.fail(position(n), "%s needs both %q and %q, or neither for the rest of the day", where, "from", "to")
		case keys["from"] == nil:
			b.To = day
		case b.From == b.To:
			d.fail(position(n), "%s ends when it begins", where)
		}
		*into = append(*into, b)
	})
	var always int64
	single := one(d, &always, rate(), says)
	return field{
		says: says, schema: schema{"anyOf": []any{single.schema, list.schema}},
		decode: func(n ast.Node) {
			*into = nil
			if r := d.resolve(n); r != nil && r.Type() == ast.SequenceType {
				list.decode(n)
				// What holds all day is for the rest of it.
				slices.SortStableFunc(*into, func(a, b Bandwidth) int {
					switch {
					case a.always() == b.always():
						return 0
					case a.always():
						return 1
					}
					return -1
				})
				return
			}
			if single.decode(n); always > 0 {
				*into = []Bandwidth{{To: day, Rate: always}}
			}
		},
	}
}

func (d *decoder) repos(into *[]Repo) field {
	var r repoDecoder
	first := map[string]int{}
	f := d.sequence("repos", "the repositories", func(where string) fields {
		r = repoDecoder{decoder: d, repo: newRepo()}
		return r.table(where)
	}, func(where string, n ast.Node, keys map[string]*token.Position) {
		repo := &r.repo
		if keys != nil && keys["mirrorlist"] == nil && keys["metalink"] == nil && keys["upstream"] == nil {
			d.fail(position(n), "%s has no %q", where, "upstream")
		}
		if line, taken := first[repo.Name]; taken && repo.Name != "" {
			d.fail(keys["name"], "repository name %q of %s is taken by the one in line %d", repo.Name, where, line)
		} else if pos := keys["name"]; pos != nil {
			first[repo.Name] = pos.Line
		}
		r.finish(keys)
		*into = append(*into, *repo)
	})
	f.schema["items"] = r.schema(f.schema["items"].(schema))
	return f
}

// credentials is a user name with a password, or a token.
func (d *decoder) credentials(into *Credentials, where string) field {
	f := fields{
		"username": one(d, &into.Username, secret().required(), "the user name"),
		"password": one(d, &into.Password, secret(), "the password"),
		"token":    one(d, &into.Token, secret().required(), "a bearer token (RFC 6750), in place of the others"),
	}
	s := f.schema()
	user, token := schema{"required": []string{"username"}}, schema{"required": []string{"token"}}
	password := schema{"required": []string{"password"}}
	s["type"] = "object"
	s["oneOf"] = []any{token, user}
	s["not"] = schema{"allOf": []any{token, password}}
	return field{says: "what upstream asks for", schema: s, decode: func(n ast.Node) {
		keys := d.mapping(n, where, f)
		switch {
		case keys == nil:
		case keys["token"] != nil && (keys["username"] != nil || keys["password"] != nil):
			d.fail(keys["token"], "%s has both a token and a user name or password; an upstream is sent one of them", where)
		case keys["token"] == nil && keys["username"] == nil:
			d.fail(position(n), "%s needs a %q, or a %q with a %q", where, "token", "username", "password")
		case strings.Contains(into.Username, ":"):
			d.fail(keys["username"], "the user name in %s has a colon, which ends it (RFC 7617)", where)
		}
	}}
}
