package catalog

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/disk"
	"chantal/internal/disk/disktest"
)

// works is a store and a catalog on one folder.
type works struct {
	store *cas.Store
	*Catalog
}

// syncAll is from how many blobs on they are made durable together.
func openWorks(dir string, d disk.Disk, now func() time.Time, syncAll int) (*works, error) {
	store, err := cas.Open(dir, cas.Options{Disk: d, SyncEvery: time.Millisecond, SyncAll: syncAll, DerivedMax: 9000})
	if err != nil {
		return nil, err
	}
	c, err := Open(filepath.Join(dir, "catalog.db"), store, Options{Now: now, Disk: d})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &works{store, c}, nil
}

func (w *works) Close() error { return errors.Join(w.Catalog.Close(), w.store.Close()) }

// fact is something that was acknowledged, and holds after a crash behind any
// operation from from on, until until.
type fact struct {
	from, until int
	what        string
	holds       func(*works) error
}

// workload does everything that changes what is on disk, and notes what was
// acknowledged.
type workload struct {
	t      *testing.T
	dir    string
	memory string // where crashes are laid out
	rec    *disktest.Recorder
	clk    *clock
	w      *works
	facts  []fact
	heads  map[string]chantal.Observation

	failures atomic.Int32
}

func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	rand.NewChaCha8(key).Read(b)
	return b
}

func sha256of(b []byte) chantal.Digest {
	return chantal.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b)))
}

func (l *workload) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// ack notes a fact that holds from now on.
func (l *workload) ack(what string, holds func(*works) error) *fact {
	l.facts = append(l.facts, fact{l.rec.Len(), 1 << 30, what, holds})
	return &l.facts[len(l.facts)-1]
}

// blob stores content in one go, or as it arrives, and makes it durable.
func (l *workload) blob(w cas.Want, content []byte, arriving bool) {
	l.t.Helper()
	w.Size, w.Modified = int64(len(content)), l.clk.now().Add(-time.Hour).Truncate(time.Second)
	var stored cas.Blob // with the date of its first fetch
	if arriving {
		g, err := l.w.store.Create(w)
		l.must(err)
		for i := 0; i < len(content); i += 100 << 10 {
			_, err := g.Write(content[i:min(i+100<<10, len(content))])
			l.must(err)
		}
		stored, err = g.Commit()
		l.must(err)
	} else {
		var err error
		stored, err = l.w.store.Put(w, content)
		l.must(err)
	}
	l.must(l.w.store.Sync(context.Background()))
	l.ack("blob of "+w.Path, func(again *works) error {
		for _, d := range append([]chantal.Digest{sha256of(content)}, w.Digests...) {
			b, err := again.store.Find(w.Repo, d)
			if err != nil {
				return err
			}
			if !b.Modified.Equal(stored.Modified) {
				return fmt.Errorf("it is of %v, not %v", b.Modified, stored.Modified)
			}
		}
		return nil
	})
}

// observe makes a generation with content as its root the head of a tree.
func (l *workload) observe(repo, tree, content string) {
	l.t.Helper()
	body := []byte(content)
	l.blob(cas.Want{Repo: repo, Path: tree, Digests: []chantal.Digest{sha256of(body)}}, body, false)
	g := chantal.Generation{Repo: repo, Tree: tree, Roots: []chantal.RootFile{{Path: tree + "/root", Digest: sha256of(body), Size: int64(len(body))}}}
	o, err := l.w.Observe(g, l.heads[repo+tree], time.Time{})
	l.must(err)
	l.heads[repo+tree] = o
	l.ack(fmt.Sprintf("generation %d of %s", o.Generation, tree), func(again *works) error {
		got, err := again.At(repo, tree, o.Observed)
		if err != nil {
			return err
		}
		if d := cmp.Diff(o, got); d != "" {
			return errors.New(d)
		}
		return nil
	})
}

