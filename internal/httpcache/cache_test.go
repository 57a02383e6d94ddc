package httpcache

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/fetch"
)

// world is an upstream with a Cache before it, and a clock.
type world struct {
	t     *testing.T
	url   string
	cache *Cache
	store *cas.Store
	src   fetch.Source
	shift atomic.Int64 // of the clock
	asked atomic.Int32

	mu      sync.Mutex
	handler http.HandlerFunc
	last    http.Header // of the last request upstream
}

func newWorld(t *testing.T, h http.HandlerFunc) *world {
	t.Helper()
	w := &world{t: t, handler: h}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		w.mu.Lock()
		h := w.handler
		w.last = r.Header
		w.mu.Unlock()
		rw.Header().Set("Date", w.now().UTC().Format(http.TimeFormat))
		h(rw, r)
	}))
	t.Cleanup(srv.Close)
	w.url = srv.URL
	store, err := cas.Open(t.TempDir(), cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	client := fetch.New(fetch.Options{Egress: fetch.NewEgress([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil)})
	t.Cleanup(client.CloseIdleConnections)
	w.store, w.src = store, client
	w.restart()
	return w
}

// restart forgets what is in memory.
func (w *world) restart() {
	w.cache = New(w.store, w.src, w.now, nil)
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.shift.Load())) }

func (w *world) later(d time.Duration) { w.shift.Add(int64(d)) }

func (w *world) upstream(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handler = h
}

// result is an answer read to its end.
type result struct {
	Status int
	Cache  chantal.CacheStatus
	Body   string
	Stored bool // it was a File
	Asked  int  // requests upstream so far
}

func (w *world) get(path string, header http.Header) (result, http.Header, error) {
	w.t.Helper()
	a, err := w.cache.Open(w.t.Context(), Request{URL: w.url + path, Header: header})
	if err != nil {
		w.cache.work.Wait()
		return result{}, nil, err
	}
	defer a.Close()
	r := result{Status: a.Status, Cache: a.Cache, Stored: a.File != nil}
	var from io.Reader = a.Body
	if a.File != nil {
		from = a.File.Content
	}
	b, err := io.ReadAll(from)
	r.Body, r.Asked = string(b), int(w.asked.Load())
	w.cache.work.Wait() // so that what was stored is known
	return r, a.Header, err
}

// want gets path and compares.
func (w *world) want(what, path string, header http.Header, want result) http.Header {
	w.t.Helper()
	got, h, err := w.get(path, header)
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
	return h
}

// answering returns a handler that sets fields ("Name: value") and writes body.
func answering(status int, body string, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			w.Header().Add(name, value)
		}
		w.WriteHeader(status)
		if status != http.StatusNotModified {
			fmt.Fprint(w, body)
		}
	}
}

func TestFreshAnswersComeFromTheStore(t *testing.T) {
	w := newWorld(t, answering(200, "one", "Cache-Control: max-age=60", "Content-Type: text/x-a", "Connection: X-Hop", "X-Hop: 1", "X-End: 2", "Age: 10"))
	w.want("first", "/f?q=1", nil, result{200, chantal.Miss, "one", true, 1})
	w.later(30 * time.Second)
	h := w.want("fresh", "/f?q=1", nil, result{200, chantal.Hit, "one", true, 1})
	if age := h.Get("Age"); age != "40" && age != "41" {
		t.Errorf("Age is %s, want 40", age)
	}
	if h.Get("X-Hop") != "" || h.Get("X-End") != "2" || h.Get("Content-Type") != "text/x-a" || h.Get("Content-Length") != "" {
		t.Errorf("header is %v", h)
	}
	w.want("another URL", "/f?q=2", nil, result{200, chantal.Miss, "one", true, 2})
	w.restart()
	w.want("after a restart", "/f?q=1", nil, result{200, chantal.Hit, "one", true, 2})
	w.want("younger wanted", "/f?q=1", http.Header{"Cache-Control": {"max-age=5"}}, result{200, chantal.Miss, "one", true, 3})
	w.later(55 * time.Second)
	w.want("no longer fresh", "/f?q=1", nil, result{200, chantal.Miss, "one", true, 4})
	w.want("none fresh", "/f?q=3", http.Header{"Cache-Control": {"only-if-cached"}}, result{504, chantal.Miss, onlyIfCachedText(t), false, 4})
}

func onlyIfCachedText(t *testing.T) string {
	t.Helper()
	b, err := io.ReadAll(onlyIfCached().Body)
	if err != nil || len(b) == 0 {
		t.Fatal("no text", err)
	}
	return string(b)
}

