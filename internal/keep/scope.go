// Package keep looks after what is kept: it reads stored blobs again and
// compares them with their names, finds out whether every state that has a name
// can be served, has repaired what is not, and does so in the background for as
// long as there is a server.
//
// It works on store and catalog alone. What generations promise, and fetching
// something again, is handed in.
package keep

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"chantal"
	"chantal/internal/catalog"
)

// State is a generation that can be asked for, and under which ref.
type State struct {
	chantal.Generation
	Ref    string   // what selects it: "live", the name of a snapshot, an instant
	Frozen bool     // a snapshot: what freezing promises has to be there
	Sealed bool     // and every artifact, too
	Lacks  []string // paths that the snapshot was made without
}

// Live returns the newest generations of a repository, or of all for "".
func Live(c *catalog.Catalog, repo string) (all []State, err error) {
	err = eachTree(c, repo, func(repo, tree string) error {
		head, err := c.Head(repo, tree)
		if err != nil {
			return err
		}
		g, err := c.Generation(repo, tree, head.Generation)
		all = append(all, State{Generation: g, Ref: "live"})
		return err
	})
	return all, err
}

// At returns the generations of a repository or an edition of one, or of all
// repositories for "", at an instant that is called ref.
func At(c *catalog.Catalog, repo string, at time.Time, ref string) (all []State, err error) {
	err = eachTree(c, repo, func(repo, tree string) error {
		g, err := generationAt(c, repo, tree, at)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		all = append(all, State{Generation: g, Ref: ref})
		return err
	})
	return all, err
}

// Snapshot returns what a snapshot holds of a repository, or of all for "".
func Snapshot(c *catalog.Catalog, s catalog.Snapshot, repo string) (all []State, err error) {
	for _, f := range s.Repos {
		if repo != "" && f.Repo != repo {
			continue
		}
		states, err := At(c, f.Line(), f.At, s.Name)
		if err != nil {
			return nil, err
		}
		for _, st := range states {
			st.Frozen, st.Sealed, st.Lacks = true, s.Sealed, f.Missing
			all = append(all, st)
		}
	}
	return all, nil
}

// Everything returns every generation that can be asked for: those of live, of
// each snapshot, and those that were in force at since or later, whose ref is
// the instant of their first observation.
func Everything(c *catalog.Catalog, since time.Time) ([]State, error) {
	all, err := Live(c, "")
	if err != nil {
		return nil, err
	}
	snapshots, err := c.Snapshots()
	if err != nil {
		return nil, err
	}
	for _, s := range snapshots {
		states, err := Snapshot(c, s, "")
		if err != nil {
			return nil, err
		}
		all = append(all, states...)
	}
	err = eachTree(c, "", func(repo, tree string) error {
		states, err := retained(c, repo, tree, since)
		all = append(all, states...)
		return err
	})
	return all, err
}

// retained returns the generations of a tree that were in force at since or
// later, the newest first, without the head.
func retained(c *catalog.Catalog, repo, tree string, since time.Time) (all []State, err error) {
	observed, err := c.Observations(repo, tree)
	if err != nil || len(observed) == 0 {
		return nil, err
	}
	seen := map[int]bool{observed[len(observed)-1].Generation: true}
	for i := len(observed) - 2; i >= 0 && !observed[i+1].Observed.Before(since); i-- {
		if seen[observed[i].Generation] {
			continue
		}
		seen[observed[i].Generation] = true
		g, err := c.Generation(repo, tree, observed[i].Generation)
		if err != nil {
			return nil, err
		}
		all = append(all, State{Generation: g, Ref: instantOf(observed[i].Observed)})
	}
	return all, nil
}

func generationAt(c *catalog.Catalog, repo, tree string, at time.Time) (chantal.Generation, error) {
	o, err := c.At(repo, tree, at)
	if err != nil {
		return chantal.Generation{}, err
	}
	return c.Generation(repo, tree, o.Generation)
}

// eachTree calls f for the trees of one repository, or of all for "".
func eachTree(c *catalog.Catalog, repo string, f func(repo, tree string) error) error {
	names := []string{repo}
	if repo == "" {
		repos, err := c.Repos()
		if err != nil {
			return err
		}
		names = names[:0]
		for _, r := range repos {
			names = append(names, r.Name)
		}
	}
	for _, name := range names {
		trees, err := c.Trees(name)
		if err != nil {
			return err
		}
		for _, tree := range trees {
			if err := f(name, tree); err != nil {
				return err
			}
		}
	}
	return nil
}

// group is a generation with all refs that lead to it.
type group struct {
	chantal.Generation
	refs           []string
	frozen, sealed bool
	lacks          map[string]bool // by every snapshot that holds it
}

// grouped brings the states of each generation together, in the order of
// repository, tree and number.
func grouped(states []State) []*group {
	type key struct {
		repo, tree string
		number     int
	}
	byKey := map[key]*group{}
	var all []*group
	for _, s := range states {
		k := key{s.Repo, s.Tree, s.Number}
		g := byKey[k]
		if g == nil {
			g = &group{Generation: s.Generation}
			byKey[k] = g
			all = append(all, g)
		}
		if !slices.Contains(g.refs, s.Ref) {
			g.refs = append(g.refs, s.Ref)
		}
		if s.Frozen {
			lacks := map[string]bool{}
			for _, p := range s.Lacks {
				lacks[p] = !g.frozen || g.lacks[p]
			}
			g.frozen, g.lacks = true, lacks
		}
		g.sealed = g.sealed || s.Sealed
	}
	slices.SortFunc(all, compareGroups)
	return all
}
