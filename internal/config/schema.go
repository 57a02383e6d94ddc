package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// config decodes the whole file into c, which holds the defaults.
func (d *decoder) config(c *Config, text string) {
	body := d.root(text)
	if body == nil {
		return
	}
	addresses := map[string]bool{}
	d.mapping(body, "", fields{
		"listen":    one(d, &c.Listen, ParseAddress),
		"listeners": func(n ast.Node) { d.listeners(&c.Listeners, n, addresses) },
		"data":      one(d, &c.Data, parseText),
		"clients":   many(d, &c.Clients, parsePrefix),
		"history":   one(d, &c.History, parseDuration),
		"cache": d.section("cache", fields{
			"max_size": one(d, &c.Cache.MaxSize, parseSize),
		}),
		"forward": d.section("forward", fields{
			"discover":    one(d, &c.Forward.Discover, parseBool),
			"other":       one(d, &c.Forward.Other, oneOf(Deny, Pass)),
			"connect":     one(d, &c.Forward.Connect, oneOf(Tunnel, Deny)),
			"intercept":   one(d, &c.Forward.Intercept, oneOf(Off, Configured)),
			"require_ref": one(d, &c.Forward.RequireRef, parseBool),
		}),
		"egress": d.section("egress", fields{
			"allow_private": many(d, &c.Egress.AllowPrivate, parsePrefix),
			"offline":       one(d, &c.Egress.Offline, parseBool),
			"proxy":         one(d, &c.Egress.Proxy, parseProxy),
			"no_proxy":      many(d, &c.Egress.NoProxy, parseText),
			"netrc":         many(d, &c.Egress.Netrc, parseText),
		}),
		"download": d.section("download", fields{
			"parallel":  one(d, &c.Download.Parallel, parseAtLeastOne),
			"per_host":  one(d, &c.Download.PerHost, parseAtLeastOne),
			"bandwidth": one(d, &c.Download.Bandwidth, parseRate),
			"retries":   one(d, &c.Download.Retries, parseCount),
			"timeout":   one(d, &c.Download.Timeout, parseDuration),
		}),
		"scrub": d.section("scrub", fields{
			"every":     one(d, &c.Scrub.Every, parseDuration),
			"bandwidth": one(d, &c.Scrub.Bandwidth, parseRate),
		}),
		"repos": func(n ast.Node) { d.repos(&c.Repos, n) },
	})
}

func (d *decoder) section(name string, f fields) func(ast.Node) {
	return func(n ast.Node) { d.mapping(n, name, f) }
}

func (d *decoder) listeners(into *[]Listener, n ast.Node, seen map[string]bool) {
	for i, item := range d.items(n, false) {
		where := fmt.Sprintf("listeners[%d]", i)
		var l Listener
		keys := d.mapping(item, where, fields{
			"address": one(d, &l.Address, ParseAddress),
			"ref":     one(d, &l.Ref, parseRef),
		})
		for _, key := range []string{"address", "ref"} {
			d.require(keys, key, where, item)
		}
		if l.Address != "" && seen[l.Address] {
			d.fail(keys["address"], "address %q of %s comes a second time", l.Address, where)
		}
		seen[l.Address] = true
		*into = append(*into, l)
	}
}

// require reports a key that the mapping n lacks; one that is no mapping has
// been reported as such.
func (d *decoder) require(keys map[string]*token.Position, key, where string, n ast.Node) {
	if keys != nil && keys[key] == nil {
		d.fail(position(n), "%s has no %q", where, key)
	}
}

func (d *decoder) repos(into *[]Repo, n ast.Node) {
	first := map[string]int{}
	for i, item := range d.items(n, false) {
		where := fmt.Sprintf("repos[%d]", i)
		repo := Repo{Refresh: time.Minute}
		keys := d.repo(&repo, item, where)
		for _, key := range []string{"name", "type"} {
			d.require(keys, key, where, item)
		}
		if keys["mirrorlist"] == nil && keys["metalink"] == nil {
			d.require(keys, "upstream", where, item)
		}
		if line, taken := first[repo.Name]; taken && repo.Name != "" {
			d.fail(keys["name"], "repository name %q of %s is taken by the one in line %d", repo.Name, where, line)
		} else if pos := keys["name"]; pos != nil {
			first[repo.Name] = pos.Line
		}
		d.fits(&repo, keys)
		*into = append(*into, repo)
	}
}

