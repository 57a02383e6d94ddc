package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// stock is one repository: what its upstream publishes, and what its clients
// begin with.
type stock struct {
	name, kind string
	roots      []string
	publisher  *testenv.Publisher
}

// field is a chantal that is killed again and again, in front of repositories
// of all formats that change meanwhile.
type field struct {
	dir, listen string
	server      *testenv.Server
	stocks      []*stock
	random      *rand.Rand

	mu        sync.Mutex
	answers   map[int]int                    // by status
	snapshots map[string]map[string][32]byte // acknowledged: what each was first seen to serve, by URL
}

// inEverySnapshot is what all snapshots have: it was observed before the first.
var inEverySnapshot = []string{"debian@%s/dists/bookworm/InRelease", "rpm@%s/repodata/repomd.xml", "pypi@%s/simple/p000/"}

func newField(t *testing.T) *field {
	t.Helper()
	server, err := testenv.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Heal(); server.Down() })
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	n := seed(t)
	f := &field{
		dir: t.TempDir(), listen: "127.0.0.1:" + strconv.Itoa(port), server: server, random: rand.New(rand.NewPCG(n, 1)),
		answers: map[int]int{}, snapshots: map[string]map[string][32]byte{},
	}
	key, err := testenv.NewKey("archive", time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	debian, rpms, index := testenv.NewAPT(key, time.Now(), "bookworm"), testenv.NewRPM(nil, time.Now()), testenv.NewPyPI(time.Now())
	debian.ByHash, debian.Brief = true, true
	f.stocks = []*stock{
		{"debian", "apt", []string{"dists/bookworm/InRelease", "dists/bookworm/main/binary-amd64/Packages.gz"},
			&testenv.Publisher{Next: func(n int) (testenv.Files, error) { debian.SetDate(time.Now()); return restock(debian, n) }}},
		{"rpm", "rpm", []string{"repodata/repomd.xml"},
			&testenv.Publisher{Next: func(n int) (testenv.Files, error) { rpms.SetDate(time.Now()); return restock(rpms, n) }}},
		{"pypi", "pypi", []string{"simple/p000/"},
			&testenv.Publisher{Next: func(n int) (testenv.Files, error) { return restock(index, n) }}},
	}
	config := "repos:\n"
	for i, s := range f.stocks {
		p := s.publisher
		p.Server, p.Prefix, p.Random = server, s.name, rand.New(rand.NewPCG(n, uint64(i+2)))
		p.Gap, p.Pause, p.Keep = [2]time.Duration{100 * time.Millisecond, 500 * time.Millisecond}, 5*time.Millisecond, 20
		if err := p.First(); err != nil {
			t.Fatal(err)
		}
		at := server.URL() + "/" + s.name
		if s.kind == "pypi" {
			at += "/simple/"
		}
		config += fmt.Sprintf("  - {name: %s, type: %s, upstream: [%q], refresh: 100ms}\n", s.name, s.kind, at)
	}
	if err := os.WriteFile(f.path("chantal.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *field) path(elem ...string) string {
	return filepath.Join(append([]string{f.dir}, elem...)...)
}
func (f *field) url(at string) string { return "http://" + f.listen + "/" + at }

// restock publishes: sixty packages first, then each time two of them in a
// newer version.
func restock(r repository, n int) (testenv.Files, error) {
	const all, few = 60, 2
	one := func(i int) item {
		return item{testenv.Package{Name: fmt.Sprintf("p%03d", i%all), Version: stamp(i), Size: 1 << (8 + i%11)}, time.Now()}
	}
	from, to := 0, all
	if n > 1 {
		from = all + few*(n-2)
		to = from + few
	}
	for i := from; i < to; i++ {
		if err := apply(r, "publish", one(i)); err != nil {
			return nil, err
		}
		if i >= all {
			if err := apply(r, "delete", one(i-all)); err != nil {
				return nil, err
			}
		}
	}
	return r.Publish()
}

// launch starts chantal on the field's data folder.
func (f *field) launch(t *testing.T) *process {
	t.Helper()
	p, err := launchServe(f.listen, f.path("serve.log"), f.environ(), "--data", f.path("data"), "--config", f.path("chantal.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// serve is launch that waits until chantal is ready.
func (f *field) serve(t *testing.T) *process {
	t.Helper()
	p := f.launch(t)
	if err := p.await(f.listen); err != nil {
		t.Fatal("restart: ", err)
	}
	return p
}

func (f *field) environ() []string { return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.dir} }

// get returns status and body of a whole answer.
func (f *field) get(ctx context.Context, at string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url(at), nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", testenv.SimpleJSON+", */*;q=0.1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[resp.StatusCode]++
	return resp.StatusCode, body, nil
}

// fetch gets one file of a stock and checks it when all of it came. The error
// is that of wrong bytes, and of nothing else.
func (f *field) fetch(ctx context.Context, s *stock, at string) (status int, err error) {
	status, body, err := f.get(ctx, s.name+"/"+at)
	if err != nil || status != http.StatusOK {
		return status, nil
	}
	if s.kind != "pypi" {
		if s.publisher.Find(at, body) == 0 {
			return status, fmt.Errorf("%s of %s: %d bytes that were never published there", at, s.name, len(body))
		}
		return status, nil
	}
	links, err := links(body)
	if err != nil || len(links) == 0 {
		return status, fmt.Errorf("%s of %s is no page: %v, %d links", at, s.name, err, len(links))
	}
	link := links[len(links)-1]
	wanted := strings.SplitN(strings.TrimPrefix(link, "+files/sha256/"), "/", 3)[0]
	status, body, err = f.get(ctx, s.name+"/"+link)
	if err == nil && status == http.StatusOK && fmt.Sprintf("%x", sha256.Sum256(body)) != wanted {
		return status, fmt.Errorf("%s of %s: %d bytes that are others", link, s.name, len(body))
	}
	return status, nil
}

// links returns the links of a project page in JSON, relative to the
// repository.
func links(body []byte) ([]string, error) {
	var page struct{ Files []struct{ URL string } }
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, err
	}
	var links []string
	for _, file := range page.Files {
		links = append(links, path.Join("simple/x/", file.URL))
	}
	return links, nil
}

// browse is one client: it gets what is needed to know a repository, then one
// file after the other, those that many have and those that nobody has.
func (f *field) browse(ctx context.Context, t *testing.T, random *rand.Rand) {
	s := f.stocks[random.IntN(len(f.stocks))]
	paths := slices.Clone(s.roots)
	var listed []string
	for at := range s.publisher.Files() {
		if s.kind != "pypi" || testenv.IsRoot(at) && at != "simple/" {
			listed = append(listed, at)
		}
	}
	slices.Sort(listed)
	for range 100 {
		paths = append(paths, listed[random.IntN(len(listed))])
	}
	for _, at := range paths {
		if ctx.Err() != nil {
			return
		}
		if _, err := f.fetch(ctx, s, at); err != nil {
			t.Error(err)
		}
	}
}

// freeze creates a snapshot with the command, which may be killed as well.
func (f *field) freeze(ctx context.Context, name string) {
	args := []string{"--data", f.path("data"), "--config", f.path("chantal.yaml"), "snapshot", "create", name}
	if _, err := execute(ctx, f.environ(), binary(), args...); err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshots[name] = map[string][32]byte{}
}

// look compares what a snapshot serves with what it was first seen to serve.
func (f *field) look(t *testing.T, name string) {
	t.Helper()
	var urls []string
	for _, pattern := range inEverySnapshot {
		urls = append(urls, fmt.Sprintf(pattern, name))
	}
	must := len(urls)
	urls = append(urls, "debian@"+name+"/"+f.stocks[0].roots[1])
	f.mu.Lock()
	seen := f.snapshots[name]
	for at := range seen {
		if !slices.Contains(urls, at) {
			urls = append(urls, at)
		}
	}
	f.mu.Unlock()
	for i, at := range urls {
		status, body, err := f.get(t.Context(), at)
		if err != nil {
			t.Fatalf("snapshot %s: %v", name, err)
		}
		f.mu.Lock()
		was, known := seen[at]
		if status == http.StatusOK && !known {
			seen[at] = sha256.Sum256(body)
		}
		f.mu.Unlock()
		switch {
		case status != http.StatusOK && (known || i < must):
			t.Errorf("snapshot %s was acknowledged, but %s is answered %d: %s", name, at, status, body)
		case known && was != sha256.Sum256(body):
			t.Errorf("snapshot %s: %s is not what it was", name, at)
		}
	}
}

// cycle is one life of chantal: under load until it is killed.
func (f *field) cycle(t *testing.T, n int) {
	t.Helper()
	if n%5 == 4 { // it does not even come up
		p := f.launch(t)
		time.Sleep(time.Duration(f.random.IntN(80)) * time.Millisecond)
		p.kill()
		return
	}
	p := f.serve(t)
	if names := slices.Sorted(maps.Keys(f.snapshots)); len(names) > 0 {
		f.look(t, names[f.random.IntN(len(names))])
	}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for range 4 {
		random := rand.New(rand.NewPCG(f.random.Uint64(), 5))
		work.Go(func() { f.browse(ctx, t, random) })
	}
	life := 250
	if n%3 == 0 {
		work.Go(func() { f.freeze(ctx, fmt.Sprintf("s%04d", n)) })
		life = 1000
	}
	time.Sleep(time.Duration(f.random.IntN(life)) * time.Millisecond)
	p.kill()
	cancel()
	work.Wait()
	http.DefaultClient.CloseIdleConnections()
}

func TestKilledAtRandomNothingIsWrongOrLeftBehind(t *testing.T) {
	f := newField(t)
	p := f.serve(t)
	f.everything(t, 1)
	f.freeze(t.Context(), "first")
	f.look(t, "first")
	p.kill()

	ctx, rest := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	for _, s := range f.stocks {
		publishing.Go(func() {
			if err := s.publisher.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	kills := times(1000, 25)
	for n := range kills {
		if f.cycle(t, n); t.Failed() {
			t.Errorf("kill %d\n%s", n, tail(f.path("serve.log")))
			break
		}
	}
	rest()
	publishing.Wait()

	p = f.serve(t)
	f.everything(t, len(f.stocks[0].publisher.Files()))
	f.server.Down()
	for _, name := range slices.Sorted(maps.Keys(f.snapshots)) {
		f.look(t, name)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if out, err := execute(t.Context(), f.environ(), binary(), "--data", f.path("data"), "--config", f.path("chantal.yaml"), "verify"); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	p = f.serve(t)
	if left := temporary(t, f.path("data")); len(left) > 0 {
		t.Errorf("%d temporary files are left behind, the first %s", len(left), left[0])
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	blobs := audit(t, f.path("data/blobs"))
	t.Logf("%d kills, %d snapshots acknowledged, %d blobs, answers by status: %v", kills, len(f.snapshots), blobs, f.answers)
}

// everything gets the newest publication of all repositories, at most so many
// files of each; all of it has to come.
func (f *field) everything(t *testing.T, most int) {
	t.Helper()
	time.Sleep(200 * time.Millisecond) // longer than refresh
	for _, s := range f.stocks {
		paths := slices.Clone(s.roots)
		for i, at := range slices.Sorted(maps.Keys(s.publisher.Files())) {
			if i < most && (s.kind != "pypi" || testenv.IsRoot(at) && at != "simple/") {
				paths = append(paths, at)
			}
		}
		for _, at := range paths {
			status, err := f.fetch(t.Context(), s, at)
			if err != nil || status != http.StatusOK {
				t.Errorf("%s of %s: status %d, %v\n%s", at, s.name, status, err, tail(f.path("serve.log")))
			}
		}
	}
}

// audit checks that every blob is what its name says, and returns how many
// there are.
func audit(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(content)); got != d.Name() {
			t.Errorf("blob %s has the digest %s", d.Name(), got)
		}
		n++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
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
