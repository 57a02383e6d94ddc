package config

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/goccy/go-yaml"
)

// The shown types are the file's form of the settings: what Parse reads.
type (
	shown struct {
		Listen    string          `yaml:"listen" json:"listen"`
		Listeners []shownListener `yaml:"listeners,omitempty" json:"listeners,omitempty"`
		Data      string          `yaml:"data,omitempty" json:"data,omitempty"`
		Clients   []string        `yaml:"clients,flow" json:"clients"`
		History   string          `yaml:"history" json:"history"`
		Cache     shownCache      `yaml:"cache,omitempty" json:"cache,omitzero"`
		Forward   shownForward    `yaml:"forward" json:"forward"`
		Egress    shownEgress     `yaml:"egress" json:"egress"`
		Download  shownDownload   `yaml:"download" json:"download"`
		Scrub     shownScrub      `yaml:"scrub" json:"scrub"`
		GC        shownGC         `yaml:"gc" json:"gc"`
		Signing   shownSigning    `yaml:"signing,omitempty" json:"signing,omitzero"`
		Repos     []shownRepo     `yaml:"repos,omitempty" json:"repos,omitempty"`
	}
	shownListener struct {
		Address string `yaml:"address" json:"address"`
		Ref     string `yaml:"ref" json:"ref"`
	}
	shownCache struct {
		MaxSize string `yaml:"max_size,omitempty" json:"max_size,omitempty"`
	}
	shownScrub struct {
		Every     string `yaml:"every" json:"every"`
		Bandwidth string `yaml:"bandwidth" json:"bandwidth"`
	}
	shownGC struct {
		Every string `yaml:"every" json:"every"`
	}
	shownSigning struct {
		Key            string `yaml:"key,omitempty" json:"key,omitempty"`
		PassphraseFile string `yaml:"passphrase_file,omitempty" json:"passphrase_file,omitempty"`
	}
	shownForward struct {
		Discover   bool   `yaml:"discover" json:"discover"`
		Other      string `yaml:"other" json:"other"`
		Connect    string `yaml:"connect" json:"connect"`
		Intercept  string `yaml:"intercept" json:"intercept"`
		RequireRef bool   `yaml:"require_ref" json:"require_ref"`
	}
	shownEgress struct {
		AllowPrivate []string `yaml:"allow_private,flow" json:"allow_private"`
		Offline      bool     `yaml:"offline" json:"offline"`
		Proxy        string   `yaml:"proxy,omitempty" json:"proxy,omitempty"`
		NoProxy      []string `yaml:"no_proxy,flow,omitempty" json:"no_proxy,omitempty"`
		Netrc        []string `yaml:"netrc,flow,omitempty" json:"netrc,omitempty"`
	}
	shownDownload struct {
		Parallel  int    `yaml:"parallel" json:"parallel"`
		PerHost   int    `yaml:"per_host" json:"per_host"`
		Bandwidth any    `yaml:"bandwidth,omitempty" json:"bandwidth,omitempty"`
		Retries   int    `yaml:"retries" json:"retries"`
		Timeout   string `yaml:"timeout" json:"timeout"`
	}
	shownBandwidth struct {
		From string `yaml:"from,omitempty" json:"from,omitempty"`
		To   string `yaml:"to,omitempty" json:"to,omitempty"`
		Rate string `yaml:"rate" json:"rate"`
	}
	shownRepo struct {
		Name        string           `yaml:"name" json:"name"`
		Type        string           `yaml:"type" json:"type"`
		Upstream    []string         `yaml:"upstream,omitempty" json:"upstream,omitempty"`
		Credentials shownCredentials `yaml:"credentials,omitempty" json:"credentials,omitzero"`
		Keyring     string           `yaml:"keyring,omitempty" json:"keyring,omitempty"`
		Refresh     string           `yaml:"refresh" json:"refresh"`
		Files       *[]string        `yaml:"files,omitempty" json:"files,omitempty"`
		Sync        map[string]any   `yaml:"sync,omitempty" json:"sync,omitempty"`

		Mirrorlist  string `yaml:"mirrorlist,omitempty" json:"mirrorlist,omitempty"`
		Metalink    string `yaml:"metalink,omitempty" json:"metalink,omitempty"`
		ListRefresh string `yaml:"list_refresh,omitempty" json:"list_refresh,omitempty"`
	}
	shownCredentials struct {
		Username string `yaml:"username,omitempty" json:"username,omitempty"`
		Password string `yaml:"password,omitempty" json:"password,omitempty"`
		Token    string `yaml:"token,omitempty" json:"token,omitempty"`
	}
)

