package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"chantal"
)

var (
	errDamaged   = errors.New("its rows are not those that were written")
	errOlder     = errors.New("it has no sum of its rows, as those of earlier versions")
	errUnchanged = errors.New("there was nothing to write")
)

// rows is a transaction that writes. All changes go through it, for it keeps
// the sum of all rows up to date, by which Open sees whether each is still what
// was written: bbolt itself has a checksum for its first two pages only.
type rows struct {
	tx      *bolt.Tx
	sum     [sha256.Size]byte // of all rows but its own: their hashes, combined by exclusive or
	changed bool
}

// update runs f in a transaction that writes: the only way to change the
// database. Where f changes nothing, nothing is written. What the disk refuses
// is a *chantal.DiskError.
func (c *Catalog) update(f func(*rows) error) error {
	err := c.disk.Update(c.path, func() error {
		return c.db.Update(func(tx *bolt.Tx) error {
			r := &rows{tx: tx}
			copy(r.sum[:], tx.Bucket(bktMeta).Get(keySum))
			if err := f(r); err != nil {
				return err
			}
			if !r.changed {
				return errUnchanged
			}
			return tx.Bucket(bktMeta).Put(keySum, r.sum[:])
		})
	})
	var disk syscall.Errno
	switch {
	case errors.Is(err, errUnchanged):
		return nil
	case errors.As(err, &disk):
		return &chantal.DiskError{Dir: filepath.Dir(c.path), Full: disk == syscall.ENOSPC || disk == syscall.EDQUOT, Err: disk}
	}
	return err
}

// toggle adds a row to the sum, or takes it out.
func (r *rows) toggle(bucket, key, value []byte) {
	r.changed = true
	h := sha256.New()
	var n [8]byte
	for _, part := range [...][]byte{bucket, key, value} {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	var one [sha256.Size]byte
	for i, b := range h.Sum(one[:0]) {
		r.sum[i] ^= b
	}
}

// put sets a row.
func (r *rows) put(bucket, key, value []byte) error {
	b := r.tx.Bucket(bucket)
	if old := b.Get(key); bytes.Equal(old, value) && old != nil {
		return nil
	} else if old != nil {
		r.toggle(bucket, key, old)
	}
	r.toggle(bucket, key, value)
	return b.Put(key, value)
}

// putJSON sets a row to v.
func (r *rows) putJSON(bucket, key []byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.put(bucket, key, b)
}

// delete removes a row, if it is there.
func (r *rows) delete(bucket, key []byte) error {
	b := r.tx.Bucket(bucket)
	if old := b.Get(key); old != nil {
		r.toggle(bucket, key, old)
	}
	return b.Delete(key)
}

// deleteAll removes the rows whose keys begin with prefix.
func (r *rows) deleteAll(bucket, prefix []byte) error {
	var keys [][]byte // no cursor survives a deletion
	cur := r.tx.Bucket(bucket).Cursor()
	for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cur.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := r.delete(bucket, k); err != nil {
			return err
		}
	}
	return nil
}

// clear empties the buckets that records fill, and takes the sum of what is
// left.
func (r *rows) clear() error {
	for _, b := range recorded {
		if err := r.tx.DeleteBucket(b); err != nil {
			return err
		}
		if _, err := r.tx.CreateBucket(b); err != nil {
			return err
		}
	}
	r.sum, r.changed = [sha256.Size]byte{}, true
	return r.tx.Bucket(bktWants).ForEach(func(k, v []byte) error { r.toggle(bktWants, k, v); return nil })
}

func isSum(bucket, key []byte) bool { return bytes.Equal(bucket, bktMeta) && bytes.Equal(key, keySum) }

// raiseClock makes sure that no later time is t or before it.
func (r *rows) raiseClock(t time.Time) error {
	if old := r.tx.Bucket(bktMeta).Get(keyClock); old != nil && !t.After(microTime(old)) {
		return nil
	}
	return r.put(bktMeta, keyClock, micros(t))
}

// check reads every row: a page that is not there shows as a fault, and rows
// that are not what was written by their sum.
func check(tx *bolt.Tx) error {
	r := &rows{tx: tx}
	for _, name := range buckets() {
		b := tx.Bucket(name)
		if b == nil {
			return fmt.Errorf("it has no bucket %s: %w", name, errDamaged)
		}
		err := b.ForEach(func(k, v []byte) error {
			if !isSum(name, k) {
				r.toggle(name, k, v)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	switch sum := tx.Bucket(bktMeta).Get(keySum); {
	case sum == nil:
		return errOlder
	case !bytes.Equal(r.sum[:], sum):
		return errDamaged
	}
	return nil
}

// extend makes the buckets that databases of earlier versions lack.
func (c *Catalog) extend(db *bolt.DB) error {
	lacks := false
	err := db.View(func(tx *bolt.Tx) error {
		lacks = tx.Bucket(bktMeta) != nil && tx.Bucket(bktForgotten) == nil
		return nil
	})
	if err != nil || !lacks {
		return err
	}
	return c.disk.Update(c.path, func() error {
		return db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket(bktForgotten); return err })
	})
}

// layOut makes the buckets of a new database.
func layOut(tx *bolt.Tx) error {
	for _, name := range buckets() {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bktMeta).Put(keySum, make([]byte, sha256.Size))
}
