package cas

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"chantal"
	"chantal/internal/disk"
)

// damagedDir is where blobs go that are not what their names say.
const damagedDir = "damaged"

// DamagedError says that a blob was not what its name says. It has been set
// aside, so it is a fs.ErrNotExist: the file can be fetched again.
type DamagedError struct {
	Digest chantal.Digest
	Why    string
}

func (e *DamagedError) Error() string { return fmt.Sprintf("blob %s is damaged: %s", e.Digest, e.Why) }

// Is reports that the blob is not there any more.
func (e *DamagedError) Is(target error) bool { return target == fs.ErrNotExist }

// Check reads the whole blob with the SHA-256 d. Where its bytes are others, or
// the disk cannot read them, it is set aside under damaged/ and the error is a
// *DamagedError. fs.ErrNotExist alone means that there is none.
//
// also are other digests that the blob is known by; those that it does not have
// are returned as wrong. pace, when not nil, is called with the number of bytes
// after each read, of 256 KiB at most, and its error ends the check.
func (s *Store) Check(ctx context.Context, d chantal.Digest, also []chantal.Digest, pace func(n int) error) (b Blob, wrong []chantal.Digest, err error) {
	if d, err = sha256Digest(d); err != nil {
		return Blob{}, nil, err
	}
	for range 3 { // another copy may take its place meanwhile
		s.mu.RLock()
		e := s.pending[d]
		s.mu.RUnlock()
		if e != nil && len(also) == 0 {
			return e.blob, nil, nil // hashed as it arrived
		}
		f, fi, err := s.openBlob(d)
		if err != nil {
			return Blob{}, nil, err
		}
		sums, n, err := readSums(ctx, f, also, pace)
		f.Close()
		why := ""
		switch {
		case errors.Is(err, syscall.EIO):
			why = "the disk cannot read it"
		case err != nil:
			return Blob{}, nil, fmt.Errorf("reading blob %s: %w", d, cause(err))
		case sums["sha256"] != d:
			why = fmt.Sprintf("its %d bytes have the digest %s", n, sums["sha256"])
		default:
			for _, a := range also {
				if sums[a.Algo()] != a {
					wrong = append(wrong, a)
				}
			}
			s.sound(d)
			return blobOf(d, fi), wrong, nil
		}
		if s.setAside(d, fi, why) {
			return blobOf(d, fi), nil, &DamagedError{d, why}
		}
	}
	return Blob{}, nil, fmt.Errorf("blob %s changes all the time: %w", d, fs.ErrInvalid)
}

// openBlob opens a durable blob that is not known to be damaged.
func (s *Store) openBlob(d chantal.Digest) (*disk.File, fs.FileInfo, error) {
	s.mu.RLock()
	refused := s.refused[d]
	s.mu.RUnlock()
	if refused {
		return nil, nil, fmt.Errorf("blob %s is damaged: %w", d, fs.ErrNotExist)
	}
	f, err := s.disk.Open(s.blobPath(d))
	if err != nil {
		return nil, nil, fmt.Errorf("blob %s: %w", d, cause(err))
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("blob %s: %w", d, cause(err))
	}
	return f, fi, nil
}

