package snapshot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"chantal"
	"chantal/internal/catalog"
)

// PublishRequest says of what to make a snapshot that has editions.
type PublishRequest struct {
	Name    string
	Sources []Ref    // several are merged
	Repos   []string // nil for all that the sources have
	Labels  map[string]string
	Note    string
	Force   bool // take the name of a deleted snapshot

	// Make makes the edition of one repository from what the sources have of
	// it. Everything that it refers to is durable when it returns. nil
	// generations and no error mean that it has nothing.
	Make func(ctx context.Context, sources []catalog.Frozen) ([]chantal.Generation, error)
}

// Publish makes a snapshot of editions. Where several sources are merged, a
// repository that only one of them has stays what it is there, unless that is
// an edition: it ends with its snapshot. On an error there is no snapshot, and
// whatever was stored for it is waste.
func (n *Names) Publish(ctx context.Context, q PublishRequest, progress func(string)) (catalog.Snapshot, error) {
	if err := n.publishable(q.Name, q.Force); err != nil {
		return catalog.Snapshot{}, err
	}
	if err := n.complete.Settle(ctx); err != nil {
		return catalog.Snapshot{}, err
	}
	repos, sources, err := n.sources(q)
	if err != nil {
		return catalog.Snapshot{}, err
	}
	s := catalog.Snapshot{Name: q.Name, Labels: q.Labels, Note: q.Note}
	for _, repo := range repos {
		from := sources[repo]
		if len(q.Sources) > 1 && len(from) == 1 && from[0].Edition == "" {
			s.Repos = append(s.Repos, from[0])
			continue
		}
		for _, f := range from {
			if err := n.fetch(ctx, f, progress); err != nil {
				return catalog.Snapshot{}, err
			}
		}
		generations, err := q.Make(ctx, from)
		if err != nil {
			return catalog.Snapshot{}, err
		}
		if generations != nil {
			s.Repos = append(s.Repos, catalog.Frozen{Repo: repo, Edition: q.Name, Generations: generations})
		}
	}
	if len(s.Repos) == 0 {
		return catalog.Snapshot{}, errors.New("nothing remains to publish: no repository of the sources has a tree of which packages are known")
	}
	at, err := n.catalog.Clock()
	if err != nil {
		return catalog.Snapshot{}, err
	}
	s.Created = at
	for i := range s.Repos {
		if s.Repos[i].Edition != "" {
			s.Repos[i].At = at
		}
	}
	if err := n.catalog.PutSnapshot(s, q.Force); err != nil {
		return catalog.Snapshot{}, err
	}
	return n.catalog.Snapshot(q.Name)
}

// publishable refuses a name before any work is done for it.
func (n *Names) publishable(name string, force bool) error {
	if err := n.free(name); err != nil {
		return err
	}
	if deleted, err := n.catalog.Deleted(name); err != nil || !deleted || force {
		return err
	}
	return fmt.Errorf("snapshot %s: %w", name, catalog.ErrDeleted)
}

// sources returns what the sources have of each repository, each state once,
// and the names of these repositories.
func (n *Names) sources(q PublishRequest) (repos []string, from map[string][]catalog.Frozen, err error) {
	now, err := n.catalog.Clock()
	if err != nil {
		return nil, nil, err
	}
	from = map[string][]catalog.Frozen{}
	for _, ref := range q.Sources {
		if ref.Signed {
			return nil, nil, &UnsupportedError{ref.String(), "+signed as a source; the ref without it has the same content"}
		}
		state, err := n.Resolve(ref)
		if err != nil {
			return nil, nil, err
		}
		all, err := n.held(state, q.Repos)
		if err != nil {
			return nil, nil, err
		}
		for _, repo := range all {
			f, err := state.At(repo)
			if err != nil {
				return nil, nil, err
			}
			if state.Live {
				f.At = now
			}
			f.Missing = nil
			if from[repo], err = n.add(from[repo], f); err != nil {
				return nil, nil, err
			}
			if len(from[repo]) > 0 && !slices.Contains(repos, repo) {
				repos = append(repos, repo)
			}
		}
	}
	for _, repo := range q.Repos {
		if from[repo] == nil {
			return nil, nil, fmt.Errorf("none of the sources has anything of repository %s", repo)
		}
	}
	slices.Sort(repos)
	return repos, from, nil
}

// add puts f behind the others, where it has anything; of those that have the
// same the last one stays.
func (n *Names) add(others []catalog.Frozen, f catalog.Frozen) (all []catalog.Frozen, err error) {
	has, err := n.generations(f)
	if err != nil || len(has) == 0 {
		return others, err
	}
	for _, other := range others {
		var had map[string]int
		if other.Line() == f.Line() {
			if had, err = n.generations(other); err != nil {
				return nil, err
			}
		}
		if !maps.Equal(has, had) {
			all = append(all, other)
		}
	}
	return append(all, f), nil
}

// generations returns the generation of each tree.
func (n *Names) generations(f catalog.Frozen) (map[string]int, error) {
	trees, err := n.catalog.TreesAt(f.Line(), f.At)
	if err != nil {
		return nil, err
	}
	numbers := map[string]int{}
	for _, tree := range trees {
		o, err := n.catalog.At(f.Line(), tree, f.At)
		if err != nil {
			return nil, err
		}
		numbers[tree] = o.Generation
	}
	return numbers, nil
}

// held returns the repositories that a state has, of those that are wanted; nil
// for all.
func (n *Names) held(s *State, wanted []string) ([]string, error) {
	all, err := n.chosen(wanted)
	if err != nil || !s.Named {
		return all, err
	}
	return slices.DeleteFunc(slices.Clone(all), func(repo string) bool {
		_, has := s.repos[repo]
		return !has
	}), nil
}

// fetch fetches the metadata that a source is to have and lacks.
func (n *Names) fetch(ctx context.Context, f catalog.Frozen, progress func(string)) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	missing, err := n.complete.Complete(limit, f.Line(), f.At, progress)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("completing %s: %w", f.Repo, err)
	}
	for _, p := range missing {
		progress("upstream does not have " + f.Repo + "/" + p + " (any more)")
	}
	return nil
}
