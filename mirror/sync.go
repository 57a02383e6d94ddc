package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"chantal"
)

// SyncRequest says what Sync is to fill in one repository.
type SyncRequest struct {
	Repo         string            // its name
	Selection    chantal.Selection // what of it is to be there
	MetadataOnly bool              // roots and indexes, no artifacts
	DryRun       bool              // metadata is fetched, artifacts are counted and not fetched
}

// SyncEventKind says what a SyncEvent reports.
type SyncEventKind string

const (
	SyncStarted    SyncEventKind = "started"     // the repository's sync begins
	SyncTree       SyncEventKind = "tree"        // work on a tree begins; again where upstream changed meanwhile
	SyncPlan       SyncEventKind = "plan"        // what the selection comes to in a tree: Files, Bytes, Lacking, LackingBytes
	SyncTreeDone   SyncEventKind = "tree-done"   // a tree is as complete as it gets
	SyncFile       SyncEventKind = "file"        // a file is asked for: Path, Size
	SyncProgress   SyncEventKind = "progress"    // Done of Size bytes of a file have arrived; only of those that take a while
	SyncFileDone   SyncEventKind = "file-done"   // a file is stored: Path, Size
	SyncFileFailed SyncEventKind = "file-failed" // a file could not be had: Path, Error; it may be tried once more
)

// SyncEvent is one step of a sync. Fields that a kind does not speak of are
// zero.
type SyncEvent struct {
	Kind         SyncEventKind `json:"event"`
	Repo         string        `json:"repo"`
	Tree         string        `json:"tree,omitempty"`
	Path         string        `json:"path,omitempty"`
	Size         int64         `json:"size,omitempty"` // in bytes; -1 where nobody says
	Done         int64         `json:"done,omitempty"` // in bytes
	Files        int           `json:"files,omitempty"`
	Bytes        int64         `json:"bytes,omitempty"`
	Lacking      int           `json:"lacking,omitempty"` // those of Files that the store does not have
	LackingBytes int64         `json:"lacking_bytes,omitempty"`
	Error        string        `json:"error,omitempty"`
}

// SyncReport is how a sync ended.
type SyncReport struct {
	Repo         string        `json:"repo"`
	Started      time.Time     `json:"started"`
	Seconds      float64       `json:"seconds"`
	DryRun       bool          `json:"dry_run,omitempty"`
	MetadataOnly bool          `json:"metadata_only,omitempty"`
	Trees        int           `json:"trees"`         // that the selection names
	Unchanged    int           `json:"unchanged"`     // those of them that were known to be complete
	Files        int           `json:"files"`         // artifacts of the selection, in the trees that were not unchanged
	Bytes        int64         `json:"bytes"`         // of these, as far as metadata says
	Lacking      int           `json:"lacking"`       // those of them that the store did not have
	LackingBytes int64         `json:"lacking_bytes"` // of these
	Fetched      int           `json:"fetched"`       // files that arrived, indexes among them
	FetchedBytes int64         `json:"fetched_bytes"`
	Failed       int           `json:"failed"`             // files and trees that could not be brought up to date
	Failures     []SyncFailure `json:"failures,omitempty"` // the first maxFailures of them, by tree and path
}

// maxFailures is how many failures are kept with their reasons.
const maxFailures = 1000

// SyncFailure is one file or tree that could not be brought up to date.
type SyncFailure struct {
	Repo   string `json:"repo"`
	Tree   string `json:"tree,omitempty"`
	Path   string `json:"path,omitempty"` // empty where the tree as a whole failed
	URL    string `json:"url,omitempty"`  // a place that was asked
	Reason string `json:"reason"`
}

