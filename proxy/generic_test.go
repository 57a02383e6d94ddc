package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal/snapshot"
)

// origin is an upstream whose files have the header fields that a test gives
// them.
type origin struct {
	mu    sync.Mutex
	files map[string]originFile // by request target
	asked []string              // methods and targets, and "if" where there was a condition
	tag   string                // of the last condition
}

type originFile struct {
	body   string
	header string // "Name: value", one a line
	status int
}

func (o *origin) put(target, body string, header ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.files == nil {
		o.files = map[string]originFile{}
	}
	o.files[target] = originFile{body, strings.Join(header, "\n"), http.StatusOK}
}

func (o *origin) remove(target string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.files, target)
}

// requests returns what was asked since the last call.
func (o *origin) requests() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.asked
	o.asked = nil
	return out
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	f, ok := o.files[r.RequestURI]
	what := r.Method + " " + r.RequestURI
	if tag := r.Header.Get("If-None-Match"); tag != "" {
		what += " if"
		o.tag = tag
	}
	o.asked = append(o.asked, what)
	o.mu.Unlock()
	if !ok {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	for line := range strings.Lines(f.header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		w.Header().Add(name, value)
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.body))
}

// generic is a site with a repository that has no format.
func generic(t *testing.T, change func(*Options)) (*site, *origin) {
	t.Helper()
	s, o := newSite(t, change), new(origin)
	s.serveOrigin(o.ServeHTTP)
	s.add("files", "generic", "http://o.example.org/pub/")
	return s, o
}

// wants fails the test unless a path of the repository files has that content,
// and exactly these requests went upstream for it.
func (s *site) wants(o *origin, what, path, body, state string, asked []string, header ...string) got {
	s.t.Helper()
	g := s.direct(path, header...)
	if g.status != http.StatusOK || string(g.body) != body || !strings.HasPrefix(g.header.Get("Cache-Status"), state) {
		s.t.Errorf("%s: %d %.60q, %q, %v; want %.60q, %q", what, g.status, g.body, g.header.Get("Cache-Status"), g.err, body, state)
	}
	if diff := cmp.Diff(asked, o.requests()); diff != "" {
		s.t.Errorf("%s: requests upstream (-want +got):\n%s", what, diff)
	}
	if g.header.Get("Chantal-Ref") == "" && state == fresh {
		s.kept(s.t.(*testing.T), func(name, value string) int { return s.direct(path, name, value).status })
	}
	// Until its arrival has been observed, a file has no generation.
	for n := 0; g.header.Get("Chantal-Ref") != "" && g.header.Get("Chantal-Generation") == ""; n++ {
		if n == 1000 {
			s.t.Fatalf("%s: never observed", what)
		}
		time.Sleep(5 * time.Millisecond)
		g.header = s.direct(path).header
		o.requests()
	}
	return g
}

const (
	hit   = "chantal; hit"
	fresh = "chantal; fwd=miss; stored"
	stale = "chantal; fwd=stale"
)

