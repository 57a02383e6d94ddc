package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"chantal"
)

// logs keeps records in memory; afterAppend can fail a commit that follows.
type logs struct {
	mu          sync.Mutex
	lines       map[string][][]byte
	afterAppend func()
}

func newLogs() *logs { return &logs{lines: make(map[string][][]byte)} }

func (l *logs) AppendRecord(log string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines[log] = append(l.lines[log], b)
	if l.afterAppend != nil {
		l.afterAppend()
	}
	return nil
}

func (l *logs) RewriteRecords(log string, write func(func(any) error) error) (replaced bool, err error) {
	var lines [][]byte
	err = write(func(v any) error {
		b, err := json.Marshal(v)
		lines = append(lines, b)
		return err
	})
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines[log] = lines
	if l.afterAppend != nil {
		l.afterAppend()
	}
	return true, nil
}

func (l *logs) Records(log string, yield func([]byte) error) error {
	l.mu.Lock()
	lines := slices.Clone(l.lines[log])
	l.mu.Unlock()
	for _, line := range lines {
		if err := yield(line); err != nil {
			return err
		}
	}
	return nil
}

func (l *logs) RecordLogs() ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.lines)), nil
}

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newClock() *clock { return &clock{t: noon} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func open(t *testing.T, path string, l Log, c *clock) *Catalog {
	t.Helper()
	cat, err := Open(path, l, Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	return cat
}

func fresh(t *testing.T) (*Catalog, *logs, *clock) {
	l, c := newLogs(), newClock()
	return open(t, filepath.Join(t.TempDir(), "catalog.db"), l, c), l, c
}

func generation(repo, tree, content string) chantal.Generation {
	hex := fmt.Sprintf("%x", content)
	return chantal.Generation{
		Repo: repo, Tree: tree,
		Roots: []chantal.RootFile{{
			Path: tree + "/InRelease", Size: int64(len(content)), ETag: `"x"`, Modified: noon.Add(-time.Hour),
			Digest: chantal.Digest("sha256:" + strings.Repeat("0", 64-len(hex)) + hex),
		}},
	}
}

// see observes a state on top of the head.
func see(t *testing.T, c *Catalog, repo, tree, content string) chantal.Observation {
	t.Helper()
	head, err := c.Head(repo, tree)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	o, err := c.Observe(generation(repo, tree, content), head, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// dump returns the whole database.
func dump(t *testing.T, c *Catalog) map[string]string {
	t.Helper()
	all, err := rowsOf(c)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rowsOf returns all rows of a catalog.
func rowsOf(c *Catalog) (map[string]string, error) {
	all := make(map[string]string)
	err := c.db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				all[fmt.Sprintf("%s %q", name, k)] = string(v)
				return nil
			})
		})
	})
	return all, err
}

func TestReposAreKeptAndChanged(t *testing.T) {
	c, l, clk := fresh(t)
	r := Repo{Name: "debian", Type: "apt", Upstream: []string{"http://mirror.example.org/debian/"}}
	if err := c.PutRepo(r); err != nil {
		t.Fatal(err)
	}
	clk.set(noon.Add(time.Hour))
	if err := c.PutRepo(r); err != nil {
		t.Fatal(err)
	}
	if n := len(l.lines["repos/debian"]); n != 1 {
		t.Errorf("%d records of a repository that did not change", n)
	}
	r.Upstream = append(r.Upstream, "http://other.example.org/debian/")
	if err := c.PutRepo(r); err != nil {
		t.Fatal(err)
	}
	if err := c.PutRepo(Repo{Name: "a", Type: "rpm", Discovered: true}); err != nil {
		t.Fatal(err)
	}
	got, err := c.Repos()
	if err != nil {
		t.Fatal(err)
	}
	r.Created = noon
	want := []Repo{{Name: "a", Type: "rpm", Discovered: true, Created: noon.Add(time.Hour)}, r}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if one, err := c.Repo("debian"); err != nil || !cmp.Equal(r, one) {
		t.Errorf("%v %v", one, err)
	}
	if _, err := c.Repo("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"", "..", "A", "a/b", "-a", "a\x00b"} {
		if err := c.PutRepo(Repo{Name: bad}); err == nil {
			t.Errorf("name %q works", bad)
		}
	}
}

