package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"chantal"
)

// forgotten says what is no longer known of a tree: what was observed of it
// from First until Since, but for what snapshots hold.
type forgotten struct {
	Repo  string    `json:"repo"`
	Tree  string    `json:"tree"`
	First time.Time `json:"first"` // its first observation
	Since time.Time `json:"since"` // the first of those behind which none is forgotten
	Last  int       `json:"last"`  // the highest number of a generation there was
}

// ForgottenError says that what a tree was at an instant is no longer known. It
// is a fs.ErrNotExist.
type ForgottenError struct {
	Repo, Tree string
	At, Since  time.Time // Since is the first instant that is known
}

func (e *ForgottenError) Error() string {
	return fmt.Sprintf("what %s was at %s has been forgotten, as history: says; it is known since %s",
		treeName(e.Repo, e.Tree), e.At.UTC().Format(time.RFC3339Nano), e.Since.UTC().Format(time.RFC3339Nano))
}

// Is reports that there is nothing at that instant.
func (e *ForgottenError) Is(target error) bool { return target == fs.ErrNotExist }

// Forgotten is what Forget took away, or would.
type Forgotten struct {
	Observations int
	Generations  int
	Bytes        int64 // by which the records are shorter
}

// Needed tells which observations of a tree, the oldest first, are to be kept:
// the newest, each that was in force at since or later, and each that a snapshot
// holds, whose instants are pins, sorted.
func Needed(observed []chantal.Observation, since time.Time, pins []time.Time) []bool {
	need := make([]bool, len(observed))
	for i := range observed {
		last := i == len(observed)-1
		need[i] = last || !observed[i+1].Observed.Before(since)
		// The first pin at or behind it holds it, unless the next one came before.
		at, _ := slices.BinarySearchFunc(pins, observed[i].Observed, time.Time.Compare)
		need[i] = need[i] || at < len(pins) && pins[at].Before(observed[i+1].Observed)
	}
	return need
}

// Pins returns the instants that snapshots hold each repository at, sorted;
// editions have none, for they begin and end with their snapshot.
func (c *Catalog) Pins() (map[string][]time.Time, error) {
	all, err := c.Snapshots()
	if err != nil {
		return nil, err
	}
	pins := map[string][]time.Time{}
	for _, s := range all {
		for _, f := range s.Repos {
			if f.Edition == "" {
				pins[f.Repo] = append(pins[f.Repo], f.At)
			}
		}
	}
	for _, at := range pins {
		slices.SortFunc(at, time.Time.Compare)
	}
	return pins, nil
}

// Forget removes from the records and the database what Needed does not keep,
// or with really unset tells only what that would be. Snapshots and what was in
// force at since or later are what they were; an instant before is unknown
// where something is missing (ForgottenError). Nobody commits while the records
// of a repository are rewritten, which they are only where something goes.
func (c *Catalog) Forget(since time.Time, really bool) (all Forgotten, err error) {
	repos, err := c.Repos()
	if err != nil {
		return all, err
	}
	for _, r := range repos {
		// Mostly there is nothing, and nobody has to wait for that.
		o, err := c.oblivion(r.Name, since)
		if err == nil && o.done.Observations > 0 {
			err = c.change(func() error {
				if o, err = c.oblivion(r.Name, since); err != nil || o.done.Observations == 0 {
					return err
				}
				err = o.forget(really)
				all.Observations += o.done.Observations
				all.Generations += o.done.Generations
				all.Bytes += o.done.Bytes
				return err
			})
		}
		if err != nil {
			return all, fmt.Errorf("forgetting history of %s: %w", r.Name, err)
		}
	}
	return all, nil
}

// oblivion returns what there is to forget of a repository.
func (c *Catalog) oblivion(repo string, since time.Time) (*oblivion, error) {
	pins, err := c.Pins()
	if err != nil {
		return nil, err
	}
	o := &oblivion{c: c, repo: repo, log: repoLog(repo), observed: map[string]bool{}, generations: map[string]bool{}}
	return o, o.choose(since, pins[repo])
}

