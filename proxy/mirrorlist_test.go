package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/internal/testenv"
	"chantal/mirror"
	"chantal/plugins/rpm"
	"chantal/snapshot"
)

const (
	repomd     = "repodata/repomd.xml"
	theList    = "http://mirrors.example.org/metalink?repo=el-9&arch=x86_64"
	theMirror  = "http://a.mirror.example.org/el9/"
	recognised = "mirrors.example.org-metalink-arch-x86_64-repo-el-9"
)

// el9 is a repository with a metalink.
type el9 struct {
	*site
	rpm     *testenv.RPM
	present []byte // the repomd.xml that upstream has
}

func newEL9(t *testing.T, change func(*Options)) *el9 {
	t.Helper()
	e := &el9{site: newSite(t, change), rpm: testenv.NewRPM(nil, time.Now())}
	e.publish("1.0")
	return e
}

func (e *el9) publish(version string) {
	e.t.Helper()
	if err := e.rpm.Add(testenv.Package{Name: "hello", Version: version}); err != nil {
		e.t.Fatal(err)
	}
	files, err := e.rpm.Publish()
	if err != nil {
		e.t.Fatal(err)
	}
	e.up.Publish("el9", files)
	e.present = files[repomd].Content
	e.up.Put("/metalink", testenv.Metalink([]string{theMirror}, e.present))
	e.up.Put("/mirrorlist", testenv.Mirrorlist(theMirror))
	e.advance(11 * time.Minute)
}

func (e *el9) freeze(name string) {
	e.t.Helper()
	if _, err := e.names.Create(e.t.Context(), snapshot.Request{Name: name}, func(string) {}); err != nil {
		e.t.Fatal(err)
	}
	e.advance(time.Minute)
}

// leads fails the test unless an answer is a metalink that names just the root
// want and leads to base and nowhere else, and returns where that is.
func (g got) leads(t *testing.T, what, base string, want []byte) string {
	t.Helper()
	if g.status != http.StatusOK || g.err != nil {
		t.Fatalf("%s: %d, %v, %.300s", what, g.status, g.err, g.body)
	}
	g.wantHeader(t, what, "Content-Type", "application/metalink+xml", "Cache-Control", "no-cache")
	l, err := rpm.Format{}.ParseList(g.body)
	if err != nil {
		t.Fatalf("%s: %v in\n%s", what, err, g.body)
	}
	sum := sha256.Sum256(want)
	hex := hex.EncodeToString(sum[:])
	if len(l.Bases) != 1 || l.Bases[0] != base+"+root/"+hex+"/" {
		t.Fatalf("%s leads to %v, want %s", what, l.Bases, base)
	}
	if got := l.Roots[0]; got.Digests[0] != chantal.Digest("sha256:"+hex) || got.Size != int64(len(want)) || got.Date.IsZero() {
		t.Fatalf("%s names %+v", what, got)
	}
	return l.Bases[0]
}

func TestTheForwardProxyAnswersListsWithItsOwn(t *testing.T) {
	e := newEL9(t, nil)
	const base = "http://mirrors.example.org/+chantal/" + recognised + "/"
	first := e.present
	at := e.request(http.MethodGet, theList+"&countme=4", e.addr).leads(t, "the list", base, first)
	e.request(http.MethodGet, at+repomd, e.addr).is(t, "the root", first)
	e.freeze("day1")

	// upstream moves on between the list and the root
	at = e.request(http.MethodGet, theList, e.addr).leads(t, "the list again", base, first)
	e.publish("2.0")
	e.request(http.MethodGet, at+repomd, e.addr).is(t, "the root that the list named", first)
	at = e.request(http.MethodGet, theList, e.addr).leads(t, "the list of today", base, e.present)
	e.request(http.MethodGet, at+repomd, e.addr).is(t, "the root of today", e.present)
	e.request(http.MethodGet, base+repomd, e.addr).is(t, "the root, unnamed", e.present)

	// another ref, by the user or the listener
	for what, proxy := range map[string]string{"user": "day1:x@" + e.addr, "listener": e.listen("day1")} {
		at = e.request(http.MethodGet, theList, proxy).leads(t, what, base, first)
		g := e.request(http.MethodGet, at+repomd, proxy)
		g.is(t, what, first)
		g.wantHeader(t, what, "Chantal-Ref", recognised+"@day1")
	}
	// a list of one ref does not lead to the root of another
	if g := e.request(http.MethodGet, base+"+root/"+strings.Repeat("0", 64)+"/"+repomd, "day1:x@"+e.addr); g.status != http.StatusNotFound {
		t.Errorf("a root that the snapshot has not: %d", g.status)
	}
	if g := e.request(http.MethodGet, "http://mirrors.example.org/+chantal/nosuch/"+repomd, e.addr); g.status != http.StatusNotFound {
		t.Errorf("a repository that is not there: %d", g.status)
	}
	g := e.request(http.MethodHead, theList, e.addr)
	if g.status != http.StatusOK || g.length <= 0 || len(g.body) != 0 {
		t.Errorf("HEAD: %d, length %d", g.status, g.length)
	}
	e.up.Fail(testenv.Unavailable, "/", -1)
	e.advance(11 * time.Minute)
	e.request(http.MethodGet, theList, e.addr).leads(t, "the list while upstream is away", base, e.present)
}

