package mirror

import (
	"context"
	"errors"
	"fmt"

	"chantal"
)

// passes is how often a sync goes over a tree: because upstream has changed it
// meanwhile, or once more over what failed.
const passes = 6

// renew asks upstream for the tree's newest state, whether that is due or not,
// and returns the head. The error says why it may not be the newest; the head
// is zero where there is none at all.
func (t *tree) renew(ctx context.Context) (state, error) {
	t.mu.Lock()
	if err := t.load(); err != nil {
		t.mu.Unlock()
		return state{}, err
	}
	if t.running == nil {
		t.start()
	}
	run := t.running
	t.mu.Unlock()
	select {
	case <-run.done:
	case <-ctx.Done():
		return state{}, context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head, run.err
}

// tree brings one tree up to date and fills it. It begins again when upstream
// has another state by then, and goes once more over what failed. The error is
// one that ends the whole sync.
func (s *syncing) tree(ctx context.Context, selector chantal.Selector, t chantal.SelectedTree) error {
	defer s.tell(SyncEvent{Kind: SyncTreeDone, Tree: t.Name})
	if t.Serial > 0 && s.known.has(t.Name, s.key(serialText(t.Serial))) {
		s.add(&pass{unchanged: true})
		return nil
	}
	live := s.repo.tree(t.Tree)
	var p *pass
	for left := passes; ; left-- {
		head, stale := s.head(ctx, selector, live, t.Serial)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.reached(stale); err != nil {
			return err
		}
		if head.zero() {
			s.fail(SyncFailure{Tree: t.Name, Path: t.Roots[0], Reason: stale.Error()})
			return nil
		}
		p = s.pass(p, live, selector, head)
		if err := p.run(ctx); err != nil {
			return err
		}
		whole := p.failed == 0 && !p.moved && !p.down
		now, err := live.peek()
		if err != nil {
			return err
		}
		newer := p.moved || now.Generation != head.Generation
		if left > 1 && !p.down && (newer || !whole && !p.again) {
			continue
		}
		if whole && stale == nil {
			p.complete(t.Serial)
		} else if whole {
			p.complete(0)
		}
		s.add(p)
		p.report(stale)
		return nil
	}
}

// pass returns the pass that comes after was, over the generation head.
func (s *syncing) pass(was *pass, live *tree, selector chantal.Selector, head state) *pass {
	p := &pass{syncing: s, live: live, selector: selector, generation: head}
	if was != nil && !was.moved && was.generation.Generation == head.Generation {
		p.again, p.plan = true, was.plan
	} else {
		s.tell(SyncEvent{Kind: SyncTree, Tree: live.Name})
	}
	return p
}

// head returns the newest generation of a tree. Where a list of trees says that
// what is stored is the newest, upstream is not asked; where it says that there
// is a newer one than upstream gives out, that is an error.
func (s *syncing) head(ctx context.Context, selector chantal.Selector, t *tree, serial int64) (state, error) {
	old := func(head state) bool {
		if serial == 0 {
			return false
		}
		main := &head.gen.Roots[0]
		body, err := s.repo.rootBody(main)
		return err != nil || selector.Serial(main.Path, body) < serial
	}
	if serial > 0 {
		if head, err := t.peek(); err == nil && !head.zero() && !old(head) {
			return head, nil
		}
	}
	head, err := t.renew(ctx)
	if err == nil && old(head) {
		err = fmt.Errorf("upstream gives out an older state than its list of trees says there is (serial %d); "+
			"the next sync asks for it again", serial)
	}
	return head, err
}

func serialText(serial int64) string { return fmt.Sprint("serial ", serial) }

// reached takes in whether the roots of a tree could be asked for. The error
// ends the sync: nothing answers.
func (s *syncing) reached(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent++
	if !unanswered(err) {
		s.silent = 0
	}
	if s.silent >= silences {
		return fmt.Errorf("%w: %w", errDown, err)
	}
	return nil
}

// unanswered reports whether err says that there was no answer from upstream.
func unanswered(err error) bool {
	var up *chantal.UpstreamError
	return errors.As(err, &up) && up.Status == 0
}

// add counts a tree's last pass.
func (s *syncing) add(p *pass) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.unchanged {
		s.report.Unchanged++
	}
	s.report.Files += p.plan.Files
	s.report.Bytes += p.plan.Bytes
	s.report.Lacking += p.plan.Lacking
	s.report.LackingBytes += p.plan.LackingBytes
	s.report.Failed += p.failed - len(p.failures)
}

// report notes what a tree's last pass left undone, and why its state may not
// be the newest.
func (p *pass) report(stale error) {
	name := p.live.Name
	if stale != nil {
		p.fail(SyncFailure{Tree: name, Path: p.live.Roots[0], Reason: stale.Error()})
	}
	switch {
	case p.moved:
		p.fail(SyncFailure{Tree: name, Reason: fmt.Sprintf("upstream changed it all the time, also when it was begun for the %dth time", passes)})
	case p.down:
		p.fail(SyncFailure{Tree: name, Reason: "upstream cannot be had any more; what the tree still lacks is left to the next sync"})
	}
	p.fail(p.failures...)
}
