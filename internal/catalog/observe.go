package catalog

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"chantal"
)

// Observe makes g, whose Number is ignored, the head of its tree, provided
// that the head is still was (the zero Observation: none), else the error is
// ErrConflict. The blobs of g have to be durable before.
//
// With the roots of an earlier generation (the same paths with the same
// digests) it is that generation again, as it was kept then; otherwise it gets
// the next number. Its time is now, or just after every time that the catalog
// has handed out before. Its Modified is modified (zero: its time) in whole
// seconds, and at least a second after that of the observation before.
func (c *Catalog) Observe(g chantal.Generation, was chantal.Observation, modified time.Time) (o chantal.Observation, err error) {
	if err := checkTree(g.Repo, g.Tree); err != nil {
		return o, err
	}
	if len(g.Roots) == 0 {
		return o, fmt.Errorf("%s: a generation without roots", treeName(g.Repo, g.Tree))
	}
	err = c.change(func() error {
		head, err := c.Head(g.Repo, g.Tree)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !sameObservation(head, was) {
			return ErrConflict
		}
		o = chantal.Observation{Repo: g.Repo, Tree: g.Tree}
		var fresh *chantal.Generation
		known, last, err := c.generationOf(g)
		switch {
		case err != nil:
			return err
		case known > 0:
			o.Generation = known
		default:
			g.Number = last + 1
			o.Generation, fresh = g.Number, &g
		}
		clock, err := c.clock()
		if err != nil {
			return err
		}
		o.Observed = c.now().UTC().Truncate(time.Microsecond)
		if !o.Observed.After(clock) {
			o.Observed = clock.Add(time.Microsecond)
		}
		if modified.IsZero() {
			modified = o.Observed
		}
		o.Modified = modified.UTC().Truncate(time.Second)
		if next := head.Modified.Add(time.Second); !head.Modified.IsZero() && o.Modified.Before(next) {
			o.Modified = next
		}
		return c.commit(repoLog(g.Repo), record{Type: typeObserved, V: 1, Observation: &o, Generation: fresh})
	})
	if err != nil {
		return chantal.Observation{}, fmt.Errorf("observing %s: %w", treeName(g.Repo, g.Tree), err)
	}
	return o, nil
}

// fingerprint identifies a set of roots, in whatever order.
func fingerprint(roots []chantal.RootFile) []byte {
	roots = slices.SortedFunc(slices.Values(roots), func(a, b chantal.RootFile) int { return cmp.Compare(a.Path, b.Path) })
	h := sha256.New()
	for _, r := range roots {
		fmt.Fprintf(h, "%q %q\n", r.Path, r.Digest)
	}
	return h.Sum(nil)
}

// generationOf returns the number of the generation with g's roots, or 0, and
// the highest number of its tree.
func (c *Catalog) generationOf(g chantal.Generation) (known, last int, err error) {
	tree := treeKey(g.Repo, g.Tree)
	err = c.db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(bktRoots).Get(append(tree[:len(tree):len(tree)], fingerprint(g.Roots)...)); b != nil {
			known = int(binary.BigEndian.Uint64(b))
		}
		if k, _ := lastBefore(tx.Bucket(bktGenerations).Cursor(), tree, number(1<<63)); k != nil {
			last = int(binary.BigEndian.Uint64(k[len(tree):]))
		}
		f, err := forgottenOf(tx, g.Repo, g.Tree)
		last = max(last, f.Last)
		return err
	})
	return known, last, err
}

// lastBefore returns the last entry whose key is prefix and then eight bytes
// that are less than end; nil if there is none.
func lastBefore(cur *bolt.Cursor, prefix, end []byte) (k, v []byte) {
	k, _ = cur.Seek(append(prefix[:len(prefix):len(prefix)], end...))
	if k == nil {
		k, v = cur.Last()
	} else {
		k, v = cur.Prev()
	}
	if !bytes.HasPrefix(k, prefix) {
		return nil, nil
	}
	return k, v
}

// Head returns the newest observation of a tree, or fs.ErrNotExist.
func (c *Catalog) Head(repo, tree string) (o chantal.Observation, err error) {
	err = c.get(bktHeads, key(repo, tree), &o, treeName(repo, tree))
	return o, err
}

