package proxy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/internal/testenv"
	"chantal/snapshot"
)

func TestProxyUser(t *testing.T) {
	for text, want := range map[string]string{
		"prod:x":                      "prod",
		"prod:":                       "prod",
		"prod":                        "prod",
		":x":                          "",
		"":                            "",
		"2026-11-23T08:15:00Z:x":      "2026-11-23T08:15:00Z",
		"2026-11-23T08:15:00Z":        "2026-11-23T08:15:00Z",
		"2026-11-23T08:15:00Z~b:x":    "2026-11-23T08:15:00Z~b",
		"2026-11-23T08:15:00Z+signed": "2026-11-23T08:15:00Z+signed",
		"20261123T081500Z:x:y":        "20261123T081500Z",
		"2026-11-23T08:15:x":          "2026-11-23T08",
	} {
		if got := proxyUser("Basic " + base64.StdEncoding.EncodeToString([]byte(text))); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
		if got := proxyUser("basic  " + base64.StdEncoding.EncodeToString([]byte(text))); got != want {
			t.Errorf("%q in lower case: got %q, want %q", text, got, want)
		}
	}
	for _, header := range []string{"", "Basic", "Basic %%%", "Bearer cHJvZDp4", "Digest x"} {
		if got := proxyUser(header); got != "" {
			t.Errorf("%q: got %q", header, got)
		}
	}
}

// twoStates is a site with a package that has other bytes under one path in the
// snapshot old and live; and a file that no metadata speaks of.
func twoStates(t *testing.T) (s *site, at string, old, new testenv.Files) {
	t.Helper()
	s = newSite(t, nil)
	hello := testenv.Package{Name: "hello", Version: "1", Build: 1}
	suite, old := s.debian(hello)
	at = suite.PoolPath(hello)
	old["keys/archive.key"] = testenv.File{Content: []byte("old key")}
	s.up.Publish("debian", old)
	for _, p := range []string{inRelease, packagesXZ, at, "keys/archive.key"} {
		s.direct("/debian/"+p).is(t, p, old[p].Content)
	}
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "old"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	hello.Build = 2
	new = s.publish(suite, hello, testenv.Package{Name: "added", Version: "1"})
	new["keys/archive.key"] = testenv.File{Content: []byte("new key!")}
	s.up.Publish("debian", new)
	for _, p := range []string{inRelease, packagesXZ, at, "keys/archive.key"} {
		s.direct("/debian/"+p).is(t, p, new[p].Content)
	}
	return s, at, old, new
}

func TestEveryDoorHoldsToItsRef(t *testing.T) {
	s, at, old, new := twoStates(t)
	listener := s.listen("old")
	s.up.Down()
	for _, p := range []string{inRelease, packagesXZ, at, "keys/archive.key"} {
		upstream := "http://a.mirror.example.org/debian/" + p
		get := func(target, proxy string) got { return s.request(http.MethodGet, target, proxy) }
		s.direct("/debian@old/"+p).is(t, "snapshot by URL: "+p, old[p].Content)
		s.direct("/-/at/old/a.mirror.example.org/debian/"+p).is(t, "snapshot by host: "+p, old[p].Content)
		s.direct("/-/at/live/a.mirror.example.org/debian/"+p).is(t, "live by host: "+p, new[p].Content)
		s.direct("/debian%40old/"+p).is(t, "snapshot by encoded URL: "+p, old[p].Content)
		s.direct("/debian/"+p).is(t, "live by URL: "+p, new[p].Content)
		s.direct("/debian@live/"+p).is(t, "live by name: "+p, new[p].Content)
		get(upstream, s.addr).is(t, "live by proxy: "+p, new[p].Content)
		get(upstream, "old:x@"+s.addr).is(t, "snapshot by proxy user: "+p, old[p].Content)
		get(upstream, "old@"+s.addr).is(t, "snapshot by proxy user without a password: "+p, old[p].Content)
		get(upstream, listener).is(t, "snapshot by listener: "+p, old[p].Content)
		get(upstream, ":x@"+listener).is(t, "snapshot by listener, empty user: "+p, old[p].Content)
		get(upstream, "live:x@"+listener).is(t, "live by user over listener: "+p, new[p].Content)
		get("http://"+s.addr+"/debian@old/"+p, s.addr).is(t, "its own URL through itself: "+p, old[p].Content)
		get("http://"+s.addr+"/debian@old/"+p, "live:x@"+s.addr).is(t, "ref in the URL over user: "+p, old[p].Content)
	}
	s.direct("/debian@old/pool/main/a/added/added_1_all.deb").wantProblem(t, "what was added later", 404)
}

