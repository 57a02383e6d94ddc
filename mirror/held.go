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

// What upstream lists and does not deliver holds a new state back for so many
// refreshes, and at least so long.
const (
	heldRefreshes = 10
	heldMin       = 30 * time.Second
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
		case failed && t.waitsFor(f.Path):
			return fmt.Errorf("the new state is held back for %s: %s", f.Path, why)
		}
	}
	return nil
}

// complete stores every index that is wanted under a new root; a tree's first
// generation is served without. What upstream does not have while its root
// stays as it is, is not waited for, and nothing is waited for beyond what
// waitsFor allows.
func (t *tree) complete(ctx context.Context, l *listing, set *rootSet, had state, last bool) error {
	if had.zero() {
		return nil
	}
	need, err := t.wantedOf(l)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var absent []string
	failed := map[string]error{}
	var jobs errgroup.Group
	jobs.SetLimit(4)
	for _, p := range need {
		if since, ok := t.lacks(p.Path); ok && t.tooLong(since) {
			set.failed[p.Path] = "upstream lists it and does not deliver it"
			continue // closeOver goes on trying
		}
		jobs.Go(func() error {
			err := t.ensure(ctx, p)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, fs.ErrNotExist) {
				absent = append(absent, p.Path)
			} else if err != nil {
				failed[p.Path] = err
			}
			return nil
		})
	}
	_ = jobs.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(absent) == 0 && len(failed) == 0 {
		return nil // whatever upstream has by now: this state is whole
	}
	if err := t.changed(ctx, set); err != nil {
		return err
	}
	return t.forgo(absent, failed, set, last)
}

// forgo decides whether a state becomes the head without some of its wanted
// indexes: absent ones, which upstream says it does not have, and failed ones.
func (t *tree) forgo(absent []string, failed map[string]error, set *rootSet, last bool) error {
	for _, p := range absent {
		if _, known := t.lacks(p); !known && !last {
			return &tornError{fmt.Errorf("upstream lists %s and does not have it", p)}
		}
	}
	for p, err := range failed {
		if wrong := (*chantal.MismatchError)(nil); errors.As(err, &wrong) && !last {
			return &tornError{err}
		}
		if t.waitsFor(p) {
			return fmt.Errorf("the new state is held back for %s: %w", p, err)
		}
		set.failed[p] = "upstream lists it and does not deliver it: " + err.Error()
	}
	for _, p := range absent {
		t.waitsFor(p)
		t.repo.m.Log.Info("upstream lists an index that it does not have", "repo", t.repo.Name, "path", p)
	}
	return nil
}

// waitsFor notes that upstream does not deliver a file of its newest state, and
// reports whether that state is still to be held back for it.
func (t *tree) waitsFor(path string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	since, ok := t.lacking[path]
	if !ok {
		since = t.repo.m.Now()
		if t.lacking == nil {
			t.lacking = map[string]time.Time{}
		}
		t.lacking[path] = since
	}
	return !t.tooLong(since)
}

// lacks returns since when upstream does not deliver a file, if so.
func (t *tree) lacks(path string) (since time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	since, ok = t.lacking[path]
	return since, ok
}

// tooLong reports whether a file that has been lacking since then is not waited
// for any more.
func (t *tree) tooLong(since time.Time) bool {
	return t.repo.m.Now().Sub(since) >= max(heldRefreshes*t.repo.Refresh, heldMin)
}

// got notes that upstream has a file as it should.
func (t *tree) got(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.lacking, path)
}

// ensure is Repo.ensure for an index of the tree.
func (t *tree) ensure(ctx context.Context, p chantal.Promise) error {
	err := t.repo.ensure(ctx, p)
	if err == nil {
		t.got(p.Path)
	}
	return err
}