func TestGoingBackIsTheOldGeneration(t *testing.T) {
	c, _, _ := fresh(t)
	var numbers []int
	for _, s := range []string{"A", "B", "A"} {
		numbers = append(numbers, see(t, c, "debian", "dists/sid", s).Generation)
	}
	if d := cmp.Diff([]int{1, 2, 1}, numbers); d != "" {
		t.Error(d)
	}
	all, err := c.Observations("debian", "dists/sid")
	if err != nil {
		t.Fatal(err)
	}
	var seen []int
	for i, o := range all {
		seen = append(seen, o.Generation)
		if i > 0 && (!o.Observed.After(all[i-1].Observed) || o.Modified.Sub(all[i-1].Modified) < time.Second) {
			t.Errorf("times do not rise: %+v after %+v", o, all[i-1])
		}
	}
	if d := cmp.Diff(numbers, seen); d != "" {
		t.Error(d)
	}
	got, err := c.Generation("debian", "dists/sid", 2)
	if err != nil {
		t.Fatal(err)
	}
	want := generation("debian", "dists/sid", "B")
	want.Number = 2
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, n := range []int{-1, 0, 3} {
		if _, err := c.Generation("debian", "dists/sid", n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("generation %d: %v", n, err)
		}
	}
}

func TestTheSamePathsInAnotherOrderAreTheSameGeneration(t *testing.T) {
	c, _, _ := fresh(t)
	g := generation("debian", "d", "A")
	g.Roots = append(g.Roots, generation("debian", "e", "B").Roots...)
	first, err := c.Observe(g, chantal.Observation{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	g.Roots = []chantal.RootFile{g.Roots[1], g.Roots[0]}
	second, err := c.Observe(g, first, time.Time{})
	if err != nil || second.Generation != 1 {
		t.Errorf("%+v %v", second, err)
	}
	g.Roots = g.Roots[:1]
	if third, err := c.Observe(g, second, time.Time{}); err != nil || third.Generation != 2 {
		t.Errorf("%+v %v", third, err)
	}
}

func TestTheHeadMovesByCompareAndSwap(t *testing.T) {
	c, _, _ := fresh(t)
	first := see(t, c, "debian", "dists/sid", "A")
	second := see(t, c, "debian", "dists/sid", "B")
	for name, was := range map[string]chantal.Observation{"none": {}, "old": first} {
		if _, err := c.Observe(generation("debian", "dists/sid", "C"), was, time.Time{}); !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if head, err := c.Head("debian", "dists/sid"); err != nil || !cmp.Equal(second, head) {
		t.Errorf("%+v %v", head, err)
	}
	if _, err := c.Observe(generation("debian", "other", "C"), second, time.Time{}); !errors.Is(err, ErrConflict) {
		t.Errorf("a tree that has no head: %v", err)
	}
	if _, err := c.Head("debian", "other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestTimesRiseWhateverTheClockDoes(t *testing.T) {
	c, _, clk := fresh(t)
	var last time.Time
	for i, step := range []time.Duration{0, 0, -time.Hour, time.Hour, -24 * time.Hour} {
		clk.set(clk.now().Add(step))
		for _, tree := range []string{"a", "b"} {
			o := see(t, c, "r", tree, fmt.Sprint(i))
			if !o.Observed.After(last) {
				t.Errorf("step %d: %v is not after %v", i, o.Observed, last)
			}
			last = o.Observed
		}
		at, err := c.Clock()
		if err != nil {
			t.Fatal(err)
		}
		if at.Before(last) {
			t.Errorf("step %d: Clock returns %v, and %v was observed", i, at, last)
		}
		if o := see(t, c, "r", "a", fmt.Sprint("more", i)); !o.Observed.After(at) {
			t.Errorf("step %d: observed at %v after Clock returned %v", i, o.Observed, at)
		} else {
			last = o.Observed
		}
	}
}

func TestIssuedDatesRise(t *testing.T) {
	c, _, _ := fresh(t)
	at := time.Date(2026, 1, 1, 0, 0, 0, 999, time.UTC)
	var head chantal.Observation
	for i, step := range []struct{ modified, want time.Time }{
		{at, at.Truncate(time.Second)},
		{at.Add(time.Hour), at.Add(time.Hour).Truncate(time.Second)},
		{at, at.Add(time.Hour + time.Second).Truncate(time.Second)},
		{time.Time{}, noon},
	} {
		o, err := c.Observe(generation("r", "t", fmt.Sprint(i)), head, step.modified)
		if err != nil {
			t.Fatal(err)
		}
		if !o.Modified.Equal(step.want) {
			t.Errorf("step %d: %v, want %v", i, o.Modified, step.want)
		}
		head = o
	}
}

func TestAnInstantGivesWhatWasObservedThen(t *testing.T) {
	c, _, clk := fresh(t)
	hour := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Hour) }
	for i, s := range []string{"A", "B", "A"} {
		clk.set(hour(i))
		see(t, c, "r", "t", s)
		see(t, c, "r", "t2", s) // a microsecond later
	}
	clk.set(hour(5))
	see(t, c, "r", "late", "A")
	see(t, c, "r2", "t", "Z")
	for _, step := range []struct {
		at   time.Time
		want int
	}{
		{hour(0), 1}, {hour(1).Add(-time.Nanosecond), 1}, {hour(1), 2}, {hour(2).Add(-time.Microsecond), 2}, {hour(2), 1}, {hour(99), 1},
	} {
		if o, err := c.At("r", "t", step.at); err != nil || o.Generation != step.want {
			t.Errorf("at %v: %+v %v, want %d", step.at, o, err, step.want)
		}
	}
	for _, at := range []time.Time{hour(-1), {}, time.Unix(0, 0)} {
		if _, err := c.At("r", "t", at); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("at %v: %v", at, err)
		}
	}
	for at, want := range map[time.Time][]string{hour(-1): nil, hour(0): {"t"}, hour(1): {"t", "t2"}, hour(5): {"late", "t", "t2"}} {
		got, err := c.TreesAt("r", at)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("at %v: %s", at, d)
		}
	}
	got, err := c.Trees("r")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"late", "t", "t2"}, got); d != "" {
		t.Error(d)
	}
}

