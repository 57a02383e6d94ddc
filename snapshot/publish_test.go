package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal"
	"chantal/internal/catalog"

	"github.com/google/go-cmp/cmp"
)

// see lets a tree be observed in a state.
func (b *bench) see(t *testing.T, repo, state string) {
	t.Helper()
	head, err := b.catalog.Head(repo, "tree")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := b.catalog.Observe(generation(repo, state), head, time.Time{}); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(time.Second)
}

func generation(repo, state string) chantal.Generation {
	return chantal.Generation{Repo: repo, Tree: "tree", Roots: []chantal.RootFile{{
		Path: "tree/InRelease", Digest: chantal.Digest(fmt.Sprintf("sha256:%064x", state)),
	}}}
}

// press makes editions that are called as what they were made of.
type press struct {
	mu   sync.Mutex
	from map[string][]string // repository → lines it was made of
	err  error
	none bool
}

func (p *press) make(_ context.Context, sources []catalog.Frozen) ([]chantal.Generation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.from == nil {
		p.from = map[string][]string{}
	}
	p.from[sources[0].Repo] = nil
	for _, f := range sources {
		p.from[f.Repo] = append(p.from[f.Repo], f.Line()+" "+f.At.Format(time.TimeOnly))
	}
	if p.none || p.err != nil {
		return nil, p.err
	}
	return []chantal.Generation{generation(sources[0].Repo, "made")}, nil
}

func (b *bench) publish(t *testing.T, p *press, q PublishRequest, refs ...string) (catalog.Snapshot, error) {
	t.Helper()
	for _, text := range refs {
		ref, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		q.Sources = append(q.Sources, ref)
	}
	q.Make = p.make
	return b.Publish(t.Context(), q, silently)
}

func TestAPublishedSnapshotHasEditions(t *testing.T) {
	b, p := newBench(t), &press{}
	b.see(t, "debian", "A")
	first := b.mustCreate(t, Request{Name: "first"})
	s, err := b.publish(t, p, PublishRequest{Name: "web", Labels: map[string]string{"k": "v"}, Note: "n"}, "first")
	if err != nil {
		t.Fatal(err)
	}
	want := catalog.Snapshot{Name: "web", Created: b.now, Labels: map[string]string{"k": "v"}, Note: "n", Repos: []catalog.Frozen{{Repo: "debian", Edition: "web", At: b.now}}}
	if d := cmp.Diff(want, s); d != "" {
		t.Error(d) // epel was never observed
	}
	if d := cmp.Diff(map[string][]string{"debian": {"debian " + first.Repos[0].At.Format(time.TimeOnly)}}, p.from); d != "" {
		t.Error(d)
	}
	state, err := b.resolve(t, "web")
	if err != nil {
		t.Fatal(err)
	}
	held, err := state.At("debian")
	if err != nil || held.Line() != "debian@web" {
		t.Fatalf("%+v %v", held, err)
	}
	if g, err := b.catalog.Generation(held.Line(), "tree", 1); err != nil || g.Roots[0].Digest != generation("", "made").Roots[0].Digest {
		t.Errorf("%+v %v", g, err)
	}
	// Made of live, of an instant, of another edition.
	for what, c := range map[string][2]string{
		"live": {"live", "debian "}, "instant": {DefaultName(b.now), "debian "}, "edition": {"web", "debian@web "},
	} {
		_, err := b.publish(t, p, PublishRequest{Name: "of-" + what}, c[0])
		if err != nil || len(p.from["debian"]) != 1 || !strings.HasPrefix(p.from["debian"][0], c[1]) {
			t.Errorf("%s: %v %v", what, p.from, err)
		}
	}
}

func TestAMergeKeepsWhatOnlyOneSourceHas(t *testing.T) {
	b, p := newBench(t), &press{}
	b.see(t, "debian", "A")
	b.see(t, "epel", "A")
	b.mustCreate(t, Request{Name: "first"})
	b.see(t, "debian", "B")
	b.mustCreate(t, Request{Name: "second"})
	b.see(t, "debian", "A") // as at first
	third := b.mustCreate(t, Request{Name: "third"})
	s, err := b.publish(t, p, PublishRequest{Name: "both"}, "first", "second", "third")
	if err != nil {
		t.Fatal(err)
	}
	want := []catalog.Frozen{{Repo: "debian", Edition: "both", At: b.now}, {Repo: "epel", At: third.Repos[1].At}}
	if d := cmp.Diff(want, s.Repos); d != "" {
		t.Error(d)
	}
	// The last source wins, and it has what the first has.
	if got := p.from; len(got) != 1 || len(got["debian"]) != 2 || got["debian"][1] != "debian "+third.Repos[0].At.Format(time.TimeOnly) {
		t.Errorf("%v", got)
	}
	if _, err := b.publish(t, p, PublishRequest{Name: "more", Repos: []string{"epel"}}, "both", "first"); err != nil {
		t.Error(err)
	}
	// An edition ends with its snapshot, so another one is made of it.
	if s, err = b.publish(t, p, PublishRequest{Name: "again", Repos: []string{"debian"}}, "both", "both"); err != nil || s.Repos[0].Edition != "again" {
		t.Errorf("%+v %v", s, err)
	}
}

