package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
	"chantal/internal/config"
	"chantal/internal/fetch"
	"chantal/internal/httpcache"
	"chantal/internal/keep"
	"chantal/internal/sign"
	"chantal/mirror"
	"chantal/proxy"
	"chantal/snapshot"
)

// node is a data directory in use, and everything that works on it. serve puts
// listeners before it; other commands use it directly when no serve runs.
type node struct {
	env     *environment
	data    string
	log     *slog.Logger
	lock    *os.File
	store   *cas.Store
	catalog *catalog.Catalog
	egress  *fetch.Egress
	client  *fetch.Client
	mirror  *mirror.Mirror
	names   *snapshot.Names
	cache   *httpcache.Cache
	metrics *proxy.Metrics
	via     string
	listens atomic.Pointer[[]netip.AddrPort] // what this process listens on
	config  atomic.Pointer[config.Config]    // the one in force
	handler atomic.Pointer[proxy.Handler]
	connect *proxy.Connect
	ca      *proxy.CA // nil without interception
	offline bool
	keeper  *keep.Keeper
	gc      collections
	traffic *traffic
	signing signing
	scrub   atomic.Pointer[keep.Scrub] // nil where nothing is read in the background
	syncs   *syncs
	rhythm  atomic.Pointer[rhythm] // nil where none begins by itself
}

// openNode locks the data directory and opens what is in it.
func openNode(env *environment, offline bool) (n *node, err error) {
	n = &node{env: env, data: env.data, log: env.log, metrics: proxy.NewMetrics(), offline: offline || env.config.Egress.Offline}
	n.listens.Store(&[]netip.AddrPort{})
	n.via = "chantal-" + strings.ToLower(rand.Text()[:10])
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	if n.lock, err = lockData(env.data); err != nil {
		return n, err
	}
	if n.store, err = cas.Open(env.data, cas.Options{Log: env.log}); err != nil {
		return n, err
	}
	n.metrics.Registry().MustRegister(diskMetrics(n.store)...)
	database := filepath.Join(env.data, "catalog.db")
	if env.rebuild {
		if err = catalog.Remake(database, n.store, catalog.Options{Logger: env.log}); err != nil {
			return n, err
		}
	}
	if n.catalog, err = catalog.Open(database, n.store, catalog.Options{Logger: env.log}); err != nil {
		return n, err
	}
	n.traffic = newTraffic(n.store, n.metrics, env.log)
	cfg := env.config
	proxied, err := outbound(cfg.Egress)
	if err != nil {
		return n, err
	}
	n.egress = fetch.NewEgress(cfg.Egress.AllowPrivate, func() []netip.AddrPort { return *n.listens.Load() })
	n.client = fetch.New(fetch.Options{
		Egress: n.egress, UserAgent: "chantal/" + version(), Via: "1.1 " + n.via,
		Timeout: cfg.Download.Timeout, PerHost: cfg.Download.PerHost, Proxy: proxied, Log: env.log,
	})
	source := n.source(cfg)
	n.mirror = mirror.New(mirror.Options{
		Store: n.store, Catalog: n.catalog, Source: source, Formats: formats(),
		Now: time.Now, Log: env.log, Offline: n.offline, Allows: httpcache.Fresh, History: cfg.History, Parallel: cfg.Download.Parallel,
	})
	n.syncs = newSyncs(n.fill, n.store, env.log)
	n.metrics.Registry().MustRegister(syncMetrics{n.syncs})
	n.keeper = &keep.Keeper{Store: n.store, Catalog: n.catalog, Promises: n.mirror, Needs: n.mirror}
	n.names = snapshot.New(n.catalog, n.mirror, time.Now)
	n.cache = httpcache.New(n.store, source, time.Now, env.log)
	if err = n.openConnect(cfg); err != nil {
		return n, err
	}
	return n, n.apply(cfg)
}

