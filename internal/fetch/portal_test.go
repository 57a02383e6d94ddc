package fetch

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestWebPageInPlaceOfAFile(t *testing.T) {
	const html = "\ufeff \r\n<!DOCTYPE html>"
	for _, tc := range []struct {
		name, kind, body string
		status           int
		want             bool
	}{
		{"hello_1_amd64.deb", "text/html", html, 200, true},
		{"Archive.KEY", "Text/HTML; charset=utf-8", html, 200, true},
		{"disk.iso", "application/xhtml+xml", "<?xml", 200, true},
		{"disk.iso", "text/html", " \n", 200, true},
		{"disk.iso", "text/html", "", 200, false},
		{"disk.iso", "text/html", "not markup", 200, false},
		{"disk.iso", "application/octet-stream", html, 200, false},
		{"disk.iso", "text/html", html, 404, false},
		{"index.html", "text/html", html, 200, false},
		{"pool", "text/html", html, 200, false},
		{"changelog.de", "text/html", html, 200, false},
	} {
		r := &Response{Status: tc.status, Type: tc.kind, Body: io.NopCloser(strings.NewReader(tc.body))}
		if got := r.Portal(tc.name); got != tc.want {
			t.Errorf("%s, %s, %q: %v", tc.name, tc.kind, tc.body, got)
		}
		if rest, err := io.ReadAll(r.Body); string(rest) != tc.body || err != nil {
			t.Errorf("%s, %s: of %q %q is left, %v", tc.name, tc.kind, tc.body, rest, err)
		}
	}
}

func TestPathAndQueryAreSentByteForByte(t *testing.T) {
	var got string
	srv := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.RequestURI })
	outbound := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r.RequestURI })
	for _, sent := range []string{
		"/a", "/a%2Fb", "/a%2fb?x=%zz;y&&", "/a|b{c}^`\"<>", "/\xc3\xa4", "/%C3%A4", "/a%20b", "/a+b%2Bc", "/a//b/./c/../d", "/a?", "/?q", "//a|b", "/a:b@c",
	} {
		for name, o := range map[string]Options{"directly": {}, "by a proxy": {Proxy: http.ProxyURL(mustURL(t, outbound.URL))}} {
			c := newClient(t, o)
			got = ""
			if _, _, err := get(t, c, &Request{URL: srv.URL + sent}); err != nil {
				t.Errorf("%q, %s: %v", sent, name, err)
				continue
			}
			if strings.TrimPrefix(got, srv.URL) != sent {
				t.Errorf("%q, %s: upstream got %q", sent, name, got)
			}
		}
	}
}

func TestAnswersInAnotherCodingOnlyWhereTheyWillDo(t *testing.T) {
	asked := ""
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, "squeezed")
	})
	c := newClient(t, Options{})
	header := http.Header{"Accept-Encoding": {"gzip"}}
	if _, _, err := get(t, c, &Request{URL: srv.URL, Header: header}); err == nil || asked != "identity" {
		t.Errorf("asked for %q: %v, want an error", asked, err)
	}
	if _, body, err := get(t, c, &Request{URL: srv.URL, Header: header, Encoded: true}); err != nil || asked != "gzip" || body != "squeezed" {
		t.Errorf("asked for %q: %q, %v", asked, body, err)
	}
}
