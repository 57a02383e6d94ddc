// Package snapshot names states: it turns refs into instants of the
// observation log, and freezes and forgets names. A snapshot is, for each
// repository, an instant; so freezing copies nothing and takes the same time
// however large a repository is.
//
// It never opens content for a client and knows neither formats nor HTTP.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"chantal/internal/catalog"
)

// Completer makes freezing whole.
type Completer interface {
	// Settle returns when all that clients have got in whole is observed.
	Settle(ctx context.Context) error

	// Complete fetches what the generations of a line (catalog.Frozen) need at
	// an instant to be served without upstream, and returns the paths that
	// cannot be had. progress tells people what is going on.
	Complete(ctx context.Context, line string, at time.Time, progress func(string)) (missing []string, err error)
}

// patience is how long Create waits for metadata that is still to be fetched.
const patience = 60 * time.Second

// Names are the snapshots of a catalog. It is safe for concurrent use.
type Names struct {
	catalog  *catalog.Catalog
	complete Completer
	now      func() time.Time

	// Requests resolve a name each, and what a name means never changes while
	// it is there.
	mu    sync.Mutex
	known map[string]*State
}

// New returns the names in c.
func New(c *catalog.Catalog, complete Completer, now func() time.Time) *Names {
	return &Names{catalog: c, complete: complete, now: now, known: map[string]*State{}}
}

// State is what a ref selects.
type State struct {
	Ref   Ref
	Live  bool
	Named bool // a snapshot; else an instant, where not Live
	at    time.Time
	repos map[string]catalog.Frozen
}

// At returns where the state holds a repository: on which line, at which
// instant; the error is a fs.ErrNotExist where a snapshot does not contain it.
// The instant of a live state is zero.
func (s *State) At(repo string) (catalog.Frozen, error) {
	if !s.Named {
		return catalog.Frozen{Repo: repo, At: s.at}, nil
	}
	f, ok := s.repos[repo]
	if !ok {
		var have []string
		for name := range s.repos {
			have = append(have, name)
		}
		slices.Sort(have)
		return catalog.Frozen{}, &UnknownError{s.Ref.Name, fmt.Sprintf("the snapshot does not contain repository %s; it has: %s", repo, strings.Join(have, ", "))}
	}
	return f, nil
}

// Resolve finds what a ref selects: an exact name first, then an instant.
func (n *Names) Resolve(r Ref) (*State, error) {
	if r.Recording != "" {
		return nil, &UnsupportedError{r.String(), "recordings (~" + r.Recording + ")"}
	}
	if r.Name == "" || r.Name == Live {
		return &State{Ref: r, Live: true}, nil
	}
	s, err := n.named(r)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	at, err := ParseInstant(r.Name)
	if err != nil {
		return nil, &UnknownError{r.Name, "there is no snapshot of that name; `chantal snapshot list` shows what there is"}
	}
	if at.After(n.now()) {
		return nil, &UnknownError{r.Name, "that instant is in the future"}
	}
	return &State{Ref: r, at: at}, nil
}

// named returns what the snapshot of that name selects.
func (n *Names) named(r Ref) (*State, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.known[r.Name]; s != nil {
		return s, nil
	}
	snap, err := n.catalog.Snapshot(r.Name)
	if err != nil {
		return nil, err
	}
	s := &State{Ref: r, Named: true, repos: map[string]catalog.Frozen{}}
	for _, f := range snap.Repos {
		s.repos[f.Repo] = f
	}
	n.known[r.Name] = s
	return s, nil
}

// Request says what to freeze.
type Request struct {
	Name   string    // "" for the UTC time
	Repos  []string  // nil for all
	At     time.Time // zero for now
	Labels map[string]string
	Note   string
	Force  bool // take the name of a deleted snapshot
}

