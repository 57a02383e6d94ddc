package proxy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"chantal/internal/testenv"
	"chantal/snapshot"
)

func etagOf(b []byte) string { return fmt.Sprintf(`"%x"`, sha256.Sum256(b)) }

func TestAClientNeverTakesAWrongFileForComplete(t *testing.T) {
	s := newSite(t, nil)
	var packages []testenv.Package
	faults := []testenv.Fault{testenv.Truncate, testenv.Corrupt, testenv.Tail, testenv.Lie, testenv.Empty, testenv.Portal}
	for _, fault := range faults {
		for _, size := range []int{10_000, 400_000} {
			packages = append(packages, testenv.Package{Name: fmt.Sprintf("%s-%d", fault, size), Version: "1", Size: size})
		}
	}
	suite, files := s.debian(packages...)
	s.direct("/debian/"+inRelease).is(t, "root", files[inRelease].Content)
	s.direct("/debian/"+packagesXZ).is(t, "index", files[packagesXZ].Content)
	for i, p := range packages {
		fault, at := faults[i/2], suite.PoolPath(p)
		want := files[at].Content
		s.up.Fail(fault, "/debian/"+at, -1)
		s.up.Fail(fault, "/b/debian/"+at, -1)
		g := s.direct("/debian/" + at)
		switch {
		case g.status == http.StatusOK && g.err == nil:
			t.Errorf("%s: %d bytes of %d came as the whole file", at, len(g.body), len(want))
		case g.status == http.StatusOK && p.Size < 64<<10:
			t.Errorf("%s: a small file was cut, where 502 is possible", at)
		case g.status == http.StatusOK && len(g.body) > len(want)-64<<10:
			t.Errorf("%s: %d of %d bytes came before it was known to be wrong", at, len(g.body), len(want))
		case g.status != http.StatusOK && g.status != http.StatusBadGateway && g.status != http.StatusServiceUnavailable:
			t.Errorf("%s: got %d", at, g.status)
		case (fault == testenv.Corrupt || fault == testenv.Tail) && p.Size < 64<<10 && g.status != http.StatusBadGateway:
			t.Errorf("%s: got %d, not 502", at, g.status)
		}
	}
	s.up.Heal()
	for _, p := range packages {
		at := suite.PoolPath(p)
		s.up.Fail(testenv.Corrupt, "/debian/"+at, 1)
		// What was streamed from the first mirror may be cut; then the second
		// one's is there.
		if g := s.direct("/debian/" + at); g.status == http.StatusOK && g.err == nil {
			g.is(t, at, files[at].Content)
		}
		s.direct("/debian/"+at).is(t, at, files[at].Content)
	}
}

func TestHeadersOfAnAnswer(t *testing.T) {
	s := newSite(t, nil)
	hello := testenv.Package{Name: "hello", Version: "1", Size: 5000}
	suite, files := s.debian(hello)
	at := suite.PoolPath(hello)
	root := files[inRelease].Content
	g := s.direct("/debian/" + inRelease)
	g.is(t, "root", root)
	g.wantHeader(t, "root", "Etag", etagOf(root), "Cache-Control", "no-cache", "Chantal-Ref", "debian@live", "Chantal-Generation", "1",
		"Accept-Ranges", "bytes", "Cache-Status", "chantal; fwd=miss; stored", "Content-Length", strconv.Itoa(len(root)),
		"Last-Modified", files[inRelease].Modified.UTC().Format(http.TimeFormat), "Content-Encoding", "")
	s.direct("/debian/"+inRelease).wantHeader(t, "root again", "Cache-Status", "chantal; hit")
	s.direct("/debian/"+packagesXZ).is(t, "index", files[packagesXZ].Content)
	g = s.direct("/debian/" + at)
	g.is(t, "artifact", files[at].Content)
	g.wantHeader(t, "artifact", "Etag", etagOf(files[at].Content), "Cache-Control", "no-cache", "Chantal-Generation", "1",
		"Content-Type", "application/vnd.debian.binary-package", "Cache-Status", "chantal; fwd=miss; stored")
	s.direct("/debian/"+at).wantHeader(t, "artifact again", "Cache-Status", "chantal; hit", "Content-Type", "application/vnd.debian.binary-package")
	hash := fmt.Sprintf("dists/bookworm/main/binary-amd64/by-hash/SHA256/%x", sha256.Sum256(files[packagesXZ].Content))
	s.direct("/debian/"+hash).wantHeader(t, "by-hash", "Cache-Control", immutable)

	head := s.request(http.MethodHead, "http://"+s.addr+"/debian/"+at, "")
	if head.status != http.StatusOK || len(head.body) != 0 || head.length != int64(len(files[at].Content)) {
		t.Errorf("HEAD: %d, length %d, %d bytes", head.status, head.length, len(head.body))
	}
	s.up.Down()
	s.advance(2 * time.Minute)
	g = s.direct("/debian/" + inRelease)
	g.is(t, "root without upstream", root)
	if !strings.HasPrefix(g.header.Get("Cache-Status"), "chantal; fwd=stale") {
		t.Errorf("root without upstream: Cache-Status %q", g.header.Get("Cache-Status"))
	}
}