func TestGenericFilesAreGoodForAsLongAsUpstreamSays(t *testing.T) {
	s, o := generic(t, nil)
	o.put("/pub/day.txt", "one", "Cache-Control: max-age=86400", `Etag: "1"`)
	o.put("/pub/never.txt", "one", "Cache-Control: no-cache", `Etag: "1"`)
	o.put("/pub/silent.txt", "one", `Etag: "1"`)
	for _, name := range []string{"day", "never", "silent"} {
		s.wants(o, name, "/files/"+name+".txt", "one", fresh, []string{"GET /pub/" + name + ".txt"})
	}
	s.advance(30 * time.Second)
	s.wants(o, "half a minute", "/files/day.txt", "one", hit, nil)
	s.wants(o, "half a minute", "/files/silent.txt", "one", hit, nil)
	s.wants(o, "at once", "/files/never.txt", "one", hit, []string{"GET /pub/never.txt if"})
	s.wants(o, "the client insists", "/files/day.txt", "one", hit, []string{"GET /pub/day.txt if"}, "Cache-Control", "no-cache")
	s.advance(time.Hour)
	s.wants(o, "an hour", "/files/day.txt", "one", hit, nil)
	g := s.wants(o, "beyond refresh", "/files/silent.txt", "one", hit, []string{"GET /pub/silent.txt if"})
	g.wantHeader(t, "live", "Cache-Control", "no-cache", "Chantal-Ref", "files@live", "Chantal-Generation", "1")
	s.advance(24 * time.Hour)
	o.put("/pub/day.txt", "two", `Etag: "2"`)
	s.wants(o, "a day", "/files/day.txt", "two", fresh, []string{"GET /pub/day.txt if"}).
		wantHeader(t, "a day", "Chantal-Generation", "2")
	// The same bytes under another tag are asked for by that from then on.
	s.advance(time.Hour)
	o.put("/pub/silent.txt", "one", `Etag: "3"`)
	s.wants(o, "another tag", "/files/silent.txt", "one", hit, []string{"GET /pub/silent.txt if"})
	s.advance(time.Hour)
	g = s.wants(o, "the other tag", "/files/silent.txt", "one", hit, []string{"GET /pub/silent.txt if"})
	g.wantHeader(t, "the other tag", "Chantal-Generation", "1")
	if o.mu.Lock(); o.tag != `"3"` {
		t.Errorf("it was asked for by %s", o.tag)
	}
	o.mu.Unlock()
}

func TestGenericFilesThatAreNotThere(t *testing.T) {
	s, o := generic(t, nil)
	s.direct("/files/none").wantProblem(t, "no such file", 404)
	s.advance(9 * time.Second)
	s.direct("/files/none").wantProblem(t, "believed for a while", 404)
	if diff := cmp.Diff([]string{"GET /pub/none"}, o.requests()); diff != "" {
		t.Errorf("requests upstream (-want +got):\n%s", diff)
	}
	o.put("/pub/none", "here", `Etag: "1"`)
	s.wants(o, "the client insists", "/files/none", "here", fresh, []string{"GET /pub/none"}, "Cache-Control", "no-cache")
	o.remove("/pub/none")
	s.advance(time.Minute)
	s.direct("/files/none").wantProblem(t, "gone", 404)
	o.put("/pub/none", "back", `Etag: "2"`)
	s.direct("/files/none").wantProblem(t, "gone for a while", 404)
	s.advance(10 * time.Second)
	s.wants(o, "back", "/files/none", "back", fresh, []string{"GET /pub/none if", "GET /pub/none if"})
	o.remove("/pub/none")
	s.advance(time.Minute)
	s.direct("/files/none").wantProblem(t, "gone for good", 404)
	s.serveOrigin(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	s.advance(time.Minute)
	s.direct("/files/none").wantProblem(t, "gone, and upstream down", 503)
}

func TestGenericFilesThatUpstreamForbidsToKeep(t *testing.T) {
	s, o := generic(t, nil)
	for _, control := range []string{"no-store", "private, max-age=60"} {
		name := strings.Fields(control)[0][:7]
		path, target := "/files/"+name, "/pub/"+name
		o.put(target, "secret", "Cache-Control: "+control, `Etag: "1"`)
		g := s.wants(o, control, path, "secret", "chantal; fwd=", []string{"GET " + target, "GET " + target}, "Cookie", "a=b", "Authorization", "Basic eA==")
		g.wantHeader(t, control, "Cache-Control", control)
		s.wants(o, control+" again", path, "secret", "chantal; fwd=", []string{"GET " + target})
		if strings.Contains(g.header.Get("Cache-Status"), "stored") {
			t.Errorf("%s: it says that it is stored", control)
		}
		if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "with-" + name}, func(string) {}); err != nil {
			t.Fatal(err)
		}
		s.direct("/files@with-"+name+"/"+name).wantProblem(t, "in a snapshot", 404)
		s.advance(time.Minute)
		o.put(target, "public", `Etag: "2"`)
		s.wants(o, control+" no longer", path, "public", fresh, []string{"GET " + target})
		s.wants(o, "then kept", path, "public", hit, nil)
	}
}

