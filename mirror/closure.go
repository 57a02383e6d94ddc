package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"chantal"
	"chantal/internal/catalog"
)

// wantSet collects which indexes clients ask for, so that a hit writes nothing:
// it is brought into the catalog now and then.
type wantSet struct {
	mu   sync.Mutex
	repo map[string]map[string]map[string]time.Time // repository → tree → path
}

func (w *wantSet) add(repo, tree, path string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.repo == nil {
		w.repo = map[string]map[string]map[string]time.Time{}
	}
	if w.repo[repo] == nil {
		w.repo[repo] = map[string]map[string]time.Time{}
	}
	if w.repo[repo][tree] == nil {
		w.repo[repo][tree] = map[string]time.Time{}
	}
	w.repo[repo][tree][path] = now
}

func (w *wantSet) of(repo, tree string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var paths []string
	for p := range w.repo[repo][tree] {
		paths = append(paths, p)
	}
	return paths
}

// pending returns what is to be written. It stays in the set meanwhile, so that
// a refresh sees every want in one place or the other.
func (w *wantSet) pending() map[string]map[string]map[string]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]map[string]map[string]time.Time{}
	for repo, trees := range w.repo {
		all[repo] = map[string]map[string]time.Time{}
		for tree, paths := range trees {
			all[repo][tree] = maps.Clone(paths)
		}
	}
	return all
}

// written takes from the set what has been written of a repository and was not
// asked for again since.
func (w *wantSet) written(repo string, wants map[string]map[string]time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for tree, paths := range wants {
		for p, at := range paths {
			if w.repo[repo][tree][p].Equal(at) {
				delete(w.repo[repo][tree], p)
			}
		}
		if len(w.repo[repo][tree]) == 0 {
			delete(w.repo[repo], tree)
		}
	}
	if len(w.repo[repo]) == 0 {
		delete(w.repo, repo)
	}
}

// flushWants writes wanted indexes to the catalog until the mirror closes.
func (m *Mirror) flushWants() {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for open := true; open; {
		select {
		case <-tick.C:
		case <-m.ctx.Done():
			open = false
		}
		for repo, wants := range m.wants.pending() {
			if err := m.Catalog.Want(repo, wants); err != nil {
				m.Log.Warn("noting which indexes are wanted", "repo", repo, "error", err)
				continue
			}
			m.wants.written(repo, wants)
		}
	}
}

// wantedOf returns those of a listing that must be stored before a generation
// becomes the head: what the format requires and what clients asked for.
func (t *tree) wantedOf(l *listing) ([]chantal.Promise, error) {
	m, r := t.repo.m, t.repo
	paths, err := m.Catalog.Wanted(r.Name, t.Name, m.Now().Add(-wanted))
	if err != nil {
		return nil, err
	}
	var need []chantal.Promise
	if c, ok := r.Format.(chantal.Closer); ok {
		need = c.Required(l.all)
	}
	for _, p := range append(paths, m.wants.of(r.Name, t.Name)...) {
		if i, ok := l.name[p]; ok {
			need = append(need, l.all[i])
		}
	}
	return distinct(need), nil
}

// closureOf returns what a frozen generation must hold beyond its roots: what
// is wanted of it, and what the format says.
func (t *tree) closureOf(l *listing) ([]chantal.Promise, error) {
	need, err := t.wantedOf(l)
	if c, ok := t.repo.Format.(chantal.Closer); ok {
		need = append(need, c.Closure(l.all)...)
	}
	return distinct(need), err
}

func distinct(promises []chantal.Promise) []chantal.Promise {
	seen := map[string]bool{}
	return slices.DeleteFunc(promises, func(p chantal.Promise) bool {
		dup := seen[p.Path] || len(p.Digests) == 0
		seen[p.Path] = true
		return dup
	})
}

// closeOver fetches what freezing a generation would need, while upstream still
// has it, and prepares the indexes for look-ups.
func (t *tree) closeOver(ctx context.Context, s state) {
	missing, err := t.completeState(ctx, s)
	if err != nil && ctx.Err() == nil {
		t.repo.m.Log.Warn("closure of a generation is not complete", "repo", t.repo.Name, "tree", t.Name, "generation", s.Generation, "error", err)
	}
	for _, p := range missing {
		t.repo.m.Log.Info("upstream does not have a listed index", "repo", t.repo.Name, "path", p)
	}
}