func TestARepositoryThatIsNoLongerConfiguredHasItsPastOnly(t *testing.T) {
	s, at, old, _ := twoStates(t)
	settings := s.mirror.Repo("debian").Settings
	settings.Retired = true
	if _, err := s.mirror.Add(settings); err != nil {
		t.Fatal(err)
	}
	s.direct("/debian@old/"+at).is(t, "its snapshot", old[at].Content)
	s.direct("/debian/"+inRelease).wantProblem(t, "its newest state", 404)
	if repo, _ := s.mirror.Find(t.Context(), &url.URL{Scheme: "http", Host: "a.mirror.example.org", Path: "/debian/" + inRelease}); repo != nil {
		t.Error("its upstream still leads to it")
	}
}

func TestAnInstantByEveryDoor(t *testing.T) {
	s, at, old, _ := twoStates(t)
	snap, err := s.names.Get("old")
	if err != nil {
		t.Fatal(err)
	}
	second := snap.Repos[0].At.Add(time.Second)
	for _, text := range []string{second.UTC().Format("2006-01-02T15:04:05Z"), snapshot.DefaultName(second)} {
		s.direct("/debian@"+text+"/"+at).is(t, text, old[at].Content)
		s.direct("/debian@"+strings.ReplaceAll(text, ":", "%3A")+"/"+at).is(t, text+" encoded", old[at].Content)
		s.request(http.MethodGet, "http://a.mirror.example.org/debian/"+at, url.PathEscape(text)+":x@"+s.addr).is(t, text+" by proxy", old[at].Content)
	}
}

func TestThePathsThatClientsSpell(t *testing.T) {
	s := newSite(t, nil)
	plus := testenv.Package{Name: "g++", Version: "1:2~3"}
	suite, files := s.debian(plus)
	at := suite.PoolPath(plus)
	s.direct("/debian/"+inRelease).is(t, "root", files[inRelease].Content)
	s.direct("/debian/"+packagesXZ).is(t, "index", files[packagesXZ].Content)
	spelled := strings.NewReplacer("+", "%2B", "~", "%7E").Replace((&url.URL{Path: at}).EscapedPath())
	for _, p := range []string{"/debian/" + spelled, "/debian//" + (&url.URL{Path: at}).EscapedPath(), "/debian/./" + spelled} {
		raw(s, "GET", p, "").is(t, p, files[at].Content)
	}
	for _, p := range []string{"/debian/./" + inRelease, "/debian//" + inRelease, "/%64ebian/" + inRelease} {
		raw(s, "GET", p, "").is(t, p, files[inRelease].Content)
	}
	g := s.direct("/debian")
	if loc := g.header.Get("Location"); g.status != http.StatusMovedPermanently || loc != "/debian/" {
		t.Errorf("a repository without a slash: %d to %q", g.status, loc)
	}
}

func TestHTTPSByName(t *testing.T) {
	s := newSite(t, nil)
	_, files := s.debian(testenv.Package{Name: "hello", Version: "1"})
	s.up.Publish("secure", files)
	s.add("secure", "apt", "https://secure.example.org/secure/")
	for _, form := range []string{"http://HTTPS///secure.example.org/secure/", "http://https/secure.example.org/secure/", "http://HttpS///secure.example.org:443/secure/"} {
		g := s.request(http.MethodGet, form+inRelease, s.addr)
		g.is(t, form, files[inRelease].Content)
		g.wantHeader(t, form, "Chantal-Ref", "secure@live")
	}
	// A repository that is known by https answers for its http URLs, never the
	// other way round.
	s.request(http.MethodGet, "http://secure.example.org/secure/"+inRelease, s.addr).is(t, "http", files[inRelease].Content)
	g := s.request(http.MethodGet, "http://HTTPS///a.mirror.example.org/debian/"+inRelease, s.addr)
	if ref := g.header.Get("Chantal-Ref"); ref == "debian@live" {
		t.Error("an https URL was answered from a repository that is known by http alone")
	}
}

func TestOwnPages(t *testing.T) {
	s := newSite(t, func(o *Options) { o.CA = []byte("-----BEGIN CERTIFICATE-----\n") })
	for path, want := range map[string]string{"/-/healthz": "ok\n", "/-/readyz": "ok\n", "/-/ca.pem": "-----BEGIN CERTIFICATE-----\n"} {
		s.direct(path).is(t, path, []byte(want))
		s.request(http.MethodGet, "http://"+s.addr+path, s.addr).is(t, path+" through itself", []byte(want))
	}
	if g := s.direct("/-/metrics"); g.status != http.StatusOK || !bytes.Contains(g.body, []byte("go_goroutines")) {
		t.Errorf("metrics: %d", g.status)
	}
	if g := s.direct("/"); g.status != http.StatusFound || g.header.Get("Location") != "/-/ui/" {
		t.Errorf("the top: %d to %q", g.status, g.header.Get("Location"))
	}
	for host, status := range map[string]int{"localhost": 200, "chantal.example.org:8180": 200, "[::1]:8180": 200, "build": 200, "rebound.example.com": 403} {
		if g := s.direct("/-/metrics", "Host", host); g.status != status {
			t.Errorf("Host %s: got %d, want %d", host, g.status, status)
		}
	}
}

