package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"path/filepath"
	"runtime/debug"
	"slices"

	bolt "go.etcd.io/bbolt"

	"chantal/internal/disk"
)

// ErrDamaged means that the database cannot be used, or knows of records that
// are not there. Remake makes another one.
var ErrDamaged = errors.New("the catalog is damaged")

// Check compares the database with the records and returns what differs, one
// sentence each; nothing is what is wanted. Nobody commits meanwhile. The error
// is about reading the records.
func (c *Catalog) Check() (findings []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.behind {
		if err := c.catchUp(); err != nil {
			return nil, fmt.Errorf("catching up with the records: %w", err)
		}
	}
	if c.replaced() {
		findings = append(findings, c.path+" was removed or replaced while it is in use")
	}
	err = guard(func() error {
		tx, err := c.db.Begin(true)
		if err != nil {
			return err
		}
		// Rehearsing the rebuild tells what it would change.
		defer tx.Rollback()
		for err := range tx.Check() {
			findings = append(findings, "the catalog is damaged: "+err.Error())
		}
		seed := maphash.MakeSeed()
		have := contents(tx, seed)
		if err := c.refill(&rows{tx: tx}); err != nil {
			return err
		}
		findings = append(findings, differences(have, contents(tx, seed))...)
		return nil
	})
	if errors.Is(err, ErrDamaged) {
		return append(findings, err.Error()), nil
	}
	if err != nil {
		return nil, fmt.Errorf("comparing the catalog with its records: %w", err)
	}
	return findings, nil
}

// guard turns the panics and faults with which bbolt answers damage into
// ErrDamaged.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return f()
}

// refill empties the buckets that records fill, and replays the records.
func (c *Catalog) refill(r *rows) error {
	if err := r.clear(); err != nil {
		return err
	}
	return c.replay(r)
}

// contents returns a hash of the value of each key, by bucket; without the
// clock, which may be ahead of the records.
func contents(tx *bolt.Tx, seed maphash.Seed) map[string]map[string]uint64 {
	all := make(map[string]map[string]uint64)
	for _, name := range recorded {
		if bytes.Equal(name, bktMeta) {
			continue
		}
		values := make(map[string]uint64)
		_ = tx.Bucket(name).ForEach(func(k, v []byte) error {
			values[string(k)] = maphash.Bytes(seed, v)
			return nil
		})
		all[string(name)] = values
	}
	return all
}

// differences says how the database differs from what the records give.
func differences(have, want map[string]map[string]uint64) []string {
	var all []string
	for _, name := range recorded {
		bucket := string(name)
		var extra, missing, other int
		for k, v := range have[bucket] {
			if w, ok := want[bucket][k]; !ok {
				extra++
			} else if v != w {
				other++
			}
		}
		for k := range want[bucket] {
			if _, ok := have[bucket][k]; !ok {
				missing++
			}
		}
		if extra+missing+other > 0 {
			all = append(all, fmt.Sprintf("the catalog differs from the records in its %s: %d too many, %d missing, %d different", bucket, extra, missing, other))
		}
	}
	slices.Sort(all)
	return all
}

// replaced reports whether the file that is open is no longer the one with the
// catalog's name.
func (c *Catalog) replaced() bool {
	now, err := c.disk.Stat(c.path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && c.file != nil && !disk.Same(now, c.file)
}

// Remake makes the catalog in the file path anew from the records of log, while
// nobody has it open; what Open refuses, too. A database that can be read keeps
// what clients want; another one is kept beside the new one as path.old. The
// error says what is wrong with the records; nothing has changed then.
func Remake(path string, log Log, o Options) error {
	c, err := Open(path, log, o)
	if err == nil {
		return errors.Join(c.Rebuild(), c.Close())
	}
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	old := path + ".old"
	if err := o.Disk.Rename(path, old); err != nil {
		return fmt.Errorf("putting the damaged catalog aside: %w", err)
	}
	c, err = Open(path, log, o)
	if err != nil {
		return errors.Join(fmt.Errorf("making the catalog anew: %w", err), o.Disk.Rename(old, path))
	}
	return errors.Join(c.Close(), o.Disk.Sync(filepath.Dir(path)))
}
