package fetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

// loopback is an Egress under which httptest servers can be reached.
func loopback() *Egress {
	return NewEgress([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}, nil)
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Egress == nil {
		o.Egress = loopback()
	}
	c := New(o)
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// get fetches and reads all; the error is Fetch's or the body's.
func get(t *testing.T, s Source, r *Request) (*Response, string, error) {
	t.Helper()
	resp, err := s.Fetch(t.Context(), r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// quiet is for servers on which handshakes fail on purpose.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAnswerSaysWhatTheFileIs(t *testing.T) {
	when := time.Date(2026, 11, 23, 8, 15, 0, 0, time.UTC)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e1"`)
		w.Header().Set("Content-Type", "text/x-thing")
		http.ServeContent(w, r, "", when, strings.NewReader("0123456789"))
	})
	c := newClient(t, Options{})
	for _, tc := range []struct {
		name         string
		req          Request
		status       int
		size, offset int64
		body         string
	}{
		{"whole", Request{}, 200, 10, 0, "0123456789"},
		{"head", Request{Method: "HEAD"}, 200, 10, 0, ""},
		{"rest", Request{Offset: 4}, 206, 10, 4, "456789"},
		{"rest of the same", Request{Offset: 4, IfRange: `"e1"`}, 206, 10, 4, "456789"},
		{"rest of another", Request{Offset: 4, IfRange: `"e0"`}, 200, 10, 0, "0123456789"},
		{"unchanged by ETag", Request{ETag: `"e1"`}, 304, -1, 0, ""},
		{"unchanged by date", Request{Modified: when}, 304, -1, 0, ""},
		{"changed", Request{ETag: `"e0"`}, 200, 10, 0, "0123456789"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.req.URL = srv.URL + "/f"
			resp, body, err := get(t, c, &tc.req)
			if err != nil {
				t.Fatal(err)
			}
			got := []any{resp.Status, resp.Size, resp.Offset, body, resp.URL, resp.ETag, resp.Modified.Equal(when) || tc.status == 304}
			want := []any{tc.status, tc.size, tc.offset, tc.body, srv.URL + "/f", `"e1"`, true}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
	resp, _, err := get(t, c, &Request{URL: srv.URL + "/f", Offset: 99})
	if err != nil || resp.Status != 416 || resp.Size != 10 {
		t.Errorf("beyond the end: %+v, %v; want status 416 and size 10", resp, err)
	}
}

func TestRequestCarriesOnlyWhatItShould(t *testing.T) {
	var got *http.Request
	srv := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r })
	c := newClient(t, Options{UserAgent: "chantal/1", Via: "1.1 chantal-x"})
	h := http.Header{
		"Connection": {"close, X-Hop"}, "X-Hop": {"1"}, "Proxy-Authorization": {"secret"}, "Te": {"trailers"},
		"Referer": {"http://mirror.example.org/"}, "Accept-Encoding": {"gzip"}, "X-End": {"2"}, "Via": {"1.0 other"},
	}
	before := h.Clone()
	target := "/a%2Bb//./c~%7Ed/%C3%A4?q=%20+x"
	if _, _, err := get(t, c, &Request{URL: srv.URL + target, Header: h, NoCache: true}); err != nil {
		t.Fatal(err)
	}
	want := http.Header{
		"X-End": {"2"}, "Accept": {"*/*"}, "Accept-Encoding": {"identity"}, "Cache-Control": {"no-cache"},
		"User-Agent": {"chantal/1"}, "Via": {"1.0 other, 1.1 chantal-x"},
	}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if got.RequestURI != target {
		t.Errorf("target is %s, want %s", got.RequestURI, target)
	}
	if diff := cmp.Diff(before, h); diff != "" {
		t.Errorf("the request's own header was changed:\n%s", diff)
	}
}

