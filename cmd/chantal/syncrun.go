package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"sync"
	"time"

	"chantal/mirror"
)

// syncs runs syncs, of each repository one at a time, and remembers how the
// last one of each ended. It is safe for concurrent use.
type syncs struct {
	fill fillFunc
	kept stateKeeper
	log  *slog.Logger

	mu     sync.Mutex
	under  map[string]*syncRun
	ended  map[string]syncEnd
	closed bool
}

// fillFunc fills a repository, as mirror.Sync does. The events are valid during
// the call.
type fillFunc func(ctx context.Context, q mirror.SyncRequest, events func(mirror.SyncEvent)) (syncResult, error)

// stateKeeper keeps what may be lost.
type stateKeeper interface {
	State(name string, v any) error
	SetState(name string, v any) error
}

// syncState is the name under which the ends of syncs are kept.
const syncState = "synced"

// syncEnd is how the last sync of a repository ended, and when one was good.
type syncEnd struct {
	Result  syncResult `json:"result"` // without the list of failures
	Success time.Time  `json:"success,omitzero"`
}

// syncResult is how the sync of one repository ended.
type syncResult struct {
	mirror.SyncReport
	Artifacts   int        `json:"fetched_artifacts"`     // those of Fetched that are no metadata
	Generations []syncTree `json:"generations,omitempty"` // what its trees are at now; not of more than maxTrees
	Error       string     `json:"error,omitempty"`       // why it was given up; empty where it came to its end
	Interrupted bool       `json:"interrupted,omitempty"`
}

// syncTree says in which generation a tree is.
type syncTree struct {
	Tree       string `json:"tree"`
	Generation int    `json:"generation"`
}

// good reports whether everything that was selected is there.
func (r *syncResult) good() bool { return r.Error == "" && r.Failed == 0 }

// newSyncs returns syncs that fill repositories with fill. A dry run, or one of
// metadata alone, is not remembered.
func newSyncs(fill fillFunc, kept stateKeeper, log *slog.Logger) *syncs {
	s := &syncs{fill: fill, kept: kept, log: log, under: map[string]*syncRun{}}
	if err := kept.State(syncState, &s.ended); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("how the last syncs ended is not known", "error", err)
	}
	if s.ended == nil {
		s.ended = map[string]syncEnd{}
	}
	return s
}

// errClosing is the error of syncs that serve ends before they are done.
var errClosing = errors.New("serve is ending")

// run fills one repository, or waits for the sync with the same request that is
// under way. steps is called as for backend.Sync. A sync ends with the last of
// those that wait for it; run returns after that. The error is a *failure where
// another sync is in the way, ctx's where that ended, else errClosing; what goes
// wrong with the repository is in the result.
func (s *syncs) run(ctx context.Context, q mirror.SyncRequest, steps func(syncStep)) (syncResult, error) {
	r, t, err := s.join(ctx, q)
	if err != nil {
		return syncResult{}, err
	}
	for {
		select {
		case <-t.wake:
			r.pass(t, steps)
		case <-r.done:
			r.pass(t, steps)
			if r.result.Interrupted {
				return r.result, errClosing
			}
			return r.result, nil
		case <-ctx.Done():
			s.leave(r, t)
			return syncResult{}, ctx.Err()
		}
	}
}

// alone is run for a caller who waits for other syncs of the repository to end.
func (s *syncs) alone(ctx context.Context, q mirror.SyncRequest) (syncResult, error) {
	for {
		s.mu.Lock()
		r := s.under[q.Repo]
		s.mu.Unlock()
		if r == nil || reflect.DeepEqual(r.request, q) {
			result, err := s.run(ctx, q, func(syncStep) {})
			if f := (*failure)(nil); !errors.As(err, &f) {
				return result, err
			}
			continue // another one has just begun
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return syncResult{}, ctx.Err()
		}
	}
}

// note remembers that a sync could not even begin.
func (s *syncs) note(repo string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remember(syncResult{SyncReport: mirror.SyncReport{Repo: repo, Started: time.Now()}, Error: err.Error()})
}

// join enters the run for q, which it begins where there is none. The caller
// has to stay to its end, or leave it.
func (s *syncs) join(ctx context.Context, q mirror.SyncRequest) (*syncRun, *taker, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		r := s.under[q.Repo]
		switch {
		case s.closed:
			return nil, nil, errClosing
		case r == nil:
			r, ctx := newSyncRun(q)
			s.under[q.Repo] = r
			t := r.enter()
			go s.work(ctx, r)
			return r, t, nil
		case r.users == 0: // given up by all, and not at its end yet
			s.mu.Unlock()
			select {
			case <-r.done:
			case <-ctx.Done():
			}
			s.mu.Lock()
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
		case !reflect.DeepEqual(r.request, q):
			return nil, nil, &failure{
				Status: http.StatusConflict, Message: fmt.Sprintf("another sync of %s is under way since %s", q.Repo, instant(r.began)),
				Next: "wait for its end, which chantal status tells",
			}
		default:
			r.users++
			return r, r.enter(), nil
		}
	}
}

