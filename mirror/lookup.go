package mirror

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"strconv"
	"time"

	"chantal"
)

// lookup finds where the live repository promises a path: in the generations
// that the client began with, in the heads, in retained generations.
func (v *liveView) lookup(ctx context.Context, class chantal.Class) (found, error) {
	names, err := v.candidates(class)
	if err != nil {
		return found{}, err
	}
	if class.Digest == "" {
		for _, name := range names {
			if s, ok := v.m.begun(v.Repo, name, v.client); ok {
				view := v.Name + "#" + strconv.Itoa(s.Generation) + " " + name
				hit, err := v.remember(view, class, func() (found, error) { return v.promised(s, class) })
				if err != nil || hit.ok {
					return hit, err
				}
			}
		}
	}
	view := v.Name + "@live" + strconv.FormatUint(v.epoch.Load(), 10)
	return v.remember(view, class, func() (found, error) {
		return v.search(ctx, class, func(yield func(state, error) bool) {
			for _, name := range names {
				t := v.observed(name)
				if t == nil {
					continue
				}
				if s, err := t.peek(); err != nil || !s.zero() {
					if !yield(s, err) {
						return
					}
				}
			}
			for _, name := range names {
				for s, err := range v.retained(name) {
					if !yield(s, err) {
						return
					}
				}
			}
		})
	})
}

// lookup finds where the frozen repository promises a path. Where the view may
// back-date, trees that were observed only later promise what had been
// uploaded by then.
func (v *frozenView) lookup(ctx context.Context, class chantal.Class) (found, error) {
	names, err := v.candidates(class)
	if err != nil {
		return found{}, err
	}
	view := v.line + "@" + strconv.FormatInt(v.at.UnixNano(), 10)
	hit, err := v.remember(view, class, func() (found, error) {
		return v.search(ctx, class, func(yield func(state, error) bool) {
			for _, name := range names {
				s, err := v.stateAt(v.line, name, v.at)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if !yield(s, err) {
					return
				}
			}
		})
	})
	if err != nil || hit.ok || !v.backdate {
		return hit, err
	}
	live := &liveView{v.Repo, Client{}}
	if hit, err = live.lookup(ctx, class); err != nil || !hit.ok {
		return hit, err
	}
	_, err = v.stateAt(v.line, hit.tree, v.at)
	pkg := hit.promise.Package
	if !errors.Is(err, fs.ErrNotExist) || pkg == nil || pkg.Uploaded.IsZero() || !pkg.Uploaded.Before(v.at) {
		return found{}, nil
	}
	return hit, nil
}

// catchUp fetches the indexes that clients have asked for and that could not be
// had then: one of them may promise what else would be passed on unverified. It
// reports whether there is one more now.
func (v *liveView) catchUp(ctx context.Context, class chantal.Class) (more bool, err error) {
	if v.m.Offline {
		return false, nil
	}
	names, err := v.candidates(class)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		t := v.observed(name)
		if t == nil {
			continue
		}
		s, err := t.peek()
		if err != nil {
			return false, err
		}
		if s.zero() {
			continue
		}
		l, err := v.listing(s)
		if err != nil {
			return false, err
		}
		need, err := t.wantedOf(l)
		if err != nil {
			return false, err
		}
		for _, p := range need {
			if !v.lists(p.Path) {
				continue
			}
			if _, err := v.stored(&p); !errors.Is(err, fs.ErrNotExist) {
				continue
			}
			switch err := t.ensure(ctx, p); {
			case err == nil:
				more = true
			case !errors.Is(err, fs.ErrNotExist):
				v.m.work.Go(func() { v.suspect(name) })
				return false, err
			}
		}
	}
	return more, nil
}

// remember keeps the hits of a view; the view's name changes when one of its
// generations does.
func (r *Repo) remember(view string, class chantal.Class, search func() (found, error)) (found, error) {
	key := lookupKey{view, class.Path + "\x00" + string(class.Digest)}
	if hit, ok := r.m.lookups.Get(key); ok {
		return hit, nil
	}
	hit, err := search()
	if err == nil && hit.ok {
		r.m.lookups.Add(key, hit)
	}
	return hit, err
}

// retained yields the generations of a tree that history keeps, newest first,
// each once.
func (r *Repo) retained(name string) iter.Seq2[state, error] {
	return func(yield func(state, error) bool) {
		all, err := r.m.Catalog.Observations(r.Name, name)
		if err != nil {
			yield(state{}, err)
			return
		}
		oldest := r.m.Now().Add(-r.m.History)
		seen := map[int]bool{}
		for i := len(all) - 1; i >= 0; i-- {
			// An observation is in force until the next one: it is retained
			// while that one is.
			if i < len(all)-1 && all[i+1].Observed.Before(oldest) {
				return
			}
			if seen[all[i].Generation] {
				continue
			}
			seen[all[i].Generation] = true
			g, err := r.m.Catalog.Generation(r.Name, name, all[i].Generation)
			if !yield(state{all[i], g}, err) || err != nil {
				return
			}
		}
	}
}

// stateAt returns a tree's generation at an instant that is past; these never
// change, so they are kept.
func (r *Repo) stateAt(line, name string, at time.Time) (state, error) {
	key := stateKey{line, name, at.UnixNano()}
	if s, ok := r.m.states.Get(key); ok {
		return s, nil
	}
	obs, err := r.m.Catalog.At(line, name, at)
	if err != nil {
		return state{}, err
	}
	gen, err := r.m.Catalog.Generation(line, name, obs.Generation)
	if err != nil {
		return state{}, err
	}
	s := state{obs, gen}
	if at.Before(r.m.Now()) {
		r.m.states.Add(key, s)
	}
	return s, nil
}

type stateKey struct {
	line, tree string
	at         int64
}