func TestAMirrorlistThroughTheProxy(t *testing.T) {
	e := newEL9(t, nil)
	g := e.request(http.MethodGet, "http://mirrors.example.org/mirrorlist?repo=el-9", e.addr)
	g.is(t, "the list", []byte("http://mirrors.example.org/+chantal/mirrors.example.org-mirrorlist-repo-el-9/\n"))
	g.wantHeader(t, "the list", "Content-Type", "text/plain; charset=utf-8", "Cache-Control", "no-cache")
	e.request(http.MethodGet, strings.TrimSpace(string(g.body))+repomd, e.addr).is(t, "the root", e.present)
}

func TestWhatOnlyLooksLikeAListIsRefusedAsBefore(t *testing.T) {
	e := newEL9(t, nil)
	e.up.Put("/mirrors.txt", testenv.File{Content: []byte("hello")})
	e.up.Put("/mirrors.lst", testenv.Mirrorlist("http://a.mirror.example.org/nothing/"))
	for _, path := range []string{"mirrors.txt", "mirrors.lst", "mirrors.none"} {
		if g := e.request(http.MethodGet, "http://a.mirror.example.org/"+path, e.addr); g.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, g.status, g.body)
		}
	}
	e.handler.PassOther = true
	e.request(http.MethodGet, "http://a.mirror.example.org/mirrors.txt", e.addr).is(t, "passed", []byte("hello"))
}

func TestListsAtMirrorURLs(t *testing.T) {
	e := newEL9(t, nil)
	e.add("el", "rpm", theMirror)
	own := "http://" + e.addr + "/el"
	first := e.present
	at := e.direct("/el/+metalink").leads(t, "live", own+"/", first)
	e.freeze("day1")
	e.publish("2.0")
	e.request(http.MethodGet, at+repomd, "").is(t, "what the list named", first)
	g := e.direct("/el@live/+metalink")
	g.leads(t, "live, named", own+"@live/", e.present)
	l, err := rpm.Format{}.ParseList(g.body)
	if err != nil || len(l.Roots) != 2 {
		t.Errorf("the state before is no alternate: %+v, %v", l.Roots, err)
	}
	at = e.direct("/el@day1/+metalink").leads(t, "frozen", own+"@day1/", first)
	g = e.request(http.MethodGet, at+repomd, "")
	g.is(t, "frozen", first)
	g.wantHeader(t, "frozen", "Chantal-Ref", "el@day1", "Cache-Control", immutable)
	e.direct("/el@day1/+mirrorlist").is(t, "frozen", []byte(own+"@day1/\n"))
	e.direct("/-/at/day1/a.mirror.example.org/el9/+mirrorlist").is(t, "by host", []byte(own+"@day1/\n"))
	bound := e.listen("day1")
	e.request(http.MethodGet, "http://"+bound+"/el/+mirrorlist", "").is(t, "by a listener", []byte("http://"+bound+"/el@day1/\n"))
	e.direct("/el/+mirrorlist", "Host", "chantal.example.org", "X-Forwarded-Proto", "https").is(t, "by a name, behind TLS",
		[]byte("https://chantal.example.org/el/\n"))
	e.request(http.MethodGet, own+"/+mirrorlist", e.addr).is(t, "in absolute form", []byte(own+"/\n"))

	// validators are of the list, not of the root
	g = e.direct("/el/+metalink")
	if again := e.direct("/el/+metalink", "If-None-Match", g.header.Get("Etag")); again.status != http.StatusNotModified {
		t.Errorf("unchanged: %d", again.status)
	}
	if other := e.direct("/el/+metalink", "If-Modified-Since", g.header.Get("Last-Modified")); other.status != http.StatusOK {
		t.Errorf("by a date: %d", other.status)
	}
	for _, path := range []string{"/el/+nosuch", "/el/+root/xyz/" + repomd, "/el/+root/" + strings.Repeat("0", 64) + "/" + repomd} {
		if g := e.direct(path); g.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, g.status)
		}
	}
	e.debian(testenv.Package{Name: "hello", Version: "1"})
	if g := e.direct("/debian/+metalink"); g.status != http.StatusNotFound {
		t.Errorf("a metalink of an apt repository: %d", g.status)
	}
}