// Create freezes: the generations are pinned at once; then what their metadata
// lacks is fetched, at most a minute long. What cannot be had is listed in the
// snapshot.
func (n *Names) Create(ctx context.Context, q Request, progress func(string)) (catalog.Snapshot, error) {
	if err := n.complete.Settle(ctx); err != nil {
		return catalog.Snapshot{}, err
	}
	now, err := n.catalog.Clock()
	if err != nil {
		return catalog.Snapshot{}, err
	}
	at := now
	if !q.At.IsZero() {
		if at = q.At; at.After(now) {
			return catalog.Snapshot{}, &UnknownError{q.At.UTC().Format(time.RFC3339), "that instant is in the future"}
		}
	}
	s := catalog.Snapshot{Name: q.Name, Created: now, Labels: q.Labels, Note: q.Note}
	if q.Name == "" {
		s.Name = DefaultName(now)
	} else if err := n.free(q.Name); err != nil {
		return catalog.Snapshot{}, err
	}
	repos, err := n.chosen(q.Repos)
	if err != nil {
		return catalog.Snapshot{}, err
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, repo := range repos {
		if trees, err := n.catalog.TreesAt(repo, at); err == nil && len(trees) == 0 {
			progress(repo + ": nothing had been observed by then; the snapshot has nothing of it")
		}
		missing, err := n.complete.Complete(limit, repo, at, progress)
		if ctx.Err() != nil {
			return catalog.Snapshot{}, ctx.Err()
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return catalog.Snapshot{}, fmt.Errorf("freezing %s: %w", repo, err)
		}
		s.Repos = append(s.Repos, catalog.Frozen{Repo: repo, At: at, Missing: missing})
	}
	for {
		err := n.catalog.PutSnapshot(s, q.Force)
		taken := errors.Is(err, catalog.ErrExists) || errors.Is(err, catalog.ErrDeleted)
		if q.Name != "" || !taken {
			return s, err
		}
		// The second has, or had, a snapshot: the next one is as good a name.
		select {
		case <-time.After(100 * time.Millisecond):
			s.Name = DefaultName(n.now())
		case <-ctx.Done():
			return catalog.Snapshot{}, ctx.Err()
		}
	}
}

// free refuses names that are taken or could be taken for something else,
// before any work is done.
func (n *Names) free(name string) error {
	if !nameForm.MatchString(name) {
		return &BadRefError{name, "a name is made of letters, digits, '.', '_' and '-', begins with a letter or digit and has at most 128 characters"}
	}
	if name == Live {
		return &BadRefError{name, "that is the ref of the newest state"}
	}
	if _, err := ParseInstant(name); err == nil {
		return &BadRefError{name, "it reads as an instant, which is a ref of its own; choose another name"}
	}
	_, err := n.catalog.Snapshot(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("snapshot %s: %w", name, catalog.ErrExists)
	}
	return err
}

func (n *Names) chosen(names []string) ([]string, error) {
	all, err := n.catalog.Repos()
	if err != nil {
		return nil, err
	}
	var known []string
	for _, r := range all {
		known = append(known, r.Name)
	}
	if names == nil {
		if len(known) == 0 {
			return nil, errors.New("there is no repository to freeze yet; point a client at the server first")
		}
		return known, nil
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("there is no repository %q; `chantal list repos` shows what there is", name)
		}
	}
	return names, nil
}

// Get returns a snapshot; fs.ErrNotExist if there is none of that name.
func (n *Names) Get(name string) (catalog.Snapshot, error) {
	s, err := n.catalog.Snapshot(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = &UnknownError{name, "there is no snapshot of that name; `chantal snapshot list` shows what there is"}
	}
	return s, err
}

// List returns all snapshots, the newest first.
func (n *Names) List() ([]catalog.Snapshot, error) { return n.catalog.Snapshots() }

// Delete forgets a snapshot. Its name can be taken again only with Force.
func (n *Names) Delete(name string) error {
	if _, err := n.Get(name); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.known, name)
	return n.catalog.DeleteSnapshot(name)
}