// completeState fetches what the closure of a generation lacks. It returns the
// paths that upstream does not have (any more), and an error for what may come
// later.
func (t *tree) completeState(ctx context.Context, s state) (missing []string, err error) {
	l, err := t.repo.listing(s)
	if err != nil {
		return nil, err
	}
	need, err := t.closureOf(l)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var jobs errgroup.Group
	jobs.SetLimit(4)
	for _, p := range need {
		jobs.Go(func() error {
			err := t.ensure(ctx, p)
			var wrong *chantal.MismatchError
			if errors.Is(err, fs.ErrNotExist) || errors.As(err, &wrong) {
				mu.Lock()
				missing = append(missing, p.Path)
				mu.Unlock()
				return nil
			}
			if err == nil {
				t.repo.prepare(p)
			}
			return err
		})
	}
	err = jobs.Wait()
	slices.Sort(missing)
	return missing, err
}

// Settle returns when what clients have got in whole is observed, and what
// belongs to it: the last bytes of a file that nothing promises may reach a
// client a moment before its state is in the catalog.
func (m *Mirror) Settle(ctx context.Context) error {
	if err := m.attests.settle(ctx); err != nil {
		return err
	}
	for _, r := range m.Repos() {
		for _, t := range r.trees.Values() {
			run := t.delivered()
			if run == nil {
				continue
			}
			select {
			case <-run.done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// delivered returns the refresh of a lone file of which the content has arrived
// and the observation is still to be made; else nil.
func (t *tree) delivered() *refresh {
	t.mu.Lock()
	run := t.running
	t.mu.Unlock()
	if run == nil || !t.opaque {
		return nil
	}
	select {
	case <-run.live:
	default:
		return nil
	}
	run.fill.mu.Lock()
	g := run.fill.grow
	run.fill.mu.Unlock()
	if g == nil {
		return nil
	}
	select {
	case <-g.Done():
		return run
	default:
		return nil
	}
}

// Complete fetches what the generations of a line, a repository's own or that
// of an edition, need at an instant to be served from the store as a whole. It
// returns the paths of metadata that cannot be had (any more): upstream does
// not have them, or ctx ended first.
func (m *Mirror) Complete(ctx context.Context, line string, at time.Time, progress func(string)) ([]string, error) {
	r := m.Repo(catalog.RepoOf(line))
	if r == nil {
		return nil, nil
	}
	if _, pages := r.Format.(chantal.Renderer); pages {
		return nil, nil // a page is its whole closure
	}
	names, err := r.rootedTrees()
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, name := range names {
		s, err := r.stateAt(line, name, at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lacks, err := r.lacking(name, s)
		if err != nil {
			return nil, err
		}
		if len(lacks) == 0 {
			continue
		}
		if !m.Offline {
			progress("fetching metadata of " + line + " " + name)
			if _, err := r.observed(name).completeState(ctx, s); err != nil {
				m.Log.Warn("completing a generation", "repo", line, "tree", name, "error", err)
			}
			if lacks, err = r.lacking(name, s); err != nil {
				return nil, err
			}
		}
		missing = append(missing, lacks...)
	}
	// What is there may still be on its way to the disk, and whoever names a
	// blob in a record relies on it, also when ctx has ended meanwhile.
	if err := m.Store.Sync(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("storing metadata of %s: %w", line, err)
	}
	return missing, nil
}

// lacking returns the paths of a generation's closure that are not stored.
func (r *Repo) lacking(name string, s state) ([]string, error) {
	l, err := r.listing(s)
	if err != nil {
		return nil, err
	}
	t := r.observed(name)
	need, err := t.closureOf(l)
	var paths []string
	for _, p := range need {
		if _, err := r.stored(&p); errors.Is(err, fs.ErrNotExist) {
			paths = append(paths, p.Path)
		} else if err != nil {
			return nil, err
		}
	}
	return paths, err
}
