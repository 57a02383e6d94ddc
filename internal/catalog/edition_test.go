package catalog

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

// edition returns what a snapshot holds of debian, made here.
func edition(name string, at time.Time, content ...string) Frozen {
	f := Frozen{Repo: "debian", Edition: name, At: at}
	for i, c := range content {
		f.Generations = append(f.Generations, generation("debian", []string{"one", "two/three"}[i], c))
	}
	return f
}

func TestAnEditionBeginsAndEndsWithItsSnapshot(t *testing.T) {
	c, l, clk := fresh(t)
	if err := c.PutRepo(Repo{Name: "debian", Type: "apt"}); err != nil {
		t.Fatal(err)
	}
	upstream := see(t, c, "debian", "one", "upstream's")
	at, err := c.Clock()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PutSnapshot(Snapshot{Name: "prod", Repos: []Frozen{edition("prod", at, "ours", "ours too")}}, false); err != nil {
		t.Fatal(err)
	}
	s, err := c.Snapshot("prod")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Frozen{{Repo: "debian", Edition: "prod", At: at}}, s.Repos); d != "" {
		t.Error(d)
	}
	line := s.Repos[0].Line()
	check := func(c *Catalog) {
		t.Helper()
		if trees, err := c.TreesAt(line, at); err != nil || !cmp.Equal(trees, []string{"one", "two/three"}) {
			t.Errorf("%v %v", trees, err)
		}
		o, err := c.At(line, "one", at)
		want := chantal.Observation{Repo: line, Tree: "one", Generation: 1, Observed: at, Modified: at.Truncate(time.Second)}
		if d := cmp.Diff(want, o); d != "" || err != nil {
			t.Error(d, err)
		}
		if g, err := c.Generation(line, "one", 1); err != nil || g.Repo != line || g.Roots[0].Digest != generation("", "", "ours").Roots[0].Digest {
			t.Errorf("%+v %v", g, err)
		}
		if head, err := c.Head("debian", "one"); err != nil || !sameObservation(head, upstream) {
			t.Errorf("the edition has moved the head: %v %v", head, err)
		}
		if repos, err := c.Repos(); err != nil || len(repos) != 1 {
			t.Errorf("%v %v", repos, err)
		}
	}
	check(c)
	if err := c.Rebuild(); err != nil {
		t.Fatal(err)
	}
	check(c)
	check(open(t, filepath.Join(t.TempDir(), "anew.db"), l, clk))

	if err := c.DeleteSnapshot("prod"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Head(line, "one"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its snapshot it is there: %v", err)
	}
	if err := c.PutSnapshot(Snapshot{Name: "prod", Repos: []Frozen{edition("prod", at, "other")}}, true); err != nil {
		t.Fatal(err)
	}
	if trees, err := c.Trees(line); err != nil || !cmp.Equal(trees, []string{"one"}) {
		t.Errorf("%v %v", trees, err)
	}
	if findings, err := c.Check(); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
}

func TestEditionsThatMakeNoSense(t *testing.T) {
	c, _, clk := fresh(t)
	at := clk.now()
	twice := edition("prod", at, "ours")
	twice.Generations = append(twice.Generations, twice.Generations[0])
	bare := edition("prod", at, "ours")
	bare.Generations[0].Roots = nil
	nowhere := edition("prod", at, "ours")
	nowhere.Edition = ""
	for what, f := range map[string]Frozen{
		"of another snapshot": edition("other", at, "ours"), "without trees": edition("prod", at), "two generations of a tree": twice,
		"without roots": bare, "generations without an edition": nowhere,
	} {
		if err := c.PutSnapshot(Snapshot{Name: "prod", Repos: []Frozen{f}}, false); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