func TestWhatIsNotFetched(t *testing.T) {
	c := newClient(t, Options{})
	for _, u := range []string{"file:///etc/passwd", "gopher://mirror.example.org/", "//mirror.example.org/x", "http:///x", "http://u:secret@[::1/x"} {
		_, err := c.Fetch(t.Context(), &Request{URL: u})
		if refused := (*chantal.RefusedError)(nil); !errors.As(err, &refused) {
			t.Errorf("%s: error %v, want a RefusedError", u, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	if _, err := c.Fetch(t.Context(), &Request{URL: "http://127.0.0.1:1/", Method: "POST"}); err == nil {
		t.Error("POST was sent")
	}
}

func TestContentEncodingIsRefusedUnlessItRestatesTheName(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", r.URL.Query().Get("e"))
		fmt.Fprint(w, "bytes")
	})
	c := newClient(t, Options{})
	for target, ok := range map[string]bool{
		"/Packages?e=gzip": false, "/Packages.xz?e=gzip": false, "/x.html?e=br": false, "/f?e=identity,gzip": false,
		"/Packages.gz?e=gzip": true, "/Packages.gz?e=x-gzip": true, "/f?e=identity": true, "/f?e=": true,
	} {
		_, body, err := get(t, c, &Request{URL: srv.URL + target})
		var ue *chantal.UpstreamError
		switch {
		case ok && (err != nil || body != "bytes"):
			t.Errorf("%s: %q, %v; want the bytes", target, body, err)
		case !ok && (!errors.As(err, &ue) || ue.Status != 200):
			t.Errorf("%s: error %v, want an UpstreamError with status 200", target, err)
		}
	}
}

func TestPartThatWasNotAskedForIsRefused(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", r.URL.Query().Get("r"))
		w.WriteHeader(206)
		fmt.Fprint(w, "abcde")
	})
	c := newClient(t, Options{})
	for _, tc := range []struct {
		name, contentRange string
		offset             int64
		ok                 bool
	}{
		{"as asked", "bytes 5-9/10", 5, true},
		{"total not known", "bytes 5-9/*", 5, true},
		{"elsewhere", "bytes 4-8/10", 5, false},
		{"not asked", "bytes 5-9/10", 0, false},
		{"longer than it says", "bytes 5-6/10", 5, false},
		{"beyond the total", "bytes 5-9/7", 5, false},
		{"nothing said", "", 5, false},
	} {
		_, _, err := get(t, c, &Request{URL: srv.URL + "?r=" + url.QueryEscape(tc.contentRange), Offset: tc.offset})
		if (err == nil) != tc.ok {
			t.Errorf("%s: error %v, want one: %v", tc.name, err, !tc.ok)
		}
	}
}

func TestShortAndSilentBodiesFail(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/mute" {
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		if r.URL.Path == "/stall" {
			<-r.Context().Done()
		}
	})
	c := newClient(t, Options{Timeout: 150 * time.Millisecond})
	for _, path := range []string{"/short", "/stall", "/mute"} {
		_, body, err := get(t, c, &Request{URL: srv.URL + path})
		var ue *chantal.UpstreamError
		if !errors.As(err, &ue) || ue.URL != srv.URL+path {
			t.Errorf("%s: body %q, error %v; want an UpstreamError for it", path, body, err)
		}
		if silent := err != nil && strings.Contains(err.Error(), "silent"); silent != (path != "/short") {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

func TestBodyWhoseEndCannotBeToldIsMarked(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/open":
			conn, buf, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(buf, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbytes")
			buf.Flush()
		case "/chunked":
			w.(http.Flusher).Flush()
			fmt.Fprint(w, "bytes")
		default:
			fmt.Fprint(w, "bytes")
		}
	})
	c := newClient(t, Options{})
	for path, want := range map[string]bool{"/open": true, "/chunked": false, "/length": false} {
		resp, body, err := get(t, c, &Request{URL: srv.URL + path})
		if err != nil || body != "bytes" || resp.OpenEnded != want {
			t.Errorf("%s: %q, %+v, %v; want OpenEnded %v", path, body, resp, err, want)
		}
	}
}

func TestSlowReaderIsNotSilence(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1<<20)) })
	c := newClient(t, Options{Timeout: time.Second})
	resp, err := c.Fetch(t.Context(), &Request{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.Sleep(1500 * time.Millisecond)
	if n, err := io.Copy(io.Discard, resp.Body); n != 1<<20 || err != nil {
		t.Errorf("read %d bytes, %v; want all", n, err)
	}
}

func TestContextEndIsItsOwnError(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "x")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	c := newClient(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := c.Fetch(ctx, &Request{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	if _, err = io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("body error %v, want context.Canceled", err)
	}
	if _, err = c.Fetch(ctx, &Request{URL: srv.URL}); !errors.Is(err, context.Canceled) {
		t.Errorf("fetch error %v, want context.Canceled", err)
	}
}

func TestTLSIsVerifiedAndHTTP2Spoken(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = quiet()
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, _, err := get(t, newClient(t, Options{}), &Request{URL: srv.URL})
	var ue *chantal.UpstreamError
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &ue) || !errors.As(err, &unknown) {
		t.Errorf("unknown authority: error %v, want an UpstreamError about it", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	_, body, err := get(t, newClient(t, Options{Roots: pool}), &Request{URL: srv.URL})
	if err != nil || body != "HTTP/2.0" {
		t.Errorf("spoke %q, %v; want HTTP/2.0", body, err)
	}
}
