package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"chantal"
)

// uncleanName is a file that is there while a process works in the folder, and
// stays behind when that does not end well. Its mtime is a time at which
// everything was in order, at most useEvery before the end.
const uncleanName = "unclean"

// doubtFor is how long before that time a blob must have been written to be
// beyond doubt. Blobs are synced before they get their names; but disks have
// been seen that forget what they said was written.
const doubtFor = 10 * time.Minute

// doubt is what is not certain after a run that did not end well: blobs that
// were written or used between since and until are read before they are handed
// out, and all of them in the background.
type doubt struct {
	since, until time.Time // zero: no doubt
	sound        map[chantal.Digest]bool
}

// begin leaves a mark that a process works here, or finds that of one that did
// not end well.
func (s *Store) begin() error {
	path := filepath.Join(s.dir, uncleanName)
	fi, err := s.disk.Stat(path)
	if err == nil {
		s.doubt = doubt{since: fi.ModTime().Add(-doubtFor), until: time.Now(), sound: make(map[chantal.Digest]bool)}
		// Derived files are not synced: what was written last may be there in
		// part, and look whole.
		s.dropDerived(func(f fs.DirEntry) bool {
			fi, err := f.Info()
			return err == nil && !fi.ModTime().Before(s.doubt.since)
		}, true)
		s.bg.Go(s.resolveDoubt)
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.disk.Create(path, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), s.disk.Sync(s.dir))
}

// inOrder notes that everything is in order now.
func (s *Store) inOrder() {
	if s.inDoubt() || s.Health() != nil {
		return
	}
	now := time.Now()
	// Failing makes more blobs doubtful than need be, no more.
	_ = s.disk.Times(filepath.Join(s.dir, uncleanName), now, now)
}

// end takes the mark away after a run that ended well.
func (s *Store) end() {
	if !s.inDoubt() && s.Health() == nil {
		_ = s.disk.Remove(filepath.Join(s.dir, uncleanName))
	}
}

func (s *Store) inDoubt() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return !s.doubt.since.IsZero()
}

// doubtful reports whether the blob in the file fi is to be read before it is
// handed out.
func (s *Store) doubtful(d chantal.Digest, fi fs.FileInfo) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.doubt.since.IsZero() || s.doubt.sound[d] {
		return false
	}
	at := lastChange(fi)
	return !at.Before(s.doubt.since) && !at.After(s.doubt.until)
}

// sound notes that a blob has been read and is what its name says.
func (s *Store) sound(d chantal.Digest) {
	if !s.inDoubt() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doubt.sound != nil {
		s.doubt.sound[d] = true
	}
}

// resolveDoubt reads every doubtful blob. Folders in which nothing was written
// are not even listed.
func (s *Store) resolveDoubt() {
	since, start, n, damaged := s.doubt.since, time.Now(), 0, s.Damaged()
	for i := range 256 {
		fi, err := s.disk.Stat(s.shard(i))
		if err == nil && fi.ModTime().Before(since) {
			continue
		}
		err = s.walkShard(i, func(b Blob, fi fs.FileInfo) error {
			if !s.doubtful(b.Digest, fi) {
				return nil
			}
			n++
			_, _, err := s.Check(context.Background(), b.Digest, nil, func(int) error {
				if s.isClosed() {
					return fs.ErrClosed
				}
				return nil
			})
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		if err != nil {
			if !errors.Is(err, fs.ErrClosed) {
				s.log.Error("checking what was written before the last run ended", "error", err)
			}
			return // the doubt stays
		}
	}
	s.mu.Lock()
	s.doubt = doubt{}
	s.mu.Unlock()
	s.inOrder()
	if n > 0 {
		s.log.Info("the last run did not end well: read what it wrote at its end", "blobs", n,
			"damaged", s.Damaged()-damaged, "took", time.Since(start).Round(time.Millisecond))
	}
}

// shard returns one of the 256 folders of blobs.
func (s *Store) shard(i int) string { return filepath.Join(s.dir, "blobs", fmt.Sprintf("%02x", i)) }
