package keep

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
	"chantal/internal/disk"
)

// world is a store with a catalog, and an upstream that is a map.
type world struct {
	t       *testing.T
	dir     string
	store   *cas.Store
	catalog *catalog.Catalog
	keeper  *Keeper

	mu      sync.Mutex
	up      map[chantal.Digest][]byte            // what upstream still has
	listed  map[chantal.Digest][]chantal.Promise // what a root or an index promises
	closure map[string]bool                      // paths that freezing needs
	asked   []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, disk.Disk{})
}

func newWorldOn(t *testing.T, d disk.Disk) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), up: map[chantal.Digest][]byte{}, listed: map[chantal.Digest][]chantal.Promise{}, closure: map[string]bool{}}
	var err error
	if w.store, err = cas.Open(w.dir, cas.Options{Disk: d}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if w.catalog, err = catalog.Open(filepath.Join(w.dir, "catalog.db"), w.store, catalog.Options{Disk: d}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.catalog.Close() })
	w.keeper = &Keeper{Store: w.store, Catalog: w.catalog, Promises: w}
	return w
}

func shaOf(b []byte) chantal.Digest {
	return chantal.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b)))
}

func sha512Of(b []byte) chantal.Digest {
	return chantal.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512(b)))
}

// put stores content and returns the promise of it.
func (w *world) put(path string, kind chantal.Kind, content string) chantal.Promise {
	w.t.Helper()
	p := promise(path, kind, content)
	if _, err := w.store.Put(cas.Want{Repo: "r", Path: path, Digests: p.Digests, Size: p.Size}, []byte(content)); err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.Sync(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.up[p.SHA256()] = []byte(content)
	return p
}

func promise(path string, kind chantal.Kind, content string) chantal.Promise {
	return chantal.Promise{Path: path, Kind: kind, Digests: []chantal.Digest{shaOf([]byte(content))}, Size: int64(len(content))}
}

// observe makes a generation whose root lists promises the head of r's tree.
func (w *world) observe(repo, tree, root string, listed ...chantal.Promise) chantal.Promise {
	w.t.Helper()
	p := w.put(tree+"/root", chantal.Root, root)
	w.listed[p.SHA256()] = listed
	if err := w.catalog.PutRepo(catalog.Repo{Name: repo, Type: "apt"}); err != nil {
		w.t.Fatal(err)
	}
	head, err := w.catalog.Head(repo, tree)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	g := chantal.Generation{Repo: repo, Tree: tree, Roots: []chantal.RootFile{{Path: p.Path, Digest: p.SHA256(), Size: p.Size}}}
	if _, err := w.catalog.Observe(g, head, time.Time{}); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// freeze makes a snapshot of repositories.
func (w *world) freeze(name string, sealed bool, missing []string, repos ...string) {
	w.t.Helper()
	at, err := w.catalog.Clock()
	if err != nil {
		w.t.Fatal(err)
	}
	s := catalog.Snapshot{Name: name, Sealed: sealed}
	for _, r := range repos {
		s.Repos = append(s.Repos, catalog.Frozen{Repo: r, At: at, Missing: missing})
	}
	if err := w.catalog.PutSnapshot(s, false); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) file(p chantal.Promise) string {
	hex := p.SHA256().Hex()
	return filepath.Join(w.dir, "blobs", hex[:2], hex)
}

func (w *world) remove(p chantal.Promise) {
	w.t.Helper()
	if err := os.Remove(w.file(p)); err != nil {
		w.t.Fatal(err)
	}
}

// flip changes one bit of a blob.
func (w *world) flip(p chantal.Promise) {
	w.t.Helper()
	b, err := os.ReadFile(w.file(p))
	if err != nil {
		w.t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.Chmod(w.file(p), 0o644), os.WriteFile(w.file(p), b, 0o644), os.Chmod(w.file(p), 0o444)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) everything() []State {
	w.t.Helper()
	all, err := Everything(w.catalog, time.Now().Add(-time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// verify is Verify of everything.
func (w *world) verify(repair bool) Report {
	w.t.Helper()
	all := w.everything()
	return w.verifyStates(all, true, repair)
}

func (w *world) verifyStates(states []State, blobs, repair bool) Report {
	w.t.Helper()
	r, err := w.keeper.Verify(w.t.Context(), Request{States: states, Blobs: blobs, Repair: repair, Everything: w.everything()})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) Listing(g chantal.Generation) ([]chantal.Promise, error) {
	if _, err := w.store.Find("", g.Roots[0].Digest); err != nil {
		return nil, err
	}
	if lone(g) {
		return nil, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	listed, ok := w.listed[g.Roots[0].Digest]
	if !ok {
		return nil, errors.New("no root at all")
	}
	return listed, nil
}

func (w *world) Index(_ string, p chantal.Promise) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		if _, err := w.store.Find("", p.SHA256()); err != nil {
			return
		}
		for _, q := range w.listed[p.SHA256()] {
			if !yield(q, nil) {
				return
			}
		}
	}
}

func (w *world) Closure(_ string, listed []chantal.Promise) []chantal.Promise {
	return slices.DeleteFunc(slices.Clone(listed), func(p chantal.Promise) bool { return !w.closure[p.Path] })
}

func (w *world) Restore(_ context.Context, repo string, p chantal.Promise) error {
	w.mu.Lock()
	w.asked = append(w.asked, repo+"/"+p.Path)
	var content []byte
	for _, d := range slices.Sorted(maps.Keys(w.up)) {
		if p.Has(d) || p.Has(sha512Of(w.up[d])) {
			content = w.up[d]
		}
	}
	w.mu.Unlock()
	if content == nil {
		return fmt.Errorf("%s: upstream does not have it: %w", p.Path, fs.ErrNotExist)
	}
	_, err := w.store.Put(cas.Want{Repo: repo, Path: p.Path, Digests: p.Digests, Size: p.Size}, content)
	return err
}

// observeAnother stores a root and makes it the head, as a refresh does.
func (w *world) observeAnother(repo, root string) error {
	p := promise("suite/root", chantal.Root, root)
	if _, err := w.store.Put(cas.Want{Repo: repo, Path: p.Path, Digests: p.Digests, Size: p.Size}, []byte(root)); err != nil {
		return err
	}
	if err := w.store.Sync(context.Background()); err != nil {
		return err
	}
	if err := w.catalog.PutRepo(catalog.Repo{Name: repo, Type: "apt"}); err != nil {
		return err
	}
	head, err := w.catalog.Head(repo, "suite")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	g := chantal.Generation{Repo: repo, Tree: "suite", Roots: []chantal.RootFile{{Path: p.Path, Digest: p.SHA256(), Size: p.Size}}}
	_, err = w.catalog.Observe(g, head, time.Time{})
	return err
}
