package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"chantal/internal/testenv"
	"chantal/snapshot"
)

// A page in two media types has one date and two contents.
func TestPartsOfARenderedPage(t *testing.T) {
	s := newSite(t, nil)
	index := testenv.NewPyPI(s.now())
	if err := index.Add(testenv.Package{Name: "six", Version: "1"}, s.now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	files, err := index.Publish()
	if err != nil {
		t.Fatal(err)
	}
	s.up.Publish("", files)
	s.add("pypi", "pypi", "http://index.example.org/simple/")
	for _, accept := range []string{"text/html", testenv.SimpleJSON} {
		get := func(fields ...string) got { return s.direct("/pypi/simple/six/", append(fields, "Accept", accept)...) }
		whole := get()
		whole.is(t, accept, whole.body)
		tag, date := whole.header.Get("Etag"), whole.header.Get("Last-Modified")
		for what, test := range map[string]struct {
			fields []string
			want   []byte
		}{
			"a part":                   {[]string{"Range", "bytes=2-20"}, whole.body[2:21]},
			"the end":                  {[]string{"Range", "bytes=-9"}, whole.body[len(whole.body)-9:]},
			"a part, by tag":           {[]string{"Range", "bytes=2-20", "If-Range", tag}, whole.body[2:21]},
			"a part, by date":          {[]string{"Range", "bytes=2-20", "If-Range", date}, nil},
			"a part of what it is not": {[]string{"Range", "bytes=2-20", "If-Range", `"x"`}, nil},
		} {
			g := get(test.fields...)
			if test.want == nil {
				g.is(t, what, whole.body)
			} else if g.status != http.StatusPartialContent || !bytes.Equal(g.body, test.want) {
				t.Errorf("%s of %s: %d, %q", what, accept, g.status, g.body)
			}
			g.wantHeader(t, what, "Content-Type", whole.header.Get("Content-Type"), "Vary", "Accept", "Etag", tag)
		}
		head := s.request(http.MethodHead, "http://"+s.addr+"/pypi/simple/six/", "", "Accept", accept, "Range", "bytes=1-2")
		if head.status != http.StatusOK || head.length != int64(len(whole.body)) || len(head.body) > 0 {
			t.Errorf("HEAD of %s: %d, length %d of %d", accept, head.status, head.length, len(whole.body))
		}
		g := get("Range", "bytes=999999-")
		if g.status != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("beyond the end of %s: %d", accept, g.status)
		}
		g.wantHeader(t, "beyond the end", "Content-Range", fmt.Sprintf("bytes */%d", len(whole.body)))
	}
}

// Under another ref than live a URL of the proxy had, and will have, other
// bytes, of whatever date: a client that resumes by date would splice two.
func TestADateProvesNothingWhereRefsShareAURL(t *testing.T) {
	s := newSite(t, nil)
	hello := testenv.Package{Name: "hello", Version: "1", Size: 5000}
	suite, files := s.debian(hello)
	at := suite.PoolPath(hello)
	for _, path := range []string{inRelease, packagesXZ, at} {
		s.direct("/debian/"+path).is(t, path, files[path].Content)
	}
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "prod"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	target := "http://a.mirror.example.org/debian/" + at
	whole := s.request(http.MethodGet, target, "prod:x@"+s.addr)
	whole.is(t, "whole", files[at].Content)
	tag, date := whole.header.Get("Etag"), whole.header.Get("Last-Modified")
	s.request(http.MethodGet, target, "prod:x@"+s.addr, "Range", "bytes=10-", "If-Range", date).is(t, "by date", files[at].Content)
	g := s.request(http.MethodGet, target, "prod:x@"+s.addr, "Range", "bytes=10-", "If-Range", tag)
	if g.status != http.StatusPartialContent || !bytes.Equal(g.body, files[at].Content[10:]) {
		t.Errorf("by tag: %d, %d bytes", g.status, len(g.body))
	}
}

func TestAnEmptyFile(t *testing.T) {
	url, _ := serveFiles(t, map[string][]byte{"empty": {}})
	for range 2 {
		for _, spec := range []string{"", "bytes=0-", "bytes=-5", "bytes=1-2", "bytes=0-1,5-6"} {
			resp, body := fetched(t, http.MethodGet, url+"empty", "Range", spec)
			if resp.StatusCode != http.StatusOK || len(body) > 0 || resp.ContentLength != 0 {
				t.Errorf("%s: %s, length %d, %d bytes", spec, resp.Status, resp.ContentLength, len(body))
			}
		}
		if resp, _ := fetched(t, http.MethodHead, url+"empty"); resp.StatusCode != http.StatusOK || resp.ContentLength != 0 {
			t.Errorf("HEAD: %s, length %d", resp.Status, resp.ContentLength)
		}
	}
}

// What a client asks inside an intercepted connection is answered as elsewhere.
func TestPartsInsideAnInterceptedConnection(t *testing.T) {
	s, ca := interceptingSite(t, "a.mirror.example.org", nil)
	hello := testenv.Package{Name: "hello", Version: "1", Size: 300_000}
	suite := testenv.NewAPT(nil, time.Now(), "bookworm")
	files := s.publish(suite, hello)
	s.add("debian", "apt", "https://a.mirror.example.org/debian/")
	transport := transportThrough(t, s.addr, ca)
	get := func(path string, fields ...string) (*http.Response, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.mirror.example.org/debian/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(fields); i += 2 {
			req.Header.Set(fields[i], fields[i+1])
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, body
	}
	get(inRelease)
	get(packagesXZ)
	at := suite.PoolPath(hello)
	want := files[at].Content
	var ranges []string
	for i := range 300 {
		ranges = append(ranges, fmt.Sprintf("%d-%d", 900*i, 900*i+99))
	}
	for _, state := range []string{"cold", "warm"} {
		resp, body := get(at, "Range", "bytes="+strings.Join(ranges, ","))
		parts := pieces(t, resp, body)
		if resp.StatusCode != http.StatusPartialContent || len(parts) != 2*len(ranges) {
			t.Fatalf("%s: %s with %d parts", state, resp.Status, len(parts)/2)
		}
		for i := range ranges {
			if parts[2*i+1] != string(want[900*i:900*i+100]) {
				t.Errorf("%s: part %d is another", state, i)
			}
		}
		resp, body = get(at, "Range", "bytes=1000-", "If-Range", etagOf(want))
		if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, want[1000:]) {
			t.Errorf("%s: the rest: %s, %d bytes", state, resp.Status, len(body))
		}
		resp, body = get(at, "Range", "bytes=999999-")
		if resp.StatusCode != http.StatusRequestedRangeNotSatisfiable || resp.Header.Get("Content-Range") != fmt.Sprintf("bytes */%d", len(want)) {
			t.Errorf("%s: beyond the end: %s %q, %d bytes", state, resp.Status, resp.Header.Get("Content-Range"), len(body))
		}
	}
	if n := s.up.Count("/debian/" + at); n != 1 {
		t.Errorf("upstream got %d requests, want 1", n)
	}
}

// transportThrough goes through the proxy at addr and trusts ca.
func transportThrough(t *testing.T, addr string, ca *CA) *http.Transport {
	via, err := url.Parse("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(via), TLSClientConfig: &tls.Config{RootCAs: ca.testPool()}, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}
