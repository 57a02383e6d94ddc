package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"

	"github.com/google/go-cmp/cmp"
)

// completer says what is missing of each repository.
type completer struct {
	missing map[string][]string
	err     error
	asked   []string
	hang    bool
}

func (c *completer) Settle(ctx context.Context) error { return ctx.Err() }

func (c *completer) Complete(ctx context.Context, repo string, _ time.Time, progress func(string)) ([]string, error) {
	c.asked = append(c.asked, repo)
	progress("completing " + repo)
	if c.hang {
		<-ctx.Done()
		return c.missing[repo], ctx.Err()
	}
	return c.missing[repo], c.err
}

// bench is a catalog with two repositories and the names in it.
type bench struct {
	*Names
	catalog  *catalog.Catalog
	complete *completer
	now      time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	store, err := cas.Open(dir, cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	b := &bench{complete: &completer{}, now: time.Date(2026, 11, 23, 8, 15, 0, 0, time.UTC)}
	clock := func() time.Time { return b.now }
	if b.catalog, err = catalog.Open(filepath.Join(dir, "catalog.db"), store, catalog.Options{Now: clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.catalog.Close() })
	for _, repo := range []string{"debian", "epel"} {
		if err := b.catalog.PutRepo(catalog.Repo{Name: repo, Type: "apt", Upstream: []string{"http://mirror.example.org/"}}); err != nil {
			t.Fatal(err)
		}
	}
	b.Names = New(b.catalog, b.complete, clock)
	return b
}

func silently(string) {}

func (b *bench) mustCreate(t *testing.T, q Request) catalog.Snapshot {
	t.Helper()
	s, err := b.Create(t.Context(), q, silently)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *bench) resolve(t *testing.T, text string) (*State, error) {
	t.Helper()
	ref, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return b.Resolve(ref)
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Ref{
		"":                          {Name: "live"},
		"live":                      {Name: "live"},
		"prod":                      {Name: "prod"},
		"2026-11-23":                {Name: "2026-11-23"},
		"2026-11-23T08:15:00Z":      {Name: "2026-11-23T08:15:00Z"},
		"20261123T081500Z":          {Name: "20261123T081500Z"},
		"prod+signed":               {Name: "prod", Signed: true},
		"live~build-4711":           {Name: "live", Recording: "build-4711"},
		"~b":                        {Name: "live", Recording: "b"},
		"2026-11-23+signed~b.1":     {Name: "2026-11-23", Signed: true, Recording: "b.1"},
		"2026-11-23T08:15:00Z~b":    {Name: "2026-11-23T08:15:00Z", Recording: "b"},
		strings.Repeat("a", 128):    {Name: strings.Repeat("a", 128)},
		"20261123T081500Z+signed~x": {Name: "20261123T081500Z", Signed: true, Recording: "x"},
	} {
		got, err := Parse(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	for _, text := range []string{
		"-x", ".x", "a/b", "a b", "a:b", "é", "a\x00", strings.Repeat("a", 129), "prod+", "prod+sealed", "prod+signed+signed",
		"prod~", "prod~-x", "prod~a~b", "prod~a/b", "2026-11-23T08:15:00", "2026-13-01T08:15:00Z", "..", "+signed@x", "prod~x+signed",
	} {
		var bad *BadRefError
		if got, err := Parse(text); !errors.As(err, &bad) {
			t.Errorf("%q is read as %+v, %v", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "live", "prod+signed~b", "2026-11-23", "20261123T081500Z", "2026-11-23T08:15:00Z~x", "+signed", "~", "a+b", "\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v, which is written %q and read as %+v, %v", text, r, r.String(), again, err)
		}
		if strings.ContainsAny(r.Name+r.Recording, "/@~+\x00 ") || r.Name == "" {
			t.Errorf("%q is %+v", text, r)
		}
	})
}

func TestResolveLooksForNamesBeforeInstants(t *testing.T) {
	b := newBench(t)
	first := b.mustCreate(t, Request{})
	if first.Name != "20261123T081500Z" {
		t.Fatalf("the default name is %s", first.Name)
	}
	b.now = b.now.Add(time.Hour)
	s, err := b.resolve(t, first.Name)
	if err != nil || !s.Named || s.Live {
		t.Fatalf("an exact name: %+v, %v", s, err)
	}
	if at, err := s.At("debian"); err != nil || !at.At.Equal(first.Repos[0].At) {
		t.Errorf("it holds debian at %v, %v", at, err)
	}
	s, err = b.resolve(t, "2026-11-23T08:15:00Z")
	if err != nil || s.Named || s.Live {
		t.Errorf("another way to write the same instant: %+v, %v", s, err)
	}
}

func TestResolveNeverTakesAnUnknownRefForLive(t *testing.T) {
	b := newBench(t)
	for _, text := range []string{"", "live"} {
		if s, err := b.resolve(t, text); err != nil || !s.Live {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
	for _, text := range []string{"prod", "Live", "2026-11-24", "20261123T081501Z", "2026-13-45"} {
		var unknown *UnknownError
		s, err := b.resolve(t, text)
		if !errors.As(err, &unknown) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
	for _, text := range []string{"live~b", "prod~b", "prod+signed~b"} {
		var unsupported *UnsupportedError
		s, err := b.resolve(t, text)
		if !errors.As(err, &unsupported) {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

func TestASnapshotHasItsRepositoriesAlone(t *testing.T) {
	b := newBench(t)
	b.complete.missing = map[string][]string{"epel": {"repodata/x"}}
	s := b.mustCreate(t, Request{Name: "prod", Repos: []string{"epel"}, Labels: map[string]string{"k": "v"}, Note: "n"})
	if diff := cmp.Diff([]string{"repodata/x"}, s.Repos[0].Missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	state, err := b.resolve(t, "prod")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.At("epel"); err != nil {
		t.Error(err)
	}
	_, err = state.At("debian")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "epel") {
		t.Errorf("a repository that it lacks: got %v, which has to name those it has", err)
	}
	if diff := cmp.Diff([]string{"epel"}, b.complete.asked); diff != "" {
		t.Errorf("completed (-want +got):\n%s", diff)
	}
}

func TestCreateRefusesNamesThatAreSomethingElse(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"live", "2026-11-23", "20261123T081500Z", "2026-11-23T08:15:00Z", "a/b", "-a", "a+signed", "a~b", strings.Repeat("a", 129)} {
		var bad *BadRefError
		if _, err := b.Create(t.Context(), Request{Name: name}, silently); !errors.As(err, &bad) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	if len(b.complete.asked) != 0 {
		t.Error("work was done for a name that is refused")
	}
	b.mustCreate(t, Request{Name: "prod"})
	if _, err := b.Create(t.Context(), Request{Name: "prod", Force: true}, silently); !errors.Is(err, catalog.ErrExists) {
		t.Errorf("a name that is taken: got %v", err)
	}
	if _, err := b.resolve(t, "prod"); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if err := b.Delete("prod"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.resolve(t, "prod"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a deleted one: got %v", err)
	}
	if _, err := b.Create(t.Context(), Request{Name: "prod"}, silently); !errors.Is(err, catalog.ErrDeleted) {
		t.Errorf("the name of a deleted one: got %v", err)
	}
	b.mustCreate(t, Request{Name: "prod", Force: true})
}

func TestCreateHoldsWhatWasObservedAtAnInstant(t *testing.T) {
	b := newBench(t)
	past := b.now.Add(-time.Hour)
	s := b.mustCreate(t, Request{Name: "past", At: past})
	for _, f := range s.Repos {
		if !f.At.Equal(past) {
			t.Errorf("%s is held at %v", f.Repo, f.At)
		}
	}
	if _, err := b.Create(t.Context(), Request{Name: "future", At: b.now.Add(time.Hour)}, silently); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the future: got %v", err)
	}
	// What is observed after a snapshot of now is not in it, even within the
	// same microsecond.
	now := b.mustCreate(t, Request{Name: "now"})
	root := chantal.RootFile{Path: "InRelease", Digest: chantal.Digest("sha256:" + strings.Repeat("0", 64))}
	o, err := b.catalog.Observe(chantal.Generation{Repo: "debian", Tree: "x", Roots: []chantal.RootFile{root}}, chantal.Observation{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if !o.Observed.After(now.Repos[0].At) {
		t.Errorf("observed %v, held at %v", o.Observed, now.Repos[0].At)
	}
}

func TestCreateSaysWhatItCannotDo(t *testing.T) {
	b := newBench(t)
	if _, err := b.Create(t.Context(), Request{Name: "x", Repos: []string{"nope"}}, silently); err == nil || !strings.Contains(err.Error(), `"nope"`) {
		t.Errorf("a repository that is not there: got %v", err)
	}
	b.complete.err = errors.New("the disk is full")
	if _, err := b.Create(t.Context(), Request{Name: "x"}, silently); !errors.Is(err, b.complete.err) {
		t.Errorf("completing fails: got %v", err)
	}
	b.complete.err, b.complete.hang = nil, true
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.Create(ctx, Request{Name: "x"}, silently); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted: got %v", err)
	}
	if _, err := b.Get("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a snapshot that failed is there: %v", err)
	}
	if all, err := b.List(); err != nil || len(all) != 0 {
		t.Errorf("listed: %v, %v", all, err)
	}
	if err := b.Delete("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleting what is not there: got %v", err)
	}
}

func TestTwoSnapshotsInOneSecondHaveTwoNames(t *testing.T) {
	b := newBench(t)
	first := b.mustCreate(t, Request{})
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := b.Create(ctx, Request{}, silently); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("within the second of %s: got %v", first.Name, err)
	}
	b.now = b.now.Add(time.Second)
	second := b.mustCreate(t, Request{})
	if second.Name == first.Name {
		t.Errorf("both are called %s", first.Name)
	}
	if err := b.Delete(second.Name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := b.Create(ctx, Request{}, silently); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("within the second of a deleted one: got %v", err)
	}
}