// Marshal returns the settings as a configuration file, defaults included.
// Credentials are replaced; without any, Parse reads the same settings back.
func (c *Config) Marshal() ([]byte, error) {
	text, err := yaml.MarshalWithOptions(c.shown(), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("writing the configuration as YAML: %w", err)
	}
	return text, nil
}

// MarshalJSON returns what Marshal does, as JSON.
func (c *Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.shown()) }

func (c *Config) shown() shown {
	s := shown{
		Listen:  c.Listen,
		Data:    c.Data,
		Clients: texts(c.Clients),
		History: showDuration(c.History),
		Cache:   shownCache{MaxSize: limit(c.Cache.MaxSize, "")},
		Forward: shownForward(c.Forward),
		Egress: shownEgress{
			AllowPrivate: texts(c.Egress.AllowPrivate), Offline: c.Egress.Offline,
			Proxy: redact(c.Egress.Proxy), NoProxy: c.Egress.NoProxy, Netrc: c.Egress.Netrc,
		},
		Download: shownDownload{
			Parallel: c.Download.Parallel, PerHost: c.Download.PerHost, Retries: c.Download.Retries,
			Bandwidth: showBandwidth(c.Download.Bandwidth), Timeout: showDuration(c.Download.Timeout),
		},
		Scrub:   shownScrub{Every: showDuration(c.Scrub.Every), Bandwidth: showSize(c.Scrub.Bandwidth) + "/s"},
		GC:      shownGC{Every: showDuration(c.GC.Every)},
		Signing: shownSigning(c.Signing),
	}
	for _, l := range c.Listeners {
		s.Listeners = append(s.Listeners, shownListener(l))
	}
	for i := range c.Repos {
		s.Repos = append(s.Repos, c.Repos[i].shown())
	}
	return s
}

func (r *Repo) shown() shownRepo {
	s := shownRepo{
		Name: r.Name, Type: r.Type, Upstream: redacted(r.Upstream),
		Credentials: shownCredentials{hide(r.Credentials.Username), hide(r.Credentials.Password), hide(r.Credentials.Token)},
		Keyring:     r.Keyring, Refresh: showDuration(r.Refresh),
	}
	if r.Files != nil {
		files := redacted(r.Files)
		s.Files = &files
	}
	if r.Mirrorlist != "" || r.Metalink != "" {
		s.Mirrorlist, s.Metalink, s.ListRefresh = redact(r.Mirrorlist), redact(r.Metalink), showDuration(r.ListRefresh)
	}
	if r.Sync != nil {
		s.Sync = r.Sync.shown(r.Type)
	}
	return s
}

// shown is what the table of keys says for the type.
func (y *Sync) shown(typ string) map[string]any {
	keys := map[string]any{}
	for key, field := range (&repoDecoder{}).syncTable(y) {
		if value := field.show(); value != nil && field.fits(typ) {
			keys[key] = value
		}
	}
	return keys
}

// showBandwidth writes a limit that always holds as that alone.
func showBandwidth(list []Bandwidth) any {
	if len(list) == 0 {
		return nil
	}
	if len(list) == 1 && list[0].always() {
		return showSize(list[0].Rate) + "/s"
	}
	var all []shownBandwidth
	for _, b := range list {
		s := shownBandwidth{Rate: unlimited}
		if !b.always() {
			s.From, s.To = showClock(b.From), showClock(b.To)
		}
		if b.Rate > 0 {
			s.Rate = showSize(b.Rate) + "/s"
		}
		all = append(all, s)
	}
	return all
}

func hide(secret string) string {
	if secret == "" {
		return ""
	}
	return hidden
}

// limit writes a number of bytes of which 0 means none.
func limit(n int64, per string) string {
	if n == 0 {
		return ""
	}
	return showSize(n) + per
}

func redacted(urls []string) []string {
	list := make([]string, len(urls))
	for i, u := range urls {
		list[i] = redact(u)
	}
	return list
}

// texts writes a prefix that holds one address as that address.
func texts(prefixes []netip.Prefix) []string {
	list := make([]string, len(prefixes))
	for i, p := range prefixes {
		list[i] = p.String()
		if p.IsSingleIP() {
			list[i] = p.Addr().String()
		}
	}
	return list
}
