package keep

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/catalog"
	"chantal/internal/disk"
)

// needs is what a world knows of what is needed.
type needs struct {
	*world
	begun   []chantal.Generation
	forgets int
}

func (n *needs) Promised(_ string, index chantal.Promise, use func([]byte, int64, chantal.Kind)) error {
	if _, err := n.store.Find("", index.SHA256()); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.listed[index.SHA256()] {
		var text []string
		for _, d := range p.Digests {
			text = append(text, string(d))
		}
		use([]byte(strings.Join(text, " ")), p.Size, p.Kind)
	}
	return nil
}

func (n *needs) Begun() []chantal.Generation { return n.begun }
func (n *needs) Forgot()                     { n.forgets++ }

// collecting returns a world that can be collected.
func collecting(t *testing.T) (*world, *needs) {
	t.Helper()
	return collectingOn(t, disk.Disk{})
}

func collectingOn(t *testing.T, d disk.Disk) (*world, *needs) {
	t.Helper()
	w := newWorldOn(t, d)
	n := &needs{world: w}
	w.keeper.Needs = n
	return w, n
}

// release observes a state: a root, an index, and packages with that content.
func (w *world) release(repo, tree, name string, packages ...string) {
	w.t.Helper()
	var all []chantal.Promise
	for _, p := range packages {
		all = append(all, w.put("pool/"+p, chantal.Artifact, p))
	}
	index := w.put(tree+"/Packages", chantal.Meta, "index "+repo+tree+name)
	w.mu.Lock()
	w.listed[index.SHA256()] = all
	w.mu.Unlock()
	w.observe(repo, tree, "root "+repo+tree+name, index)
}

