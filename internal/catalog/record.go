package catalog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"chantal"
)

// record is one line of a log. Type decides which of the other fields are set:
//
//	repo      Repo
//	observed  Observation; Generation too, where it is a new one
//	snapshot  Snapshot; it takes the name from a deleted one
//	deleted   Name, At: the snapshot is gone, the name stays taken
type record struct {
	Type string `json:"type"`
	V    int    `json:"v"` // 1

	Repo        *Repo                `json:"repo,omitempty"`
	Observation *chantal.Observation `json:"observation,omitempty"`
	Generation  *chantal.Generation  `json:"generation,omitempty"`
	Snapshot    *Snapshot            `json:"snapshot,omitempty"`
	Name        string               `json:"name,omitempty"`
	At          time.Time            `json:"at,omitzero"`
}

const (
	typeRepo     = "repo"
	typeObserved = "observed"
	typeSnapshot = "snapshot"
	typeDeleted  = "deleted"

	namesLog   = "names"
	reposPlace = "repos/"
)

func repoLog(repo string) string { return reposPlace + repo }

// change runs f, which may read and commit, while nobody else commits.
func (c *Catalog) change(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.behind {
		if err := c.catchUp(); err != nil {
			return fmt.Errorf("catching up with the records: %w", err)
		}
	}
	return f()
}

// commit appends r to its log and then puts it into the database. It is called
// within change.
func (c *Catalog) commit(log string, r record) error {
	c.behind = true
	if err := c.log.AppendRecord(log, r); err != nil {
		return err
	}
	err := c.update(func(tx *bolt.Tx) error {
		if err := apply(tx, r); err != nil {
			return err
		}
		return setApplied(tx, log, applied(tx, log)+1)
	})
	if err != nil {
		return fmt.Errorf("writing the catalog: %w", err)
	}
	c.behind = false
	return nil
}

func applied(tx *bolt.Tx, log string) uint64 {
	if b := tx.Bucket(bktApplied).Get([]byte(log)); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func setApplied(tx *bolt.Tx, log string, n uint64) error {
	return tx.Bucket(bktApplied).Put([]byte(log), number(n))
}

// apply puts what r says into the database. It depends on nothing else, so
// that a replay gives the same database.
func apply(tx *bolt.Tx, r record) error {
	switch {
	case r.V != 1:
		return fmt.Errorf("a record of type %q has version %d, which this Chantal does not know", r.Type, r.V)
	case r.Type == typeRepo && r.Repo != nil:
		return put(tx, bktRepos, key(r.Repo.Name), r.Repo)
	case r.Type == typeObserved && r.Observation != nil:
		return applyObserved(tx, *r.Observation, r.Generation)
	case r.Type == typeSnapshot && r.Snapshot != nil:
		for _, f := range r.Snapshot.Repos {
			if err := raiseClock(tx, f.At); err != nil {
				return err
			}
		}
		return errors.Join(
			put(tx, bktNames, key(r.Snapshot.Name), named{Snapshot: r.Snapshot}),
			tx.Bucket(bktDeleted).Delete(key(r.Snapshot.Name)))
	case r.Type == typeDeleted && r.Name != "":
		return errors.Join(
			tx.Bucket(bktNames).Delete(key(r.Name)),
			tx.Bucket(bktDeleted).Put(key(r.Name), micros(r.At)))
	}
	return fmt.Errorf("this Chantal knows no record of type %q", r.Type)
}

func applyObserved(tx *bolt.Tx, o chantal.Observation, g *chantal.Generation) error {
	tree := treeKey(o.Repo, o.Tree)
	if g != nil {
		if err := put(tx, bktGenerations, append(tree[:len(tree):len(tree)], number(uint64(g.Number))...), g); err != nil {
			return err
		}
		if err := tx.Bucket(bktRoots).Put(append(tree[:len(tree):len(tree)], fingerprint(g.Roots)...), number(uint64(g.Number))); err != nil {
			return err
		}
	}
	return errors.Join(
		put(tx, bktObservations, append(tree[:len(tree):len(tree)], micros(o.Observed)...), o),
		put(tx, bktHeads, key(o.Repo, o.Tree), o),
		raiseClock(tx, o.Observed))
}

// Rebuild makes the database anew from the records: every repository,
// generation, observation and snapshot is what it was, numbers and times too.
// What clients want is kept as it is. On an error nothing has changed.
func (c *Catalog) Rebuild() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.replaced() {
		return fmt.Errorf("rebuilding the catalog: %s was removed or replaced while it is in use", c.path)
	}
	err := guard(func() error { return c.update(c.refill) })
	if err != nil {
		return fmt.Errorf("rebuilding the catalog: %w", err)
	}
	c.behind = false
	return nil
}

// catchUp applies the records that the database lacks: all of them when it is
// new, the last one after a crash at the wrong moment.
func (c *Catalog) catchUp() error {
	if err := c.update(c.replay); err != nil {
		return err
	}
	c.behind = false
	return nil
}

func (c *Catalog) replay(tx *bolt.Tx) error {
	logs, err := c.log.RecordLogs()
	if err != nil {
		return err
	}
	seen := make(map[string]bool)
	for _, log := range logs {
		if log != namesLog && !strings.HasPrefix(log, reposPlace) {
			continue
		}
		seen[log] = true
		if err := c.replayLog(tx, log); err != nil {
			return fmt.Errorf("records of %s: %w", log, err)
		}
	}
	return tx.Bucket(bktApplied).ForEach(func(log, n []byte) error {
		if !seen[string(log)] {
			return lost(string(log), binary.BigEndian.Uint64(n), 0)
		}
		return nil
	})
}

func (c *Catalog) replayLog(tx *bolt.Tx, log string) error {
	have, n := applied(tx, log), uint64(0)
	err := c.log.Records(log, func(line []byte) error {
		n++
		if n <= have {
			return nil
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
		if err := apply(tx, r); err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case n < have:
		return lost(log, have, n)
	case n == have:
		return nil
	}
	return setApplied(tx, log, n)
}

func lost(log string, want, got uint64) error {
	return fmt.Errorf("%w: it was made from %d records of %s, and only %d are there: restore the folder records from a backup, or accept the loss with `chantal verify --rebuild`", ErrDamaged, want, log, got)
}