// At returns the newest observation of a tree that was made at t or before;
// fs.ErrNotExist when there was none yet, a *ForgottenError, which is one, when
// that is no longer known. Once t is past, or Clock has returned it, the answer
// never changes but by being forgotten.
func (c *Catalog) At(repo, tree string, t time.Time) (o chantal.Observation, err error) {
	prefix := treeKey(repo, tree)
	err = c.db.View(func(tx *bolt.Tx) error {
		_, v := lastBefore(tx.Bucket(bktObservations).Cursor(), prefix, micros(t.Add(time.Microsecond)))
		if v == nil {
			return errors.Join(forgottenAt(tx, repo, tree, t), fs.ErrNotExist)
		}
		if err := forgottenAt(tx, repo, tree, t); err != nil {
			return err
		}
		return json.Unmarshal(v, &o)
	})
	if err != nil {
		return chantal.Observation{}, fmt.Errorf("%s at %s: %w", treeName(repo, tree), t.UTC().Format(time.RFC3339Nano), err)
	}
	return o, nil
}

// Observations returns all observations of a tree, the oldest first; none for
// a tree that was never seen.
func (c *Catalog) Observations(repo, tree string) (all []chantal.Observation, err error) {
	err = c.db.View(func(tx *bolt.Tx) error {
		all, err = observations(tx, repo, tree)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("observations of %s: %w", treeName(repo, tree), err)
	}
	return all, nil
}

func observations(tx *bolt.Tx, repo, tree string) (all []chantal.Observation, err error) {
	prefix := treeKey(repo, tree)
	cur := tx.Bucket(bktObservations).Cursor()
	for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
		var o chantal.Observation
		if err := json.Unmarshal(v, &o); err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// Generation returns generation n of a tree, or fs.ErrNotExist.
func (c *Catalog) Generation(repo, tree string, n int) (g chantal.Generation, err error) {
	k := append(treeKey(repo, tree), number(uint64(max(n, 0)))...)
	err = c.get(bktGenerations, k, &g, fmt.Sprintf("generation %d of %s", n, treeName(repo, tree)))
	return g, err
}

// Newest returns the generation of a tree's newest observation, or
// fs.ErrNotExist.
func (c *Catalog) Newest(repo, tree string) (g chantal.Generation, err error) {
	err = c.db.View(func(tx *bolt.Tx) error {
		var o chantal.Observation
		if err := get(tx, bktHeads, key(repo, tree), &o, treeName(repo, tree)); err != nil {
			return err
		}
		return get(tx, bktGenerations, append(treeKey(repo, tree), number(uint64(o.Generation))...), &g, treeName(repo, tree))
	})
	return g, err
}

// Trees returns the names of a repository's trees that have been observed,
// sorted; none for a repository that is not known.
func (c *Catalog) Trees(repo string) (trees []string, err error) {
	prefix := key(repo, "")
	err = c.db.View(func(tx *bolt.Tx) error {
		cur := tx.Bucket(bktHeads).Cursor()
		for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
			trees = append(trees, string(k[len(prefix):]))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("trees of %s: %w", repo, err)
	}
	return trees, nil
}

// TreesAt returns the trees that Trees would have returned at t: those that
// had been observed by then.
func (c *Catalog) TreesAt(repo string, t time.Time) (trees []string, err error) {
	prefix, end := key(repo, ""), micros(t)
	err = c.db.View(func(tx *bolt.Tx) error {
		heads, obs := tx.Bucket(bktHeads).Cursor(), tx.Bucket(bktObservations).Cursor()
		for k, _ := heads.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = heads.Next() {
			tree := string(k[len(prefix):])
			first, _ := obs.Seek(treeKey(repo, tree))
			if bytes.Compare(first[len(first)-len(end):], end) <= 0 {
				trees = append(trees, tree)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("trees of %s: %w", repo, err)
	}
	return trees, nil
}

// Want notes when plain paths of indexes were last asked for: tree → path →
// time. The later time wins. Nothing of it is recorded: after a loss of the
// database clients say it again.
func (c *Catalog) Want(repo string, wants map[string]map[string]time.Time) error {
	if err := checkRepo(repo); err != nil {
		return err
	}
	err := c.update(func(r *rows) error {
		b := r.tx.Bucket(bktWants)
		for tree, paths := range wants {
			if err := checkTree(repo, tree); err != nil {
				return err
			}
			for path, at := range paths {
				k, v := key(repo, tree, path), micros(at)
				if bytes.Compare(b.Get(k), v) >= 0 {
					continue
				}
				if err := r.put(bktWants, k, v); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("noting what clients want of %s: %w", repo, err)
	}
	return nil
}

// Wanted returns the paths of a tree that were asked for at since or later,
// sorted.
func (c *Catalog) Wanted(repo, tree string, since time.Time) (paths []string, err error) {
	prefix, from := treeKey(repo, tree), micros(since)
	err = c.db.View(func(tx *bolt.Tx) error {
		cur := tx.Bucket(bktWants).Cursor()
		for k, v := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = cur.Next() {
			if bytes.Compare(v, from) >= 0 {
				paths = append(paths, string(k[len(prefix):]))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("what clients want of %s: %w", treeName(repo, tree), err)
	}
	return paths, nil
}
