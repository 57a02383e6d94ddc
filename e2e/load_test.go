package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// bench is a Go test's own upstream with an apt repository, and what serve
// needs to run in front of it.
type bench struct {
	server *testenv.Server
	want   map[string][32]byte // sha256 of what upstream has in its pool, by path below the repository
	dir    string
	listen string
}

// newBench publishes packages at upstream /debian and configures serve for it.
func newBench(t *testing.T, packages ...testenv.Package) *bench {
	t.Helper()
	server, err := testenv.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Heal(); server.Down() })
	key, err := testenv.NewKey("archive", time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	repo := testenv.NewAPT(key, time.Now(), "bookworm")
	repo.ByHash = true
	for _, p := range packages {
		if err := repo.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	files, err := repo.Publish()
	if err != nil {
		t.Fatal(err)
	}
	server.Publish("debian", files)
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{server: server, want: map[string][32]byte{}, dir: t.TempDir(), listen: "127.0.0.1:" + strconv.Itoa(port)}
	for _, p := range packages {
		b.want[repo.PoolPath(p)] = sha256.Sum256(files[repo.PoolPath(p)].Content)
	}
	b.configure(t, fmt.Sprintf("repos:\n  - {name: debian, type: apt, upstream: [%q]}\n", server.URL()+"/debian"))
	return b
}

// configure writes the configuration that serve is started with.
func (b *bench) configure(t *testing.T, config string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, "chantal.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
}

// serve starts chantal on the bench's data folder; the caller ends it.
func (b *bench) serve(t *testing.T) *process {
	t.Helper()
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir}
	p, err := startServe(b.listen, filepath.Join(b.dir, "serve.log"), env,
		"--data", filepath.Join(b.dir, "data"), "--config", filepath.Join(b.dir, "chantal.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (b *bench) url(path string) string { return "http://" + b.listen + "/debian/" + path }

// update asks for what makes the pool known: the root and one index.
func (b *bench) update(t *testing.T) {
	t.Helper()
	for _, path := range []string{"dists/bookworm/InRelease", "dists/bookworm/main/binary-amd64/Packages.gz"} {
		if _, err := b.sum(t.Context(), path); err != nil {
			t.Fatal(path, ": ", err)
		}
	}
}

// sum downloads path and returns the digest of a whole answer with status 200.
func (b *bench) sum(ctx context.Context, path string) (sum [32]byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url(path), nil)
	if err != nil {
		return sum, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return sum, err
	}
	defer resp.Body.Close()
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		return sum, err
	}
	if resp.StatusCode != http.StatusOK {
		return sum, fmt.Errorf("status %s", resp.Status)
	}
	return [32]byte(h.Sum(nil)), nil
}

func TestManyClientsOfOneColdFileAreOneUpstreamRequest(t *testing.T) {
	large := testenv.Package{Name: "large", Version: "1.0", Size: 4 << 20}
	b := newBench(t, large)
	b.serve(t)
	b.update(t)
	const path = "pool/main/l/large/large_1.0_all.deb"
	b.server.Fail(testenv.Stall, "/debian/pool/", -1) // so that all of them come while it arrives
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			if got, err := b.sum(t.Context(), path); err != nil || got != b.want[path] {
				t.Errorf("client: %v, same bytes %v", err, got == b.want[path])
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := b.server.WaitFor(ctx, "/debian/"+path, 1); err != nil {
		t.Error(err)
	}
	time.Sleep(300 * time.Millisecond)
	b.server.Release()
	clients.Wait()
	if got := b.server.Count("/debian/" + path); got != 1 {
		t.Errorf("upstream got %d requests, want 1", got)
	}
}

func TestALargeColdFileStreamsAsItArrives(t *testing.T) {
	large := testenv.Package{Name: "large", Version: "1.0", Size: 200 << 20}
	b := newBench(t, large)
	b.serve(t)
	b.update(t)
	const path = "pool/main/l/large/large_1.0_all.deb"
	b.server.Fail(testenv.Stall, "/debian/pool/", -1)
	resp, err := http.Get(b.url(path))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// Upstream has sent half and waits: nearly all of that has to come through.
	h := sha256.New()
	const early = 90 << 20
	if n, err := io.CopyN(h, resp.Body, early); err != nil {
		t.Fatalf("%d bytes came while upstream held the second half, want %d: %v", n, early, err)
	}
	b.server.Release()
	if _, err := io.Copy(h, resp.Body); err != nil {
		t.Fatal(err)
	}
	if [32]byte(h.Sum(nil)) != b.want[path] {
		t.Error("the client has wrong bytes")
	}
}

func TestAFillOutlivesItsClient(t *testing.T) {
	large := testenv.Package{Name: "large", Version: "1.0", Size: 4 << 20}
	b := newBench(t, large)
	b.serve(t)
	b.update(t)
	const path = "pool/main/l/large/large_1.0_all.deb"
	b.server.Fail(testenv.Stall, "/debian/pool/", -1)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	cancel()
	resp.Body.Close()
	time.Sleep(200 * time.Millisecond)
	b.server.Release()
	if got, err := b.sum(t.Context(), path); err != nil || got != b.want[path] {
		t.Errorf("the next client: %v, same bytes %v", err, got == b.want[path])
	}
	if got := b.server.Count("/debian/" + path); got != 1 {
		t.Errorf("upstream got %d requests, want 1", got)
	}
}
