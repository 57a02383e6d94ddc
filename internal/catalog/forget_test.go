package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

// past is what was known of a tree at some instants.
type past map[string]map[time.Time]chantal.Observation

func recall(t *testing.T, c *Catalog, instants []time.Time, trees ...string) past {
	t.Helper()
	all := past{}
	for _, tree := range trees {
		all[tree] = map[time.Time]chantal.Observation{}
		for _, at := range instants {
			o, err := c.At("debian", tree, at)
			if err == nil {
				_, err = c.Generation("debian", tree, o.Generation)
			}
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			all[tree][at] = o
		}
	}
	return all
}

// Whatever was observed, frozen and deleted: forgetting changes no answer within
// history or of a snapshot, and gives none that is wrong.
func TestForgettingChangesNoAnswer(t *testing.T) {
	total := 0
	for seed := range uint64(8) {
		dice := rand.New(rand.NewPCG(seed, 2))
		c, l, clk := fresh(t)
		if err := c.PutRepo(Repo{Name: "debian", Type: "apt"}); err != nil {
			t.Fatal(err)
		}
		trees := []string{"dists/one", "dists/two", "simple/x"}
		var instants, pins []time.Time
		names, numbers := map[string]time.Time{}, map[string]string{}
		var forgot int
		for step := range 60 {
			clk.set(clk.now().Add(time.Duration(dice.IntN(90)) * time.Minute))
			switch tree := trees[dice.IntN(len(trees))]; dice.IntN(8) {
			case 0: // a snapshot, now or of the past
				at, err := c.Clock()
				if err != nil {
					t.Fatal(err)
				}
				if len(instants) > 0 && dice.IntN(2) == 0 {
					at = instants[dice.IntN(len(instants))].Truncate(time.Microsecond)
				}
				name := fmt.Sprint("s", step)
				var gone *ForgottenError
				if err := c.PutSnapshot(Snapshot{Name: name, Repos: []Frozen{{Repo: "debian", At: at}}}, false); err == nil {
					names[name] = at
				} else if !errors.As(err, &gone) {
					t.Fatal(err)
				}
				instants = append(instants, at)
			case 1:
				for name := range names {
					if err := c.DeleteSnapshot(name); err != nil {
						t.Fatal(err)
					}
					delete(names, name)
					break
				}
			case 2:
				since := clk.now().Add(-time.Duration(dice.IntN(12)) * time.Hour)
				pins = pins[:0]
				for _, at := range names {
					pins = append(pins, at)
				}
				forgot += forgetOnce(t, c, since, instants, pins, trees)
			default:
				content := fmt.Sprint(tree, " ", dice.IntN(6))
				o := see(t, c, "debian", tree, content)
				// A number stands for one state for ever.
				id := fmt.Sprint(tree, " ", o.Generation)
				if was, ok := numbers[id]; ok && was != content {
					t.Fatalf("seed %d: generation %s was %q and is %q", seed, id, was, content)
				}
				numbers[id] = content
				instants = append(instants, o.Observed, o.Observed.Add(-time.Microsecond), clk.now().Add(time.Minute))
			}
		}
		total += forgot
		if findings, err := c.Check(); err != nil || len(findings) > 0 {
			t.Errorf("seed %d: %v, %v", seed, findings, err)
		}
		again := open(t, filepath.Join(t.TempDir(), "anew.db"), l, clk)
		if d := cmp.Diff(recall(t, c, instants, trees...), recall(t, again, instants, trees...)); d != "" {
			t.Errorf("seed %d: made anew it is another catalog:\n%s", seed, d)
		}
	}
	if total < 50 {
		t.Errorf("only %d observations were forgotten: that tries little", total)
	}
}

