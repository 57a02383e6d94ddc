package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/cas"
	"chantal/internal/catalog"
	"chantal/internal/fetch"
	"chantal/mirror"
	"chantal/snapshot"
)

// sentOver notes what is written to the connections of a server, and how.
type sentOver struct {
	net.Listener
	mu   sync.Mutex
	from []string // the sources that ReadFrom was given
	most int      // the largest Write in bytes
}

func (s *sentOver) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{c.(*net.TCPConn), s}, nil
}

func (s *sentOver) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.most = nil, 0
}

func (s *sentOver) seen() ([]string, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from, s.most
}

type watchedConn struct {
	*net.TCPConn
	sent *sentOver
}

func (c *watchedConn) ReadFrom(r io.Reader) (int64, error) {
	what := fmt.Sprintf("%T", r)
	if l, ok := r.(*io.LimitedReader); ok {
		what = fmt.Sprintf("%T of %d bytes", l.R, l.N)
	}
	c.sent.mu.Lock()
	c.sent.from = append(c.sent.from, what)
	c.sent.mu.Unlock()
	return c.TCPConn.ReadFrom(r)
}

func (c *watchedConn) Write(p []byte) (int, error) {
	c.sent.mu.Lock()
	c.sent.most = max(c.sent.most, len(p))
	c.sent.mu.Unlock()
	return c.TCPConn.Write(p)
}

// serveFiles serves the repository "files" of the given content on loopback.
func serveFiles(t *testing.T, files map[string][]byte) (url string, sent *sentOver) {
	t.Helper()
	return serveSource(t, fetch.SourceFunc(func(_ context.Context, r *fetch.Request) (*fetch.Response, error) {
		content, ok := files[r.URL[len(filesBase):]]
		status := http.StatusOK
		if !ok {
			status = http.StatusNotFound
		}
		return &fetch.Response{
			Status: status, Header: http.Header{}, Size: int64(len(content)), URL: r.URL,
			Body: io.NopCloser(bytes.NewReader(content)),
		}, nil
	}))
}

const filesBase = "http://mirror.example.org/files/"

// serveSource serves the repository "files", of whose files nothing is
// promised, from what source has of it.
func serveSource(t *testing.T, source fetch.Source) (url string, sent *sentOver) {
	t.Helper()
	dir := t.TempDir()
	store, err := cas.Open(dir, cas.Options{SyncEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	facts, err := catalog.Open(filepath.Join(dir, "catalog.db"), store, catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := mirror.New(mirror.Options{Store: store, Catalog: facts, Source: source, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if _, err := m.Add(mirror.Settings{Name: "files", Type: "generic", Upstream: []string{filesBase}, Refresh: time.Hour}); err != nil {
		t.Fatal(err)
	}
	h := New(Options{
		Mirror: m, Names: snapshot.New(facts, m, time.Now), Metrics: NewMetrics(), Via: "chantal-test",
		Clients: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Log: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sent = &sentOver{Listener: l}
	srv := h.Server("")
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(sent) })
	t.Cleanup(func() {
		srv.Close()
		served.Wait()
		if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := facts.Close(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String() + "/files/", sent
}

// fetched asks for a URL with further header fields, as "key", "value", …
func fetched(t *testing.T, method, url string, fields ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
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

// fill asks for a URL until the answer is a hit.
func fill(t *testing.T, url string) {
	t.Helper()
	for range 500 {
		if resp, _ := fetched(t, http.MethodGet, url); resp.Header.Get("Cache-Status") == "chantal; hit" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s never becomes a hit", url)
}

func TestALargeHitIsLeftToTheKernel(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	url, sent := serveFiles(t, map[string][]byte{"large.bin": large})
	fill(t, url+"large.bin")
	for name, c := range map[string]struct {
		fields []string
		from   int
	}{
		"whole": {nil, 0},
		"part":  {[]string{"Range", "bytes=100000-"}, 100_000},
	} {
		t.Run(name, func(t *testing.T) {
			sent.forget()
			_, body := fetched(t, http.MethodGet, url+"large.bin", c.fields...)
			if !bytes.Equal(body, large[c.from:]) {
				t.Errorf("got %d bytes that are not the %d wanted", len(body), len(large)-c.from)
			}
			from, most := sent.seen()
			want := []string{fmt.Sprintf("%T of %d bytes", &os.File{}, len(large)-c.from)}
			if diff := cmp.Diff(want, from); diff != "" {
				t.Errorf("what ReadFrom of the connection got (-want +got):\n%s", diff)
			}
			if most > 4<<10 {
				t.Errorf("a Write of %d bytes: that is more than a head", most)
			}
		})
	}
}

// Whole answers and those that ServeContent makes have to look alike.
func TestAHitSaysTheSameOnEveryPath(t *testing.T) {
	files := map[string][]byte{"small.deb": []byte("a small file"), "large.deb": bytes.Repeat([]byte("large"), 40_000)}
	url, _ := serveFiles(t, files)
	for name, content := range files {
		fill(t, url+name)
		resp, body := fetched(t, http.MethodGet, url+name)
		if !bytes.Equal(body, content) {
			t.Fatalf("%s: got %d bytes that are not the %d wanted", name, len(body), len(content))
		}
		etag := fmt.Sprintf(`"%x"`, sha256.Sum256(content))
		want := http.Header{
			"Accept-Ranges": {"bytes"}, "Cache-Control": {"no-cache"}, "Cache-Status": {"chantal; hit"}, "Chantal-Generation": {"1"},
			"Chantal-Ref": {"files@live"}, "Content-Length": {fmt.Sprint(len(content))}, "Etag": {etag},
			"Content-Type": {"application/vnd.debian.binary-package"}, "Last-Modified": resp.Header["Last-Modified"],
		}
		resp.Header.Del("Date")
		if diff := cmp.Diff(want, resp.Header); diff != "" {
			t.Errorf("%s: fields of a hit (-want +got):\n%s", name, diff)
		}
		head, body := fetched(t, http.MethodHead, url+name)
		head.Header.Del("Date")
		if diff := cmp.Diff(want, head.Header); diff != "" || len(body) > 0 {
			t.Errorf("%s: HEAD has %d bytes and other fields than GET (-GET +HEAD):\n%s", name, len(body), diff)
		}
		part, body := fetched(t, http.MethodGet, url+name, "Range", "bytes=2-6", "If-Range", etag)
		if part.StatusCode != http.StatusPartialContent || !bytes.Equal(body, content[2:7]) {
			t.Errorf("%s: a part is %s, %q", name, part.Status, body)
		}
		for key, value := range map[string]string{"If-None-Match": etag, "If-Modified-Since": resp.Header.Get("Last-Modified")} {
			if again, _ := fetched(t, http.MethodGet, url+name, key, value); again.StatusCode != http.StatusNotModified {
				t.Errorf("%s: %s with what the client has is %s", name, key, again.Status)
			}
		}
		later := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
		if again, body := fetched(t, http.MethodGet, url+name, "If-Modified-Since", later); again.StatusCode != http.StatusOK || !bytes.Equal(body, content) {
			t.Errorf("%s: another date than the one given out is %s with %d bytes", name, again.Status, len(body))
		}
	}
}