// snapshot freezes all, or removes a snapshot.
func (l *workload) snapshot(name string, remove bool) {
	l.t.Helper()
	if remove {
		for i := range l.facts {
			if l.facts[i].what == "snapshot "+name {
				l.facts[i].until = l.rec.Len()
			}
		}
		l.must(l.w.DeleteSnapshot(name))
		l.ack("no snapshot "+name, func(again *works) error {
			if _, err := again.Snapshot(name); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("it is there: %v", err)
			}
			if err := again.PutSnapshot(Snapshot{Name: name}, false); !errors.Is(err, ErrDeleted) {
				return fmt.Errorf("its name is free: %v", err)
			}
			if trees, err := again.Trees("debian@" + name); err != nil || len(trees) > 0 {
				return fmt.Errorf("its edition is there: %v %v", trees, err)
			}
			return nil
		})
		return
	}
	at, err := l.w.Clock()
	l.must(err)
	s := Snapshot{Name: name, Created: l.clk.now(), Repos: []Frozen{{Repo: "debian", At: at}, edition(name, at, "ours", "too")}, Note: strings.Repeat("why ", 2000)}
	l.must(l.w.PutSnapshot(s, false))
	s.Repos[1].Generations = nil
	l.ack("snapshot "+name, func(again *works) error {
		if _, err := again.At("debian@"+name, "two/three", at); err != nil {
			return err
		}
		got, err := again.Snapshot(name)
		if err != nil {
			return err
		}
		if d := cmp.Diff(s, got); d != "" {
			return errors.New(d)
		}
		return nil
	})
}

func (l *workload) derived(key string, n int) {
	l.t.Helper()
	l.must(l.w.store.PutDerived(key, func(w io.Writer) error { _, err := w.Write(bytesOf(3, n)); return err }))
}

// collect forgets history and removes what nothing names, but for one blob that
// somebody has begun to use. It ends the facts that are none any more.
func (l *workload) collect(used []byte) {
	l.t.Helper()
	from := l.rec.Len()
	release := l.w.store.Hold()
	defer release()
	_, err := l.w.store.Find("", sha256of(used))
	l.must(err)
	forgot, err := l.w.Forget(l.clk.now(), true)
	l.must(err)
	c, err := l.w.store.Collect()
	l.must(err)
	defer c.End()
	trees, err := l.w.Trees("debian")
	l.must(err)
	for _, tree := range trees {
		all, err := l.w.Observations("debian", tree)
		l.must(err)
		for _, o := range all {
			g, err := l.w.Generation("debian", tree, o.Generation)
			l.must(err)
			c.MarkDigest("debian", g.Roots[0].Digest, cas.Keep)
		}
	}
	victims, err := c.Victims(context.Background(), func(m cas.Mark) bool { return m == 0 })
	l.must(err)
	freed, err := c.Sweep(context.Background(), victims, func(f func() error) error { return f() }, false)
	l.must(err)
	if forgot.Observations < 3 || freed.Blobs < 4 {
		l.t.Errorf("%d observations are forgotten and %d blobs freed: that tries little", forgot.Observations, freed.Blobs)
	}
	for i, f := range l.facts {
		if f.holds(l.w) != nil {
			l.facts[i].until = min(f.until, from)
		}
	}
}

