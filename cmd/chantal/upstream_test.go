package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/config"
	"chantal/internal/testenv"
)

// vault is an upstream whose folders want an Authorization each; the one of
// public wants none.
type vault struct {
	*httptest.Server
	elsewhere string

	mu   sync.Mutex
	seen map[string][]string // Authorization by path
}

var wanted = map[string]string{
	"url": "Basic dXJsLW1lOnVybC1zM2NyZXQ=", "basic": "Basic YmFzaWMtbWU6YmFzaWMtczNjcmV0",
	"token": "Bearer token-s3cret", "netrc": "Basic bmV0cmMtbWU6bmV0cmMtczNjcmV0", "public": "",
}

func newVault(t *testing.T) *vault {
	v := &vault{seen: map[string][]string{}}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	shown := r.Header.Get("Authorization")
	v.mu.Lock()
	v.seen[r.URL.Path] = append(v.seen[r.URL.Path], shown)
	v.mu.Unlock()
	folder, file, _ := strings.Cut(r.URL.Path[1:], "/")
	want, known := wanted[folder]
	switch {
	case known && shown != want || folder == "wrong":
		http.Error(w, "no", http.StatusUnauthorized)
	case file == "away":
		http.Redirect(w, r, v.elsewhere+"/public/landed", http.StatusFound)
	default:
		fmt.Fprint(w, "content of ", r.URL.Path)
	}
}

func (v *vault) host() string { return strings.TrimPrefix(v.URL, "http://") }

const vaultConfig = `
egress: {netrc: [NETRC], proxy: ""}
repos:
  - {name: url, type: generic, upstream: "http://url-me:url-s3cret@HOST/url/"}
  - {name: basic, type: generic, upstream: "http://HOST/basic/", credentials: {username: basic-me, password: "${PASSWORD}"}}
  - {name: token, type: generic, upstream: "http://HOST/token/", credentials: {token: token-s3cret}}
  - {name: netrc, type: generic, upstream: "http://HOST/netrc/"}
  - {name: wrong, type: generic, upstream: "http://wrong-me:wrong-s3cret@HOST/wrong/"}
  - {name: public, type: generic, upstream: "http://HOST/public/"}
`