func TestCacheControlByRefAndDoor(t *testing.T) {
	s := newSite(t, nil)
	_, files := s.debian(testenv.Package{Name: "hello", Version: "1"})
	s.direct("/debian/"+inRelease).is(t, "root", files[inRelease].Content)
	s.advance(time.Second)
	instant := snapshot.DefaultName(s.now())
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "prod"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	const upstream = "http://a.mirror.example.org/debian/" + inRelease
	for _, test := range []struct {
		what, url, proxy, cache, ref string
	}{
		{"live", "http://" + s.addr + "/debian/" + inRelease, "", revalidate, "debian@live"},
		{"snapshot", "http://" + s.addr + "/debian@prod/" + inRelease, "", immutable, "debian@prod"},
		{"instant", "http://" + s.addr + "/debian@" + instant + "/" + inRelease, "", immutable, "debian@" + instant},
		{"live by proxy", upstream, s.addr, revalidate, "debian@live"},
		{"snapshot by proxy", upstream, "prod:x@" + s.addr, revalidate, "debian@prod"},
		{"instant by proxy", upstream, instant + ":x@" + s.addr, revalidate, "debian@" + instant},
	} {
		g := s.request(http.MethodGet, test.url, test.proxy)
		g.is(t, test.what, files[inRelease].Content)
		g.wantHeader(t, test.what, "Cache-Control", test.cache, "Chantal-Ref", test.ref, "Chantal-Generation", "1", "Etag", etagOf(files[inRelease].Content))
	}
}