func TestStaleAnswersAreConfirmed(t *testing.T) {
	modified := "Mon, 02 Jan 2006 15:04:05 GMT"
	w := newWorld(t, answering(200, "one", "Cache-Control: max-age=60", `ETag: "1"`, "Last-Modified: "+modified, "X-N: 1"))
	w.want("first", "/f", http.Header{"If-None-Match": {`"0"`}, "Range": {"bytes=1-"}, "Accept": {"*/*"}, "X-Forwarded-Host": {"evil.example.com"}, "User-Agent": {"odd"}},
		result{200, chantal.Miss, "one", true, 1})
	for _, name := range []string{"If-None-Match", "Range", "X-Forwarded-Host"} {
		if v := w.last.Get(name); v != "" {
			t.Errorf("the client's %s: %s went upstream", name, v)
		}
	}
	if ua := w.last.Get("User-Agent"); ua != "chantal" {
		t.Errorf("User-Agent upstream is %q", ua)
	}
	w.later(time.Hour)
	w.upstream(answering(304, "", "Cache-Control: max-age=7200", `ETag: "1"`, "X-N: 2"))
	h := w.want("confirmed", "/f", nil, result{200, chantal.Revalidated, "one", true, 2})
	if w.last.Get("If-None-Match") != `"1"` || w.last.Get("If-Modified-Since") != modified {
		t.Errorf("conditions upstream: %v", w.last)
	}
	if h.Get("X-N") != "2" || h.Get("Last-Modified") != modified {
		t.Errorf("header was not updated: %v", h)
	}
	w.later(time.Hour)
	w.want("fresh by the 304", "/f", nil, result{200, chantal.Hit, "one", true, 2})
	w.want("asked again on demand", "/f", http.Header{"Cache-Control": {"no-cache"}}, result{200, chantal.Revalidated, "one", true, 3})
	if w.last.Get("Cache-Control") != "no-cache" {
		t.Error("no-cache did not go upstream")
	}
	w.upstream(answering(200, "two", "Cache-Control: max-age=60", `ETag: "2"`))
	w.later(3 * time.Hour)
	w.want("changed", "/f", nil, result{200, chantal.Miss, "two", true, 4})
	w.want("changed, again", "/f", nil, result{200, chantal.Hit, "two", true, 4})
}

func TestConfirmationOfAnotherStateIsNoConfirmation(t *testing.T) {
	w := newWorld(t, answering(200, "one", "Cache-Control: max-age=60", `ETag: "1"`))
	w.want("first", "/f", nil, result{200, chantal.Miss, "one", true, 1})
	w.later(time.Hour)
	w.upstream(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" {
			answering(304, "", `ETag: "2"`)(rw, r)
			return
		}
		answering(200, "two", `ETag: "2"`)(rw, r)
	})
	w.want("second", "/f", nil, result{200, chantal.Miss, "two", true, 3})
	w.upstream(answering(304, ""))
	if _, _, err := w.get("/new", nil); err == nil {
		t.Error("a 304 to an unconditional request was taken for an answer")
	}
}

func TestWhatIsNotStored(t *testing.T) {
	const fresh = "Cache-Control: max-age=60"
	w := newWorld(t, nil)
	n := 0
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		header http.Header
		again  chantal.CacheStatus
	}{
		"no-store":            {answering(200, "x", "Cache-Control: no-store, max-age=60"), nil, chantal.Miss},
		"private":             {answering(200, "x", `Cache-Control: private="a,b", max-age=60`), nil, chantal.Miss},
		"Set-Cookie":          {answering(200, "x", fresh, "Set-Cookie: a=b"), nil, chantal.Miss},
		"Vary: *":             {answering(200, "x", fresh, "Vary: *"), nil, chantal.Miss},
		"Vary: Accept":        {answering(200, "x", fresh, "Vary: Accept-Encoding, Accept"), nil, chantal.Hit},
		"Vary: Accept, *":     {answering(200, "x", fresh, "Vary: Accept, *"), nil, chantal.Miss},
		"Vary: encoding":      {answering(200, "x", fresh, "Vary: accept-encoding"), nil, chantal.Hit},
		"nothing said":        {answering(200, "x"), nil, chantal.Miss},
		"asked Authorization": {answering(200, "x", fresh), http.Header{"Authorization": {"Basic eA=="}}, chantal.Miss},
		"asked Cookie":        {answering(200, "x", fresh), http.Header{"Cookie": {"a=b"}}, chantal.Miss},
		"asked with a token":  {answering(200, "x", fresh), http.Header{"Private-Token": {"t"}}, chantal.Miss},
		"asked no-store":      {answering(200, "x", fresh), http.Header{"Cache-Control": {"no-store"}}, chantal.Miss},
		"server error":        {answering(500, "x", fresh), nil, chantal.Miss},
		"redirect":            {answering(302, "x", "Location: /y"), nil, chantal.Miss},
		"redirect, for now":   {answering(302, "x", fresh, "Location: /y"), nil, chantal.Hit},
		"not found":           {answering(404, "x"), nil, chantal.Hit},
		"gone":                {answering(410, "x"), nil, chantal.Hit},
		"not found, private":  {answering(404, "x", "Cache-Control: private"), nil, chantal.Miss},
		"long and not found":  {answering(404, strings.Repeat("x", smallBody+1)), nil, chantal.Miss},
		"open-ended": {func(w http.ResponseWriter, _ *http.Request) {
			conn, buf, _ := w.(http.Hijacker).Hijack()
			defer conn.Close()
			fmt.Fprintf(buf, "HTTP/1.0 200 OK\r\n%s\r\n\r\nx", fresh)
			buf.Flush()
		}, nil, chantal.Miss},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.upstream(tc.answer)
			n++
			path := fmt.Sprintf("/%d", n)
			first, _, err := w.get(path, tc.header)
			if err != nil || first.Body == "" || first.Cache != chantal.Miss {
				t.Fatalf("first: %+v, %v", first, err)
			}
			for k, v := range tc.header {
				if diff := cmp.Diff(v, w.last[k]); diff != "" && k != "Cache-Control" {
					t.Errorf("%s upstream (-want +got):\n%s", k, diff)
				}
			}
			again, _, err := w.get(path, tc.header)
			if err != nil || again.Cache != tc.again || again.Status != first.Status || again.Body != first.Body {
				t.Errorf("second: %+v, %v; want cache status %d", again, err, tc.again)
			}
			w.later(replyMax)
			if last, _, err := w.get(path, tc.header); err != nil || first.Status != 200 && last.Cache != chantal.Miss {
				t.Errorf("later: %+v, %v", last, err)
			}
		})
	}
}