func TestWhatIsNotPublished(t *testing.T) {
	b, p := newBench(t), &press{}
	if _, err := b.publish(t, p, PublishRequest{Name: "web"}, "live"); err == nil {
		t.Error("nothing was published")
	}
	b.see(t, "debian", "A")
	b.mustCreate(t, Request{Name: "first"})
	b.mustCreate(t, Request{Name: "gone"})
	if err := b.Delete("gone"); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	var bad *BadRefError
	var unsupported *UnsupportedError
	for what, c := range map[string]struct {
		name, ref string
		repos     []string
		p         *press
		check     func(error) bool
	}{
		"a name that is taken":     {name: "first", check: func(err error) bool { return errors.Is(err, catalog.ErrExists) }},
		"a deleted name":           {name: "gone", check: func(err error) bool { return errors.Is(err, catalog.ErrDeleted) }},
		"an instant for a name":    {name: "2026-11-23", check: func(err error) bool { return errors.As(err, &bad) }},
		"an unknown source":        {ref: "nosuch", check: func(err error) bool { return errors.Is(err, fs.ErrNotExist) }},
		"a signed source":          {ref: "first+signed", check: func(err error) bool { return errors.As(err, &unsupported) }},
		"a repository without any": {repos: []string{"epel"}, check: func(err error) bool { return err != nil }},
		"an unknown repository":    {repos: []string{"nosuch"}, check: func(err error) bool { return err != nil }},
		"what cannot be made":      {p: &press{err: broken}, check: func(err error) bool { return errors.Is(err, broken) }},
		"nothing":                  {p: &press{none: true}, check: func(err error) bool { return err != nil }},
	} {
		if c.name == "" {
			c.name = "web"
		}
		if c.p == nil {
			c.p = &press{}
		}
		if c.ref == "" {
			c.ref = "first"
		}
		if _, err := b.publish(t, c.p, PublishRequest{Name: c.name, Repos: c.repos}, c.ref); !c.check(err) {
			t.Errorf("%s: %v", what, err)
		}
		if (what == "a name that is taken" || what == "a deleted name") && c.p.from != nil {
			t.Errorf("%s: work was done for it", what)
		}
	}
	if _, err := b.Get("web"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a snapshot: %v", err)
	}
	b.complete.err = broken
	if _, err := b.publish(t, p, PublishRequest{Name: "web"}, "first"); !errors.Is(err, broken) {
		t.Error(err)
	}
	b.complete.err = nil
	if s, err := b.publish(t, p, PublishRequest{Name: "gone", Force: true}, "first"); err != nil || s.Repos[0].Edition != "gone" {
		t.Errorf("%+v %v", s, err)
	}
}

func TestOfTwoPublicationsUnderOneNameOneIs(t *testing.T) {
	b, p := newBench(t), &press{}
	b.see(t, "debian", "A")
	b.mustCreate(t, Request{Name: "first"})
	ref, err := Parse("first")
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Add(2)
	q := PublishRequest{Name: "web", Sources: []Ref{ref}, Make: func(ctx context.Context, sources []catalog.Frozen) ([]chantal.Generation, error) {
		both.Done()
		both.Wait() // until the other one has come as far
		return p.make(ctx, sources)
	}}
	errs := make(chan error, 2)
	for range 2 {
		go func() { _, err := b.Publish(t.Context(), q, silently); errs <- err }()
	}
	one, other := <-errs, <-errs
	if one == nil {
		one, other = other, one
	}
	if other != nil || !errors.Is(one, catalog.ErrExists) {
		t.Errorf("%v, %v", one, other)
	}
	if s, err := b.Get("web"); err != nil || len(s.Repos) != 1 {
		t.Errorf("%+v %v", s, err)
	}
}
