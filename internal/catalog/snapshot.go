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
type Frozen struct {
	Repo    string    `json:"repo"`
	Edition string    `json:"edition,omitempty"` // an edition of the repository with roots of our own; "" for upstream's
	At      time.Time `json:"at"`
	Missing []string  `json:"missing,omitempty"` // files of the closure that upstream no longer had
}

// Line is what the generations of f are recorded under: in place of a
// repository's name wherever this package asks for one.
func (f *Frozen) Line() string {
	if f.Edition == "" {
		return f.Repo
	}
	return f.Repo + "@" + f.Edition
}

// named is what a name stands for: one of its fields is set.
type named struct {
	Snapshot *Snapshot `json:"snapshot,omitempty"`
}

var snapshotName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// PutSnapshot keeps s under its name; a zero Created means now. Snapshots are
// immutable: the error is ErrExists when the name is taken, and, unless force
// is set, ErrDeleted when a deleted snapshot had it. Instants in the future
// are refused, for their content is not fixed.
func (c *Catalog) PutSnapshot(s Snapshot, force bool) error {
	if !snapshotName.MatchString(s.Name) || s.Name == "live" {
		return fmt.Errorf("%q cannot be the name of a snapshot", s.Name)
	}
	for _, f := range s.Repos {
		if err := checkRepo(f.Repo); err != nil {
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

// DeleteSnapshot forgets a snapshot, but not that there was one with its name.
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
