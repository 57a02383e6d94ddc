package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"chantal"
	"chantal/internal/catalog"
)

const (
	patience = 10 * time.Second // how long a request that finds its tree due waits for the refresh
	unsure   = 2 * time.Second  // the same after a refresh that failed

	// A refresh that failed is not tried again for a while, which doubles with
	// each one that fails too. With a head, refresh is the most it can become.
	backoffMin   = 250 * time.Millisecond
	backoffFirst = time.Second     // the most, for a tree without a head
	backoffMax   = 5 * time.Second // the most, for one with a head
)

// state is one generation as seen at one observation. The zero state is "never
// observed".
type state struct {
	chantal.Observation
	gen chantal.Generation
}

func (s state) zero() bool { return s.Generation == 0 }

// tree is one tree of a live repository: its head, and the one refresh that
// may be under way.
type tree struct {
	chantal.Tree
	repo   *Repo
	opaque bool

	mu      sync.Mutex
	loaded  bool
	head    state
	checked time.Time         // when upstream last confirmed the head
	failed  time.Time         // when the last refresh failed; zero after one that succeeded
	fails   int               // how many failed, one after the other
	err     error             // why
	notes   map[string]string // what is wrong with the generation that is served all the same, by path or wantName
	running *refresh

	read map[string]time.Time      // by path: when a root was last read, not only confirmed
	old  map[string]chantal.Digest // by path: a root that was recent when first seen, and has been seen since
	// Of a lone file:
	from   string           // where it lives, when not at its path upstream
	latest chantal.RootFile // as upstream last answered it
	fresh  time.Duration    // how long upstream's last answer holds, if
	told   bool             // it said so

	removed bool // upstream's last word was that there is no such file, or none to keep

	lacking map[string]time.Time // by wantName: since when upstream does not deliver what belongs to its newest state
}

// refresh is one attempt to learn of upstream's newest state.
type refresh struct {
	done chan struct{} // closed at the end
	fill *flight       // for an opaque tree: the content, arriving
	live chan struct{} // closed when fill is set
	err  error         // set before done is closed
}

// load reads the head from the catalog once. The caller holds t.mu.
func (t *tree) load() error {
	if t.loaded {
		return nil
	}
	c := t.repo.m.Catalog
	obs, err := c.Head(t.repo.Name, t.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		gen, err := c.Generation(t.repo.Name, t.Name, obs.Generation)
		if err != nil {
			return err
		}
		t.head = state{obs, gen}
	}
	t.loaded = true
	return nil
}

// peek returns the head as it is; the zero state where there is none.
func (t *tree) peek() (state, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.load()
	return t.head, err
}

// current returns the head after asking upstream if that is due. force asks
// although it is not. The status says how sure the head is to be the newest.
// A first state that does not come is the error.
func (t *tree) current(ctx context.Context, force bool) (state, chantal.CacheStatus, error) {
	m := t.repo.m
	t.mu.Lock()
	if err := t.load(); err != nil {
		t.mu.Unlock()
		return state{}, 0, err
	}
	now := m.Now()
	switch {
	case m.Offline:
		defer t.mu.Unlock()
		if t.head.zero() {
			return state{}, 0, &chantal.UpstreamError{URL: t.Roots[0], Err: chantal.ErrOffline}
		}
		return t.head, chantal.Stale, nil
	case t.running != nil:
	case !t.due(now, force):
		defer t.mu.Unlock()
		if t.head.zero() || t.gone() {
			return state{}, 0, t.err
		}
		if !t.failed.IsZero() {
			return t.head, chantal.Stale, nil
		}
		return t.head, chantal.Hit, nil
	default:
		t.start()
	}
	run, had, wait := t.running, t.head, patience
	if t.fails > 0 {
		wait = unsure
	}
	t.mu.Unlock()
	return t.await(ctx, run, had, wait)
}