// session is one run of the server from start to end.
func (l *workload) session(n, syncAll int) {
	l.t.Helper()
	w, err := openWorks(l.dir, l.rec.Disk(), l.clk.now, syncAll)
	l.must(err)
	l.w = w
	tick := func() { l.clk.set(l.clk.now().Add(time.Minute)) }
	l.must(w.PutRepo(Repo{Name: "debian", Type: "apt", Upstream: []string{fmt.Sprintf("http://mirror-%d.example.org/", n)}}))
	l.observe("debian", "dists/one", fmt.Sprint("one, A", n))
	tick()
	half, err := w.store.Create(cas.Want{Repo: "debian", Path: "pool/half", Size: 400 << 10})
	l.must(err)
	_, err = half.Write(bytesOf(9, 150<<10))
	l.must(err)

	strong, weak := bytesOf(uint64(10+n), 300<<10), bytesOf(uint64(20+n), 1000)
	l.blob(cas.Want{Repo: "debian", Path: "pool/strong", Digests: []chantal.Digest{chantal.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512(strong)))}}, strong, true)
	l.blob(cas.Want{Repo: "debian", Path: "pool/weak", Digests: []chantal.Digest{chantal.Digest(fmt.Sprintf("md5:%x", md5.Sum(weak)))}}, weak, true)
	l.observe("debian", "dists/one", "one, B")
	l.observe("debian", "dists/two", fmt.Sprint("two, ", n))
	l.snapshot(fmt.Sprint("first", n), false)
	tick()
	l.must(w.Want("debian", map[string]map[string]time.Time{"dists/one": {"main/Packages.xz": l.clk.now()}}))
	l.derived("apt-1-a", 4000)
	l.derived("apt-1-b", 4000)
	l.derived("apt-1-a", 3000)
	l.derived("apt-1-c", 4000) // one of them has to leave
	l.snapshot(fmt.Sprint("second", n), false)
	l.snapshot(fmt.Sprint("first", n), true)
	f, _, err := w.store.Open(sha256of(strong))
	l.must(err)
	l.must(f.Close())
	_, err = w.store.Put(cas.Want{Repo: "debian", Path: "pool/strong", Size: -1}, strong) // it is there
	l.must(err)
	l.observe("debian", "dists/one", fmt.Sprint("one, A", n)) // as before
	if n == 2 {
		tick()
		l.observe("debian", "dists/two", "two, later")
		l.collect(weak)
		l.observe("debian", "dists/two", "two, 1") // it had been forgotten, perhaps
	}
	half.Abort(errors.New("the connection broke off"))
	l.must(w.Close())
}

// TestAfterACrashAnywhereNothingIsLost goes through every operation of a
// workload, and every way to crash behind it.
func TestAfterACrashAnywhereNothingIsLost(t *testing.T) {
	dir := t.TempDir()
	l := &workload{t: t, dir: filepath.Join(dir, "store"), memory: inMemory(t), rec: disktest.NewRecorder(dir), clk: newClock(), heads: map[string]chantal.Observation{}}
	l.session(1, 1)
	l.session(2, 1000)
	kinds := l.rec.Kinds()
	for _, k := range []disk.Kind{disk.Create, disk.Append, disk.Write, disk.Truncate, disk.Sync, disk.SyncAll, disk.Close, disk.Mkdir, disk.Rename, disk.Remove, disk.Times, disk.Update} {
		if kinds[k] == 0 {
			t.Errorf("the workload has no %s", k)
		}
	}
	type job struct {
		n    int
		c    disktest.Crash
		left *disktest.Left
	}
	seen := map[string]bool{}
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				l.crash(j.n, j.c, j.left)
			}
		})
	}
	count := 0
	for n := range l.rec.Len() + 1 {
		if n%32 != 0 && n < l.rec.Len() && n > 0 && strings.HasPrefix(l.rec.String(n-1), "mkdir store/blobs/") {
			continue // one of 256 like it
		}
		for _, c := range disktest.Crashes() {
			left, err := l.rec.After(n, c)
			if err != nil {
				t.Fatal(err)
			}
			// Many leave the same, and promise the same.
			if key := fmt.Sprintf("%x %v", left.Sum(), l.promised(n)); !seen[key] {
				seen[key] = true
				if testing.Short() && len(seen)%8 != 0 {
					continue
				}
				jobs <- job{n, c, left}
				count++
			}
		}
	}
	close(jobs)
	wg.Wait()
	t.Logf("%d operations, %d different crashes, %d facts", l.rec.Len(), count, len(l.facts))
}

// inMemory returns a folder for what is laid out and opened again, hundreds of
// times: in memory where the machine has such a file system.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "chantal")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// promised returns which facts hold behind operation n.
func (l *workload) promised(n int) (facts []int) {
	for i, f := range l.facts {
		if f.from <= n && n <= f.until {
			facts = append(facts, i)
		}
	}
	return facts
}

