package httpcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/fetch"
)

func lang(s string) http.Header { return http.Header{"Accept-Language": {s}} }

func TestRepresentationsAreKeptApart(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		answering(200, "in "+r.Header.Get("Accept-Language"), "Cache-Control: max-age=60", "Vary: Accept-Encoding, accept-language")(rw, r)
	})
	w.want("German", "/f", lang("de"), result{200, chantal.Miss, "in de", true, 1})
	w.want("English", "/f", lang("en"), result{200, chantal.Miss, "in en", true, 2})
	w.want("none", "/f", nil, result{200, chantal.Miss, "in ", true, 3})
	w.restart()
	for spelled, body := range map[string]string{"de": "in de", " DE ,": "in de", "en": "in en", "*": "in "} {
		w.want("again "+spelled, "/f", lang(spelled), result{200, chantal.Hit, body, true, 3})
	}
	for i := range variantsMax {
		w.want("many", "/f", lang(fmt.Sprintf("x%d", i)), result{200, chantal.Miss, fmt.Sprintf("in x%d", i), true, 4 + i})
	}
	w.want("the oldest is gone", "/f", lang("de"), result{200, chantal.Miss, "in de", true, 4 + variantsMax})
}

// An upstream that does not say that it looks at a field may do so all the
// same: nobody gets what another client's field brought about, before upstream
// has said that it is the same.
func TestFieldsThatGoUpstreamArePartOfTheKey(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		answering(200, "for "+r.Header.Get("Accept-Language"), "Cache-Control: max-age=60")(rw, r)
	})
	w.want("one", "/f", lang("<script>"), result{200, chantal.Miss, "for <script>", true, 1})
	w.want("another", "/f", nil, result{200, chantal.Miss, "for ", true, 2})

	w.upstream(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"1"` {
			answering(304, "", `ETag: "1"`, "Cache-Control: max-age=600")(rw, r)
			return
		}
		answering(200, "same for all", "Cache-Control: max-age=60", `ETag: "1"`)(rw, r)
	})
	w.want("German", "/g", lang("de"), result{200, chantal.Miss, "same for all", true, 3})
	w.want("English", "/g", lang("en"), result{200, chantal.Revalidated, "same for all", true, 4})
	w.want("English again", "/g", lang("en"), result{200, chantal.Hit, "same for all", true, 4})
	w.later(5 * time.Minute)
	w.want("German, by the 304 that names its state", "/g", lang("de"), result{200, chantal.Hit, "same for all", true, 4})
	w.upstream(answering(503, "down"))
	w.want("French, when upstream is down", "/g", lang("fr"), result{200, chantal.Stale, "same for all", true, 5})
}

func TestCredentialsKeepAnswersApart(t *testing.T) {
	w := newWorld(t, answering(200, "one", "Cache-Control: max-age=60"))
	w.want("for all", "/f", nil, result{200, chantal.Miss, "one", true, 1})
	a, err := w.cache.Open(t.Context(), Request{Repo: "secret", URL: w.url + "/f"})
	if err != nil || a.Cache != chantal.Miss {
		t.Fatalf("for a repository: %+v, %v; want its own", a, err)
	}
	a.Close()
}

func TestCodingsOnlyForThoseWhoReadThem(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("upstream was asked for %q", r.Header.Get("Accept-Encoding"))
		}
		answering(200, "squeezed", "Cache-Control: max-age=60, no-transform", "Content-Encoding: gzip", "Content-Type: text/plain")(rw, r)
	})
	reader := http.Header{"Accept-Encoding": {"br;q=0.5, GZIP"}}
	h := w.want("one who reads it", "/f", reader, result{200, chantal.Miss, "squeezed", true, 1})
	if h.Get("Content-Encoding") != "gzip" {
		t.Error("the coding is not told")
	}
	w.want("again", "/f", reader, result{200, chantal.Hit, "squeezed", true, 1})
	for _, header := range []http.Header{nil, {"Accept-Encoding": {"identity"}}, {"Accept-Encoding": {"gzip;q=0, br"}}, {"Accept-Encoding": {"gzip;q=0.00"}}} {
		var ue *chantal.UpstreamError
		if got, _, err := w.get("/f", header); !errors.As(err, &ue) || ue.Status != 200 {
			t.Errorf("%v: %+v, %v; want an error", header, got, err)
		}
	}
	// The name says the same: the bytes are the file's own.
	w.want("as it lies on disk", "/f.gz", nil, result{200, chantal.Miss, "squeezed", true, 6})
	w.want("again", "/f.gz", nil, result{200, chantal.Hit, "squeezed", true, 6})
}

func TestSmallAnswersAreGivenAgainForAWhile(t *testing.T) {
	w := newWorld(t, nil)
	n := 0
	for fields, again := range map[string]time.Duration{
		"X: y":                           replyFor,
		"Cache-Control: max-age=30":      30 * time.Second,
		"Cache-Control: max-age=3600":    replyMax,
		"Cache-Control: max-age=0":       0,
		"Cache-Control: no-cache":        0,
		"Cache-Control: no-store":        0,
		"Set-Cookie: a=b":                0,
		"Vary: *":                        0,
		"Expires: 0":                     0,
		"Age: 15, 3":                     replyFor,
		"Cache-Control: s-maxage=20":     20 * time.Second,
		"Cache-Control: max-age=4e9":     0,
		"Cache-Control: max-age=9999999": replyMax,
	} {
		n++
		path := fmt.Sprintf("/%d", n)
		asked := int(w.asked.Load())
		w.upstream(answering(404, "no", fields))
		w.want(fields, path, nil, result{404, chantal.Miss, "no", false, asked + 1})
		if again > 2*time.Second {
			w.later(again - 2*time.Second)
			w.want(fields+", again", path, nil, result{404, chantal.Hit, "no", false, asked + 1})
			w.want(fields+", asked", path, http.Header{"Cache-Control": {"no-cache"}}, result{404, chantal.Miss, "no", false, asked + 2})
			w.later(again)
		}
		w.upstream(answering(200, "yes", "Cache-Control: max-age=60"))
		if got, _, err := w.get(path, nil); err != nil || got.Body != "yes" {
			t.Errorf("%s, later: %+v, %v; want upstream's answer", fields, got, err)
		}
	}
}

func TestHead(t *testing.T) {
	w := newWorld(t, answering(200, "one", "Cache-Control: max-age=60", `ETag: "1"`, "Content-Length: 3"))
	head := func(what string, header http.Header, cache chantal.CacheStatus, stored bool, asked int) http.Header {
		t.Helper()
		a, err := w.cache.Open(t.Context(), Request{Method: http.MethodHead, URL: w.url + "/f", Header: header})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer a.Close()
		if n := int(w.asked.Load()); a.Cache != cache || (a.File != nil) != stored || n != asked {
			t.Errorf("%s: %+v after %d requests", what, a, n)
		}
		return a.Header
	}
	if h := head("miss", nil, chantal.Miss, false, 1); h.Get("Content-Length") != "3" || h.Get("ETag") != `"1"` {
		t.Errorf("header is %v", h)
	}
	head("a HEAD stores nothing", nil, chantal.Miss, false, 2)
	w.want("GET", "/f", nil, result{200, chantal.Miss, "one", true, 3})
	head("stored", nil, chantal.Hit, true, 3)
	w.later(2 * time.Minute)
	head("stale", nil, chantal.Miss, false, 4)
	w.want("freshened by HEAD", "/f", nil, result{200, chantal.Hit, "one", true, 4})
	w.later(2 * time.Minute)
	w.upstream(answering(503, "down"))
	head("down", nil, chantal.Stale, true, 5)
	head("down, and asked", http.Header{"Cache-Control": {"no-cache"}}, chantal.Miss, false, 6)
	w.upstream(answering(200, "longer", "Cache-Control: max-age=60", `ETag: "1"`, "Content-Length: 6"))
	head("another length", nil, chantal.Miss, false, 7)
	w.upstream(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if got, _, err := w.get("/f", nil); err == nil {
		t.Errorf("what HEAD found outdated is given out: %+v", got)
	}
}

func TestUnsafeMethodsEndWhatIsKept(t *testing.T) {
	w := newWorld(t, answering(200, "one", "Cache-Control: max-age=60"))
	for i, path := range []string{"/f", "/g", "/h", "/f2"} {
		w.want("first", path, nil, result{200, chantal.Miss, "one", true, i + 1})
	}
	w.want("another language", "/f", lang("de"), result{200, chantal.Miss, "one", true, 5})
	w.cache.Invalidate("", w.url+"/f", http.Header{"Location": {"/g"}, "Content-Location": {"http://mirror.example.org/h"}})
	w.want("its URL", "/f", nil, result{200, chantal.Miss, "one", true, 6})
	w.want("in every language", "/f", lang("de"), result{200, chantal.Miss, "one", true, 7})
	w.want("where it leads", "/g", nil, result{200, chantal.Miss, "one", true, 8})
	w.want("another host's word", "/h", nil, result{200, chantal.Hit, "one", true, 8})
	w.want("another URL", "/f2", nil, result{200, chantal.Hit, "one", true, 8})

	w.upstream(answering(404, "no"))
	w.want("missing", "/new", nil, result{404, chantal.Miss, "no", false, 9})
	w.cache.Invalidate("", w.url+"/new", nil)
	w.want("asked again", "/new", nil, result{404, chantal.Miss, "no", false, 10})
}

func TestAnswerFromBeforeAnUnsafeMethodIsNotKept(t *testing.T) {
	for _, status := range []int{200, 404} {
		arrived, release := make(chan struct{}), make(chan struct{})
		w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
			close(arrived)
			<-release
			answering(status, "old", "Cache-Control: max-age=60")(rw, r)
		})
		done := make(chan result)
		go func() {
			got, _, _ := w.get("/f", nil)
			done <- got
		}()
		<-arrived
		w.cache.Invalidate("", w.url+"/f", nil)
		close(release)
		if got := <-done; got.Body != "old" {
			t.Errorf("%d: who asked before got %+v", status, got)
		}
		w.cache.work.Wait()
		w.upstream(answering(200, "new", "Cache-Control: max-age=60"))
		w.want("who asks after", "/f", nil, result{200, chantal.Miss, "new", true, 2})
	}
}

const page = "<!DOCTYPE html><html><body>Please log in</body></html>"

func TestWebPagesInPlaceOfFilesAreNotKept(t *testing.T) {
	portal := answering(200, page, "Content-Type: text/html; charset=utf-8", "Cache-Control: max-age=600")
	w := newWorld(t, portal)
	for path, again := range map[string]chantal.CacheStatus{
		"/pool/hello_1_amd64.deb": chantal.Miss, "/a.ISO?x=1.html": chantal.Miss, "/archive.key": chantal.Miss,
		"/index.html": chantal.Hit, "/dir/": chantal.Hit, "/simple/six/": chantal.Hit, "/x?name=a.deb": chantal.Hit,
	} {
		for i, want := range []chantal.CacheStatus{chantal.Miss, again} {
			if got, _, err := w.get(path, nil); err != nil || got.Body != page || got.Cache != want {
				t.Errorf("%s, request %d: %+v, %v", path, i, got, err)
			}
		}
	}
	// Text with a wrong type is what it is.
	w.upstream(answering(200, "-----BEGIN PGP", "Content-Type: text/html", "Cache-Control: max-age=60", `ETag: "1"`))
	w.want("a key", "/f.asc", nil, result{200, chantal.Miss, "-----BEGIN PGP", true, int(w.asked.Load()) + 1})
	w.want("a key", "/f.asc", nil, result{200, chantal.Hit, "-----BEGIN PGP", true, int(w.asked.Load())})
	w.later(time.Hour)
	w.upstream(portal)
	w.want("then a portal", "/f.asc", nil, result{200, chantal.Stale, "-----BEGIN PGP", true, int(w.asked.Load()) + 1})
}

func TestStaleAsLongAsUpstreamFails(t *testing.T) {
	for name, fault := range map[string]http.HandlerFunc{
		"408": answering(408, "late"), "429": answering(429, "slow down"), "500": answering(500, "x"),
		"502": answering(502, "x"), "504": answering(504, "x"),
		"not HTTP": func(rw http.ResponseWriter, _ *http.Request) {
			conn, _, _ := rw.(http.Hijacker).Hijack()
			io.WriteString(conn, "nonsense\r\n\r\n")
			conn.Close()
		},
	} {
		w := newWorld(t, answering(200, "one", "Cache-Control: max-age=60"))
		w.want(name, "/f", nil, result{200, chantal.Miss, "one", true, 1})
		w.later(time.Hour)
		w.upstream(fault)
		w.want(name, "/f", nil, result{200, chantal.Stale, "one", true, 2})
		w.want(name+": not asked at once again", "/f", nil, result{200, chantal.Stale, "one", true, 2})
		w.later(retry)
		w.upstream(answering(200, "two", "Cache-Control: max-age=60"))
		w.want(name+": then up", "/f", nil, result{200, chantal.Miss, "two", true, 3})
	}
}

func TestStaleWhenNoAnswerComes(t *testing.T) {
	for name, upstream := range map[string]func(http.Handler) *httptest.Server{
		"a certificate that nobody trusts": httptest.NewTLSServer,
		"silence":                          httptest.NewServer,
	} {
		w := newWorld(t, nil)
		w.src = fetch.New(fetch.Options{Timeout: 50 * time.Millisecond, Egress: fetch.NewEgress([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil)})
		w.restart()
		srv := upstream(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(srv.Close)
		w.url = srv.URL
		if _, _, err := w.get("/f", nil); err == nil {
			t.Errorf("%s: an answer came", name)
		}
		w.put("/f", "one", "Cache-Control: max-age=60")
		w.later(time.Hour)
		w.want(name, "/f", nil, result{200, chantal.Stale, "one", true, 0})
	}
}

// put keeps content as if it had been fetched.
func (w *world) put(path, content string, fields ...string) {
	w.t.Helper()
	blob, err := w.store.Put(cas.Want{Path: path, Size: int64(len(content))}, []byte(content))
	if err != nil {
		w.t.Fatal(err)
	}
	h := http.Header{}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Add(name, value)
	}
	q := newQuery(Request{URL: w.url + path})
	w.cache.keep(&q, nil, &entry{Header: h, Digest: blob.Digest, Size: blob.Size, Requested: w.now(), Received: w.now()}, nil)
}

// Whoever could have a stale answer does not wait for an upstream that is slow
// to say anything.
func TestStaleAnswersDoNotWaitForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := cas.Open(t.TempDir(), cas.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		w := &world{t: t, url: "http://mirror.example.org", store: store}
		w.src = fetch.SourceFunc(func(ctx context.Context, r *fetch.Request) (*fetch.Response, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		w.restart()
		w.put("/f", "one", "Cache-Control: max-age=60")
		w.later(time.Hour)
		began := time.Now()
		a, err := w.cache.Open(t.Context(), Request{URL: w.url + "/f"})
		if err != nil || a.Cache != chantal.Stale || time.Since(began) != patience {
			t.Errorf("after %s: %+v, %v; want the stale answer after %s", time.Since(began), a, err, patience)
		}
		a.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := w.cache.Open(ctx, Request{URL: w.url + "/f", Header: http.Header{"Cache-Control": {"no-cache"}}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who insists on upstream's word got %v", err)
		}
		if err := w.cache.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