func TestAListInsideAnInterceptedConnection(t *testing.T) {
	ca := testCA(t, time.Now, "mirrors.example.org")
	var e *el9
	var connect *Connect
	e = newEL9(t, func(o *Options) {
		connect = NewConnect(ConnectOptions{
			CA: ca, Intercept: func(host string) bool { return host == "mirrors.example.org" },
			Dial: (&net.Dialer{}).DialContext, Log: slog.New(slog.DiscardHandler),
			Inner:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { e.handler.ServeHTTP(w, r) }),
			Refuse: func(w http.ResponseWriter, r *http.Request, err error) { e.handler.Fail(w, r, err) },
		})
		o.Connect = connect
	})
	t.Cleanup(func() { _ = connect.Shutdown(context.WithoutCancel(t.Context())) })
	_, err := e.mirror.Add(mirror.Settings{
		Name: "el", Type: "rpm", Format: rpm.Format{}, List: "https" + strings.TrimPrefix(theList, "http"), ListForm: "metalink", ListProves: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	transport := transportThrough(t, e.addr, ca)
	get := func(url string) got {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return got{status: resp.StatusCode, header: resp.Header, body: body, err: err}
	}
	at := get("https"+strings.TrimPrefix(theList, "http")).leads(t, "by https", "https://mirrors.example.org/+chantal/el/", e.present)
	get(at+repomd).is(t, "the root", e.present)
	// the http URL of the same list, and the form of it that means https
	e.request(http.MethodGet, theList, e.addr).leads(t, "by http", "http://mirrors.example.org/+chantal/el/", e.present)
	at = e.request(http.MethodGet, "http://HTTPS///"+strings.TrimPrefix(theList, "http://"), e.addr).
		leads(t, "by HTTPS///", "http://mirrors.example.org/+chantal/el/", e.present)
	e.request(http.MethodGet, at+repomd, e.addr).is(t, "the root", e.present)
}

func TestExplainKnowsLists(t *testing.T) {
	e := newEL9(t, nil)
	e.add("el", "rpm", theMirror)
	e.direct("/el/" + repomd)
	for _, raw := range []string{"/el/+metalink", "/el/" + repomd, "/el/+root/" + strings.Repeat("0", 64) + "/" + repomd} {
		x, err := e.handler.Explain(t.Context(), raw, "127.0.0.1:8180")
		if err != nil || x.Status != http.StatusOK || !strings.Contains(strings.Join(x.Lists, " "), "/el@live/+metalink") {
			t.Errorf("%s: %+v, %v", raw, x, err)
		}
	}
	x, err := e.handler.Explain(t.Context(), "/el/+mirrorlist", "127.0.0.1:8180")
	if err != nil || !bytes.Contains([]byte(x.Verdict), []byte("mirrorlist made here")) {
		t.Errorf("%+v, %v", x, err)
	}
	if x, _ := e.handler.Explain(t.Context(), "/el/Packages/x.rpm", "127.0.0.1:8180"); len(x.Lists) > 0 {
		t.Errorf("a package has lists: %v", x.Lists)
	}
}