func (w *world) collect(q CollectRequest) Collected {
	w.t.Helper()
	done, err := w.keeper.Collect(w.t.Context(), q)
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

// has reports which of these contents are stored.
func (w *world) has(contents ...string) []string {
	var there []string
	for _, c := range contents {
		if _, err := w.store.Find("", shaOf([]byte(c))); err == nil {
			there = append(there, c)
		}
	}
	return there
}

// bytes adds up all files but the database.
func (w *world) bytes() (n int64) {
	w.t.Helper()
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == "catalog.db" {
			return err
		}
		fi, err := d.Info()
		n += fi.Size()
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func TestWhatNothingNeedsIsFreed(t *testing.T) {
	w, n := collecting(t)
	w.release("r", "suite", "1", "in both", "old")
	w.freeze("frozen", false, nil, "r")
	w.release("r", "suite", "2", "in both", "recent")
	g, err := w.catalog.Newest("r", "suite")
	if err != nil {
		t.Fatal(err)
	}
	w.release("r", "suite", "3", "in both", "newest")
	lone := w.put("key.asc", chantal.Opaque, "a key")
	if _, err := w.catalog.Observe(chantal.Generation{Repo: "r", Tree: lone.Path, Roots: []chantal.RootFile{{Path: lone.Path, Digest: lone.SHA256(), Size: 5}}}, chantal.Observation{}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	w.put("x", chantal.Artifact, "nobody's")
	w.put("y", chantal.Artifact, "an HTTP answer")
	all := []string{"in both", "old", "recent", "newest", "a key", "nobody's", "an HTTP answer",
		"root rsuite1", "index rsuite1", "root rsuite2", "index rsuite2", "root rsuite3", "index rsuite3"}
	kept := func(use func(string, chantal.Digest) error) error {
		return use("http://example.org/y", shaOf([]byte("an HTTP answer")))
	}
	hour := CollectRequest{Since: time.Now().Add(-time.Hour), Kept: kept}
	none := CollectRequest{Since: time.Now().Add(time.Hour), Kept: kept}

	// What only history promises stays with its metadata, or with all.
	instants := hour
	instants.Instants = true
	for _, step := range []struct {
		what  string
		q     CollectRequest
		begun []chantal.Generation
		del   string
		gone  []string
	}{
		{what: "with all of history", q: instants, gone: []string{"nobody's"}},
		{what: "a client is in the middle of it", q: hour, begun: []chantal.Generation{g}},
		{what: "with the metadata of history", q: hour, gone: []string{"recent"}},
		{what: "without history", q: none, gone: []string{"root rsuite2", "index rsuite2"}},
		{what: "without the snapshot", q: none, del: "frozen", gone: []string{"old", "root rsuite1", "index rsuite1"}},
		{what: "with nothing to do", q: none},
	} {
		n.begun = step.begun
		if step.del != "" {
			if err := w.catalog.DeleteSnapshot(step.del); err != nil {
				t.Fatal(err)
			}
		}
		if w.store.Epoch() == "" {
			t.Fatal("no epoch")
		}
		before, forgets := w.bytes(), n.forgets
		dry := step.q
		dry.DryRun = true
		would := w.collect(dry)
		if w.bytes() != before || n.forgets != forgets {
			t.Errorf("%s: a dry run changes something", step.what)
		}
		done := w.collect(step.q)
		would.DryRun = false
		if d := cmp.Diff(would, done); d != "" {
			t.Errorf("%s: a dry run said otherwise (-said +done)\n%s", step.what, d)
		}
		if got := before - w.bytes(); got != done.BytesFreed || done.BlobsFreed != len(step.gone) {
			t.Errorf("%s: %d blobs and %d bytes are said to be freed; it was %d bytes", step.what, done.BlobsFreed, done.BytesFreed, got)
		}
		all = slices.DeleteFunc(all, func(s string) bool { return slices.Contains(step.gone, s) })
		if d := cmp.Diff(all, w.has(all...)); d != "" || len(w.has(step.gone...)) > 0 || done.BlobsKept != len(all) {
			t.Errorf("%s: the wrong blobs went; %d are said to be kept (-want +got)\n%s", step.what, done.BlobsKept, d)
		}
		if r := w.verify(false); !r.OK {
			t.Errorf("%s: verify finds %+v", step.what, r)
		}
	}
	if n.forgets != 2 {
		t.Errorf("that history was forgotten was told %d times", n.forgets)
	}
}

// What is named while it is collected is not freed, though nothing named it when
// what is needed was marked.
func TestWhatIsNamedMeanwhileStays(t *testing.T) {
	for what, name := range map[string]func(w *world){
		"a head":     func(w *world) { w.observe("r", "suite", "root rsuite1", w.listedIn("root rsuite1")...) },
		"a snapshot": func(w *world) { w.freezeAt("meanwhile", "r", 0) },
	} {
		t.Run(what, func(t *testing.T) {
			w, _ := collecting(t)
			w.release("r", "suite", "1", "going", "staying")
			w.release("r", "suite", "2", "staying")
			w.put("x", chantal.Artifact, "nobody's")
			var once sync.Once
			done := w.collect(CollectRequest{Since: time.Now().Add(-time.Hour), Kept: func(func(string, chantal.Digest) error) error {
				once.Do(func() { name(w) })
				return nil
			}})
			if d := cmp.Diff([]string{"going", "staying"}, w.has("going", "staying", "nobody's")); d != "" || done.BlobsFreed != 1 {
				t.Errorf("%d blobs were freed; there are (-want +got)\n%s", done.BlobsFreed, d)
			}
		})
	}
}

// listedIn returns what a root lists.
func (w *world) listedIn(root string) []chantal.Promise {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listed[shaOf([]byte(root))]
}

// freezeAt makes a snapshot of the nth observation of a repository's suite.
func (w *world) freezeAt(name, repo string, n int) {
	w.t.Helper()
	all, err := w.catalog.Observations(repo, "suite")
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.catalog.PutSnapshot(catalog.Snapshot{Name: name, Repos: []catalog.Frozen{{Repo: repo, At: all[n].Observed}}}, false); err != nil {
		w.t.Fatal(err)
	}
}

// Where it is not known what a state promises that is kept, nothing is freed.
func TestNothingIsFreedWhereItIsNotKnownWhatIsNeeded(t *testing.T) {
	w, _ := collecting(t)
	w.release("r", "suite", "1", "old")
	w.freeze("frozen", false, nil, "r")
	w.release("r", "suite", "2", "new")
	index := promise("suite/Packages", chantal.Meta, "index rsuite1")
	w.flip(index)
	if w.verify(false).OK {
		t.Fatal("damage was not found")
	}
	var unknown *UnknownError
	q := CollectRequest{Since: time.Now().Add(time.Hour)}
	if _, err := w.keeper.Collect(t.Context(), q); !errors.As(err, &unknown) {
		t.Errorf("collected, with %v", err)
	}
	if len(w.has("old")) == 0 {
		t.Error("a package went that a snapshot holds")
	}
	// Without the snapshot nobody wants to know.
	if err := w.catalog.DeleteSnapshot("frozen"); err != nil {
		t.Fatal(err)
	}
	w.collect(q)
	if d := cmp.Diff([]string{"new"}, w.has("old", "new", "index rsuite1")); d != "" {
		t.Error(d)
	}
	if r := w.verify(false); !r.OK {
		t.Errorf("verify finds %+v", r)
	}
}

func TestArtifactsAreEvictedByTheirLastUse(t *testing.T) {
	w, _ := collecting(t)
	body := func(name string) string { return name + strings.Repeat(".", 10_000) }
	w.release("r", "suite", "1", body("frozen"), body("old"))
	w.freezeAt("s", "r", 0) // holds frozen and old
	w.release("r", "suite", "2", body("frozen"), body("a"), body("b"), body("c"), body("d"))
	for i, name := range []string{"c", "a", "frozen", "old", "d", "b"} { // c was not used for the longest time
		p := promise("", chantal.Artifact, body(name))
		if err := os.Chtimes(w.file(p), time.Unix(int64(1000*i), 0), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{body("frozen"), body("old"), body("a"), body("b"), body("c"), body("d"), "root rsuite1", "index rsuite1", "root rsuite2", "index rsuite2"}
	for _, step := range []struct {
		limit   int64
		evicted []string
		over    bool
	}{
		{limit: 70_000},
		{limit: 60_000, evicted: []string{body("c")}},
		{limit: 45_000, evicted: []string{body("a")}},
		{limit: 1_000, evicted: []string{body("d"), body("b")}, over: true},
	} {
		q := CollectRequest{Since: time.Now().Add(-time.Hour), Limit: step.limit, DryRun: true}
		would := w.collect(q)
		q.DryRun = false
		done := w.collect(q)
		would.DryRun = false
		if d := cmp.Diff(would, done); d != "" {
			t.Errorf("%d: a dry run said otherwise (-said +done)\n%s", step.limit, d)
		}
		all = slices.DeleteFunc(all, func(s string) bool { return slices.Contains(step.evicted, s) })
		if got := w.has(all...); len(got) != len(all) || len(w.has(step.evicted...)) > 0 || done.BlobsEvicted != len(step.evicted) || (done.OverLimit > 0) != step.over {
			t.Errorf("%d: %d of %d blobs are left that should be, %+v", step.limit, len(got), len(all), done)
		}
		if r := w.verify(false); !r.OK {
			t.Errorf("%d: verify finds %+v", step.limit, r)
		}
	}
}

// Whatever happens, a collection leaves exactly what something needs.
func TestACollectionLeavesExactlyWhatIsNeeded(t *testing.T) {
	for seed := range uint64(6) {
		dice := rand.New(rand.NewPCG(seed, 3))
		w, _ := collecting(t)
		snapshots := map[string]bool{}
		packages := map[string][]string{} // by root
		for step := range 40 {
			switch tree := []string{"suite", "other"}[dice.IntN(2)]; dice.IntN(6) {
			case 0:
				if repos, err := w.catalog.Repos(); err != nil || len(repos) == 0 {
					continue
				}
				name := fmt.Sprint("s", step)
				w.freeze(name, false, nil, "r")
				snapshots[name] = true
			case 1:
				for name := range snapshots {
					if err := w.catalog.DeleteSnapshot(name); err != nil {
						t.Fatal(err)
					}
					delete(snapshots, name)
					break
				}
			case 2:
				since := time.Now().Add(-time.Hour)
				if dice.IntN(2) == 0 {
					since = time.Now().Add(time.Hour)
				}
				w.exactly(since, packages)
			default:
				name := fmt.Sprint(dice.IntN(5))
				var all []string
				for i := range 4 {
					all = append(all, fmt.Sprint(i, "-", name, dice.IntN(1+i)))
				}
				root := "root r" + tree + name
				if have, ok := packages[root]; ok {
					all = have // a state promises what it promises
				}
				packages[root] = all
				w.release("r", tree, name, all...)
			}
		}
	}
}

// exactly collects, and compares what is left with what is needed.
func (w *world) exactly(since time.Time, packages map[string][]string) {
	w.t.Helper()
	want := map[chantal.Digest]struct{}{}
	need := func(g chantal.Generation, deep bool) {
		for _, root := range g.Roots {
			want[root.Digest] = struct{}{}
			for _, index := range w.listed[root.Digest] {
				want[index.SHA256()] = struct{}{}
				for _, p := range w.listed[index.SHA256()] {
					if deep {
						want[p.SHA256()] = struct{}{}
					}
				}
			}
		}
	}
	states, err := Everything(w.catalog, since)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range states {
		need(s.Generation, s.Ref == "live" || s.Frozen)
	}
	have, err := w.store.Digests()
	if err != nil {
		w.t.Fatal(err)
	}
	for d := range want {
		if _, ok := have[d]; !ok {
			delete(want, d) // it was freed while nothing needed it
		}
	}
	w.collect(CollectRequest{Since: since})
	have, err = w.store.Digests()
	if err != nil {
		w.t.Fatal(err)
	}
	if d := cmp.Diff(want, have); d != "" {
		w.t.Errorf("what is left is not what is needed (-want +got)\n%s", d)
	}
	if r := w.verify(false); !r.OK {
		w.t.Errorf("verify finds %+v", r)
	}
}

func TestWhyABlobIsKept(t *testing.T) {
	w, _ := collecting(t)
	w.release("r", "suite", "1", "old", "frozen")
	w.release("r", "suite", "2", "frozen")
	w.freeze("s", false, nil, "r")
	w.release("r", "suite", "3", "new")
	w.put("x", chantal.Artifact, "nobody's")
	since := time.Now().Add(-time.Hour)
	history := func(n int) string {
		all, err := w.catalog.Observations("r", "suite")
		if err != nil {
			t.Fatal(err)
		}
		return instantOf(all[n].Observed)
	}
	for content, want := range map[string]Why{
		"nobody's": {Stored: true, Freed: true, Evict: true, Kept: []Reason{}},
		"missing":  {Kept: []Reason{}},
		"new":      {Stored: true, Evict: true, Kept: []Reason{{By: "live", Repo: "r", Tree: "suite", Generation: 3, Path: "pool/new", Kind: "artifact"}}},
		"old": {Stored: true, Freed: true, Evict: true, Kept: []Reason{
			{By: "history", Ref: history(0), Repo: "r", Tree: "suite", Generation: 1, Path: "pool/old", Kind: "artifact", Weak: true}}},
		"frozen": {Stored: true, Kept: []Reason{
			{By: "history", Ref: history(0), Repo: "r", Tree: "suite", Generation: 1, Path: "pool/frozen", Kind: "artifact", Weak: true},
			{By: "history", Ref: history(1), Repo: "r", Tree: "suite", Generation: 2, Path: "pool/frozen", Kind: "artifact", Weak: true},
			{By: "snapshot", Ref: "s", Repo: "r", Tree: "suite", Generation: 2, Path: "pool/frozen", Kind: "artifact"}}},
		"index rsuite1": {Stored: true, Kept: []Reason{
			{By: "history", Ref: history(0), Repo: "r", Tree: "suite", Generation: 1, Path: "suite/Packages", Kind: "index"}}},
	} {
		want.Digest = shaOf([]byte(content))
		if want.Stored {
			want.Size = int64(len(content))
		}
		got, err := w.keeper.Why(t.Context(), want.Digest, since, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", content, d)
		}
	}
}

func TestStatsCountWhatIsShared(t *testing.T) {
	w, _ := collecting(t)
	body := func(name string) string { return name + strings.Repeat(".", 1000-len(name)) }
	size := int64(0)
	meta := func(repo, n string) { size += int64(len("root "+repo+"suite"+n) + len("index "+repo+"suite"+n)) }
	w.release("r", "suite", "1", body("both"), body("old"))
	w.freeze("a", false, nil, "r")
	w.freeze("b", false, nil, "r")
	w.release("r", "suite", "2", body("both"), body("new"))
	w.release("q", "suite", "1", body("both"))
	w.put("x", chantal.Artifact, body("an HTTP answer"))
	s, err := w.keeper.Stats(t.Context(), func(use func(string, chantal.Digest) error) error {
		return use("http://example.org/", shaOf([]byte(body("an HTTP answer"))))
	})
	if err != nil {
		t.Fatal(err)
	}
	meta("r", "1")
	first := size
	meta("r", "2")
	second := size - first
	meta("q", "1")
	other := size - first - second
	want := Stats{
		Stored: Stored{Blobs: 10, Bytes: 4000 + size, Logical: 2*(2000+first) + 2000 + second + 1000 + other + 1000},
		Repos: map[string]Stored{
			"r": {Blobs: 7, Bytes: 3000 + first + second, Logical: 2*(2000+first) + 2000 + second},
			"q": {Blobs: 3, Bytes: 1000 + other, Logical: 1000 + other},
		},
	}
	if d := cmp.Diff(want, s); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got := s.Of([]string{"q", "q"}); got != want.Repos["q"] {
		t.Errorf("of one repository it is %+v", got)
	}
}

// A file that nothing promises is evicted like an artifact, and verify does not
// miss it, unless a snapshot holds it.
func TestALoneFileMayBeEvicted(t *testing.T) {
	w, _ := collecting(t)
	observe := func(path, content string) {
		t.Helper()
		p := w.put(path, chantal.Opaque, content)
		if err := w.catalog.PutRepo(catalog.Repo{Name: "r", Type: "generic"}); err != nil {
			t.Fatal(err)
		}
		g := chantal.Generation{Repo: "r", Tree: path, Roots: []chantal.RootFile{{Path: path, Digest: p.SHA256(), Size: p.Size}}}
		if _, err := w.catalog.Observe(g, chantal.Observation{}, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	observe("frozen.iso", "frozen")
	w.freeze("s", false, nil, "r")
	observe("live.iso", "only live")
	done := w.collect(CollectRequest{Since: time.Now().Add(-time.Hour), Limit: 5})
	if d := cmp.Diff([]string{"frozen"}, w.has("frozen", "only live")); d != "" || done.BlobsEvicted != 1 || done.OverLimit != 1 {
		t.Errorf("%+v; there is (-want +got)\n%s", done, d)
	}
	if r := w.verify(false); !r.OK {
		t.Errorf("verify finds %+v", r)
	}
}