func TestWhatClientsWant(t *testing.T) {
	c, _, _ := fresh(t)
	day := func(n int) time.Time { return noon.AddDate(0, 0, n) }
	for _, w := range []map[string]map[string]time.Time{
		{"t": {"main/Packages.xz": day(0), "main/Sources.xz": day(-20)}, "t2": {"x": day(0)}},
		{"t": {"main/Packages.xz": day(-3), "contrib/Packages.xz": day(-14)}},
	} {
		if err := c.Want("debian", w); err != nil {
			t.Fatal(err)
		}
	}
	for since, want := range map[time.Time][]string{
		day(-14): {"contrib/Packages.xz", "main/Packages.xz"}, day(0): {"main/Packages.xz"}, day(1): nil,
	} {
		got, err := c.Wanted("debian", "t", since)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("since %v: %s", since, d)
		}
	}
}

func TestOnlyOneProcessHasTheCatalog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	open(t, path, newLogs(), newClock())
	if _, err := Open(path, newLogs(), Options{}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

func TestADamagedFileIsMadeAnew(t *testing.T) {
	for name, damage := range damages() {
		t.Run(name, func(t *testing.T) {
			path, l, clk := filepath.Join(t.TempDir(), "catalog.db"), newLogs(), newClock()
			c := open(t, path, l, clk)
			for i := range 50 {
				see(t, c, "r", "t", fmt.Sprint(i))
			}
			want := dump(t, c)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			again := open(t, path, l, clk)
			if d := cmp.Diff(want, dump(t, again)); d != "" {
				t.Error(d)
			}
			if _, err := os.Stat(path + ".old"); err != nil {
				t.Error(err)
			}
		})
	}
}

// damages are what can happen to the database's file.
func damages() map[string]func(path string) error {
	return map[string]func(path string) error{
		"foreign":   func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("not a database ", 1000)), 0o600) },
		"truncated": func(p string) error { return os.Truncate(p, 3*4096) },
		"zeroed": func(p string) error {
			fi, err := os.Stat(p)
			if err != nil {
				return err
			}
			b := make([]byte, fi.Size())
			return os.WriteFile(p, b, 0o600)
		},
	}
}
