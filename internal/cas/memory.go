package cas

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"chantal"
	"chantal/internal/disk"
)

// While the disk takes no writes, what arrives goes to memory: small files
// whole, so that they can be opened like any other, and become durable when
// the disk takes writes again; of large ones no more than those who follow
// them have not read yet. So clients get their files, and nothing is stored.
const (
	wholeMax   = 32 << 20         // bytes up to which a file is kept whole
	windowMax  = 8 << 20          // bytes of a larger one that are there at a time
	laggardMax = 30 * time.Second // how long a follower that reads nothing may make the others wait
	probeSize  = 256 << 10        // bytes that a disk has to take before it is trusted again
)

// memory is a file that the disk did not take. The last to release it closes
// it.
type memory struct {
	*disk.Memory
	old      *disk.File // with what was written to disk before; may be nil; closed with the rest
	refs     atomic.Int32
	reserved int64  // bytes; guarded by Store.mu
	drop     func() // forgets it; called with Store.mu held
}

func newMemory() (*memory, error) {
	f, err := disk.NewMemory("chantal")
	if err != nil {
		return nil, err
	}
	m := &memory{Memory: f}
	m.refs.Store(1)
	return m, nil
}

func (m *memory) hold() *memory { m.refs.Add(1); return m }

func (m *memory) release() {
	if m.refs.Add(-1) > 0 {
		return
	}
	m.Close()
	if m.old != nil {
		m.old.Close()
	}
}

// size returns how many bytes are reserved for m.
func (m *memory) size(s *Store) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return m.reserved
}

// abandon gives m's bytes back, and releases it.
func (s *Store) abandon(m *memory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unkeep(m)
}

// reserve takes n more bytes for m, and drops the oldest files in memory where
// that is needed. It reports false when there is not that much.
func (s *Store) reserve(m *memory, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.reserved+n > s.o.MemoryMax {
		return false
	}
	for s.inMemory+n > s.o.MemoryMax && len(s.kept) > 0 {
		oldest := s.kept[0]
		oldest.drop()
		s.unkeep(oldest)
	}
	if s.inMemory+n > s.o.MemoryMax {
		return false
	}
	s.inMemory += n
	m.reserved += n
	return true
}

// keep lets m stay until it is dropped. s.mu is held.
func (s *Store) keep(m *memory, drop func()) {
	m.drop = drop
	s.kept = append(s.kept, m)
}

// unkeep gives m's bytes back, and releases it. s.mu is held.
func (s *Store) unkeep(m *memory) {
	for i, k := range s.kept {
		if k == m {
			s.kept = append(s.kept[:i:i], s.kept[i+1:]...)
			break
		}
	}
	s.inMemory -= m.reserved
	m.reserved = 0
	m.release()
}

// trouble notes that the disk failed with err, which is returned as a
// *chantal.DiskError. The committer tries the disk until it takes writes again.
func (s *Store) trouble(err error) error {
	d := &chantal.DiskError{
		Dir: s.dir, Err: cause(err),
		Full: errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT),
	}
	s.failures.Add(1)
	s.mu.Lock()
	first := s.health == nil
	s.health = d
	s.mu.Unlock()
	if first {
		s.log.Error("the disk does not take what is to be kept: it is passed on from memory, and not stored, until the disk takes writes again",
			"data", s.dir, "full", d.Full, "error", d.Err)
	}
	signal(s.wake)
	return d
}

// Failures returns how many writes the disk has refused since the start.
func (s *Store) Failures() int64 { return s.failures.Load() }

// InMemory returns how many bytes lie in memory because the disk did not take
// them.
func (s *Store) InMemory() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.inMemory
}

// probe tries whether the disk takes writes.
func (s *Store) probe() error {
	name := s.temp(filepath.Join(s.dir, "blobs", "00"))
	f, err := s.disk.Create(name, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeSize))
	err = errors.Join(err, f.Sync(), f.Close())
	return errors.Join(err, s.disk.Remove(name))
}

// putInMemory makes content, which the disk refused with err, part of the store
// for as long as there is room.
func (s *Store) putInMemory(b Blob, content []byte, aliases []string, err error) (Blob, error) {
	m, merr := newMemory()
	if merr != nil {
		return Blob{}, errors.Join(err, merr)
	}
	if !s.reserve(m, b.Size) {
		m.release()
		return Blob{}, err
	}
	if _, merr := m.Write(content); merr != nil {
		s.abandon(m)
		return Blob{}, errors.Join(err, merr)
	}
	return s.admit(b, "", m, aliases)
}

// openPending opens a file on its way to its final name; nil where there is
// none, and path where it lies on disk.
func (s *Store) openPending(d chantal.Digest) (f *disk.File, path string, b Blob, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.pending[d]
	switch {
	case e == nil:
		return nil, "", Blob{}, nil
	case e.mem != nil:
		f, err = e.mem.Reopen() // while the lock is held it cannot be dropped
		return f, "", e.blob, err
	}
	return nil, e.path, e.blob, nil
}

// forget drops an entry whose bytes are in memory. s.mu is held.
func (s *Store) forget(e *entry) {
	e.dropped = true
	if s.pending[e.blob.Digest] == e {
		delete(s.pending, e.blob.Digest)
	}
	for _, a := range e.aliases {
		delete(s.aliases, a)
	}
}

// derivedInMemory keeps what write writes under a key of the derived files that
// the disk refused with err.
func (s *Store) derivedInMemory(key string, write func(io.Writer) error, err error) error {
	m, merr := newMemory()
	if merr != nil {
		return errors.Join(err, merr)
	}
	if merr := write(&reserving{s, m}); merr != nil {
		s.abandon(m)
		return fmt.Errorf("derived file %s: %w", key, errors.Join(err, merr))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.derivedMem[key]; old != nil {
		s.unkeep(old)
	}
	s.derivedMem[key] = m
	s.keep(m, func() { delete(s.derivedMem, key) })
	return nil
}

// derivedOf opens a derived file that is in memory; nil where there is none.
func (s *Store) derivedOf(key string) (*disk.File, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if m := s.derivedMem[key]; m != nil {
		return m.Reopen()
	}
	return nil, nil
}

// reserving writes to memory as long as there is room.
type reserving struct {
	s *Store
	m *memory
}

func (w *reserving) Write(p []byte) (int, error) {
	if !w.s.reserve(w.m, int64(len(p))) {
		return 0, errors.New("there is no more room in memory")
	}
	return w.m.Write(p)
}
