package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/disk"
	"chantal/internal/disk/disktest"
)

// history fills a catalog with a bit of everything.
func history(t *testing.T, c *Catalog, clk *clock) {
	t.Helper()
	for i, repo := range []string{"debian", "epel"} {
		if err := c.PutRepo(Repo{Name: repo, Type: "apt", Upstream: []string{"http://mirror.example.org/" + repo + "/"}}); err != nil {
			t.Fatal(err)
		}
		for j, s := range []string{"A", "B", "A", "C"} {
			clk.set(clk.now().Add(time.Duration(i+j) * time.Minute))
			see(t, c, repo, "one", s)
			see(t, c, repo, "two/three", s+"x")
		}
	}
	at, err := c.Clock()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"today", "old", "again"} {
		s := Snapshot{
			Name: name, Labels: map[string]string{"k": "v"}, Note: "why",
			Repos: []Frozen{{Repo: "debian", At: at}, {Repo: "epel", At: at.Add(-time.Minute), Missing: []string{"x.rpm"}}, edition(name, at, "ours, "+name)},
		}
		if err := c.PutSnapshot(s, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"old", "again"} {
		if err := c.DeleteSnapshot(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.PutSnapshot(Snapshot{Name: "again", Repos: []Frozen{{Repo: "epel", At: at}}}, true); err != nil {
		t.Fatal(err)
	}
}

func TestRebuildGivesTheSameCatalog(t *testing.T) {
	c, l, clk := fresh(t)
	history(t, c, clk)
	want := dump(t, c)
	if err := c.Want("debian", map[string]map[string]time.Time{"one": {"main/Packages.xz": noon}}); err != nil {
		t.Fatal(err)
	}
	wants := dump(t, c)
	clk.set(noon.AddDate(1, 0, 0))
	if err := c.Rebuild(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(wants, dump(t, c)); d != "" {
		t.Errorf("Rebuild: %s", d)
	}
	lost := open(t, filepath.Join(t.TempDir(), "catalog.db"), l, clk)
	if d := cmp.Diff(want, dump(t, lost)); d != "" {
		t.Errorf("Open of a new file: %s", d)
	}
	if len(want) < 30 {
		t.Errorf("only %d entries were compared", len(want))
	}
}

func TestARecordWithoutCommitIsAppliedLater(t *testing.T) {
	for _, how := range []string{"after a crash", "in the same process"} {
		t.Run(how, func(t *testing.T) {
			path, l, clk := filepath.Join(t.TempDir(), "catalog.db"), newLogs(), newClock()
			var faults disktest.Faults
			c, err := Open(path, l, Options{Now: clk.now, Disk: faults.Disk()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			first := see(t, c, "r", "t", "A")
			if how == "after a crash" {
				l.afterAppend = func() { c.db.Close() }
				if _, err := c.Observe(generation("r", "t", "B"), first, time.Time{}); err == nil {
					t.Fatal("the commit worked")
				}
				l.afterAppend = nil
				c = open(t, path, l, clk)
			} else {
				faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Update}, Err: syscall.ENOSPC, Times: 1})
				var full *chantal.DiskError
				if _, err := c.Observe(generation("r", "t", "B"), first, time.Time{}); !errors.As(err, &full) {
					t.Fatalf("the commit: %v", err)
				}
				if _, err := c.Observe(generation("r", "t", "C"), first, time.Time{}); !errors.Is(err, ErrConflict) {
					t.Errorf("got %v", err)
				}
			}
			if head, err := c.Head("r", "t"); err != nil || head.Generation != 2 {
				t.Errorf("%+v %v", head, err)
			}
			if o := see(t, c, "r", "t", "C"); o.Generation != 3 {
				t.Errorf("got %+v", o)
			}
			want := dump(t, c)
			if err := c.Rebuild(); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, dump(t, c)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRecordsThatAreGoneOrStrangeAreErrors(t *testing.T) {
	for name, spoil := range map[string]func(l *logs){
		"shorter":     func(l *logs) { l.lines["repos/debian"] = l.lines["repos/debian"][:3] },
		"gone":        func(l *logs) { delete(l.lines, "names") },
		"newer":       func(l *logs) { l.lines["names"] = append(l.lines["names"], []byte(`{"type":"snapshot","v":2}`)) },
		"unknown":     func(l *logs) { l.lines["names"] = append(l.lines["names"], []byte(`{"type":"channel","v":1}`)) },
		"not for us":  func(l *logs) { l.lines["names"] = append(l.lines["names"], []byte(`[]`)) },
		"has nothing": func(l *logs) { l.lines["names"] = append(l.lines["names"], []byte(`{"type":"snapshot","v":1}`)) },
	} {
		t.Run(name, func(t *testing.T) {
			path, l, clk := filepath.Join(t.TempDir(), "catalog.db"), newLogs(), newClock()
			c := open(t, path, l, clk)
			history(t, c, clk)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			l.lines["notes"] = [][]byte{[]byte("somebody else's")}
			open(t, path, l, clk).Close()
			l.lines = maps.Clone(l.lines)
			spoil(l)
			if _, err := Open(path, l, Options{Now: clk.now}); err == nil || !strings.Contains(err.Error(), "record") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSnapshotNames(t *testing.T) {
	c, _, clk := fresh(t)
	for i, name := range []string{"first", "second"} {
		clk.set(noon.Add(time.Duration(i) * time.Hour))
		if err := c.PutSnapshot(Snapshot{Name: name}, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, force := range []bool{false, true} {
		if err := c.PutSnapshot(Snapshot{Name: "first"}, force); !errors.Is(err, ErrExists) {
			t.Errorf("force %v: %v", force, err)
		}
	}
	all, err := c.Snapshots()
	if err != nil {
		t.Fatal(err)
	}
	want := []Snapshot{{Name: "second", Created: noon.Add(time.Hour)}, {Name: "first", Created: noon}}
	if d := cmp.Diff(want, all); d != "" {
		t.Error(d)
	}
	if err := c.DeleteSnapshot("first"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first", "none"} {
		if err := c.DeleteSnapshot(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.Snapshot(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.PutSnapshot(Snapshot{Name: "first"}, false); !errors.Is(err, ErrDeleted) {
		t.Errorf("got %v", err)
	}
	if err := c.PutSnapshot(Snapshot{Name: "first", Note: "anew"}, true); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Snapshot("first"); err != nil || s.Note != "anew" {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{"", "live", ".x", "a/b", "a b", "a~b", "a+b", "a@b", strings.Repeat("x", 129)} {
		if err := c.PutSnapshot(Snapshot{Name: bad}, true); err == nil {
			t.Errorf("name %q works", bad)
		}
	}
	if err := c.PutSnapshot(Snapshot{Name: "future", Repos: []Frozen{{Repo: "r", At: noon.AddDate(1, 0, 0)}}}, true); err == nil {
		t.Error("a snapshot of the future works")
	}
}

func TestAFrozenInstantStaysWhatItWas(t *testing.T) {
	c, l, clk := fresh(t)
	see(t, c, "r", "t", "A")
	clk.set(noon.Add(time.Hour))
	at := clk.now()
	if err := c.PutSnapshot(Snapshot{Name: "s", Repos: []Frozen{{Repo: "r", At: at}}}, false); err != nil {
		t.Fatal(err)
	}
	clk.set(noon) // somebody sets the clock back, and the database is lost
	for _, c := range []*Catalog{c, open(t, filepath.Join(t.TempDir(), "catalog.db"), l, clk)} {
		if now, err := c.Clock(); err != nil || now.Before(at) {
			t.Errorf("the clock is at %v, %v", now, err)
		}
	}
	see(t, c, "r", "t", "B")
	if o, err := c.At("r", "t", at); err != nil || o.Generation != 1 {
		t.Errorf("%+v %v", o, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	c, _, _ := fresh(t)
	const workers, each = 8, 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; i < each; {
				head, err := c.Head("r", "shared")
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
				_, err = c.Observe(generation("r", "shared", fmt.Sprintf("%d-%d", w, i)), head, time.Time{})
				switch {
				case err == nil:
					i++
				case !errors.Is(err, ErrConflict):
					t.Error(err)
					return
				}
				at, err := c.Clock()
				if err != nil {
					t.Error(err)
				}
				before, err := c.At("r", "shared", at)
				if err != nil {
					t.Error(err)
				}
				if err := c.Want("r", map[string]map[string]time.Time{"shared": {fmt.Sprint(w): noon}}); err != nil {
					t.Error(err)
				}
				if after, err := c.At("r", "shared", at); err != nil || !cmp.Equal(before, after) {
					t.Errorf("the past has changed: %+v, then %+v, %v", before, after, err)
				}
			}
		})
	}
	wg.Wait()
	all, err := c.Observations("r", "shared")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != workers*each {
		t.Errorf("%d observations, want %d", len(all), workers*each)
	}
	numbers := make(map[int]bool)
	for _, o := range all {
		numbers[o.Generation] = true
	}
	if len(numbers) != workers*each || !numbers[1] || !numbers[workers*each] {
		t.Errorf("numbers are not 1 to %d: %v", workers*each, numbers)
	}
	if wanted, err := c.Wanted("r", "shared", noon); err != nil || len(wanted) != workers {
		t.Errorf("%v %v", wanted, err)
	}
}