// oblivion is the forgetting of what one repository was.
type oblivion struct {
	c    *Catalog
	repo string
	log  string

	observed    map[string]bool // by the key of their rows: those that go
	generations map[string]bool // by the key of their rows: false for those that go
	rows        []forgotten     // of all trees of which anything is, or was, forgotten
	done        Forgotten
}

// choose finds what goes.
func (o *oblivion) choose(since time.Time, pins []time.Time) error {
	return o.c.db.View(func(tx *bolt.Tx) error {
		prefix := key(o.repo, "")
		heads := tx.Bucket(bktHeads).Cursor()
		for k, _ := heads.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = heads.Next() {
			if err := o.chooseOf(tx, string(k[len(prefix):]), since, pins); err != nil {
				return err
			}
		}
		return nil
	})
}

// chooseOf finds what goes of one tree.
func (o *oblivion) chooseOf(tx *bolt.Tx, tree string, since time.Time, pins []time.Time) error {
	all, err := observations(tx, o.repo, tree)
	if err != nil {
		return err
	}
	row, err := forgottenOf(tx, o.repo, tree)
	if err != nil {
		return err
	}
	prefix, last := treeKey(o.repo, tree), -1
	for i, need := range Needed(all, since, pins) {
		generation := string(append(prefix[:len(prefix):len(prefix)], number(uint64(all[i].Generation))...))
		if need {
			o.generations[generation] = true
			continue
		}
		last = i
		o.observed[string(append(prefix[:len(prefix):len(prefix)], micros(all[i].Observed)...))] = true
		if _, known := o.generations[generation]; !known {
			o.generations[generation] = false
		}
		row.Last = max(row.Last, all[i].Generation)
	}
	if last >= 0 {
		o.done.Observations = len(o.observed)
		if row.Repo == "" {
			row.Repo, row.Tree, row.First = o.repo, tree, all[0].Observed
		}
		if next := all[last+1].Observed; next.After(row.Since) {
			row.Since = next
		}
	}
	if row.Repo != "" {
		o.rows = append(o.rows, row)
	}
	return nil
}

// forget rewrites the log, and then the database to match; with really unset it
// finds out what that would come to.
func (o *oblivion) forget(really bool) error {
	for _, need := range o.generations {
		if !need {
			o.done.Generations++
		}
	}
	times, records := uint64(0), uint64(0)
	err := o.c.db.View(func(tx *bolt.Tx) error {
		_, times = (&rows{tx: tx}).applied(o.log)
		times++
		return nil
	})
	if err != nil {
		return err
	}
	write := func(add func(any) error) error {
		return o.write(times, func(v any, text []byte) error {
			records++
			o.done.Bytes -= int64(len(text)) + 1
			return add(v)
		})
	}
	if !really {
		return write(func(any) error { return nil })
	}
	if o.c.behind, err = o.c.log.RewriteRecords(o.log, write); err != nil {
		return err
	}
	if err := o.c.update(func(r *rows) error { return o.erase(r, records, times) }); err != nil {
		return fmt.Errorf("writing the catalog: %w", err)
	}
	o.c.behind = false
	return nil
}

// write adds what the log is to be. A generation is told with the first of its
// observations that is left.
func (o *oblivion) write(times uint64, add func(v any, text []byte) error) error {
	put := func(v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return add(json.RawMessage(text), text)
	}
	if err := put(record{Type: typeRewritten, V: 1, Times: int(times)}); err != nil {
		return err
	}
	for i := range o.rows {
		if err := put(record{Type: typeForgotten, V: 1, Forgotten: &o.rows[i]}); err != nil {
			return err
		}
	}
	untold := map[string]*chantal.Generation{}
	return o.c.log.Records(o.log, func(line []byte) error {
		o.done.Bytes += int64(len(line)) + 1
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		if r.Type == typeRewritten || r.Type == typeForgotten {
			return nil
		}
		if r.Type != typeObserved {
			return add(json.RawMessage(line), line)
		}
		prefix := treeKey(r.Observation.Repo, r.Observation.Tree)
		generation := string(append(prefix[:len(prefix):len(prefix)], number(uint64(r.Observation.Generation))...))
		switch {
		case o.observed[string(append(prefix[:len(prefix):len(prefix)], micros(r.Observation.Observed)...))]:
			if r.Generation != nil {
				untold[generation] = r.Generation
			}
			return nil
		case r.Generation == nil && untold[generation] != nil:
			r.Generation = untold[generation]
			delete(untold, generation)
			return put(r)
		}
		return add(json.RawMessage(line), line)
	})
}

