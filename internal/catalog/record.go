package catalog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"chantal"
)

// record is one line of a log. Type decides which of the other fields are set:
//
//	repo      Repo
//	observed  Observation; Generation too, where it is a new one
//	snapshot  Snapshot; it takes the name from a deleted one, and its editions begin
//	deleted   Name, At: the snapshot is gone with its editions, the name stays taken
//	rewritten Times: the first of a log that has been rewritten so often
//	forgotten Forgotten
type record struct {
	Type string `json:"type"`
	V    int    `json:"v"` // 1

	Repo        *Repo                `json:"repo,omitempty"`
	Observation *chantal.Observation `json:"observation,omitempty"`
	Generation  *chantal.Generation  `json:"generation,omitempty"`
	Snapshot    *Snapshot            `json:"snapshot,omitempty"`
	Name        string               `json:"name,omitempty"`
	At          time.Time            `json:"at,omitzero"`
	Times       int                  `json:"times,omitempty"`
	Forgotten   *forgotten           `json:"forgotten,omitempty"`
}

const (
	typeRepo     = "repo"
	typeObserved = "observed"
	typeSnapshot = "snapshot"
	typeDeleted  = "deleted"

	typeRewritten = "rewritten"
	typeForgotten = "forgotten"

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
	for w := range c.watches {
		w.add(&r)
	}
	err := c.update(func(rows *rows) error {
		if err := rows.apply(r); err != nil {
			return err
		}
		n, times := rows.applied(log)
		return rows.setApplied(log, n+1, times)
	})
	if err != nil {
		return fmt.Errorf("writing the catalog: %w", err)
	}
	c.behind = false
	return nil
}

// applied returns how many records of a log are in the database, and how often
// the log had been rewritten then.
func (r *rows) applied(log string) (n, times uint64) {
	b := r.tx.Bucket(bktApplied).Get([]byte(log))
	if len(b) >= 8 {
		n = binary.BigEndian.Uint64(b)
	}
	if len(b) >= 16 {
		times = binary.BigEndian.Uint64(b[8:])
	}
	return n, times
}

func (r *rows) setApplied(log string, n, times uint64) error {
	v := number(n)
	if times > 0 {
		v = append(v, number(times)...)
	}
	return r.put(bktApplied, []byte(log), v)
}

// apply puts what r says into the database. It depends on nothing but earlier
// records of the same log, so that a replay gives the same database.
func (rows *rows) apply(r record) error {
	switch {
	case r.V != 1:
		return fmt.Errorf("a record of type %q has version %d, which this Chantal does not know", r.Type, r.V)
	case r.Type == typeRepo && r.Repo != nil:
		return rows.putJSON(bktRepos, key(r.Repo.Name), r.Repo)
	case r.Type == typeObserved && r.Observation != nil:
		return rows.applyObserved(*r.Observation, r.Generation)
	case r.Type == typeSnapshot && r.Snapshot != nil:
		return rows.applySnapshot(*r.Snapshot)
	case r.Type == typeDeleted && r.Name != "":
		return rows.applyDeleted(r.Name, r.At)
	case r.Type == typeRewritten:
		return nil // replayLog has seen to it
	case r.Type == typeForgotten && r.Forgotten != nil:
		return rows.putJSON(bktForgotten, key(r.Forgotten.Repo, r.Forgotten.Tree), r.Forgotten)
	}
	return fmt.Errorf("this Chantal knows no record of type %q", r.Type)
}

func (rows *rows) applyObserved(o chantal.Observation, g *chantal.Generation) error {
	tree := treeKey(o.Repo, o.Tree)
	if g != nil {
		if err := rows.putJSON(bktGenerations, append(tree[:len(tree):len(tree)], number(uint64(g.Number))...), g); err != nil {
			return err
		}
		if err := rows.put(bktRoots, append(tree[:len(tree):len(tree)], fingerprint(g.Roots)...), number(uint64(g.Number))); err != nil {
			return err
		}
	}
	return errors.Join(
		rows.putJSON(bktObservations, append(tree[:len(tree):len(tree)], micros(o.Observed)...), o),
		rows.putJSON(bktHeads, key(o.Repo, o.Tree), o),
		rows.raiseClock(o.Observed))
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

func (c *Catalog) replay(r *rows) error {
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
		if err := c.replayLog(r, log); err != nil {
			return fmt.Errorf("records of %s: %w", log, err)
		}
	}
	return r.tx.Bucket(bktApplied).ForEach(func(log, n []byte) error {
		if !seen[string(log)] {
			return lost(string(log), binary.BigEndian.Uint64(n), 0)
		}
		return nil
	})
}

func (c *Catalog) replayLog(rows *rows, log string) error {
	have, times := rows.applied(log)
	n := uint64(0)
	err := c.log.Records(log, func(line []byte) error {
		n++
		if n == 1 {
			again, err := rewrittenTimes(line)
			if err != nil {
				return fmt.Errorf("record 1: %w", err)
			}
			if again > times {
				// The process ended between the log and the database.
				if err := rows.dropRepo(strings.TrimPrefix(log, reposPlace)); err != nil {
					return err
				}
				have, times = 0, again
			} else if again < times {
				return lost(log, have, 0)
			}
		}
		if n <= have {
			return nil
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("record %d: %w", n, err)
		}
		if err := rows.apply(r); err != nil {
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
	return rows.setApplied(log, n, times)
}

// rewrittenTimes returns how often a log has been rewritten, going by its first
// line.
func rewrittenTimes(line []byte) (uint64, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil || r.Type != typeRewritten {
		return 0, err
	}
	return uint64(r.Times), nil
}

func lost(log string, want, got uint64) error {
	return fmt.Errorf("%w: it was made from %d records of %s, and only %d are there: restore the folder records from a backup, or accept the loss with `chantal verify --rebuild`", ErrDamaged, want, log, got)
}