// forgetOnce forgets, and returns how many observations that were.
func forgetOnce(t *testing.T, c *Catalog, since time.Time, instants, pins []time.Time, trees []string) int {
	t.Helper()
	before, rows := recall(t, c, append(instants, pins...), trees...), dump(t, c)
	would, err := c.Forget(since, false)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(rows, dump(t, c)); d != "" {
		t.Fatalf("asking what would be forgotten changes it:\n%s", d)
	}
	did, err := c.Forget(since, true)
	if err != nil || did != would {
		t.Fatalf("it would forget %+v, and did %+v, %v", would, did, err)
	}
	for _, tree := range trees {
		for at, was := range before[tree] {
			o, err := c.At("debian", tree, at)
			pinned := false
			for _, p := range pins {
				pinned = pinned || p.Equal(at)
			}
			var gone *ForgottenError
			switch {
			case err == nil && cmp.Equal(o, was):
			case errors.As(err, &gone) && !pinned && at.Before(since):
				if first, err := c.Since("debian", tree); err != nil || !first.Equal(gone.Since) || !at.Before(first) {
					t.Errorf("it is known since %v, and said to be since %v, %v", first, gone.Since, err)
				}
				if _, err := c.At("debian", tree, gone.Since); err != nil {
					t.Errorf("the instant that is named has no answer: %v", err)
				}
			default:
				t.Errorf("%s at %v was %+v and is %+v, %v (history since %v, pinned: %v)", tree, at, was, o, err, since, pinned)
			}
		}
	}
	return did.Observations
}

// A process that ends between the log and the database finds the log right.
func TestAForgettingThatEndedHalfWayIsAppliedLater(t *testing.T) {
	dir := t.TempDir()
	l, clk := newLogs(), newClock()
	c := open(t, filepath.Join(dir, "catalog.db"), l, clk)
	if err := c.PutRepo(Repo{Name: "debian", Type: "apt"}); err != nil {
		t.Fatal(err)
	}
	see(t, c, "debian", "dists/one", "A")
	see(t, c, "debian", "dists/one", "B")
	clk.set(clk.now().Add(time.Hour))
	head := see(t, c, "debian", "dists/one", "A")
	l.afterAppend = func() { c.db.Close() }
	if _, err := c.Forget(clk.now(), true); err == nil {
		t.Fatal("the database was closed, and nothing failed")
	}
	l.afterAppend = nil
	c = open(t, filepath.Join(dir, "catalog.db"), l, clk)
	all, err := c.Observations("debian", "dists/one")
	if err != nil || len(all) != 2 { // the head, and what was in force until it
		t.Errorf("%d observations are left, %v", len(all), err)
	}
	if got, err := c.Head("debian", "dists/one"); err != nil || !sameObservation(got, head) {
		t.Errorf("the head is %+v, %v", got, err)
	}
	if _, err := c.Generation("debian", "dists/one", head.Generation); err != nil {
		t.Errorf("the generation that was told with a forgotten observation: %v", err)
	}
	if findings, err := c.Check(); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
}

func TestAWatchSeesWhatIsNamed(t *testing.T) {
	c, _, _ := fresh(t)
	if err := c.PutRepo(Repo{Name: "debian", Type: "apt"}); err != nil {
		t.Fatal(err)
	}
	see(t, c, "debian", "dists/one", "before")
	w := c.Watch()
	defer w.Close()
	calls := 0
	still := func() Named {
		t.Helper()
		n, err := w.Still(func() error { calls++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := still(); !n.Empty() || calls != 1 {
		t.Errorf("nothing was named, and it says %+v after %d calls", n, calls)
	}
	o := see(t, c, "debian", "dists/one", "since")
	if err := c.PutSnapshot(Snapshot{Name: "s", Repos: []Frozen{{Repo: "debian", At: o.Observed}}}, false); err != nil {
		t.Fatal(err)
	}
	n := still()
	if len(n.Observed) != 1 || !sameObservation(n.Observed[0], o) || len(n.Snapshots) != 1 || calls != 1 {
		t.Errorf("it says %+v after %d calls", n, calls)
	}
	if n := still(); !n.Empty() || calls != 2 {
		t.Errorf("nothing more was named, and it says %+v after %d calls", n, calls)
	}
}