func TestOnlyTheVeryDateIsNotModified(t *testing.T) {
	s := newSite(t, nil)
	_, files := s.debian(testenv.Package{Name: "hello", Version: "1"})
	g := s.direct("/debian/" + inRelease)
	g.is(t, "root", files[inRelease].Content)
	served, err := http.ParseTime(g.header.Get("Last-Modified"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "prod"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	date := func(d time.Duration) string { return served.Add(d).Format(http.TimeFormat) }
	mirrored, upstream := "http://"+s.addr+"/debian/"+inRelease, "http://a.mirror.example.org/debian/"+inRelease
	for _, test := range []struct {
		what, url, proxy, field, value string
		want                           int
	}{
		{"the date", mirrored, "", "If-Modified-Since", date(0), 304},
		{"a later date", mirrored, "", "If-Modified-Since", date(time.Second), 200},
		{"an older date", mirrored, "", "If-Modified-Since", date(-time.Second), 200},
		{"no date", mirrored, "", "If-Modified-Since", "yesterday", 200},
		{"the tag", mirrored, "", "If-None-Match", g.header.Get("Etag"), 304},
		{"another tag", mirrored, "", "If-None-Match", `"x"`, 200},
		{"the date by proxy", upstream, s.addr, "If-Modified-Since", date(0), 304},
		{"the date by proxy under a ref", upstream, "prod:x@" + s.addr, "If-Modified-Since", date(0), 200},
		{"the tag by proxy under a ref", upstream, "prod:x@" + s.addr, "If-None-Match", g.header.Get("Etag"), 304},
	} {
		if g := s.request(http.MethodGet, test.url, test.proxy, test.field, test.value); g.status != test.want {
			t.Errorf("%s: got %d, want %d", test.what, g.status, test.want)
		}
	}
}

// ranges are requests for parts and what is to come, of a file of n bytes.
func ranges(n int) map[string][2]int {
	return map[string][2]int{
		"bytes=0-9": {0, 10}, "bytes=10-": {10, n}, "bytes=-7": {n - 7, n}, fmt.Sprintf("bytes=%d-", n-1): {n - 1, n},
		"bytes=5-5": {5, 6}, "bytes=100-99999999": {100, n},
	}
}

func TestRanges(t *testing.T) {
	s := newSite(t, nil)
	hello := testenv.Package{Name: "hello", Version: "1", Size: 200_000}
	suite, files := s.debian(hello)
	at := suite.PoolPath(hello)
	want := files[at].Content
	s.direct("/debian/" + inRelease)
	s.direct("/debian/" + packagesXZ)
	s.direct("/debian/"+at).is(t, "whole", want)
	for spec, r := range ranges(len(want)) {
		g := s.direct("/debian/"+at, "Range", spec)
		if g.status != http.StatusPartialContent || !bytes.Equal(g.body, want[r[0]:r[1]]) {
			t.Errorf("%s: %d, %d bytes", spec, g.status, len(g.body))
		}
		g.wantHeader(t, spec, "Content-Range", fmt.Sprintf("bytes %d-%d/%d", r[0], r[1]-1, len(want)))
	}
	g := s.direct("/debian/"+at, "Range", fmt.Sprintf("bytes=%d-", len(want)))
	if g.status != http.StatusRequestedRangeNotSatisfiable || len(g.body) == 0 || g.length != int64(len(g.body)) {
		t.Errorf("beyond the end: %d, %d bytes, length %d", g.status, len(g.body), g.length)
	}
	g.wantHeader(t, "beyond the end", "Content-Range", fmt.Sprintf("bytes */%d", len(want)))
	g = s.direct("/debian/"+at, "Range", "bytes=0-0", "If-Range", `"other"`)
	g.is(t, "a part of another file", want)

	g = s.direct("/debian/"+at, "Range", "bytes=0-1,10-12,-3")
	kind, params, err := mime.ParseMediaType(g.header.Get("Content-Type"))
	if g.status != http.StatusPartialContent || err != nil || kind != "multipart/byteranges" {
		t.Fatalf("several parts: %d, %s, %v", g.status, kind, err)
	}
	parts := multipart.NewReader(bytes.NewReader(g.body), params["boundary"])
	for _, r := range [][2]int{{0, 2}, {10, 13}, {len(want) - 3, len(want)}} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(part); err != nil || !bytes.Equal(b, want[r[0]:r[1]]) {
			t.Errorf("part %v: %d bytes, %v", r, len(b), err)
		}
	}
}

func TestRangesOfAFileThatIsStillArriving(t *testing.T) {
	s := newSite(t, nil)
	var packages []testenv.Package
	for i := range ranges(1000) {
		packages = append(packages, testenv.Package{Name: fmt.Sprintf("p%x", sha256.Sum256([]byte(i))), Version: "1", Size: 300_000})
	}
	packages = append(packages, testenv.Package{Name: "held", Version: "1", Size: 400_000})
	suite, files := s.debian(packages...)
	s.direct("/debian/" + inRelease)
	s.direct("/debian/" + packagesXZ)
	for i := range ranges(1000) {
		at := suite.PoolPath(testenv.Package{Name: fmt.Sprintf("p%x", sha256.Sum256([]byte(i))), Version: "1"})
		want := files[at].Content
		spec := i
		if spec == "bytes=999-" {
			spec = fmt.Sprintf("bytes=%d-", len(want)-1)
		}
		r := ranges(len(want))[spec]
		s.up.Fail(testenv.Slow, "/debian/"+at, -1)
		g := s.direct("/debian/"+at, "Range", spec)
		if g.status != http.StatusPartialContent || g.err != nil || !bytes.Equal(g.body, want[r[0]:r[1]]) {
			t.Errorf("%s: %d, %d bytes, %v", spec, g.status, len(g.body), g.err)
		}
	}
	// A part from the middle is not given out before the whole is verified; the
	// rest of the file, and all of it, are.
	at := suite.PoolPath(packages[len(packages)-1])
	want := files[at].Content
	s.up.Fail(testenv.Stall, "/debian/"+at, -1)
	done := make(chan got, 2)
	go func() { done <- s.direct("/debian/"+at, "Range", "bytes=10-20") }()
	go func() { done <- s.direct("/debian/" + at) }()
	select {
	case g := <-done:
		t.Fatalf("before the whole was there: %d, %d bytes", g.status, len(g.body))
	case <-time.After(300 * time.Millisecond):
	}
	head := s.request(http.MethodHead, "http://"+s.addr+"/debian/"+at, "")
	if head.status != http.StatusOK || head.length != int64(len(want)) {
		t.Errorf("HEAD of an arriving file: %d, length %d of %d", head.status, head.length, len(want))
	}
	s.up.Release()
	for range 2 {
		g := <-done
		if !bytes.Equal(g.body, want) && !bytes.Equal(g.body, want[10:21]) {
			t.Errorf("in the end: %d, %d bytes, %v", g.status, len(g.body), g.err)
		}
	}
}
