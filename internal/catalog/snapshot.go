package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"chantal"
)

// Snapshot is a name for one instant of each of its repositories. What was
// observed at an instant never changes, so this is all that freezing takes,
// however large the repositories.
type Snapshot struct {
	Name    string            `json:"name"` // [A-Za-z0-9][A-Za-z0-9._-]{0,127}, not "live"
	Created time.Time         `json:"created"`
	Sealed  bool              `json:"sealed"` // every artifact is stored
	Repos   []Frozen          `json:"repos"`
	Labels  map[string]string `json:"labels,omitempty"`
	Note    string            `json:"note,omitempty"`
}

// Frozen is what a snapshot holds of one repository: each of its trees as it
// was last observed at At or before.
//
// An edition is a state of the repository whose roots were made here. It
// belongs to one snapshot and has its name: it begins and ends with it, and is
// in its record.
type Frozen struct {
	Repo    string    `json:"repo"`
	Edition string    `json:"edition,omitempty"` // the snapshot's name; "" for what upstream published
	At      time.Time `json:"at"`
	Missing []string  `json:"missing,omitempty"` // files of the closure that upstream no longer had

	// Generations are those of the edition, one of each tree. They are given to
	// PutSnapshot; afterwards they are found under the line.
	Generations []chantal.Generation `json:"generations,omitempty"`
}

// Line is what the generations of f are found under: in place of a
// repository's name wherever a method that reads asks for one.
func (f *Frozen) Line() string {
	if f.Edition == "" {
		return f.Repo
	}
	return f.Repo + "@" + f.Edition
}

// RepoOf returns the repository of a line.
func RepoOf(line string) string {
	repo, _, _ := strings.Cut(line, "@")
	return repo
}

// checkEdition refuses what could not be read again under the line of f.
func (f *Frozen) checkEdition(snapshot string) error {
	switch {
	case f.Edition == "" && len(f.Generations) > 0:
		return fmt.Errorf("generations of %s without an edition", f.Repo)
	case f.Edition == "":
		return nil
	case f.Edition != snapshot:
		return fmt.Errorf("edition %s of %s belongs to another snapshot", f.Edition, f.Repo)
	case len(f.Generations) == 0:
		return fmt.Errorf("edition %s of %s without generations", f.Edition, f.Repo)
	}
	seen := map[string]bool{}
	for _, g := range f.Generations {
		if err := checkTree(f.Repo, g.Tree); err != nil {
			return err
		}
		if len(g.Roots) == 0 || seen[g.Tree] {
			return fmt.Errorf("%s: no roots, or a second generation", treeName(f.Line(), g.Tree))
		}
		seen[g.Tree] = true
	}
	return nil
}

// applySnapshot puts a snapshot into the database, with the editions that
// begin with it.
func (r *rows) applySnapshot(s Snapshot) error {
	s.Repos = slices.Clone(s.Repos)
	var errs []error
	for i := range s.Repos {
		f := &s.Repos[i]
		errs = append(errs, r.raiseClock(f.At))
		for _, g := range f.Generations {
			g.Repo, g.Number = f.Line(), 1
			errs = append(errs, r.applyObserved(chantal.Observation{
				Repo: g.Repo, Tree: g.Tree, Generation: g.Number, Observed: f.At, Modified: f.At.Truncate(time.Second),
			}, &g))
		}
		f.Generations = nil
	}
	return errors.Join(append(errs,
		r.putJSON(bktNames, key(s.Name), named{Snapshot: &s}),
		r.delete(bktDeleted, key(s.Name)))...)
}