func TestQueriesOfGenericFilesAreFilesOfTheirOwn(t *testing.T) {
	s, o := generic(t, nil)
	o.put("/pub/get", "plain", `Etag: "0"`)
	o.put("/pub/get?f=a%2Fb", "ab", "Cache-Control: max-age=60")
	o.put("/pub/get?f=c", "c", "Cache-Control: max-age=60")
	s.wants(o, "no query", "/files/get", "plain", fresh, []string{"GET /pub/get"})
	for _, what := range []string{fresh, hit} {
		for query, body := range map[string]string{"f=a%2Fb": "ab", "f=c": "c"} {
			asked := []string{"GET /pub/get?" + query}
			if what == hit {
				asked = nil
			}
			s.wants(o, query, "/files/get?"+query, body, what, asked)
			if g := s.request(http.MethodGet, "http://o.example.org/pub/get?"+query, s.addr); string(g.body) != body {
				t.Errorf("%s through the proxy: %d %q", query, g.status, g.body)
			}
			o.requests()
		}
	}
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "first"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	s.direct("/files@first/get").is(t, "frozen", []byte("plain"))
	s.direct("/files@first/get?f=c").wantProblem(t, "a query, frozen", 404)
}

func TestAWebPageIsNoGenericFile(t *testing.T) {
	s, o := generic(t, nil)
	const page = "<html>Please log in</html>"
	o.put("/pub/a.iso", page, "Content-Type: text/html")
	s.direct("/files/a.iso").wantProblem(t, "a portal at first", 502)
	s.advance(2 * time.Second)
	o.requests()
	o.put("/pub/a.iso", "image", `Etag: "1"`)
	s.wants(o, "then the file", "/files/a.iso", "image", fresh, []string{"GET /pub/a.iso"})
	s.advance(time.Hour)
	o.put("/pub/a.iso", page, "Content-Type: text/html")
	s.wants(o, "a portal later", "/files/a.iso", "image", stale, []string{"GET /pub/a.iso if"})
	o.put("/pub/", page, "Content-Type: text/html")
	for range 2 {
		g := s.direct("/files/")
		g.is(t, "a listing", []byte(page))
		if diff := cmp.Diff([]string{"GET /pub/"}, o.requests()); diff != "" {
			t.Errorf("a listing: requests upstream (-want +got):\n%s", diff)
		}
		if g.header.Get("Chantal-Ref") != "" {
			t.Errorf("the address of a repository is no file of it: %v", g.header)
		}
	}
}