// erase makes the database what the log, which has n records, says.
func (o *oblivion) erase(r *rows, n, times uint64) error {
	for k := range o.observed {
		if err := r.delete(bktObservations, []byte(k)); err != nil {
			return err
		}
	}
	for k, need := range o.generations {
		if need {
			continue
		}
		var g chantal.Generation
		if err := get(r.tx, bktGenerations, []byte(k), &g, "a generation"); err != nil {
			return err
		}
		err := errors.Join(
			r.delete(bktGenerations, []byte(k)),
			r.delete(bktRoots, append(treeKey(o.repo, g.Tree), fingerprint(g.Roots)...)))
		if err != nil {
			return err
		}
	}
	for i := range o.rows {
		if err := r.putJSON(bktForgotten, key(o.repo, o.rows[i].Tree), &o.rows[i]); err != nil {
			return err
		}
	}
	return r.setApplied(o.log, n, times)
}

// dropRepo removes everything that the log of a repository has put into the
// database.
func (r *rows) dropRepo(repo string) error {
	if err := r.delete(bktRepos, key(repo)); err != nil {
		return err
	}
	for _, b := range [][]byte{bktHeads, bktObservations, bktGenerations, bktRoots, bktForgotten} {
		if err := r.deleteAll(b, key(repo, "")); err != nil {
			return err
		}
	}
	return nil
}

// forgottenOf returns what is no longer known of a tree; the zero forgotten
// where that is nothing.
func forgottenOf(tx *bolt.Tx, repo, tree string) (f forgotten, err error) {
	err = get(tx, bktForgotten, key(repo, tree), &f, treeName(repo, tree))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return f, err
}

// forgottenAt returns a *ForgottenError where the state of a tree at t is no
// longer known. An instant that a snapshot holds is.
func forgottenAt(tx *bolt.Tx, repo, tree string, t time.Time) error {
	f, err := forgottenOf(tx, repo, tree)
	if err != nil || t.Before(f.First) || !t.Before(f.Since) {
		return err
	}
	pinned := false
	err = tx.Bucket(bktNames).ForEach(func(_, v []byte) error {
		var n named
		if err := json.Unmarshal(v, &n); err != nil {
			return err
		}
		pinned = pinned || n.Snapshot != nil && slices.ContainsFunc(n.Snapshot.Repos, func(f Frozen) bool {
			return f.Repo == repo && f.Edition == "" && f.At.Equal(t)
		})
		return nil
	})
	if err != nil || pinned {
		return err
	}
	return &ForgottenError{Repo: repo, Tree: tree, At: t, Since: f.Since}
}

// remembered returns a *ForgottenError where a tree that f would hold is no
// longer known at that instant.
func (c *Catalog) remembered(f Frozen) error {
	if f.Edition != "" {
		return nil
	}
	return c.db.View(func(tx *bolt.Tx) error {
		prefix := key(f.Repo, "")
		cur := tx.Bucket(bktForgotten).Cursor()
		for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
			if err := forgottenAt(tx, f.Repo, strings.TrimPrefix(string(k), string(prefix)), f.At.UTC().Truncate(time.Microsecond)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Since returns from when on all that was observed of a tree is known: its
// first observation, or the first behind which nothing is forgotten; the error
// is fs.ErrNotExist where there is none.
func (c *Catalog) Since(repo, tree string) (t time.Time, err error) {
	err = c.db.View(func(tx *bolt.Tx) error {
		f, err := forgottenOf(tx, repo, tree)
		if t = f.Since; err != nil || !t.IsZero() {
			return err
		}
		prefix := treeKey(repo, tree)
		k, v := tx.Bucket(bktObservations).Cursor().Seek(prefix)
		if !bytes.HasPrefix(k, prefix) {
			return fmt.Errorf("%s: %w", treeName(repo, tree), fs.ErrNotExist)
		}
		var o chantal.Observation
		err = json.Unmarshal(v, &o)
		t = o.Observed
		return err
	})
	return t, err
}