// source puts the limits around the client. What is urgent does not queue
// behind downloads.
func (n *node) source(cfg *config.Config) fetch.Source {
	if n.offline {
		return fetch.Offline()(n.client)
	}
	d := cfg.Download
	retry := fetch.Retry(d.Retries, 2*d.Timeout, n.log)
	client := fetch.Metered(n.traffic.received)(n.client)
	urgent, rest := retry(client), client
	var windows []fetch.Window
	for _, b := range d.Bandwidth {
		windows = append(windows, fetch.Window(b))
	}
	rest = fetch.Bandwidth(windows, time.Now)(rest)
	rest = retry(fetch.Limit(d.Parallel, d.PerHost)(rest))
	return fetch.SourceFunc(func(ctx context.Context, r *fetch.Request) (*fetch.Response, error) {
		if r.Urgent {
			return urgent.Fetch(ctx, r)
		}
		return rest.Fetch(ctx, r)
	})
}

// apply makes a configuration the one in force: its repositories, and those
// that the catalog remembers beside them, and a handler with its rules. One
// that cannot be used changes nothing.
func (n *node) apply(cfg *config.Config) error {
	kinds := formats()
	var all []mirror.Settings
	for _, c := range cfg.Repos {
		s, err := settings(c, kinds[c.Type])
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	known, err := n.catalog.Repos()
	if err != nil {
		return err
	}
	for _, r := range known {
		if slices.ContainsFunc(cfg.Repos, func(c config.Repo) bool { return c.Name == r.Name }) {
			continue
		}
		all = append(all, mirror.Settings{
			Name: r.Name, Type: r.Type, Format: kinds[r.Type], Upstream: r.Upstream, Discovered: r.Discovered,
			// What was configured had a keyring, perhaps: without its
			// configuration nothing new is taken in.
			Retired: !r.Discovered,
			List:    r.List, ListForm: r.ListForm,
		})
	}
	up, err := readUpstreams(cfg, n.log.Warn)
	if err != nil {
		return err
	}
	if secretive(cfg) && config.ReadableByOthers(cfg.File) {
		n.log.Warn("the configuration has credentials and can be read by everybody on this machine; chmod o-r would change that", "file", cfg.File)
	}
	n.egress.AllowHosts(up.hosts...)
	n.client.SetCredentials(up.credentials)
	for _, s := range all {
		if _, err := n.mirror.Add(s); err != nil {
			return err
		}
	}
	n.arrange(cfg)
	return nil
}

// settings turns the configuration of a repository into what mirror works with.
func settings(c config.Repo, format chantal.Format) (mirror.Settings, error) {
	upstream, err := bare(c.Upstream)
	if err != nil {
		return mirror.Settings{}, fmt.Errorf("upstream of %s: %w", c.Name, err)
	}
	s := mirror.Settings{Name: c.Name, Type: c.Type, Format: format, Upstream: upstream}
	s.Refresh = max(c.Refresh, time.Nanosecond) // 0s: every time
	for form, list := range map[string]string{"mirrorlist": c.Mirrorlist, "metalink": c.Metalink} {
		if list == "" {
			continue
		}
		urls, err := bare([]string{list})
		if err != nil {
			return s, fmt.Errorf("%s of %s: %w", form, c.Name, err)
		}
		s.List, s.ListForm, s.ListProves, s.ListRefresh = urls[0], form, form == "metalink", c.ListRefresh
	}
	if c.Keyring != "" {
		ring, err := sign.LoadKeyring(c.Keyring)
		if err != nil {
			return s, &failure{Exit: 2, Message: "keyring of " + c.Name + ": " + err.Error(), Next: "name a file with OpenPGP public keys", Err: err}
		}
		s.Keyring = ring
	}
	if c.Files != nil {
		s.Files = []string{}
	}
	for _, raw := range c.Files {
		u, err := url.Parse(raw)
		if err != nil {
			return s, fmt.Errorf("files of %s: %w", c.Name, err)
		}
		s.Files = append(s.Files, u.Host)
	}
	return s, nil
}

// openConnect prepares for CONNECT. Interception is switched on at the start or
// not at all: clients have to trust the CA before.
func (n *node) openConnect(cfg *config.Config) (err error) {
	o := proxy.ConnectOptions{
		Intercept: func(host string) bool { return configuredHosts(n.config.Load())[host] },
		Tunnel:    true, Dial: n.client.DialContext, Log: n.log,
		Inner:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.handler.Load().ServeHTTP(w, r) }),
		Refuse: func(w http.ResponseWriter, r *http.Request, err error) { n.handler.Load().Fail(w, r, err) },
	}
	if cfg.Forward.Intercept == config.Configured {
		if n.ca, err = proxy.LoadCA(n.data, slices.Sorted(maps.Keys(configuredHosts(cfg))), time.Now); err != nil {
			return err
		}
		o.CA = n.ca
	}
	n.connect = proxy.NewConnect(o)
	return nil
}

