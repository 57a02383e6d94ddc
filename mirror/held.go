package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"chantal"
)

const (
	// What upstream lists and does not deliver right holds a new state back for
	// so many refreshes, and at least so long.
	heldRefreshes = 10
	heldMin       = 30 * time.Second

	// What upstream lists and says it does not have may be on its way: it holds
	// a new state back for one refresh, and at most so long.
	heldAbsent = 15 * time.Second
)

// lost returns an error while the new generation lacks a root file that the
// last one had: until the last look, or as long as such a file holds a state
// back where upstream says nothing about it. One that upstream no longer has,
// or that contradicts the main root for good, is given up.
func (t *tree) lost(had, next chantal.Generation, set *rootSet, last bool) error {
	for _, f := range had.Roots {
		switch why, failed := set.failed[f.Path]; {
		case next.Root(f.Path) != nil:
			t.got(f.Path)
		case !failed && !last:
			return &tornError{fmt.Errorf("%s of the last state has no counterpart in the new one", f.Path)}
		case failed && t.waitsFor(f.Path, t.heldWrong()):
			return fmt.Errorf("the new state is held back for %s: %s", f.Path, why)
		}
	}
	return nil
}

// complete stores every index that is wanted under a new root; a tree's first
// generation is served without. Nothing is waited for for ever: see forgo.
func (t *tree) complete(ctx context.Context, l *listing, set *rootSet, had state, last bool) error {
	if had.zero() {
		return nil
	}
	need, err := t.wantedOf(l)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	failed := map[string]error{} // by wantName
	var jobs errgroup.Group
	jobs.SetLimit(4)
	for _, p := range need {
		name := wantName(t.repo.Format, p.Path)
		if t.lacks(name) >= t.heldWrong() {
			set.failed[name] = "upstream lists it and does not deliver it"
			continue // closeOver goes on trying
		}
		jobs.Go(func() error {
			if err := t.ensure(ctx, p); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[name] = err
			}
			return nil
		})
	}
	_ = jobs.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(failed) == 0 {
		return nil // whatever upstream has by now: this state is whole
	}
	if err := t.changed(ctx, set); err != nil {
		return err
	}
	return t.forgo(failed, set, last)
}

// forgo decides whether a state becomes the head without the wanted indexes
// that failed: nil when none of them is waited for any longer.
func (t *tree) forgo(failed map[string]error, set *rootSet, last bool) error {
	for name, err := range failed {
		absent := errors.Is(err, fs.ErrNotExist)
		hold := t.heldWrong()
		if absent {
			hold = min(heldAbsent, t.repo.Refresh)
		}
		var wrong *chantal.MismatchError
		switch {
		case t.lacks(name) >= hold: // known, and waited for long enough
		case (absent || errors.As(err, &wrong)) && !last:
			return &tornError{fmt.Errorf("%s is listed, and upstream is not there yet: %w", name, err)}
		case t.waitsFor(name, hold):
			return fmt.Errorf("the new state is held back for %s: %w", name, err)
		}
		if absent {
			t.repo.m.Log.Info("upstream lists an index that it does not have", "repo", t.repo.Name, "path", name)
			continue
		}
		set.failed[name] = "upstream lists it and does not deliver it: " + err.Error()
	}
	return nil
}

// heldWrong is for how long a file that upstream does not deliver right holds a
// new state back.
func (t *tree) heldWrong() time.Duration { return max(heldRefreshes*t.repo.Refresh, heldMin) }

// waitsFor notes that upstream does not deliver a file of its newest state, and
// reports whether that state is still to be held back for it.
func (t *tree) waitsFor(name string, hold time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lacking == nil {
		t.lacking = map[string]time.Time{}
	}
	now := t.repo.m.Now()
	since, ok := t.lacking[name]
	if !ok {
		since = now
		t.lacking[name] = since
	}
	return now.Sub(since) < hold
}

// lacks returns for how long upstream has not delivered a file; negative where
// it has, or nobody asked.
func (t *tree) lacks(name string) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if since, ok := t.lacking[name]; ok {
		return t.repo.m.Now().Sub(since)
	}
	return -1
}

// got notes that upstream has a file as it should.
func (t *tree) got(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.lacking, name)
	delete(t.notes, name)
}

// served notes that a client has got an index of one of the tree's
// generations. Where that was wrong with the one that is served, it has come
// right.
func (t *tree) served(generation int, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, noted := t.notes[name]; noted && t.head.Generation == generation {
		delete(t.lacking, name)
		delete(t.notes, name)
	}
}

// ensure is Repo.ensure for an index of the tree.
func (t *tree) ensure(ctx context.Context, p chantal.Promise) error {
	err := t.repo.ensure(ctx, p)
	if err == nil {
		t.got(wantName(t.repo.Format, p.Path))
	}
	return err
}
