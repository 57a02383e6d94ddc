package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// A tap stands before chantal and notes what clients ask for and get.
type tap struct {
	url string

	mu   sync.Mutex
	seen []asked
}

type asked struct {
	method, path string
	parts        int // how many ranges; 0 for the whole
	ifRange      bool
	status       int
}

func newTap(t *testing.T, listen string) *tap {
	t.Helper()
	tp := &tap{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: listen})
	proxy.ModifyResponse = func(resp *http.Response) error {
		r := resp.Request
		a := asked{r.Method, r.URL.Path, 0, r.Header.Get("If-Range") != "", resp.StatusCode}
		if spec := r.Header.Get("Range"); spec != "" {
			a.parts = 1 + strings.Count(spec, ",")
		}
		tp.mu.Lock()
		defer tp.mu.Unlock()
		tp.seen = append(tp.seen, a)
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	tp.url = server.URL
	return tp
}

// about returns the requests for paths with that end since the last call.
func (tp *tap) about(end string) (found []asked) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	for _, a := range tp.seen {
		if strings.HasSuffix(a.path, end) {
			found = append(found, a)
		}
	}
	tp.seen = nil
	return found
}

// program returns the path of a program; without it the test fails where CI=true.
func program(t *testing.T, name string, find func(string) (string, error)) string {
	t.Helper()
	path, err := find(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%s is needed where CI=true: %v", name, err)
	}
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func runIn(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
}

// apt goes on with what it has of a package, by date, from a cache that has the
// file and from one that does not.
func TestAptResumesAPartialDownload(t *testing.T) {
	apt := program(t, "apt-get", exec.LookPath)
	var packages []testenv.Package
	for _, name := range []string{"cold", "warm", "other-date"} {
		packages = append(packages, testenv.Package{Name: name, Version: "1.0", Size: 300_000})
	}
	b := newBench(t, packages...)
	b.serve(t)
	tp := newTap(t, b.listen)
	base := t.TempDir()
	if err := aptSystem(base); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "etc/sources.list"), []byte("deb [trusted=yes] "+tp.url+"/debian bookworm main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	env := []string{"APT_CONFIG=" + base + "/apt.conf"}
	runIn(t, base, env, apt, "-q", "update", "--error-on=any")
	for name, want := range map[string]asked{
		"cold":       {"GET", "", 1, true, 206},
		"warm":       {"GET", "", 1, true, 206},
		"other-date": {"GET", "", 1, true, 200},
	} {
		file := name + "_1.0_all.deb"
		path := "/debian/pool/main/" + name[:1] + "/" + name + "/" + file
		content, ok := b.server.File(path)
		if !ok {
			t.Fatalf("upstream has no %s", path)
		}
		if name == "warm" {
			if _, err := b.sum(t.Context(), strings.TrimPrefix(path, "/debian/")); err != nil {
				t.Fatal(err)
			}
		}
		have, date := content.Content[:120_000], content.Modified
		if name == "other-date" {
			have, date = bytes.Repeat([]byte("x"), 120_000), date.Add(-time.Hour)
		}
		partial := filepath.Join(base, "cache/archives/partial", file)
		if err := os.WriteFile(partial, have, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(partial, date, date); err != nil {
			t.Fatal(err)
		}
		tp.about("")
		runIn(t, base, env, apt, "-q", "-y", "install", "--download-only", name)
		got, err := os.ReadFile(filepath.Join(base, "cache/archives", file))
		if err != nil || !bytes.Equal(got, content.Content) {
			t.Errorf("%s: apt has %d bytes that are not the file, %v", name, len(got), err)
		}
		want.path = path
		if requests := tp.about(file); len(requests) == 0 || requests[0] != want {
			t.Errorf("%s: requests %+v, want first %+v", name, requests, want)
		}
	}
}

// pip and uv read the end of a wheel to learn what it depends on, where the
// index has no metadata beside it.
func TestLazyWheels(t *testing.T) {
	index := testenv.NewPyPI(time.Now())
	index.NoMetadata = true
	for _, p := range []testenv.Package{{Name: "lazy", Version: "1.0", Depends: "six>=1", Size: 400_000}, {Name: "six", Version: "1.0", Size: 100_000}} {
		if err := index.Add(p, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := index.Publish()
	if err != nil {
		t.Fatal(err)
	}
	for client, args := range map[string][]string{
		"pip": {"install", "--isolated", "--no-cache-dir", "--disable-pip-version-check", "--use-feature=fast-deps", "--only-binary=:all:"},
		"uv":  {"--no-cache", "--no-config", "pip", "install"},
	} {
		t.Run(client, func(t *testing.T) {
			path := program(t, client, python)
			b := newBench(t)
			b.server.Publish("", files)
			b.configure(t, fmt.Sprintf("egress: {allow_private: [127.0.0.0/8]}\nrepos:\n  - {name: pypi, type: pypi, upstream: [%q]}\n", b.server.URL()+"/simple/"))
			b.serve(t)
			tp := newTap(t, b.listen)
			for _, state := range []string{"cold", "warm"} {
				dir := t.TempDir()
				runIn(t, dir, nil, path, append(slices.Clone(args), "--target", dir, "--index-url", tp.url+"/pypi/simple/", "lazy")...)
				if _, err := os.Stat(filepath.Join(dir, "six.py")); err != nil {
					t.Errorf("%s: what the wheel depends on was not installed: %v", state, err)
				}
				requests := tp.about("lazy-1.0-py3-none-any.whl")
				if !slices.ContainsFunc(requests, func(a asked) bool { return a.parts > 0 && a.status == http.StatusPartialContent }) {
					t.Errorf("%s: no part was asked for and got: %+v", state, requests)
				}
			}
			if n := b.server.Count("/files/"); n > 2 {
				t.Errorf("upstream was asked %d times for two wheels", n)
			}
		})
	}
}

// zckdl asks for the hundreds of chunks that an older file does not have.
func TestZchunkDeltas(t *testing.T) {
	zck, zckdl := program(t, "zck", exec.LookPath), program(t, "zckdl", exec.LookPath)
	random := rand.New(rand.NewPCG(5, 6))
	old := make([]byte, 40<<20)
	for i := range old {
		old[i] = "0123456789abcdef"[random.IntN(16)]
	}
	changed := bytes.Clone(old)
	for at := 0; at < len(changed); at += 100_000 {
		copy(changed[at:], fmt.Sprintf("changed %d", at))
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"old": old, "new": changed} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
		runIn(t, dir, nil, zck, name)
	}
	want, err := os.ReadFile(filepath.Join(dir, "new.zck"))
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"cold", "warm"} {
		t.Run(state, func(t *testing.T) {
			b := newBench(t)
			b.server.Put("/debian/extra/new.zck", testenv.File{Content: want, Modified: time.Now().Add(-time.Hour)})
			b.serve(t)
			b.update(t)
			tp := newTap(t, b.listen)
			if state == "warm" {
				if _, err := b.sum(t.Context(), "extra/new.zck"); err != nil {
					t.Fatal(err)
				}
			}
			to := t.TempDir()
			runIn(t, to, nil, zckdl, "--fail-no-ranges", "-s", filepath.Join(dir, "old.zck"), tp.url+"/debian/extra/new.zck")
			got, err := os.ReadFile(filepath.Join(to, "new.zck"))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("zckdl made %d bytes that are not the %d, %v", len(got), len(want), err)
			}
			most := 0
			requests := tp.about("new.zck")
			for _, a := range requests {
				most = max(most, a.parts)
				if a.parts > 0 && a.status != http.StatusPartialContent {
					t.Errorf("%d ranges were answered %d", a.parts, a.status)
				}
			}
			t.Logf("%d requests, one for %d ranges", len(requests), most)
			if most < 250 {
				t.Errorf("at most %d ranges were asked for at once", most)
			}
			if n := b.server.Count("/debian/extra/"); n != 1 {
				t.Errorf("upstream was asked %d times", n)
			}
		})
	}
}