// Sync brings what a selection names of a repository into the store: the newest
// generation of each tree, its indexes, and their artifacts. What the store has
// is not asked for. Where it ends early it is taken up by calling it again.
//
// events, which may be nil, is called for each step, by one goroutine at a
// time; it has to return at once. The report tells also of a sync that ended
// with an error: what stops it as a whole, such as a selection that is wrong, a
// disk that takes nothing, or the end of ctx. What goes wrong with one tree or
// file is in the report and does not stop the others. When Sync returns, what
// it has stored is durable.
func (m *Mirror) Sync(ctx context.Context, req SyncRequest, events func(SyncEvent)) (SyncReport, error) {
	s := &syncing{
		m: m, req: req, events: events, slots: make(chan struct{}, m.Parallel),
		report: SyncReport{Repo: req.Repo, Started: m.Now(), DryRun: req.DryRun, MetadataOnly: req.MetadataOnly},
	}
	err := s.run(ctx)
	s.report.Seconds = m.Now().Sub(s.report.Started).Seconds()
	slices.SortStableFunc(s.report.Failures, func(a, b SyncFailure) int {
		return strings.Compare(a.Tree+"\x00"+a.Path, b.Tree+"\x00"+b.Path)
	})
	if err != nil {
		return s.report, fmt.Errorf("syncing %s: %w", req.Repo, err)
	}
	return s.report, nil
}

// syncing is one sync under way.
type syncing struct {
	m      *Mirror
	repo   *Repo
	req    SyncRequest
	events func(SyncEvent)
	slots  chan struct{} // files on their way
	heavy  sync.Mutex    // held while a tree's indexes are read: one at a time in memory
	known  completions

	mu     sync.Mutex
	silent int // trees in a row of which the roots could not be had for want of an upstream
	report SyncReport
}

func (s *syncing) run(ctx context.Context) error {
	if s.repo = s.m.Repo(s.req.Repo); s.repo == nil {
		return errors.New("there is no such repository")
	}
	if s.repo.Retired {
		return errors.New("the repository is no longer configured; only its past states are answered")
	}
	if s.m.Offline {
		return chantal.ErrOffline
	}
	selector, ok := s.repo.Format.(chantal.Selector)
	if !ok {
		return fmt.Errorf("a repository of type %s has nothing that could be selected", s.repo.Type)
	}
	s.tell(SyncEvent{Kind: SyncStarted})
	s.known.load(s)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(s.m.ctx, func() { stop(errors.New("the mirror is closing")) })()
	trees, err := s.trees(ctx, selector)
	if err != nil {
		return err
	}
	s.report.Trees = len(trees)
	var jobs sync.WaitGroup
	places := make(chan struct{}, cap(s.slots))
	for _, t := range trees {
		if !enter(ctx, places) {
			break
		}
		jobs.Go(func() {
			defer func() { <-places }()
			if err := s.tree(ctx, selector, t); err != nil {
				stop(err)
			}
		})
	}
	jobs.Wait()
	// Also what was stored before an error is to stay.
	if err := s.known.save(context.WithoutCancel(ctx), s); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// enter takes a place; false when ctx has ended.
func enter(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// trees returns what the selection names. Where only a list of trees tells
// that, the list is brought up to date first; the last one that is known will
// do where upstream does not answer.
func (s *syncing) trees(ctx context.Context, selector chantal.Selector) ([]chantal.SelectedTree, error) {
	sel := &s.req.Selection
	list := selector.Catalog(sel)
	if list.Name == "" {
		return selector.Trees(sel, nil)
	}
	head, err := s.repo.tree(list).renew(ctx)
	if head.zero() {
		return nil, err
	}
	if err != nil {
		s.fail(SyncFailure{Tree: list.Name, Reason: err.Error()})
	}
	body, err := s.repo.rootBody(&head.gen.Roots[0])
	if err != nil {
		return nil, err
	}
	return selector.Trees(sel, body)
}

// tell passes an event on.
func (s *syncing) tell(e SyncEvent) {
	if s.events == nil {
		return
	}
	e.Repo = s.req.Repo
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events(e)
}

// fail notes what could not be brought up to date.
func (s *syncing) fail(failures ...SyncFailure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range failures {
		f.Repo = s.req.Repo
		s.report.Failed++
		if len(s.report.Failures) < maxFailures {
			s.report.Failures = append(s.report.Failures, f)
		}
	}
}