// configuredHosts are the host names of configured repositories.
func configuredHosts(cfg *config.Config) map[string]bool {
	hosts := map[string]bool{}
	for _, c := range cfg.Repos {
		for _, raw := range slices.Concat(c.Upstream, c.Files, mirrorLists(c)) {
			if u, err := url.Parse(raw); err == nil {
				hosts[strings.ToLower(u.Hostname())] = true
			}
		}
	}
	return hosts
}

// arrange builds the handler for a configuration.
func (n *node) arrange(cfg *config.Config) {
	o := proxy.Options{
		Mirror: n.mirror, Names: n.names, Cache: n.cache, Connect: n.connect, Metrics: n.metrics,
		Pass:    n.client.Passing(),
		API:     apiHandler(&local{n}, false),
		Clients: cfg.Clients, Discover: cfg.Forward.Discover, PassOther: cfg.Forward.Other == config.Pass,
		RequireRef: cfg.Forward.RequireRef, NoTunnel: cfg.Forward.Connect == config.Deny,
		OwnNames: ownNames(cfg), Via: n.via, Log: n.log, Key: n.publicKey,
		Signer: func() (chantal.Signer, error) { return n.signer() },
	}
	if n.ca != nil {
		o.CA = n.ca.PEM()
	}
	n.config.Store(cfg)
	n.handler.Store(proxy.New(o))
}

// ownNames are the host names that lead to this server.
func ownNames(cfg *config.Config) []string {
	names := []string{"localhost"}
	if host, err := os.Hostname(); err == nil {
		names = append(names, strings.ToLower(host))
	}
	listens := []string{cfg.Listen}
	for _, l := range cfg.Listeners {
		listens = append(listens, l.Address)
	}
	for _, address := range listens {
		if i := strings.LastIndexByte(address, ':'); i > 0 {
			names = append(names, strings.ToLower(strings.Trim(address[:i], "[]")))
		}
	}
	return names
}

// Close ends all work and unlocks the data directory.
func (n *node) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var errs []error
	if n.syncs != nil {
		n.syncs.close()
	}
	if n.connect != nil {
		errs = append(errs, n.connect.Shutdown(ctx))
	}
	if n.mirror != nil {
		errs = append(errs, n.mirror.Close(ctx))
	}
	if n.cache != nil {
		errs = append(errs, n.cache.Close(ctx))
	}
	if n.traffic != nil {
		n.traffic.save()
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.catalog != nil {
		errs = append(errs, n.catalog.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// lockData takes the data directory for this process alone.
func lockData(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, &failure{Message: "the data directory cannot be made: " + err.Error(), Next: "name another one with --data or CHANTAL_DATA", Err: err}
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		next := "name another one with --data or CHANTAL_DATA"
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			next = "it has to be writable; " + next
		}
		return nil, &failure{Message: "the data directory " + dir + " cannot be used: " + err.Error(), Next: next, Err: err}
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		who := "another process"
		if pid := strings.TrimSpace(string(holder)); pid != "" {
			who = "process " + pid
		}
		return nil, &failure{Message: "the data directory " + dir + " is locked by " + who, Next: "stop it, or name another directory with --data", Err: err}
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintln(f, os.Getpid())
	}
	return f, nil
}