// applyDeleted takes a snapshot out of the database, with its editions.
func (r *rows) applyDeleted(name string, at time.Time) error {
	var n named
	if err := get(r.tx, bktNames, key(name), &n, "snapshot "+name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if n.Snapshot != nil {
		for _, f := range n.Snapshot.Repos {
			if f.Edition == "" {
				continue
			}
			for _, bucket := range [][]byte{bktHeads, bktObservations, bktGenerations, bktRoots} {
				if err := r.deleteAll(bucket, key(f.Line(), "")); err != nil {
					return err
				}
			}
		}
	}
	return errors.Join(r.delete(bktNames, key(name)), r.put(bktDeleted, key(name), micros(at)))
}

// named is what a name stands for: one of its fields is set.
type named struct {
	Snapshot *Snapshot `json:"snapshot,omitempty"`
}

var snapshotName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// PutSnapshot keeps s under its name; a zero Created means now. Snapshots are
// immutable: the error is ErrExists when the name is taken, and, unless force
// is set, ErrDeleted when a deleted snapshot had it. Instants in the future
// are refused, for their content is not fixed. The blobs of editions have to be
// durable before.
func (c *Catalog) PutSnapshot(s Snapshot, force bool) error {
	if !snapshotName.MatchString(s.Name) || s.Name == "live" {
		return fmt.Errorf("%q cannot be the name of a snapshot", s.Name)
	}
	for _, f := range s.Repos {
		if err := errors.Join(checkRepo(f.Repo), f.checkEdition(s.Name)); err != nil {
			return fmt.Errorf("snapshot %s: %w", s.Name, err)
		}
	}
	err := c.change(func() error {
		var taken, deleted bool
		err := c.db.View(func(tx *bolt.Tx) error {
			taken = tx.Bucket(bktNames).Get(key(s.Name)) != nil
			deleted = tx.Bucket(bktDeleted).Get(key(s.Name)) != nil
			return nil
		})
		switch {
		case err != nil:
			return err
		case taken:
			return ErrExists
		case deleted && !force:
			return ErrDeleted
		}
		if s.Created.IsZero() {
			s.Created = c.now()
		}
		s.Created = s.Created.UTC().Truncate(time.Microsecond)
		latest, err := c.clock()
		if err != nil {
			return err
		}
		if now := c.now(); now.After(latest) {
			latest = now
		}
		s.Repos = slices.Clone(s.Repos)
		for i, f := range s.Repos {
			if f.At.After(latest) {
				return fmt.Errorf("%s at %s: that is in the future", f.Repo, f.At.UTC().Format(time.RFC3339))
			}
			if err := c.remembered(f); err != nil {
				return err
			}
			s.Repos[i].At = f.At.UTC().Truncate(time.Microsecond)
		}
		return c.commit(namesLog, record{Type: typeSnapshot, V: 1, Snapshot: &s})
	})
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", s.Name, err)
	}
	return nil
}

// Snapshot returns the snapshot with that name, or fs.ErrNotExist.
func (c *Catalog) Snapshot(name string) (Snapshot, error) {
	var n named
	if err := c.get(bktNames, key(name), &n, "snapshot "+name); err != nil {
		return Snapshot{}, err
	}
	if n.Snapshot == nil {
		return Snapshot{}, fmt.Errorf("snapshot %s: %w", name, fs.ErrNotExist)
	}
	return *n.Snapshot, nil
}

// Deleted reports whether a name is that of a deleted snapshot.
func (c *Catalog) Deleted(name string) (deleted bool, err error) {
	err = c.db.View(func(tx *bolt.Tx) error {
		deleted = tx.Bucket(bktDeleted).Get(key(name)) != nil
		return nil
	})
	return deleted, err
}

// Snapshots returns all snapshots, the newest first.
func (c *Catalog) Snapshots() (all []Snapshot, err error) {
	err = c.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bktNames).ForEach(func(_, v []byte) error {
			var n named
			if err := json.Unmarshal(v, &n); err != nil {
				return err
			}
			if n.Snapshot != nil {
				all = append(all, *n.Snapshot)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("listing snapshots: %w", err)
	}
	slices.SortFunc(all, func(a, b Snapshot) int {
		if n := b.Created.Compare(a.Created); n != 0 {
			return n
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all, nil
}

// DeleteSnapshot forgets a snapshot and the editions that began with it, but
// not that there was one with its name.
// The error is fs.ErrNotExist when there is none.
func (c *Catalog) DeleteSnapshot(name string) error {
	err := c.change(func() error {
		if _, err := c.Snapshot(name); err != nil {
			return err
		}
		return c.commit(namesLog, record{Type: typeDeleted, V: 1, Name: name, At: c.now().UTC()})
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting snapshot %s: %w", name, err)
	}
	return err
}
