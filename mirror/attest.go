package mirror

import (
	"context"
	"sync"
	"time"

	"chantal"
)

// attestations are fetches of what upstream attests of artifacts. They are for
// snapshots alone, so that no client waits for one.
type attestations struct {
	mu      sync.Mutex
	running map[chan struct{}]struct{}
}

// attest fetches what upstream attests of an artifact of the tree that was
// fetched just now. Nothing promises a digest of it and it may change, so it is
// observed like other such files, once: it is fetched again when somebody asks
// for it.
func (r *Repo) attest(tree string, artifact chantal.Promise) {
	attester, ok := r.Format.(chantal.Attester)
	if !ok || r.m.Offline || artifact.Kind != chantal.Artifact {
		return
	}
	done := r.m.attests.begin()
	r.m.work.Go(func() {
		defer r.m.attests.end(done)
		t := r.observed(tree)
		if t == nil {
			return
		}
		head, err := t.peek()
		if err != nil || head.zero() {
			return
		}
		l, err := r.listing(head)
		if err != nil {
			return
		}
		for _, p := range attester.Attestations(&artifact, l.all) {
			if _, err := r.observe(r.m.ctx, p); err != nil && r.m.ctx.Err() == nil {
				r.m.Log.Info("fetching what upstream attests of a file", "repo", r.Name, "path", artifact.Path, "error", err)
			}
		}
	})
}

// observe makes a file without a digest be stored and observed, and returns how
// long it is.
func (r *Repo) observe(ctx context.Context, p chantal.Promise) (int64, error) {
	f, err := (&liveView{r, Client{}}).openLone(ctx, p.Path, p.URL)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if growing, ok := f.Content.(chantal.Growing); ok {
		return f.Size, growing.Wait(ctx)
	}
	return f.Size, nil
}

func (a *attestations) begin() chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running == nil {
		a.running = make(map[chan struct{}]struct{})
	}
	done := make(chan struct{})
	a.running[done] = struct{}{}
	return done
}

func (a *attestations) end(done chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, done)
	close(done)
}

// attestPatience is how long a snapshot waits for them: an upstream that is down
// does not hold it up, and what comes later is in the next one.
const attestPatience = 10 * time.Second

// settle returns when those that are running now have ended, or attestPatience
// has. The error is that of ctx.
func (a *attestations) settle(ctx context.Context) error {
	enough := time.NewTimer(attestPatience)
	defer enough.Stop()
	a.mu.Lock()
	var running []chan struct{}
	for done := range a.running {
		running = append(running, done)
	}
	a.mu.Unlock()
	for _, done := range running {
		select {
		case <-done:
		case <-enough.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