func TestAPageBeforeItsTimeIsCutAndNotKept(t *testing.T) {
	s := newSite(t, nil)
	pages := testenv.NewPyPI(s.now())
	uploaded := s.now().Add(-48 * time.Hour)
	for version, at := range map[string]time.Time{"1.0": uploaded.Add(-1000 * time.Hour), "2.0": uploaded} {
		if err := pages.Add(testenv.Package{Name: "six", Version: version}, at); err != nil {
			t.Fatal(err)
		}
	}
	files, err := pages.Publish()
	if err != nil {
		t.Fatal(err)
	}
	s.up.Publish("", files)
	s.add("pypi", "pypi", "http://index.example.org/simple/")
	before := snapshot.DefaultName(uploaded)
	for _, accept := range []string{testenv.SimpleJSON, "text/html"} {
		g := s.direct("/pypi@"+before+"/simple/six/", "Accept", accept)
		if g.status != http.StatusOK || !bytes.Contains(g.body, []byte("six-1.0")) || bytes.Contains(g.body, []byte("six-2.0")) {
			t.Errorf("%s: %d, %.300s", accept, g.status, g.body)
		}
		g.wantHeader(t, accept, "Cache-Control", revalidate, "Chantal-Generation", "", "Vary", "Accept")
		g = s.direct("/pypi/simple/six/", "Accept", accept)
		if !bytes.Contains(g.body, []byte("six-2.0")) || !bytes.Contains(g.body, []byte("../../+files/sha256/")) {
			t.Errorf("live, %s: %d, %.300s", accept, g.status, g.body)
		}
		again := s.direct("/pypi/simple/six/", "Accept", accept, "If-Modified-Since", g.header.Get("Last-Modified"))
		if again.status != http.StatusOK {
			t.Errorf("%s: a date confirms a page, which has two representations: %d", accept, again.status)
		}
		if again = s.direct("/pypi/simple/six/", "Accept", accept, "If-None-Match", g.header.Get("Etag")); again.status != http.StatusNotModified {
			t.Errorf("%s: the tag does not confirm the page: %d", accept, again.status)
		}
	}
	s.direct("/pypi@"+snapshot.DefaultName(uploaded.Add(-2000*time.Hour))+"/simple/six/").wantProblem(t, "before the first upload", 404)
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "past", At: s.now().Add(-24 * time.Hour)}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	s.direct("/pypi@past/simple/six/").wantProblem(t, "a named snapshot of then", 404)
	g := s.direct("/pypi@past/simple/Six", "Accept", "text/html")
	if loc := g.header.Get("Location"); g.status != http.StatusMovedPermanently || loc != "/pypi@past/simple/six/" {
		t.Errorf("another spelling: %d to %q", g.status, loc)
	}
}

func FuzzMirrorURL(f *testing.F) {
	for _, path := range []string{
		"/", "/debian/x", "/debian@prod/dists/../x", "/debian%40prod/a%2Fb", "/debian@/x", "/debian~b/x", "//x", "/-/healthz",
		"/debian@2026-11-23T08:15:00Z/x", "/debian/%2e%2e/x", "/debian/a%00", "/debian/.", "/%64ebian@live//./a/", "/a@b@c/d", "/debian",
	} {
		f.Add(path)
	}
	s := newFuzzSite(f)
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil || u.Host != "" || !strings.HasPrefix(raw, "/") {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = u
		target, err := s.handler.mirrorURL(r)
		if err != nil {
			if status, _ := statusOf(err); status < 400 || status == 500 {
				t.Errorf("%q: %d %v", raw, status, err)
			}
			return
		}
		if target.own != nil {
			return
		}
		if p := target.path; strings.HasPrefix(p, "/") || strings.Contains(p, "//") || strings.Contains("/"+p+"/", "/./") {
			t.Errorf("%q is the path %q", raw, p)
		}
		view, err := s.handler.view(r, target)
		if err != nil {
			return
		}
		file, err := view.Open(t.Context(), target.path)
		if err == nil {
			file.Close()
			t.Errorf("%q is answered with %s", raw, file.Path)
		}
		leaves := path.Clean("/"+target.path) != "/"+strings.TrimSuffix(target.path, "/")
		if refused := new(chantal.RefusedError); leaves && target.path != "" && !errors.As(err, &refused) {
			t.Errorf("%q, which is %q: %v", raw, target.path, err)
		}
	})
}

// newFuzzSite is a site whose repository debian has nothing.
func newFuzzSite(f *testing.F) *site {
	f.Helper()
	s := newSite(f, nil)
	s.add("debian", "apt", "http://a.mirror.example.org/debian/")
	return s
}