func TestSecretsAreNotAnsweredFromTheStore(t *testing.T) {
	w := newWorld(t, answering(200, "public", "Cache-Control: max-age=60"))
	w.want("public", "/f", nil, result{200, chantal.Miss, "public", true, 1})
	w.upstream(answering(200, "secret", "Cache-Control: max-age=60"))
	w.want("with a password", "/f", http.Header{"Authorization": {"Basic eA=="}}, result{200, chantal.Miss, "secret", false, 2})
	w.want("public again", "/f", nil, result{200, chantal.Hit, "public", true, 2})
}

func TestStaleStandsInForUpstream(t *testing.T) {
	down := answering(503, "down")
	short := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"2"`)
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
	}
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for name, tc := range map[string]struct {
		control string
		fault   http.HandlerFunc
		header  http.Header
		after   time.Duration
		stale   bool
	}{
		"503":               {"max-age=60", down, nil, time.Hour, true},
		"short body":        {"max-age=60", short, nil, time.Hour, true},
		"no answer":         {"max-age=60", cut, nil, time.Hour, true},
		"within its limit":  {"max-age=60, stale-if-error=7200", cut, nil, time.Hour, true},
		"beyond its limit":  {"max-age=60, stale-if-error=600", cut, nil, time.Hour, false},
		"must-revalidate":   {"max-age=60, must-revalidate", cut, nil, time.Hour, false},
		"s-maxage":          {"s-maxage=60", cut, nil, time.Hour, false},
		"client insists":    {"max-age=60", cut, http.Header{"Cache-Control": {"no-cache"}}, 0, false},
		"fresh, not wanted": {"max-age=60", cut, http.Header{"Cache-Control": {"max-age=0"}}, 10 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, answering(200, "one", "Cache-Control: "+tc.control, `ETag: "1"`))
			w.want("first", "/f", nil, result{200, chantal.Miss, "one", true, 1})
			w.later(tc.after)
			w.upstream(tc.fault)
			got, _, err := w.get("/f", tc.header)
			var ue *chantal.UpstreamError
			switch {
			case tc.stale && (err != nil || got.Cache != chantal.Stale || got.Body != "one"):
				t.Errorf("got %+v, %v; want the stale answer", got, err)
			case !tc.stale && !errors.As(err, &ue):
				t.Errorf("got %+v, %v; want an UpstreamError", got, err)
			}
		})
	}
}

func TestWhatIsGoneIsNotAnsweredAgain(t *testing.T) {
	w := newWorld(t, answering(200, "one", "Cache-Control: max-age=60"))
	w.want("first", "/f", nil, result{200, chantal.Miss, "one", true, 1})
	w.later(time.Hour)
	w.upstream(answering(404, "gone"))
	w.want("deleted", "/f", nil, result{404, chantal.Miss, "gone", false, 2})
	w.later(time.Hour)
	w.upstream(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	w.restart()
	if got, _, err := w.get("/f", nil); err == nil {
		t.Errorf("then down: %+v, want an error", got)
	}
}

func TestShortBodyIsNeverComplete(t *testing.T) {
	const size = 300 << 10
	for _, kind := range []string{"length", "chunked"} {
		w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("ETag", `"1"`)
			if kind == "length" {
				rw.Header().Set("Content-Length", fmt.Sprint(size))
			}
			fmt.Fprint(rw, strings.Repeat("x", size-1))
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		got, _, err := w.get("/f", nil)
		if err == nil || len(got.Body) > size-64<<10 {
			t.Errorf("%s: %d bytes, %v; want an error before the last 64 KiB", kind, len(got.Body), err)
		}
		w.upstream(answering(200, "whole", "Cache-Control: max-age=60"))
		if got, _, err = w.get("/f", nil); err != nil || got.Body != "whole" {
			t.Errorf("%s: then %+v, %v", kind, got, err)
		}
	}
}
