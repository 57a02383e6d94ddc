package cas

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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/disk"
)

func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// content returns n bytes that differ with seed.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(b)
	return b
}

func sha(b []byte) chantal.Digest { return chantal.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b))) }

func read(t *testing.T, s *Store, d chantal.Digest) []byte {
	t.Helper()
	f, b, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if b.Size != int64(len(got)) || b.Digest != d {
		t.Errorf("Open says %+v for %d bytes of %s", b, len(got), d)
	}
	return got
}

// names returns the paths of all regular files below dir but those that say
// what goes on.
func names(t *testing.T, dir string) []string {
	t.Helper()
	var got []string
	err := filepath.WalkDir(dir, func(path string, f fs.DirEntry, err error) error {
		if err == nil && !f.IsDir() {
			if rel, _ := filepath.Rel(dir, path); rel != uncleanName && rel != inventoryName {
				got = append(got, rel)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func temps(t *testing.T, dir string) []string {
	t.Helper()
	var got []string
	for _, n := range names(t, dir) {
		if strings.HasPrefix(filepath.Base(n), tempPrefix) {
			got = append(got, n)
		}
	}
	return got
}

func TestPutIsReadableAtOnceAndDurableAfterSync(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{SyncEvery: time.Hour})
	data := content(1, 5000)
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	want := Blob{Digest: sha(data), Size: 5000, Modified: at.Truncate(time.Second)}
	got, err := s.Put(Want{Repo: "debian", Path: "x", Size: 5000, Digests: []chantal.Digest{sha(data)}, Modified: at}, data)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !bytes.Equal(read(t, s, want.Digest), data) {
		t.Error("other bytes before the sync")
	}
	if got, err = s.Find("debian", want.Digest); err != nil || got != want {
		t.Errorf("before the sync: %+v, %v", got, err)
	}
	if _, err := os.Stat(s.blobPath(want.Digest)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the blob has its final name before it was synced: %v", err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, s, want.Digest), data) {
		t.Error("other bytes after the sync")
	}
	if got, err = s.Find("debian", want.Digest); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	fi, err := os.Stat(s.blobPath(want.Digest))
	if err != nil || fi.Mode().Perm()&0o222 != 0 {
		t.Errorf("blob can be written: %v %v", fi.Mode(), err)
	}
	if left := temps(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTheFirstFetchGivesTheDate(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	first := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 3 {
		b, err := s.Put(Want{Size: -1, Modified: first.AddDate(i, 0, 0)}, []byte("same"))
		if err != nil || !b.Modified.Equal(first) {
			t.Errorf("put %d: %v %v", i, b.Modified, err)
		}
		if i == 1 {
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestMismatchStoresNothing(t *testing.T) {
	data := content(1, 300<<10)
	other := sha([]byte("other"))
	md5sum := chantal.Digest(fmt.Sprintf("md5:%x", md5.Sum([]byte("other"))))
	for name, w := range map[string]Want{
		"size":      {Path: "p", Size: int64(len(data)) + 1},
		"too long":  {Path: "p", Size: int64(len(data)) - 1},
		"digest":    {Path: "p", Size: -1, Digests: []chantal.Digest{other}},
		"weak one":  {Repo: "r", Path: "p", Size: -1, Digests: []chantal.Digest{sha(data), md5sum}},
		"blake2b":   {Path: "p", Size: -1, Digests: []chantal.Digest{sha(data), chantal.Digest("blake2b:" + strings.Repeat("0", 128))}},
		"only weak": {Repo: "r", Path: "p", Size: -1, Digests: []chantal.Digest{md5sum}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{})
			var mm *chantal.MismatchError
			if _, err := s.Put(w, data); !errors.As(err, &mm) || mm.Path != "p" {
				t.Errorf("Put: %v", err)
			}
			g, err := s.Create(w)
			if err != nil {
				t.Fatal(err)
			}
			f, err := g.Follow(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for i := 0; i < len(data) && err == nil; i += 1 << 15 {
				_, err = g.Write(data[i:min(i+1<<15, len(data))])
			}
			if err == nil {
				_, err = g.Commit()
			}
			if !errors.As(err, &mm) {
				t.Errorf("Create: %v", err)
			}
			if _, err := io.Copy(io.Discard, f); !errors.As(err, &mm) {
				t.Errorf("follower: %v", err)
			}
			if _, err := g.Follow(t.Context()); !errors.As(err, &mm) {
				t.Errorf("late follower: %v", err)
			}
			if _, err := s.Find("r", sha(data)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Find: %v", err)
			}
			if left := names(t, dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestAliases(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{SyncEvery: time.Hour})
	strong, weak := content(1, 100), content(2, 100)
	s512 := chantal.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512(strong)))
	m5 := chantal.Digest(fmt.Sprintf("md5:%x", md5.Sum(weak)))
	if _, err := s.Put(Want{Repo: "a", Size: -1, Digests: []chantal.Digest{s512}}, strong); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(Want{Repo: "a", Size: -1, Digests: []chantal.Digest{m5}}, weak); err != nil {
		t.Fatal(err)
	}
	check := func(when string, s *Store) {
		t.Helper()
		for _, repo := range []string{"a", "b"} {
			if b, err := s.Find(repo, s512); err != nil || b.Digest != sha(strong) {
				t.Errorf("%s: %s by sha512: %v %v", when, repo, b, err)
			}
		}
		if b, err := s.Find("a", m5); err != nil || b.Digest != sha(weak) {
			t.Errorf("%s: by md5: %v %v", when, b, err)
		}
		if b, err := s.Find("b", m5); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: another repository's md5 is believed: %v %v", when, b, err)
		}
	}
	check("pending", s)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("durable", s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	check("reopened", s)

	rel, err := aliasPath("a", s512)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, rel))
	if err := os.WriteFile(filepath.Join(dir, rel), []byte("../../etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find("a", s512); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("damaged alias: %v", err)
	}
}

func TestNothingLeavesTheStore(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for _, d := range []chantal.Digest{"", "sha256:../../../../etc/passwd", "sha256", "md5:../x", "sha1:"} {
		if _, _, err := s.Open(d); err == nil {
			t.Errorf("Open(%q) works", d)
		}
		if _, err := s.Find("r", d); err == nil {
			t.Errorf("Find(%q) works", d)
		}
		if _, err := s.Put(Want{Repo: "r", Size: -1, Digests: []chantal.Digest{d}}, nil); err == nil {
			t.Errorf("Put(%q) works", d)
		}
	}
	m5 := chantal.Digest(fmt.Sprintf("md5:%x", md5.Sum(nil)))
	for _, repo := range []string{"", "..", "a/b", ".hidden", "A"} {
		if _, err := s.Put(Want{Repo: repo, Size: -1, Digests: []chantal.Digest{m5}}, nil); err == nil {
			t.Errorf("repository %q works", repo)
		}
	}
	for _, log := range []string{"", "..", "a/../b", "/a", "a/", ".x", "a b"} {
		if err := s.AppendRecord(log, 1); err == nil {
			t.Errorf("log %q works", log)
		}
	}
	for _, key := range []string{"", "..", "a/b", ".x", "A"} {
		if err := s.PutDerived(key, func(io.Writer) error { return nil }); err == nil {
			t.Errorf("key %q works", key)
		}
	}
}

// copyTree copies a store as a killed process would leave it.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	for _, n := range names(t, from) {
		b, err := os.ReadFile(filepath.Join(from, n))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, n)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, n), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func TestAfterAKill(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{SyncEvery: time.Hour})
	synced, pending := content(1, 1000), content(2, 1000)
	if _, err := s.Put(Want{Size: -1}, synced); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(Want{Size: -1}, pending); err != nil {
		t.Fatal(err)
	}
	g, err := s.Create(Want{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Abort(nil)
	if _, err := g.Write(content(3, 100)); err != nil {
		t.Fatal(err)
	}
	if n := len(temps(t, dir)); n != 2 {
		t.Fatalf("%d temporary files, want 2", n)
	}
	dead := copyTree(t, dir)
	again := open(t, dead, Options{})
	if got := read(t, again, sha(synced)); !bytes.Equal(got, synced) {
		t.Error("a synced blob is not what it was")
	}
	if _, err := again.Find("", sha(pending)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that was never synced: %v", err)
	}
	var walked []chantal.Digest
	if err := again.Walk("", func(b Blob) error { walked = append(walked, b.Digest); return nil }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]chantal.Digest{sha(synced)}, walked); d != "" {
		t.Error(d)
	}
	for end := time.Now().Add(5 * time.Second); len(temps(t, dead)) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left behind: %v", temps(t, dead))
		}
	}
}

func TestAFailingDiskIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	broken := false
	failed := make(map[string]bool)
	s := open(t, dir, Options{SyncEvery: time.Hour, Disk: disk.Disk{Around: func(op *disk.Op, do func() error) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case op.Kind != disk.Sync:
		case broken:
			failed[op.Path] = true
			return errors.New("I/O error")
		case failed[op.Path]:
			t.Errorf("%s is trusted though a sync of it failed", op.Path)
		}
		return do()
	}}})
	mu.Lock()
	broken = true
	mu.Unlock()
	data := content(1, 3000)
	if _, err := s.Put(Want{Size: -1}, data); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err == nil || s.Health() == nil {
		t.Errorf("Sync: %v, Health: %v", err, s.Health())
	}
	before := temps(t, dir)
	if !bytes.Equal(read(t, s, sha(data)), data) {
		t.Error("not served while the disk fails")
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	if d := cmp.Diff(before, temps(t, dir)); d != "" {
		t.Error(d)
	}
	if err := s.Sync(t.Context()); err != nil || s.Health() != nil {
		t.Errorf("Sync: %v, Health: %v", err, s.Health())
	}
	if !bytes.Equal(read(t, s, sha(data)), data) {
		t.Error("other bytes")
	}
	if left := temps(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCloseMakesDurableAndEndsAdmission(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{SyncEvery: time.Hour})
	g, err := s.Create(Want{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(Want{Size: -1}, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(s.blobPath(sha([]byte("kept")))); err != nil {
		t.Error(err)
	}
	if _, err := g.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	if _, err := s.Put(Want{Size: -1}, []byte("late")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Put: %v", err)
	}
	if err := s.Sync(context.Background()); err != nil {
		t.Errorf("Sync: %v", err)
	}
	if left := temps(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOpenSaysWhatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(dir, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

func TestUseIsMarkedWithoutTouchingTheDate(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	b, err := s.Put(Want{Size: -1, Modified: at}, []byte("used"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(s.blobPath(b.Digest), at, at); err != nil {
		t.Fatal(err)
	}
	read(t, s, b.Digest)
	s.flushUses()
	fi, err := os.Stat(s.blobPath(b.Digest))
	if err != nil {
		t.Fatal(err)
	}
	if got := lastUse(fi); time.Since(got) > time.Minute {
		t.Errorf("last use is %v", got)
	}
	if !fi.ModTime().Equal(at) {
		t.Errorf("date is %v", fi.ModTime())
	}
}

func BenchmarkPut50KB(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const files = 2000
	var all [files][]byte
	seed := uint64(0)
	for b.Loop() {
		b.StopTimer()
		for i := range all {
			seed++
			all[i] = content(seed, 50<<10)
		}
		b.StartTimer()
		start := time.Now()
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := w; i < files; i += 4 {
					if _, err := s.Put(Want{Size: -1, Digests: []chantal.Digest{sha(all[i])}}, all[i]); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		b.ReportMetric(time.Since(start).Seconds(), "s-put")
		if err := s.Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds(), "s-durable")
	}
}

// What is made here has no promise yet: its digests are known at the end.
func TestAliasesOfWhatIsMadeHere(t *testing.T) {
	s := open(t, t.TempDir(), Options{SyncEvery: time.Hour})
	body := content(3, 100)
	g, err := s.Create(Want{Repo: "a", Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	s512, m5 := chantal.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512(body))), chantal.Digest(fmt.Sprintf("md5:%x", md5.Sum(body)))
	if _, err := g.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := g.Alias(s512); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Find("b", s512); err != nil || b.Digest != sha(body) {
		t.Errorf("by sha512: %v %v", b, err)
	}
	if b, err := s.Find("a", m5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("by md5, of which nobody spoke: %v %v", b, err)
	}
	if err := g.Alias("sha512:00"); err == nil {
		t.Error("a digest that is none gives no error")
	}
}
