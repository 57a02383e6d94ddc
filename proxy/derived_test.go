package proxy

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chantal/internal/testenv"
	"chantal/snapshot"
)

// legacy is what is read of the JSON of a project or release.
type legacy struct {
	Info struct {
		Version      string
		RequiresDist []string `json:"requires_dist"`
	}
	Releases map[string][]struct{ Filename string }
	URLs     []struct{ Filename, URL string }
}

func (s *site) legacy(t *testing.T, g got) legacy {
	t.Helper()
	var doc legacy
	if err := json.Unmarshal(g.body, &doc); g.status != http.StatusOK || err != nil {
		t.Fatalf("%d, %v, %.300s", g.status, err, g.body)
	}
	g.wantHeader(t, "JSON", "Content-Type", "application/json")
	return doc
}

// index publishes an index with provenance that has six in these versions.
func (s *site) index(t *testing.T, index *testenv.PyPI, versions ...string) testenv.Files {
	t.Helper()
	for _, v := range versions {
		if err := index.Add(testenv.Package{Name: "six", Version: v, Depends: "idna>=" + v}, s.now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := index.Publish()
	if err != nil {
		t.Fatal(err)
	}
	s.up.Publish("", files)
	s.advance(2 * time.Minute)
	return files
}

func TestWhatIsBesideAPageIsOfOneStateWithIt(t *testing.T) {
	s := newSite(t, nil)
	index := testenv.NewPyPI(s.now())
	index.Integrity = "https://index.example.org/"
	old := s.index(t, index, "1.0")
	s.add("pypi", "pypi", "https://index.example.org/simple/")

	doc := s.legacy(t, s.direct("/pypi/pypi/Six/json"))
	if doc.Info.Version != "1.0" || len(doc.Releases) != 1 || len(doc.Info.RequiresDist) != 1 || doc.Info.RequiresDist[0] != "idna>=1.0" {
		t.Errorf("live: %+v", doc)
	}
	x, err := s.handler.Explain(t.Context(), "/pypi/pypi/six/json", "127.0.0.1:8180")
	if err != nil || x.Status != http.StatusOK || !strings.HasPrefix(x.Verdict, "made here, when it is asked for, of the page simple/six/: ") {
		t.Errorf("explained as %+v, %v", x, err)
	}
	const attested = "integrity/six/1.0/six-1.0-py3-none-any.whl/provenance"
	base, _ := url.Parse("/pypi/pypi/six/1.0/json")
	doc = s.legacy(t, s.direct(base.Path))
	for _, u := range doc.URLs {
		at, err := base.Parse(u.URL)
		if err != nil || !strings.HasPrefix(at.Path, "/pypi/+files/sha256/") {
			t.Fatalf("%s leads to %v", u.URL, at)
		}
		if g := s.direct(at.EscapedPath()); g.status != http.StatusOK {
			t.Errorf("%s: %d", u.URL, g.status)
		}
	}
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "then"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if n := s.up.Count("/" + attested); n != 1 {
		t.Errorf("the provenance of a file that was fetched was asked for %d times", n)
	}
	now := s.index(t, index, "2.0")

	if doc = s.legacy(t, s.direct("/pypi/pypi/six/json")); doc.Info.Version != "2.0" || len(doc.Releases) != 2 {
		t.Errorf("live: %+v", doc)
	}
	s.direct("/pypi/"+attested).is(t, "live provenance", now[attested].Content)
	for _, where := range []string{"beside upstream", "alone"} {
		g := s.direct("/pypi@then/pypi/six/json")
		g.wantHeader(t, where, "Cache-Control", immutable, "Chantal-Ref", "pypi@then", "Chantal-Generation", "1")
		if doc = s.legacy(t, g); doc.Info.Version != "1.0" || len(doc.Releases) != 1 || len(doc.Info.RequiresDist) != 1 {
			t.Errorf("%s: %+v", where, doc)
		}
		s.direct("/pypi@then/pypi/six/2.0/json").wantProblem(t, "a release of later", 404)
		s.direct("/pypi@then/pypi/idna/json").wantProblem(t, "a project that was never seen", 404)
		s.direct("/pypi@then/"+attested).is(t, "provenance of then", old[attested].Content)
		s.direct("/pypi@then/integrity/six/1.0/six-1.0-py3-none-any.whl/other").wantProblem(t, "something else", 404)

		forward := func(target string) got {
			return s.request(http.MethodGet, "http://index.example.org/"+target, "then:x@"+s.addr)
		}
		doc = s.legacy(t, forward("pypi/six/1.0/json"))
		if want := "https://index.example.org/files/"; len(doc.URLs) == 0 || !strings.HasPrefix(doc.URLs[0].URL, want) {
			t.Errorf("%s: through the proxy files are at %+v", where, doc.URLs)
		}
		forward(attested).is(t, "provenance through the proxy", old[attested].Content)
		forward("pypi/six/json").wantHeader(t, where, "Cache-Control", revalidate)
		if g := forward("pypi/six/extra/json"); g.status != http.StatusNotFound {
			t.Errorf("%s: no such release: %d", where, g.status)
		}
		s.goOffline()
	}
	page := s.direct("/pypi@then/simple/six/", "Accept", testenv.SimpleJSON)
	if !strings.Contains(string(page.body), `"provenance":"https://index.example.org/`+attested) {
		t.Errorf("the page names another provenance: %s", page.body)
	}
	doc = s.legacy(t, s.request(http.MethodGet, "http://index.example.org/pypi/six/json", s.addr))
	if doc.Info.Version != "2.0" {
		t.Errorf("live, offline: %+v", doc)
	}
}

// In live the index itself answers through the proxy: it knows more.
func TestTheIndexAnswersForItselfInLive(t *testing.T) {
	s := newSite(t, func(o *Options) { o.PassOther = true })
	s.index(t, testenv.NewPyPI(s.now()), "1.0")
	s.up.Publish("pypi", testenv.Files{"six/json": {Content: []byte(`{"vulnerabilities":[]}`), Type: "application/json"}})
	s.add("pypi", "pypi", "https://index.example.org/simple/")
	s.request(http.MethodGet, "http://index.example.org/pypi/six/json", s.addr).is(t, "live", []byte(`{"vulnerabilities":[]}`))
	if doc := s.legacy(t, s.direct("/pypi/pypi/six/json")); doc.Info.Version != "1.0" {
		t.Errorf("at the mirror URL: %+v", doc)
	}
}

// Inside an intercepted connection a ref holds for what is beside the pages,
// too: that is where poetry asks.
func TestWhatIsBesideAPageInsideAnInterceptedConnection(t *testing.T) {
	s, ca := interceptingSite(t, "index.example.org", nil)
	s.index(t, testenv.NewPyPI(s.now()), "1.0")
	s.add("pypi", "pypi", "https://index.example.org/simple/")
	s.direct("/pypi/simple/six/")
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "then"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	s.up.Publish("pypi", testenv.Files{"six/json": {Content: []byte(`{"info":{"version":"the index says"}}`), Type: "application/json"}})
	ask := func(user, target string) got {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://index.example.org"+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transportThrough(t, user+s.addr, ca).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return got{status: resp.StatusCode, header: resp.Header, body: body, err: err, length: resp.ContentLength}
	}
	doc := s.legacy(t, ask("then:x@", "/pypi/six/1.0/json"))
	if doc.Info.Version != "1.0" || len(doc.URLs) != 2 || !strings.HasPrefix(doc.URLs[0].URL, "https://index.example.org/files/") {
		t.Errorf("%+v", doc)
	}
	ask("then:x@", "/pypi/six/2.0/json").wantProblem(t, "a release of later", 404)
	if doc = s.legacy(t, ask("", "/pypi/six/json")); doc.Info.Version != "the index says" {
		t.Errorf("live is not what the index says: %+v", doc)
	}
}