// await waits for a refresh: as long as the client does where there is nothing
// else to show, else for wait.
func (t *tree) await(ctx context.Context, run *refresh, had state, wait time.Duration) (state, chantal.CacheStatus, error) {
	var enough <-chan time.Time
	if !had.zero() {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-run.done:
	case <-enough:
		return had, chantal.Stale, nil
	case <-ctx.Done():
		return state{}, 0, ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case run.err == nil && t.head.Generation != had.Generation:
		return t.head, chantal.Miss, nil
	case run.err == nil:
		return t.head, chantal.Revalidated, nil
	case t.head.zero() || t.gone():
		return state{}, 0, run.err
	}
	return t.head, chantal.Stale, nil
}

// due reports whether upstream is to be asked again. The caller holds t.mu.
func (t *tree) due(now time.Time, force bool) bool {
	if t.fails > 0 && t.opaque && verdict(t.err) {
		since := now.Sub(t.failed)
		return since >= t.lifetime() || force && since >= time.Second
	}
	if t.fails > 0 {
		most := backoffFirst
		if !t.head.zero() {
			most = min(backoffMax, t.repo.Refresh)
		}
		return now.Sub(t.failed) >= min(backoffMin<<min(t.fails-1, 10), most)
	}
	since := now.Sub(t.checked)
	return since >= t.lifetime() || force && since >= time.Second
}

// start begins a refresh on the mirror's own context. The caller holds t.mu.
func (t *tree) start() {
	m := t.repo.m
	run := &refresh{done: make(chan struct{}), live: make(chan struct{})}
	t.running = run
	had := t.head
	// What is found or stored is named at the end only.
	release := m.Store.Hold()
	m.work.Go(func() {
		defer release()
		var next state
		var err error
		if t.opaque {
			next, err = t.refreshOpaque(m.ctx, run, had)
		} else {
			next, err = t.refreshRoots(m.ctx, had)
		}
		t.finish(run, had, next, err)
	})
}

// finish takes the outcome of a refresh in.
func (t *tree) finish(run *refresh, had, next state, err error) {
	m := t.repo.m
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = nil
	run.err = err
	if err != nil {
		t.failed, t.err = m.Now(), err
		t.removed = t.removed || verdict(err)
		t.fails++
		if m.ctx.Err() == nil && !verdict(err) {
			m.Log.Warn("refresh failed", "repo", t.repo.Name, "tree", t.Name, "generation", had.Generation, "error", err)
		}
	} else {
		t.failed, t.fails, t.err, t.removed = time.Time{}, 0, nil, false
		t.checked = m.Now()
		t.head, t.loaded = next, true
		if next.Generation != had.Generation || next.Observed != had.Observed {
			t.repo.moved()
			if !t.opaque {
				m.Log.Info("new generation", "repo", t.repo.Name, "tree", t.Name, "generation", next.Generation, "observed", next.Observed)
			}
		}
	}
	close(run.done)
}

// advance makes gen the head by one compare-and-swap; every blob it names must
// be stored. Where another writer was faster the newer head is returned.
func (t *tree) advance(ctx context.Context, gen chantal.Generation, was state, modified time.Time) (state, error) {
	m := t.repo.m
	if err := m.Store.Sync(ctx); err != nil {
		return state{}, fmt.Errorf("storing %s: %w", t.Name, err)
	}
	if err := t.repo.register(); err != nil {
		return state{}, err
	}
	gen.Repo, gen.Tree = t.repo.Name, t.Name
	obs, err := m.Catalog.Observe(gen, was.Observation, modified)
	if errors.Is(err, catalog.ErrConflict) {
		if obs, err = m.Catalog.Head(t.repo.Name, t.Name); err == nil {
			gen, err = m.Catalog.Generation(t.repo.Name, t.Name, obs.Generation)
		}
	}
	if err != nil {
		return state{}, err
	}
	gen.Number = obs.Generation
	return state{obs, gen}, nil
}