// crash opens what a crash leaves, and checks it.
func (l *workload) crash(n int, c disktest.Crash, left *disktest.Left) {
	dir, err := os.MkdirTemp(l.memory, "crash")
	if err != nil {
		l.t.Error(err)
		return
	}
	defer os.RemoveAll(dir)
	fail := func(err error) {
		last := "nothing"
		if n > 0 {
			last = l.rec.String(n - 1)
		}
		if l.failures.Add(1) > 20 {
			return
		}
		l.t.Errorf("%s behind operation %d (%s): %v", c.Name, n, last, err)
	}
	if err := left.Restore(dir); err != nil {
		fail(err)
		return
	}
	data := filepath.Join(dir, "store")
	// What the disk promises is not what is tried here, so nothing is synced.
	quick := disk.Disk{Around: func(op *disk.Op, do func() error) error {
		if op.Kind == disk.Sync {
			return nil
		}
		return do()
	}}
	w, err := openWorks(data, quick, l.clk.now, 0)
	if err != nil {
		fail(fmt.Errorf("it does not open: %w", err))
		return
	}
	if err := sound(data, w); err != nil {
		fail(err)
	}
	for _, i := range l.promised(n) {
		if err := l.facts[i].holds(w); err != nil {
			fail(fmt.Errorf("%s: %w", l.facts[i].what, err))
		}
	}
	if err := w.Close(); err != nil {
		fail(err)
	}
	before := files(data)
	if w, err = openWorks(data, quick, l.clk.now, 0); err != nil {
		fail(fmt.Errorf("it does not open again: %w", err))
		return
	}
	if err := w.Close(); err != nil {
		fail(err)
	}
	if d := cmp.Diff(before, files(data)); d != "" {
		fail(fmt.Errorf("opening it again changed it: %s", d))
	}
}

// sound checks what has to be so whatever was acknowledged.
func sound(dir string, w *works) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		left := ""
		for name := range files(dir) {
			if strings.HasPrefix(filepath.Base(name), ".t-") {
				left = name
			}
		}
		if left == "" {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is left behind", left)
		}
	}
	err := w.store.Walk("", func(b cas.Blob) error { return right(w, b.Digest) })
	if err != nil {
		return err
	}
	repos, err := w.Repos()
	if err != nil {
		return err
	}
	for _, r := range repos {
		trees, err := w.Trees(r.Name)
		if err != nil {
			return err
		}
		for _, tree := range trees {
			all, err := w.Observations(r.Name, tree)
			if err != nil {
				return err
			}
			for _, o := range all {
				g, err := w.Generation(r.Name, tree, o.Generation)
				if err == nil {
					err = right(w, g.Roots[0].Digest)
				}
				if err != nil {
					return fmt.Errorf("generation %d of %s: %w", o.Generation, tree, err)
				}
			}
		}
	}
	if lost, err := w.store.Lost(); err != nil || len(lost) > 0 {
		return fmt.Errorf("blobs count as lost: %v, %v", lost, err)
	}
	return asRecorded(w)
}

// right checks that the store has the blob d names.
func right(w *works, d chantal.Digest) error {
	f, _, err := w.store.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	content, err := io.ReadAll(f)
	if err == nil && sha256of(content) != d {
		err = fmt.Errorf("blob %s has other bytes", d)
	}
	return err
}

// asRecorded checks that the catalog is what its records make, no more and no
// less.
func asRecorded(w *works) error {
	have, err := rowsOf(w.Catalog)
	if err != nil {
		return err
	}
	if err := w.Rebuild(); err != nil {
		return err
	}
	want, err := rowsOf(w.Catalog)
	if err != nil {
		return err
	}
	for _, m := range []map[string]string{have, want} { // Clock raises it without a record
		for name := range m {
			if strings.HasPrefix(name, "meta ") {
				delete(m, name)
			}
		}
	}
	if d := cmp.Diff(want, have); d != "" {
		return fmt.Errorf("the catalog is not what its records make: %s", d)
	}
	return nil
}

// files returns the content of all files below dir.
func files(dir string) map[string]string {
	all := map[string]string{}
	filepath.WalkDir(dir, func(path string, f fs.DirEntry, err error) error {
		if name := f.Name(); err == nil && !f.IsDir() && name != "unclean" && name != "stored" { // hints, made anew
			b, _ := os.ReadFile(path)
			rel, _ := filepath.Rel(dir, path)
			all[rel] = fmt.Sprintf("%d bytes, %x", len(b), sha256.Sum256(bytes.Clone(b)))
		}
		return nil
	})
	return all
}