// openVault opens a node whose repositories lie on v, with all it logs in log.
func openVault(t *testing.T, v *vault, log *bytes.Buffer) *node {
	t.Helper()
	dir := t.TempDir()
	netrc := filepath.Join(dir, "netrc")
	if err := os.WriteFile(netrc, []byte("machine "+v.host()+"/netrc login netrc-me password netrc-s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("HOST", v.host(), "NETRC", netrc).Replace(vaultConfig)
	cfg, err := config.Parse("", []byte(text), func(name string) string { return map[string]string{"PASSWORD": "basic-s3cret"}[name] })
	if err != nil {
		t.Fatal(err)
	}
	env := &environment{
		config: cfg, data: filepath.Join(dir, "data"),
		log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	n, err := openNode(env, false)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func visit(n *node, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr = "127.0.0.1:1000"
	w := httptest.NewRecorder()
	n.handler.Load().ServeHTTP(w, r)
	return w
}

func TestCredentialsGoToTheirUpstreamAndNowhereElse(t *testing.T) {
	v, other := newVault(t), newVault(t)
	v.elsewhere = other.URL
	var log bytes.Buffer
	n := openVault(t, v, &log)
	n.egress.AllowHosts(v.host(), other.host()) // both are on loopback
	var told strings.Builder
	for name := range wanted {
		for _, file := range []string{"file", "away"} {
			w := visit(n, "/"+name+"/"+file)
			if w.Code != http.StatusOK {
				t.Errorf("%s/%s: %d %s", name, file, w.Code, w.Body)
			}
			fmt.Fprintln(&told, w.Header(), w.Body)
		}
	}
	w := visit(n, "/wrong/file")
	if w.Code != http.StatusBadGateway || !strings.Contains(w.Body.String(), "credentials") {
		t.Errorf("wrong password: %d %s; want 502 that speaks of credentials", w.Code, w.Body)
	}
	fmt.Fprintln(&told, w.Header(), w.Body)
	if diff := cmp.Diff(map[string][]string{"/public/landed": {"", "", "", "", ""}}, other.seen); diff != "" {
		t.Errorf("shown where a redirect led (-want +got)\n%s", diff)
	}

	local := &local{n}
	for name := range wanted {
		x, err := local.Explain(t.Context(), "http://127.0.0.1:8180/"+name+"/file")
		fmt.Fprintln(&told, jsonOf(t, x), err)
	}
	repos, err := local.Repos(t.Context())
	fmt.Fprintln(&told, jsonOf(t, repos), err)
	status, err := local.Status(t.Context(), nil)
	fmt.Fprintln(&told, jsonOf(t, status), err)
	shown, err := n.config.Load().Marshal()
	fmt.Fprintln(&told, string(shown), jsonOf(t, n.config.Load()), err)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"log": log.String(), "answers and reports": told.String(), "data directory": contents(t, n.data)} {
		if len(text) < 500 {
			t.Errorf("the %s says next to nothing: %q", what, text)
		}
		for _, secret := range []string{"s3cret", "-me", "czNjcmV0", "dXJsLW1l", "Bearer"} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("the %s has %q: %q", what, secret, text[max(0, i-100):min(len(text), i+50)])
			}
		}
	}
}

func TestAReloadTakesCredentialsAndExemptionsAway(t *testing.T) {
	v := newVault(t)
	var log bytes.Buffer
	n := openVault(t, v, &log)
	defer n.Close()
	if w := visit(n, "/basic/one"); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	next := *n.config.Load()
	next.Repos = append([]config.Repo{}, next.Repos[1])
	next.Repos[0].Credentials = config.Credentials{}
	next.Egress.Netrc = nil
	if err := n.apply(&next); err != nil {
		t.Fatal(err)
	}
	if w := visit(n, "/basic/two"); w.Code != http.StatusBadGateway {
		t.Errorf("%d %s; want no credentials any more", w.Code, w.Body)
	}
	next.Repos = nil
	if err := n.apply(&next); err != nil {
		t.Fatal(err)
	}
	if conn, err := n.egress.DialContext(t.Context(), "tcp", v.host()); err == nil {
		conn.Close()
		t.Error("a host that is no longer configured is still exempt")
	}
	bad := next
	bad.Egress.Netrc = []string{filepath.Join(n.data, "none")}
	bad.Repos = []config.Repo{{Name: "late", Type: config.Generic, Upstream: []string{v.URL}}}
	if err := n.apply(&bad); err == nil || n.config.Load() != &next {
		t.Errorf("a netrc file that is not there: %v; want the configuration before it to stay", err)
	}
}

func TestFilesWithCredentialsThatEverybodyMayReadAreToldOf(t *testing.T) {
	dir := t.TempDir()
	file, netrc := filepath.Join(dir, "chantal.yaml"), filepath.Join(dir, "netrc")
	for path, text := range map[string]string{
		netrc: "machine mirror.example.org login me password s3cret\n",
		file: "repos:\n- {name: a, type: generic, upstream: 'http://mirror.example.org/', credentials: {token: s3cret}}\n" +
			"- {name: b, type: generic, upstream: 'http://mirror.example.org/'}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o644} {
		for _, path := range []string{file, netrc} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		cfg, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Egress.Netrc = []string{netrc}
		var log bytes.Buffer
		n, err := openNode(&environment{config: cfg, data: filepath.Join(dir, "data"), log: slog.New(slog.NewTextHandler(&log, nil))}, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		for _, path := range []string{file, netrc} {
			if told := strings.Contains(log.String(), "file="+path); told != (mode == 0o644) {
				t.Errorf("%s with mode %o: told %v in\n%s", path, mode, told, log.String())
			}
		}
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// contents are the names and bytes of all files under dir.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		fmt.Fprintln(&all, path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// moody is an upstream that can be made to refuse everything.
type moody struct {
	*testenv.Server
	status, after atomic.Int32 // 0 is none
	asked         atomic.Int32
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.asked.Add(1)
	status := int(m.status.Load())
	if status == 0 {
		m.Server.ServeHTTP(w, r)
		return
	}
	if after := m.after.Load(); after > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(after))
	}
	http.Error(w, "not now", status)
}

// openMoody opens a node with an apt repository on both upstreams, of which
// every request asks anew.
func openMoody(t *testing.T) (n *node, first, second *moody) {
	t.Helper()
	key, err := testenv.NewKey("archive", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	site := testenv.NewAPT(key, time.Now(), "bookworm")
	if err := site.Add(testenv.Package{Name: "hello", Version: "1.0", Size: 3000}); err != nil {
		t.Fatal(err)
	}
	files, err := site.Publish()
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, m := range []**moody{&first, &second} {
		up, err := testenv.NewServer()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(up.Down)
		up.Publish("debian", files)
		*m = &moody{Server: up}
		srv := httptest.NewServer(*m)
		t.Cleanup(srv.Close)
		urls = append(urls, srv.URL+"/debian")
	}
	cfg := config.Default()
	cfg.Repos = []config.Repo{{Name: "debian", Type: config.Apt, Upstream: urls}}
	n, err = openNode(&environment{config: cfg, data: t.TempDir(), log: slog.New(slog.DiscardHandler)}, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n, first, second
}

func TestUpstreamsInTroubleDoNotKeepClientsWaiting(t *testing.T) {
	const root = "/debian/dists/bookworm/InRelease"
	n, first, second := openMoody(t)
	pool := ""
	for _, path := range first.Paths() {
		if strings.HasSuffix(path, ".deb") {
			pool = path
		}
	}
	soon := func(path, cache string) {
		t.Helper()
		started := time.Now()
		w := visit(n, path)
		if took := time.Since(started); w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Cache-Status"), cache) || took > 2500*time.Millisecond {
			t.Errorf("%s: %d %s %s after %s; want it with %q soon", path, w.Code, w.Header(), w.Body, took, cache)
		}
	}
	soon(root, "fwd=miss")
	soon("/debian/dists/bookworm/main/binary-amd64/Packages.xz", "fwd=miss")
	first.status.Store(http.StatusInternalServerError)
	soon(pool, "fwd=miss") // by the second
	second.status.Store(http.StatusBadGateway)
	soon(root, "fwd=stale")
}

func TestARefreshLeavesUpstreamInPeace(t *testing.T) {
	const root = "/debian/dists/bookworm/InRelease"
	n, first, second := openMoody(t)
	if w := visit(n, root); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, m := range []*moody{first, second} {
		m.after.Store(300)
		m.status.Store(http.StatusTooManyRequests)
		m.asked.Store(0)
	}
	for _, path := range []string{root, "/debian/dists/bookworm/main/binary-amd64/Packages.xz", "/debian/README", root} {
		visit(n, path)
	}
	if a, b := first.asked.Load(), second.asked.Load(); a != 1 || b != 1 {
		t.Errorf("asked %d and %d times, want once each", a, b)
	}
	w := visit(n, "/debian/README")
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "left in peace") {
		t.Errorf("%d %s; want 503 that says why", w.Code, w.Body)
	}
}

func TestEverythingTakesTheConfiguredProxy(t *testing.T) {
	asked := make(chan string, 10)
	via := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.RequestURI + " " + r.Header.Get("Proxy-Authorization")
		if r.Method != http.MethodConnect {
			fmt.Fprint(w, "by proxy")
		}
	}))
	t.Cleanup(via.Close)
	cfg := config.Default()
	cfg.Egress.Proxy = strings.Replace(via.URL, "http://", "http://me:s3cret@", 1)
	cfg.Egress.NoProxy = []string{"direct.example.org"}
	cfg.Forward.Other = config.Pass
	cfg.Repos = []config.Repo{
		{Name: "far", Type: config.Generic, Upstream: []string{"http://mirror.example.org/"}},
		{Name: "direct", Type: config.Generic, Upstream: []string{"http://direct.example.org:1/"}},
	}
	var log bytes.Buffer
	n, err := openNode(&environment{config: cfg, data: t.TempDir(), log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}, false)
	if err != nil {
		t.Fatal(err)
	}
	own := n.handler.Load().Server("")
	front := httptest.NewUnstartedServer(own.Handler)
	front.Config.ConnContext = own.ConnContext
	front.Start()
	const login = " Basic bWU6czNjcmV0"
	for _, tc := range []struct{ method, target, asked, status string }{
		{"GET", "/far/file", "GET http://mirror.example.org/file" + login, " 200 "},
		{"POST", "http://other.example.org/form", "POST http://other.example.org/form" + login, " 200 "},
		{"CONNECT", "tls.example.org:443", "CONNECT tls.example.org:443" + login, " 200 "},
		{"CONNECT", "localhost:443", "", " 403 "},
		{"POST", "http://127.0.0.2/form", "", " 403 "},
		{"GET", "/direct/file", "", " 503 "},
	} {
		conn, err := net.Dial("tcp", front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		host := "x.example.org"
		if tc.method == "CONNECT" {
			host = tc.target
		} else if strings.HasPrefix(tc.target, "/") {
			host = "localhost"
		}
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", tc.method, tc.target, host)
		line, err := bufio.NewReader(conn).ReadString('\n')
		conn.Close()
		if err != nil || !strings.Contains(line, tc.status) {
			t.Errorf("%s %s: %q, %v; want%s", tc.method, tc.target, line, err, tc.status)
		}
		got := ""
		select {
		case got = <-asked:
		default:
		}
		if got != tc.asked {
			t.Errorf("%s %s: the proxy was asked %q, want %q", tc.method, tc.target, got, tc.asked)
		}
	}
	front.Close()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Contains(text, "s3cret") || !strings.Contains(text, "mirror.example.org") {
		t.Errorf("logged\n%s", text)
	}
}