// readSums reads r to its end and returns its SHA-256 and the digests with the
// other algorithms of also, by algorithm, and its length.
func readSums(ctx context.Context, r io.Reader, also []chantal.Digest, pace func(n int) error) (map[string]chantal.Digest, int64, error) {
	sums := newSums(also)
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	b := (*buf)[:chunk]
	var n int64
	for {
		if err := ctx.Err(); err != nil {
			return nil, n, err
		}
		got, err := io.ReadFull(r, b)
		sums.write(b[:got])
		n += int64(got)
		if pace != nil {
			if err := pace(got); err != nil {
				return nil, n, err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return nil, n, err
		}
	}
	all := make(map[string]chantal.Digest, len(sums.algos))
	for i, algo := range sums.algos {
		all[algo] = chantal.Digest(algo + ":" + hex.EncodeToString(sums.hashes[i].Sum(nil)))
	}
	return all, n, nil
}

// setAside moves the file fi, which has the name d and not its bytes, out of
// the way. It reports false where another file has that name by now, or is
// about to get it.
func (s *Store) setAside(d chantal.Digest, fi fs.FileInfo, why string) (gone bool) {
	if err := s.Shrink(func() error { gone = s.moveAside(d, fi, why); return nil }); err != nil {
		s.log.Warn("a damaged blob is set aside", "blob", d, "error", err)
		gone = s.moveAside(d, fi, why)
	}
	return gone
}

func (s *Store) moveAside(d chantal.Digest, fi fs.FileInfo, why string) bool {
	from, to := s.blobPath(d), filepath.Join(s.dir, damagedDir, d.Hex())
	s.mu.Lock()
	if s.pending[d] != nil {
		s.mu.Unlock()
		return false
	}
	if now, err := s.disk.Stat(from); err != nil || !disk.Same(now, fi) {
		s.mu.Unlock()
		return errors.Is(err, fs.ErrNotExist) // somebody else has set it aside
	}
	err := s.disk.Rename(from, to)
	s.aside[d] = true
	if err != nil {
		// It stays where it is until another copy takes its place.
		s.refused[d] = true
	}
	s.mu.Unlock()
	s.damaged.Add(1)
	if err == nil {
		s.usage.add(d, -1, -fi.Size())
		s.log.Error("a stored blob is damaged; it is set aside and fetched again when it is asked for", "blob", d, "why", why, "file", to)
	} else {
		s.log.Error("a stored blob is damaged; it cannot be set aside and is refused", "blob", d, "why", why, "file", from, "error", err)
	}
	s.dropDerived(func(f fs.DirEntry) bool { return strings.Contains(f.Name(), d.Hex()) }, true)
	// Should a crash undo the renaming, the damage is found again.
	if err == nil {
		_ = s.disk.Sync(filepath.Dir(to))
		_ = s.disk.Sync(filepath.Dir(from))
	}
	return true
}

// Damaged returns how many blobs were found damaged since the start. Whoever
// keeps copies of blobs drops them when it rises.
func (s *Store) Damaged() int64 { return s.damaged.Load() }

// replaceDamaged forgets the damaged copies of what is stored again.
func (s *Store) replaceDamaged(stored []chantal.Digest) {
	for _, d := range stored {
		s.mu.Lock()
		was, refused := s.aside[d], s.refused[d]
		delete(s.aside, d)
		delete(s.refused, d)
		s.mu.Unlock()
		if !was || refused {
			continue
		}
		if err := s.disk.Remove(filepath.Join(s.dir, damagedDir, d.Hex())); err != nil {
			s.log.Warn("removing a damaged blob that was replaced", "blob", d, "error", cause(err))
		}
	}
}

// WasDamaged reports whether the blob with the SHA-256 d was found damaged, by
// this run or an earlier one, and has not been stored again since.
func (s *Store) WasDamaged(d chantal.Digest) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.aside[d]
}

// SetAside returns the blobs that were found damaged, by this run or an earlier
// one, and of which there is no other copy yet; sorted.
func (s *Store) SetAside() []chantal.Digest {
	s.mu.RLock()
	all := slices.Sorted(maps.Keys(s.aside))
	s.mu.RUnlock()
	// What was stored again is so a moment before that is noted.
	return slices.DeleteFunc(all, func(d chantal.Digest) bool {
		_, err := s.Find("", d)
		return !errors.Is(err, fs.ErrNotExist)
	})
}

// loadAside learns what earlier runs set aside.
func (s *Store) loadAside() error {
	files, err := s.disk.List(filepath.Join(s.dir, damagedDir))
	if err != nil {
		return err
	}
	for _, f := range files {
		if d, err := chantal.NewDigest("sha256", f.Name()); err == nil {
			s.aside[d] = true
		}
	}
	return nil
}