func newSyncRun(q mirror.SyncRequest) (*syncRun, context.Context) {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &syncRun{
		request: q, began: time.Now(), cancel: cancel, done: make(chan struct{}), users: 1,
		takers: map[*taker]bool{}, count: newSyncCount(q.Repo),
	}, ctx
}

func (s *syncs) work(ctx context.Context, r *syncRun) {
	defer close(r.done)
	defer r.cancel(nil)
	r.tell(syncStep{Event: stepBegun, Time: r.began, Repo: r.request.Repo})
	result, err := s.fill(ctx, r.request, r.event)
	r.mu.Lock()
	result.Artifacts = r.count.step.Fetched
	r.mu.Unlock()
	switch {
	case err != nil && ctx.Err() != nil:
		result.Error, result.Interrupted = "interrupted", true
	case err != nil:
		result.Error = err.Error()
	}
	r.result = result
	s.mu.Lock()
	delete(s.under, r.request.Repo)
	if !result.DryRun && !result.MetadataOnly {
		s.remember(result)
	}
	s.mu.Unlock()
	r.tell(syncStep{Event: stepDone, Time: time.Now(), Repo: r.request.Repo, Error: result.Error, Result: &result})
}

// remember keeps how a sync ended. s.mu is held.
func (s *syncs) remember(r syncResult) {
	end := syncEnd{Result: r, Success: s.ended[r.Repo].Success}
	end.Result.Failures, end.Result.Generations = nil, nil
	if r.good() {
		end.Success = r.Started.Add(time.Duration(r.Seconds * float64(time.Second)))
	}
	s.ended[r.Repo] = end
	if err := s.kept.SetState(syncState, s.ended); err != nil {
		s.log.Warn("how a sync ended is not written down", "repo", r.Repo, "error", err)
	}
}

// leave ends the part of one who waited; with the last one the run ends.
func (s *syncs) leave(r *syncRun, t *taker) {
	s.mu.Lock()
	r.users--
	last := r.users == 0
	if last && s.under[r.request.Repo] == r {
		r.cancel(context.Canceled)
	}
	s.mu.Unlock()
	r.mu.Lock()
	delete(r.takers, t)
	r.mu.Unlock()
	if last {
		<-r.done
	}
}

// close ends all syncs, and waits for them.
func (s *syncs) close() {
	s.mu.Lock()
	s.closed = true
	under := maps.Clone(s.under)
	s.mu.Unlock()
	for _, r := range under {
		r.cancel(errClosing)
	}
	for _, r := range under {
		<-r.done
	}
}

// underway returns when the sync of a repository that goes on began; zero for
// none.
func (s *syncs) underway(repo string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.under[repo]; r != nil {
		return r.began
	}
	return time.Time{}
}

// last returns how the last sync of a repository ended.
func (s *syncs) last(repo string) (end syncEnd, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end, ok = s.ended[repo]
	return end, ok
}

// syncRun is one sync under way.
type syncRun struct {
	request mirror.SyncRequest
	began   time.Time
	cancel  context.CancelCauseFunc
	done    chan struct{}
	result  syncResult // when done
	users   int        // who waits for it; under syncs.mu

	mu     sync.Mutex
	count  *syncCount
	takers map[*taker]bool
}

// taker is one who waits for a run. What it does not take in time is put
// together: a slow reader holds up nobody.
type taker struct {
	wake chan struct{} // has an entry when there is something to take
	all  []syncStep    // but for progress, of which there is only the newest; under syncRun.mu
}

func (r *syncRun) enter() *taker {
	t := &taker{wake: make(chan struct{}, 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.takers[t] = true
	return t
}

// event is told by the mirror.
func (r *syncRun) event(e mirror.SyncEvent) {
	r.mu.Lock()
	step := r.count.add(e, time.Now())
	r.mu.Unlock()
	if step != nil {
		r.tell(*step)
	}
}

// maxSteps is how many steps wait for a taker, beside which they are dropped:
// those that report failures are in the result, too.
const maxSteps = 1000

func (r *syncRun) tell(step syncStep) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for t := range r.takers {
		if n := len(t.all); n > 0 && step.Event == stepProgress && t.all[n-1].Event == stepProgress {
			t.all[n-1] = step
		} else if n < maxSteps || step.Event == stepDone {
			t.all = append(t.all, step)
		}
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// pass hands on what waits for a taker.
func (r *syncRun) pass(t *taker, steps func(syncStep)) {
	r.mu.Lock()
	all := t.all
	t.all = nil
	r.mu.Unlock()
	for _, step := range all {
		steps(step)
	}
}