func (d *decoder) repo(repo *Repo, n ast.Node, where string) map[string]*token.Position {
	return d.mapping(n, where, fields{
		"name": d.filled("name", one(d, &repo.Name, parseName)),
		"type": d.filled("type", one(d, &repo.Type, oneOf(Apt, RPM, PyPI, Generic))),
		"upstream": func(n ast.Node) {
			before := len(d.errs)
			many(d, &repo.Upstream, parseURL)(n)
			if len(repo.Upstream) == 0 && len(d.errs) == before {
				d.fail(position(n), "%s needs at least one upstream URL", where)
			}
		},
		"credentials": func(n ast.Node) { d.credentials(&repo.Credentials, n, where+".credentials") },
		"keyring":     one(d, &repo.Keyring, parseText),
		"refresh":     one(d, &repo.Refresh, parseDuration),
		"files":       many(d, &repo.Files, parseURL),

		"mirrorlist":   d.filled("mirrorlist", one(d, &repo.Mirrorlist, parseListURL)),
		"metalink":     d.filled("metalink", one(d, &repo.Metalink, parseListURL)),
		"list_refresh": one(d, &repo.ListRefresh, parseDuration),
		"sync": func(n ast.Node) {
			repo.Sync = &Sync{Wheels: true, Sdists: true}
			d.sync(repo.Sync, n, where+".sync")
		},
	})
}

// credentials reads a user name with a password, or a token.
func (d *decoder) credentials(into *Credentials, n ast.Node, where string) {
	keys := d.mapping(n, where, fields{
		"username": d.filled("username", one(d, &into.Username, parseSecret)),
		"password": one(d, &into.Password, parseSecret),
		"token":    d.filled("token", one(d, &into.Token, parseSecret)),
	})
	switch {
	case keys == nil:
	case keys["token"] != nil && (keys["username"] != nil || keys["password"] != nil):
		d.fail(keys["token"], "%s has both a token and a user name or password; an upstream is sent one of them", where)
	case keys["token"] == nil && keys["username"] == nil:
		d.fail(position(n), "%s needs a %q, or a %q with a %q", where, "token", "username", "password")
	case strings.Contains(into.Username, ":"):
		d.fail(keys["username"], "the user name in %s has a colon, which ends it (RFC 7617)", where)
	}
}

// filled reports a value that is there as a key only, for keys that have no
// default.
func (d *decoder) filled(key string, decode func(ast.Node)) func(ast.Node) {
	return func(n ast.Node) {
		before := len(d.errs)
		if text, pos, good := d.scalar(n); good && text == "" {
			d.fail(pos, "%q has no value", key)
		}
		if len(d.errs) == before {
			decode(n)
		}
	}
}

// fits reports settings that mean nothing for the repository's type: a
// keyring that is never asked would be taken for protection.
func (d *decoder) fits(repo *Repo, keys map[string]*token.Position) {
	if repo.Type == "" {
		return
	}
	if repo.Keyring != "" && repo.Type != Apt && repo.Type != RPM {
		d.fail(keys["keyring"], "a repository of type %s has no signed roots; remove %q", repo.Type, "keyring")
	}
	if repo.Files != nil && repo.Type != PyPI {
		d.fail(keys["files"], "%q is for type pypi, not %s", "files", repo.Type)
	}
	lists := 0
	for _, key := range []string{"mirrorlist", "metalink"} {
		if keys[key] == nil {
			continue
		}
		if lists++; lists > 1 {
			d.fail(keys[key], "a repository has one list of mirrors; remove %q or %q", "mirrorlist", "metalink")
		}
		if repo.Type != RPM {
			d.fail(keys[key], "%q is for type rpm, not %s", key, repo.Type)
		}
	}
	switch {
	case lists == 0 && keys["list_refresh"] != nil:
		d.fail(keys["list_refresh"], "%q says nothing without %q or %q", "list_refresh", "mirrorlist", "metalink")
	case lists > 0 && repo.ListRefresh == 0:
		repo.ListRefresh = 10 * time.Minute
	}
}

func (d *decoder) sync(s *Sync, n ast.Node, where string) {
	d.mapping(n, where, fields{
		"suites":        many(d, &s.Suites, parseText),
		"components":    many(d, &s.Components, parseText),
		"architectures": many(d, &s.Architectures, parseText),
		"sources":       one(d, &s.Sources, parseBool),
		"packages":      many(d, &s.Packages, parseText),
		"exclude":       many(d, &s.Exclude, parseText),
		"newest":        one(d, &s.Newest, parseCount),
		"projects":      many(d, &s.Projects, parseText),
		"wheels":        one(d, &s.Wheels, parseBool),
		"sdists":        one(d, &s.Sdists, parseBool),
		"python":        many(d, &s.Python, parseText),
		"platforms":     many(d, &s.Platforms, parseText),
		"every":         one(d, &s.Every, parseDuration),
	})
}
