package testenv

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fetch returns status and body of one GET; the error is that of reading the
// body.
func fetch(t *testing.T, url string) (int, []byte, error) {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func TestFaultsByURLAndByRule(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 100)
	changed := func(at int) []byte { b := bytes.Clone(body); b[at] ^= 0x20; return b }
	for kind, want := range map[Fault]struct {
		status int
		body   []byte
		err    error
	}{
		NotFound:    {404, []byte("Not Found\n"), nil},
		Unavailable: {503, []byte("Service Unavailable\n"), nil},
		Truncate:    {200, body[:500], io.ErrUnexpectedEOF},
		Lie:         {200, body, io.ErrUnexpectedEOF},
		Corrupt:     {200, changed(500), nil},
		Tail:        {200, changed(999), nil},
		NoETag:      {200, body, nil},
		Chunked:     {200, body, nil},
		Slow:        {200, body, nil},
		Redirect:    {302, nil, nil},
		Portal:      {200, []byte(portalPage), nil},
		Empty:       {200, nil, nil},
	} {
		t.Run(string(kind), func(t *testing.T) {
			s := start(t)
			s.Publish("", Files{"a/b": {Content: body, Modified: packed}})
			s.Fail(kind, "/a/", 1)
			for _, url := range []string{s.URL() + "/a/b", s.URL() + "/" + string(kind) + "/a/b"} {
				status, got, err := fetch(t, url)
				if status != want.status || !errors.Is(err, want.err) {
					t.Errorf("GET %s = %d, %v; want %d, %v", url, status, err, want.status, want.err)
				}
				if diff := cmp.Diff(string(want.body), string(got)); diff != "" {
					t.Errorf("body of %s (-want +got):\n%s", url, diff)
				}
			}
			if status, got, err := fetch(t, s.URL()+"/a/b"); status != 200 || !bytes.Equal(got, body) || err != nil {
				t.Errorf("after the fault: %d, %v", status, err)
			}
			if got := s.Count("/a/b"); got != 3 {
				t.Errorf("Count = %d, want 3", got)
			}
		})
	}
}

func TestStallHoldsUntilReleased(t *testing.T) {
	s := start(t)
	s.Publish("", Files{"f": {Content: make([]byte, 1000)}})
	s.Fail(Stall, "/f", -1)
	resp, err := http.Get(s.URL() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 500)); err != nil {
		t.Fatal(err)
	}
	rest := make(chan error, 1)
	go func() { _, err := io.ReadFull(resp.Body, make([]byte, 500)); rest <- err }()
	select {
	case err := <-rest:
		t.Fatalf("the second half came before Release: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	s.Release()
	if err := <-rest; err != nil {
		t.Fatal(err)
	}
}

func TestFlipPublishesBetweenTwoRequests(t *testing.T) {
	s := start(t)
	s.Publish("p", Files{"root": {Content: []byte("old")}, "index": {Content: []byte("old")}})
	s.Stage("p", Files{"root": {Content: []byte("new")}, "index": {Content: []byte("new")}})
	s.Fail(Flip, "/p/root", 1)
	for _, want := range []struct{ path, body string }{{"/p/root", "old"}, {"/p/index", "new"}, {"/p/root", "new"}} {
		if _, got, err := fetch(t, s.URL()+want.path); string(got) != want.body || err != nil {
			t.Errorf("GET %s = %q, %v; want %q", want.path, got, err, want.body)
		}
	}
}

func TestDownAndUpKeepThePort(t *testing.T) {
	s := start(t)
	s.Publish("", Files{"f": {Content: []byte("x")}})
	url := s.URL()
	s.Down()
	if _, _, err := fetch(t, url+"/f"); err == nil {
		t.Error("a server that is down answered")
	}
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	if status, _, err := fetch(t, url+"/f"); status != 200 || err != nil || s.URL() != url {
		t.Errorf("after Up: %d, %v at %s, want 200 at %s", status, err, s.URL(), url)
	}
}

func TestWaitForEndsWithItsContext(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.WaitFor(ctx, "/never", 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitFor = %v, want the deadline", err)
	}
}

func TestGPGVerifiesRoots(t *testing.T) {
	gpgv := tool(t, "gpgv")
	key := newKey(t, "archive")
	a := NewAPT(key, time.Now(), "bookworm")
	files := must(a.Publish())(t)
	dir := t.TempDir()
	ring := write(t, filepath.Join(dir, "ring.gpg"), must(key.Binary())(t))
	for _, name := range []string{"InRelease", "Release", "Release.gpg"} {
		write(t, filepath.Join(dir, name), files["dists/bookworm/"+name].Content)
	}
	run(t, nil, gpgv, "--keyring", ring, "--output", dir+"/text", dir+"/InRelease")
	run(t, nil, gpgv, "--keyring", ring, dir+"/Release.gpg", dir+"/Release")
	text, err := os.ReadFile(dir + "/text")
	if err != nil {
		t.Fatal(err)
	}
	// gpgv ends the text with a line break that is not part of it.
	if diff := cmp.Diff(string(files["dists/bookworm/Release"].Content)+"\n", string(text)); diff != "" {
		t.Errorf("InRelease differs from Release:\n%s", diff)
	}
	write(t, filepath.Join(dir, "Release"), []byte("Suite: other\n"))
	if out, err := exec.Command(gpgv, "--keyring", ring, dir+"/Release.gpg", dir+"/Release").CombinedOutput(); err == nil {
		t.Errorf("a changed Release verifies:\n%s", out)
	}
}

func TestPublishingAgainIsNewerAndKeepsByHash(t *testing.T) {
	a := NewAPT(newKey(t, "archive"), time.Now(), "bookworm")
	a.ByHash = true
	first := must(a.Publish())(t)
	if err := a.Add(hello); err != nil {
		t.Fatal(err)
	}
	second := must(a.Publish())(t)
	const root = "dists/bookworm/InRelease"
	if d := second[root].Modified.Sub(first[root].Modified); d != time.Minute {
		t.Errorf("the second publishing is %v newer, want a minute", d)
	}
	for name := range first {
		if _, ok := second[name]; !ok { // pool files and indexes of both, and by-hash of the first
			t.Errorf("%s is gone", name)
		}
	}
	const index = "dists/bookworm/main/binary-amd64/Packages"
	if bytes.Equal(first[index].Content, second[index].Content) {
		t.Error("Packages did not change")
	}
}
