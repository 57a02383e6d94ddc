package mirror

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"chantal"
	"chantal/internal/cas"
)

const (
	// silences is after how many files in a row that cannot be had for want of
	// an upstream a tree is given up.
	silences = 16
	// progressEvery is how often a file that takes a while is reported.
	progressEvery = 250 * time.Millisecond
)

// pass is one walk over what the selection names in one generation of a tree.
type pass struct {
	*syncing
	live       *tree
	selector   chantal.Selector
	generation state
	again      bool      // only what the pass before could not get is lacking
	plan       SyncEvent // what the selection comes to

	unchanged bool // known to be complete: nothing was looked at

	mu       sync.Mutex
	stop     context.CancelCauseFunc
	moved    bool // upstream has another state by now
	down     bool // upstream is not to be had
	silent   int  // files in a row that could not be had for want of an upstream
	odd      int  // files that upstream has otherwise than it says
	failed   int
	failures []SyncFailure // the first of them
}

// run fetches what is lacking. The error is one that ends the whole sync.
func (p *pass) run(ctx context.Context) error {
	walk, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	p.stop = stop
	c, err := p.repo.contents(p.generation)
	if err != nil {
		p.lose(walk, SyncFailure{Reason: err.Error()}, err)
		return nil
	}
	groups, err := p.selector.Indexes(&p.req.Selection, c)
	if err != nil {
		p.lose(walk, SyncFailure{Reason: err.Error()}, err)
		return nil
	}
	if !p.again && p.known.has(p.live.Name, p.key(p.roots()...)) {
		p.want(p.stored(groups))
		p.unchanged = true
		return nil
	}
	indexes, err := p.indexes(walk, c, groups)
	if err != nil || p.failed > 0 || p.req.MetadataOnly || walk.Err() != nil {
		return p.ended(ctx, err)
	}
	if slices.ContainsFunc(indexes, func(i chantal.Promise) bool { return p.repo.lists(i.Path) }) {
		p.heavy.Lock()
		defer p.heavy.Unlock()
	}
	keep, err := p.selector.Artifacts(&p.req.Selection, c)
	if err == nil {
		err = p.artifacts(walk, c, indexes, keep)
	}
	return p.ended(ctx, err)
}

// ended tells errors that end the sync from those of the tree alone.
func (p *pass) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil || unstorable(err) {
		return err
	}
	if !errors.Is(err, errMoved) && !errors.Is(err, errDown) {
		p.lose(ctx, SyncFailure{Reason: err.Error()}, err)
	}
	return nil
}

// stored returns of each group the first that the store has.
func (p *pass) stored(groups [][]chantal.Promise) []chantal.Promise {
	var have []chantal.Promise
	for _, group := range groups {
		for i := range group {
			if _, err := p.repo.stored(&group[i]); err == nil {
				have = append(have, group[i])
				break
			}
		}
	}
	return have
}

// want notes that a new head is to be whole with these indexes. A page is
// whole by itself.
func (p *pass) want(indexes []chantal.Promise) {
	if _, pages := p.repo.Format.(chantal.Renderer); pages {
		return
	}
	for _, i := range indexes {
		p.m.wants.add(p.repo.Name, p.live.Name, wantName(p.repo.Format, i.Path), p.m.Now())
	}
}

// indexes makes one of each group be stored, and returns those.
func (p *pass) indexes(ctx context.Context, c *contents, groups [][]chantal.Promise) ([]chantal.Promise, error) {
	required := map[string]bool{}
	if closer, ok := p.repo.Format.(chantal.Closer); ok {
		for _, r := range closer.Required(c.Listed()) {
			required[r.Path] = true
		}
	}
	got := make([]*chantal.Promise, len(groups))
	var jobs sync.WaitGroup
	for n, group := range groups {
		if !enter(ctx, p.slots) {
			break
		}
		jobs.Go(func() {
			defer func() { <-p.slots }()
			needed := slices.ContainsFunc(group, func(i chantal.Promise) bool { return required[i.Path] })
			got[n] = p.index(ctx, group, needed)
		})
	}
	jobs.Wait()
	var indexes []chantal.Promise
	for _, i := range got {
		if i != nil {
			indexes = append(indexes, *i)
		}
	}
	p.want(indexes)
	return indexes, context.Cause(ctx)
}

// index makes one of a group be stored and returns it; nil where there is none.
func (p *pass) index(ctx context.Context, group []chantal.Promise, needed bool) *chantal.Promise {
	if have := p.stored([][]chantal.Promise{group}); len(have) > 0 {
		return &have[0]
	}
	var failed error
	var which *chantal.Promise
	for i := range group {
		if len(group[i].Digests) == 0 {
			continue
		}
		err := p.get(ctx, &group[i])
		if err == nil {
			p.live.got(wantName(p.repo.Format, group[i].Path))
			return &group[i]
		}
		if ctx.Err() != nil {
			return nil
		}
		if failed == nil || !errors.Is(err, fs.ErrNotExist) {
			failed, which = err, &group[i]
		}
	}
	switch {
	case failed == nil:
	case errors.Is(failed, fs.ErrNotExist) && !needed:
		// Listed, and made by nobody: unless upstream has just put another
		// state in its place.
		p.atOdds(ctx)
	default:
		p.lose(ctx, p.failure(which, failed), failed)
	}
	return nil
}

