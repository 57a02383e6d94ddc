package proxy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
	"chantal/internal/fetch"
	"chantal/internal/httpcache"
	"chantal/internal/sign"
	"chantal/internal/testenv"
	"chantal/mirror"
	"chantal/plugins/apt"
	"chantal/plugins/pypi"
	"chantal/plugins/rpm"
	"chantal/snapshot"
)

const (
	inRelease  = "dists/bookworm/InRelease"
	packagesXZ = "dists/bookworm/main/binary-amd64/Packages.xz"
)

// A site is the whole server but for its commands, on loopback, with an
// upstream that names like a.mirror.example.org lead to.
type site struct {
	t       testing.TB
	up      *testenv.Server
	mirror  *mirror.Mirror
	names   *snapshot.Names
	handler *Handler
	addr    string // of the listener without a ref
	egress  *fetch.Egress

	mu      sync.Mutex
	at      time.Time
	offline bool
	origin  *url.URL // what o.example.org leads to, over http and https; nil for nothing
}

func (s *site) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

func (s *site) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = s.at.Add(d)
}

func newSite(t testing.TB, change func(*Options)) *site {
	t.Helper()
	return newSiteFrom(t, (*site).source, change)
}

// newSiteFrom is newSite with another way upstream.
func newSiteFrom(t testing.TB, from func(*site) fetch.Source, change func(*Options)) *site {
	t.Helper()
	s := &site{t: t, at: time.Now()}
	var err error
	if s.up, err = testenv.NewServer(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.up.Down)
	dir := t.TempDir()
	store, err := cas.Open(dir, cas.Options{SyncEvery: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	names, err := catalog.Open(filepath.Join(dir, "catalog.db"), store, catalog.Options{Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { names.Close() })
	log := slog.New(slog.DiscardHandler)
	source := from(s)
	s.mirror = mirror.New(mirror.Options{
		Store: store, Catalog: names, Source: source, Now: s.now, Log: log, Allows: httpcache.Fresh,
		Formats: map[string]chantal.Format{"apt": &apt.Format{Belongs: sign.Belongs}, "rpm": rpm.Format{Belongs: sign.Belongs}, "pypi": pypi.Format{}},
	})
	t.Cleanup(func() {
		s.up.Heal()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.mirror.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	s.names = snapshot.New(names, s.mirror, s.now)
	o := Options{
		Mirror: s.mirror, Names: s.names, Cache: httpcache.New(store, source, s.now, log), Metrics: NewMetrics(),
		Pass: roundTripper(s.pass), API: http.NotFoundHandler(), Clients: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Discover: true, OwnNames: []string{"localhost", "chantal.example.org"}, Via: "chantal-test", Log: log,
	}
	o.Connect = NewConnect(ConnectOptions{
		Intercept: func(string) bool { return false }, Dial: (&net.Dialer{}).DialContext, Log: log,
		Refuse: func(w http.ResponseWriter, r *http.Request, err error) { s.handler.Fail(w, r, err) },
	})
	if change != nil {
		change(&o)
	}
	s.handler = New(o)
	s.addr = s.listen("")
	return s
}

// source is the real client; b.mirror.example.org has its files below /b/,
// every other name of example.org leads to the top of the upstream.
func (s *site) source() fetch.Source {
	egress := fetch.NewEgress(nil, nil)
	s.egress = egress
	u, err := url.Parse(s.up.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	egress.AllowHosts(u.Host)
	client := fetch.New(fetch.Options{Egress: egress, Timeout: 5 * time.Second, Via: "1.1 chantal-test"})
	s.t.Cleanup(client.CloseIdleConnections)
	return fetch.SourceFunc(func(ctx context.Context, r *fetch.Request) (*fetch.Response, error) {
		if s.isOffline() {
			return fetch.Offline()(client).Fetch(ctx, r)
		}
		u, err := url.Parse(r.URL)
		if err != nil || !strings.HasSuffix(u.Host, ".example.org") {
			return client.Fetch(ctx, r)
		}
		led := *r
		if origin := s.originURL(); origin != nil && u.Host == "o.example.org" {
			_, rest, _ := strings.Cut(r.URL, "o.example.org")
			led.URL = origin.String() + rest
			return client.Fetch(ctx, &led)
		}
		led.URL = s.up.URL() + u.RequestURI()
		if strings.HasPrefix(u.Host, "b.") {
			led.URL = s.up.URL() + "/b" + u.RequestURI()
		}
		resp, err := client.Fetch(ctx, &led)
		if err == nil {
			resp.URL = r.URL
		}
		return resp, err
	})
}

// serveOrigin makes h answer for o.example.org.
func (s *site) serveOrigin(h http.HandlerFunc) {
	s.t.Helper()
	srv := httptest.NewServer(h)
	s.t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	s.egress.AllowHosts(u.Host, strings.TrimPrefix(s.up.URL(), "http://"))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.origin = u
}

// kept waits until the answer to a request is in the HTTP cache, which it is
// only after the first client has got the end of it. ask asks with the field
// given.
func (s *site) kept(t *testing.T, ask func(name, value string) (status int)) {
	t.Helper()
	for range 2000 {
		if ask("Cache-Control", "only-if-cached") == http.StatusOK {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("an answer is never kept")
}

// goOffline makes the site answer from what it has.
func (s *site) goOffline() {
	s.mirror.Offline = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offline = true
}

func (s *site) isOffline() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offline
}

func (s *site) originURL() *url.URL {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.origin
}

// pass is the way of requests that are passed on unchanged.
func (s *site) pass(r *http.Request) (*http.Response, error) {
	led, to := *r, *r.URL
	to.Scheme, to.Host = "http", s.originURL().Host
	led.URL = &to
	return http.DefaultTransport.RoundTrip(&led)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// listen opens a listener that is bound to a ref and returns its address.
func (s *site) listen(ref string) string {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	server := s.handler.Server(ref)
	go server.Serve(l)
	s.t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

func (s *site) add(name, kind string, upstream ...string) *mirror.Repo {
	s.t.Helper()
	r, err := s.mirror.Add(mirror.Settings{Name: name, Type: kind, Format: s.mirror.Formats[kind], Upstream: upstream})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// debian publishes a suite at two mirrors and adds the repository debian.
func (s *site) debian(packages ...testenv.Package) (*testenv.APT, testenv.Files) {
	s.t.Helper()
	key, err := testenv.NewKey("archive", time.Now().Add(-48*time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	suite := testenv.NewAPT(key, time.Now(), "bookworm")
	suite.ByHash = true
	files := s.publish(suite, packages...)
	s.add("debian", "apt", "http://a.mirror.example.org/debian/", "http://b.mirror.example.org/debian/")
	return suite, files
}

// publish adds packages to a suite and puts it upstream; trees are due then.
func (s *site) publish(suite *testenv.APT, packages ...testenv.Package) testenv.Files {
	s.t.Helper()
	for _, p := range packages {
		if err := suite.Add(p); err != nil {
			s.t.Fatal(err)
		}
	}
	files, err := suite.Publish()
	if err != nil {
		s.t.Fatal(err)
	}
	s.up.Publish("debian", files)
	s.up.Publish("b/debian", files)
	s.advance(2 * time.Minute)
	return files
}

// got is what a client received.
type got struct {
	status int
	header http.Header
	body   []byte
	err    error // of reading the body
	length int64 // Content-Length; -1 where there was none
}

// direct asks for a path of the server itself.
func (s *site) direct(path string, header ...string) got {
	s.t.Helper()
	return s.request(http.MethodGet, "http://"+s.addr+path, "", header...)
}

// request asks for a URL; proxy is the address of a forward proxy, perhaps with
// a user before it. header are keys and values.
func (s *site) request(method, target, proxy string, header ...string) got {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, target, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	if proxy != "" {
		via, err := url.Parse("http://" + proxy)
		if err != nil {
			s.t.Fatal(err)
		}
		transport.Proxy = http.ProxyURL(via)
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return got{err: err}
	}
	defer resp.Body.Close()
	g := got{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength}
	g.body, g.err = io.ReadAll(resp.Body)
	return g
}

// is fails the test unless the answer is complete, with that content.
func (g got) is(t *testing.T, what string, want []byte) {
	t.Helper()
	if g.status != http.StatusOK || g.err != nil || !bytes.Equal(g.body, want) {
		t.Fatalf("%s: %d, %v, %d bytes %.200q; want %d", what, g.status, g.err, len(g.body), g.body, len(want))
	}
}

// wantHeader fails the test where a field has another value; "" is none.
func (g got) wantHeader(t *testing.T, what string, fields ...string) {
	t.Helper()
	for i := 0; i < len(fields); i += 2 {
		if have := g.header.Get(fields[i]); have != fields[i+1] {
			t.Errorf("%s: %s is %q, want %q", what, fields[i], have, fields[i+1])
		}
	}
}

// interceptingSite is a site whose CONNECT to host is answered with a CA of its
// own, and what is inside by the site itself.
func interceptingSite(t *testing.T, host string, adjust func(*Options)) (*site, *CA) {
	t.Helper()
	ca := testCA(t, time.Now, host)
	var s *site
	var connect *Connect
	s = newSite(t, func(o *Options) {
		connect = NewConnect(ConnectOptions{
			CA: ca, Intercept: func(h string) bool { return h == host },
			Dial: (&net.Dialer{}).DialContext, Log: slog.New(slog.DiscardHandler),
			Inner:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }),
			Refuse: func(w http.ResponseWriter, r *http.Request, err error) { s.handler.Fail(w, r, err) },
		})
		o.Connect = connect
		if adjust != nil {
			adjust(o)
		}
	})
	t.Cleanup(func() { _ = connect.Shutdown(context.WithoutCancel(t.Context())) })
	return s, ca
}