// What people do with such a repository: an image by ranges, a key, a file that
// changes; frozen, and answered again when upstream is gone.
func TestGenericRepositoryFromEndToEnd(t *testing.T) {
	s, o := generic(t, nil)
	image := strings.Repeat("0123456789abcdef", 20_000)
	o.put("/pub/images/a.iso", image, `Etag: "i"`)
	o.put("/pub/keys/archive.key", "the key", `Etag: "k"`)
	o.put("/pub/changelog", "one", `Etag: "c1"`)
	g := s.direct("/files/images/a.iso", "Range", "bytes=16-31")
	if g.status != http.StatusPartialContent || string(g.body) != "0123456789abcdef" || g.header.Get("Content-Range") != fmt.Sprintf("bytes 16-31/%d", len(image)) {
		t.Errorf("a range: %d %q %v", g.status, g.body, g.header)
	}
	s.wants(o, "all of it", "/files/images/a.iso", image, "chantal; ", []string{"GET /pub/images/a.iso"})
	g = s.direct("/files/images/a.iso", "Range", fmt.Sprint("bytes=", len(image), "-"))
	if g.status != http.StatusRequestedRangeNotSatisfiable || g.header.Get("Content-Range") != fmt.Sprint("bytes */", len(image)) {
		t.Errorf("a range beyond the end: %d %v", g.status, g.header)
	}
	if g := s.request(http.MethodHead, "http://"+s.addr+"/files/images/a.iso", ""); g.length != int64(len(image)) {
		t.Errorf("HEAD: %d, %d bytes", g.status, g.length)
	}
	s.wants(o, "a key", "/files/keys/archive.key", "the key", fresh, []string{"GET /pub/keys/archive.key"})
	s.wants(o, "a changelog", "/files/changelog", "one", fresh, []string{"GET /pub/changelog"})
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "first"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	s.advance(2 * time.Minute)
	o.put("/pub/changelog", "two", `Etag: "c2"`)
	s.wants(o, "a new changelog", "/files/changelog", "two", fresh, []string{"GET /pub/changelog if"})
	o.put("/pub/later", "later")
	s.wants(o, "a later file", "/files/later", "later", fresh, []string{"GET /pub/later"})

	for target := range map[string]bool{"/pub/images/a.iso": true, "/pub/keys/archive.key": true, "/pub/changelog": true} {
		o.remove(target)
	}
	s.serveOrigin(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	s.advance(2 * time.Minute)
	for path, want := range map[string]string{"images/a.iso": image, "keys/archive.key": "the key", "changelog": "one"} {
		g := s.direct("/files@first/" + path)
		g.is(t, path+", frozen", []byte(want))
		g.wantHeader(t, path+", frozen", "Cache-Control", immutable, "Chantal-Ref", "files@first", "Cache-Status", hit)
		s.request(http.MethodGet, "http://o.example.org/pub/"+path, "first:x@"+s.addr).is(t, path+", by proxy user", []byte(want))
	}
	s.direct("/files@first/later").wantProblem(t, "a later file, frozen", 404)
	s.wants(o, "live, upstream down", "/files/changelog", "two", stale, nil)
	s.direct("/files/unknown").wantProblem(t, "a new file, upstream down", 503)
}

func TestAnInstantOfAGenericRepository(t *testing.T) {
	s, o := generic(t, nil)
	o.put("/pub/a", "one")
	s.wants(o, "first", "/files/a", "one", fresh, []string{"GET /pub/a"})
	at := snapshot.DefaultName(s.now().Add(time.Second))
	s.advance(time.Hour)
	o.put("/pub/a", "two")
	s.wants(o, "second", "/files/a", "two", fresh, []string{"GET /pub/a"})
	s.wants(o, "then", "/files@"+at+"/a", "one", hit, nil)
}

// A large file is passed on as it arrives also where it is not kept.
func TestFilesThatAreNotKeptAreStreamed(t *testing.T) {
	s := newSite(t, nil)
	release := make(chan struct{})
	s.serveOrigin(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Write(bytes.Repeat([]byte("x"), 1<<20))
		w.(http.Flusher).Flush()
		<-release
		io.WriteString(w, "end")
	})
	s.add("files", "generic", "http://o.example.org/pub/")
	resp, err := http.Get("http://" + s.addr + "/files/big")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
		t.Errorf("the first MiB did not come before the end: %v", err)
	}
	close(release)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "end" {
		t.Errorf("the rest is %q, %v", rest, err)
	}
}

func TestAClientsSecretsAreNotForTheUpstreamOfARepository(t *testing.T) {
	s := newSite(t, nil)
	var mu sync.Mutex
	var seen []string
	s.serveOrigin(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Header.Get("Authorization")+r.Header.Get("Cookie"))
		w.Header().Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, "content")
	})
	s.add("files", "generic", "http://o.example.org/")
	for _, path := range []string{"/files/f.bin", "/files/f.bin?version=2"} {
		s.direct(path, "Authorization", "Basic c2VjcmV0", "Cookie", "secret=1").is(t, path, []byte("content"))
	}
	mu.Lock()
	defer mu.Unlock()
	for _, got := range seen {
		if got != "" {
			t.Errorf("upstream got %q", got)
		}
	}
	if len(seen) < 2 {
		t.Errorf("upstream got %d requests", len(seen))
	}
}