// artifacts fetches what keep accepts of what the root and its indexes promise.
func (p *pass) artifacts(ctx context.Context, c *contents, indexes []chantal.Promise, keep func(*chantal.Promise) bool) error {
	if p.plan.Kind == "" {
		if err := p.count(ctx, c, indexes, keep); err != nil {
			return err
		}
	}
	if p.req.DryRun {
		return nil
	}
	var jobs sync.WaitGroup
	err := p.lacking(c, indexes, keep, func(promise *chantal.Promise) error {
		if err := p.m.Store.Health(); err != nil {
			return err
		}
		if !enter(ctx, p.slots) {
			return context.Cause(ctx)
		}
		jobs.Go(func() {
			defer func() { <-p.slots }()
			switch err := p.get(ctx, promise); {
			case err == nil:
				p.mu.Lock()
				p.silent = 0
				p.mu.Unlock()
			case ctx.Err() == nil:
				p.lose(ctx, p.failure(promise, err), err)
			}
		})
		return nil
	})
	jobs.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// lacking calls get for each file that is selected and not stored, and ends
// with its first error.
func (p *pass) lacking(c *contents, indexes []chantal.Promise, keep func(*chantal.Promise) bool, get func(*chantal.Promise) error) error {
	for promise, err := range selected(c, indexes, keep) {
		if err != nil {
			return err
		}
		has, err := p.has(&promise)
		switch {
		case has:
		case err != nil:
			p.lose(p.m.ctx, p.failure(&promise, err), err)
		default:
			if err := get(&promise); err != nil {
				return err
			}
		}
	}
	return nil
}

// count tells what the selection comes to, before the first file is fetched.
func (p *pass) count(ctx context.Context, c *contents, indexes []chantal.Promise, keep func(*chantal.Promise) bool) error {
	p.plan = SyncEvent{Kind: SyncPlan, Tree: p.live.Name}
	for promise, err := range selected(c, indexes, keep) {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.plan.Files++
		p.plan.Bytes += max(promise.Size, 0)
		if has, _ := p.has(&promise); !has {
			p.plan.Lacking++
			p.plan.LackingBytes += max(promise.Size, 0)
		}
	}
	p.tell(p.plan)
	return nil
}

// has reports whether the store has what is promised. The error says why it is
// of no use to fetch it.
func (p *pass) has(promise *chantal.Promise) (bool, error) {
	if len(promise.Digests) == 0 {
		head, err := p.repo.tree(opaque(promise.Path)).peek()
		return err == nil && !head.zero(), err
	}
	_, err := p.repo.stored(promise)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// get makes one file be stored, and tells of it.
func (p *pass) get(ctx context.Context, promise *chantal.Promise) error {
	e := SyncEvent{Tree: p.live.Name, Path: promise.Path, Size: promise.Size}
	e.Kind = SyncFile
	p.tell(e)
	size, err := p.fetch(ctx, promise, e)
	if err != nil {
		e.Kind, e.Error = SyncFileFailed, err.Error()
		p.tell(e)
		return err
	}
	p.repo.attest(p.live.Name, *promise)
	e.Kind, e.Size = SyncFileDone, size
	p.syncing.mu.Lock()
	p.syncing.report.Fetched++
	p.syncing.report.FetchedBytes += max(size, 0)
	p.syncing.mu.Unlock()
	p.tell(e)
	return nil
}

// fetch makes one file be stored, together with everybody else who wants it.
func (p *pass) fetch(ctx context.Context, promise *chantal.Promise, e SyncEvent) (int64, error) {
	if len(promise.Digests) == 0 {
		return p.repo.observe(ctx, *promise)
	}
	e.Kind = SyncProgress
	size := promise.Size
	_, err := p.repo.fetchingBehind(*promise).next(ctx, func(g *cas.Growing) error {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-g.Done():
				size = g.Written()
				return g.Err()
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-tick.C:
				e.Done = g.Written()
				p.tell(e)
			}
		}
	})
	return size, err
}

// failure says of a file that it could not be had.
func (p *pass) failure(promise *chantal.Promise, err error) SyncFailure {
	f := SyncFailure{Path: promise.Path, Reason: err.Error()}
	var up *chantal.UpstreamError
	if errors.As(err, &up) {
		f.URL = up.URL
	} else if places, err := newFlight(p.m, p.repo, *promise, false).places(p.repo.sources()); err == nil && len(places) > 0 {
		f.URL = redact(places[0])
	}
	return f
}

// lose notes a failure of this pass because of err. It ends the pass when
// upstream has another state by now, or cannot be had any more, or the disk
// takes nothing.
func (p *pass) lose(ctx context.Context, f SyncFailure, err error) {
	f.Tree = p.live.Name
	p.mu.Lock()
	p.failed++
	if len(p.failures) < maxFailures {
		p.failures = append(p.failures, f)
	}
	p.silent++
	if !unanswered(err) {
		p.silent = 0
	}
	down := p.silent >= silences
	p.down = p.down || down
	p.mu.Unlock()
	switch {
	case unstorable(err):
		p.stop(err)
	case down:
		p.stop(errDown)
	case atOdds(err):
		p.atOdds(ctx)
	}
}

// atOdds looks whether upstream has another state of the tree when it turns out
// to have a file otherwise than that says: after the first such file, and ever
// less often.
func (p *pass) atOdds(ctx context.Context) {
	p.mu.Lock()
	p.odd++
	look := p.odd&(p.odd-1) == 0 && !p.moved
	p.mu.Unlock()
	if !look {
		return
	}
	head, err := p.live.renew(ctx)
	if err != nil || head.Generation == p.generation.Generation {
		return
	}
	p.mu.Lock()
	p.moved = true
	p.mu.Unlock()
	p.stop(errMoved)
}

var (
	errMoved = errors.New("upstream has another state of the tree by now")
	errDown  = errors.New("upstream cannot be had any more")
)
