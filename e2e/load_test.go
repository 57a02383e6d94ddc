package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	repo := testenv.NewAPT(nil, time.Now(), "bookworm")
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
	config := fmt.Sprintf("repos:\n  - {name: debian, type: apt, upstream: [%q]}\n", server.URL()+"/debian")
	if err := os.WriteFile(filepath.Join(b.dir, "chantal.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
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
		if _, err := request(io.Discard, http.MethodGet, b.url(path), "", http.Header{}); err != nil {
			t.Fatal(err)
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

func TestKilledAtRandomNothingIsWrongOrLeftBehind(t *testing.T) {
	var packages []testenv.Package
	for i := range 200 {
		packages = append(packages, testenv.Package{Name: fmt.Sprintf("p%03d", i), Version: "1.0", Size: 1 << (8 + i%12)})
	}
	b := newBench(t, packages...)
	random := rand.New(rand.NewPCG(1, 2))
	var paths []string
	for path := range b.want {
		paths = append(paths, path)
	}
	for range 20 {
		p := b.serve(t)
		b.update(t)
		ctx, cancel := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for n := range 4 {
			clients.Go(func() {
				for i := n; ctx.Err() == nil && i < len(paths); i += 4 {
					path := paths[i]
					// An error is what a client gets of a server that is killed; a
					// whole answer has to be right.
					if got, err := b.sum(ctx, path); err == nil && got != b.want[path] {
						t.Errorf("%s: complete, with wrong bytes", path)
					}
				}
			})
		}
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
		p.kill()
		cancel()
		clients.Wait()
		random.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	}
	p := b.serve(t)
	b.update(t)
	for path, want := range b.want {
		if got, err := b.sum(t.Context(), path); err != nil || got != want {
			t.Errorf("after the last restart %s: %v, same bytes %v", path, err, got == want)
		}
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = b.serve(t)
	if left := temporary(t, filepath.Join(b.dir, "data")); len(left) > 0 {
		t.Errorf("%d temporary files are left behind, the first %s", len(left), left[0])
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
}

// temporary returns the temporary files that are still in dir 10 s from now at
// the latest.
func temporary(t *testing.T, dir string) []string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		var found []string
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasPrefix(d.Name(), ".t-") {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
	}
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
