package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"chantal"
	"chantal/internal/disk"
)

// syncWorkers is how many files are synced side by side: the journal commits
// them together.
const syncWorkers = 8

// retryEvery is how long the committer waits after a disk error.
const retryEvery = time.Second

// entry is a verified file on its way to its final name.
type entry struct {
	blob    Blob
	path    string   // where the bytes are now; guarded by Store.mu; "" in memory, or when only aliases are new
	mem     *memory  // where they are else; guarded by Store.mu
	dropped bool     // from memory, for want of room; guarded by Store.mu
	aliases []string // relative to the store
	suspect bool     // a sync failed: the kernel may have dropped pages that it calls clean
	err     error    // of the last attempt; the committer's
	dirs    []string // to be synced; the committer's
}

// admit makes a verified file, whose bytes are at temp, part of the store. It
// returns the blob as stored: one that was there before keeps its date, and
// temp is removed. Without a temp the blob has to be there; the error is
// fs.ErrNotExist when it is not.
func (s *Store) admit(b Blob, temp string, mem *memory, aliases []string) (Blob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		if mem != nil {
			s.unkeep(mem)
		} else {
			s.disk.Remove(temp)
		}
		return Blob{}, fmt.Errorf("store: %w", fs.ErrClosed)
	}
	s.touch(b.Digest)
	e := &entry{blob: b, path: temp, mem: mem, aliases: aliases}
	final := s.blobPath(b.Digest)
	if p := s.pending[b.Digest]; p != nil {
		e.blob, e.path, e.mem = p.blob, "", nil
	} else if fi, err := s.disk.Stat(final); err == nil && fi.Size() == b.Size && !s.refused[b.Digest] {
		e.blob, e.path, e.mem = blobOf(b.Digest, fi), "", nil
		if !s.settled[filepath.Dir(final)] {
			// It may have its name from a process that was killed before the
			// name was durable.
			e.path = final
		}
	} else if temp == "" && mem == nil {
		return Blob{}, fmt.Errorf("blob %s: %w", b.Digest, fs.ErrNotExist)
	}
	switch {
	case e.path != temp && temp != "":
		s.disk.Remove(temp)
	case mem != nil && e.mem == nil:
		s.unkeep(mem)
	case mem != nil:
		s.keep(mem, func() { s.forget(e) })
	}
	if e.path != "" || e.mem != nil {
		s.pending[b.Digest] = e
	}
	for _, a := range aliases {
		s.aliases[a] = b.Digest
	}
	if e.path == "" && e.mem == nil && len(aliases) == 0 {
		return e.blob, nil
	}
	s.queue = append(s.queue, e)
	signal(s.wake)
	if len(s.queue) >= s.o.SyncFiles {
		signal(s.full)
	}
	return e.blob, nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// hurry makes the committer run a batch at once.
func (s *Store) hurry() { signal(s.full) }

// Sync returns when everything committed before the call is durable, or with
// the reason why it is not.
func (s *Store) Sync(ctx context.Context) error {
	done := make(chan error, 1)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.bg.Wait()
		return s.Health()
	}
	s.syncs = append(s.syncs, done)
	s.mu.Unlock()
	s.hurry()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the disk: %w", context.Cause(ctx))
	}
}

// commitLoop is the only goroutine that gives files their final names.
func (s *Store) commitLoop() {
	uses := time.NewTicker(useEvery)
	defer uses.Stop()
	for {
		select {
		case <-s.wake:
			wait := s.o.SyncEvery
			if s.Health() != nil {
				wait = max(wait, retryEvery)
			}
			timer := time.NewTimer(wait)
			select {
			case <-s.full:
			case <-timer.C:
			}
			timer.Stop()
		case <-s.full:
		case <-uses.C:
			s.flushUses()
			s.dropPartials(time.Now())
			s.inOrder()
			continue
		}
		s.batch()
		if s.isClosed() {
			s.batch() // what came in before closed was seen
			s.flushUses()
			return
		}
	}
}

// batch makes all that waits durable, and keeps what fails for the next one.
func (s *Store) batch() {
	s.mu.Lock()
	batch, syncs := s.queue, s.syncs
	s.queue, s.syncs = nil, nil
	ill := s.health != nil
	s.mu.Unlock()
	if ill {
		if err := s.probe(); err != nil {
			err = s.trouble(err)
			s.mu.Lock()
			s.queue = append(batch, s.queue...)
			s.mu.Unlock()
			for _, done := range syncs {
				done <- err
			}
			return
		}
	}

	bad := s.settle(batch)
	var failed []*entry
	var stored []chantal.Digest
	var first error
	for _, e := range batch {
		for _, d := range e.dirs {
			if e.err == nil && bad[d] != nil {
				e.err = bad[d]
			}
		}
		if e.err != nil && !s.isDropped(e) {
			failed = append(failed, e)
			first = errors.Join(first, fmt.Errorf("making blob %s durable: %w", e.blob.Digest, e.err))
		} else if e.err == nil && e.path != "" {
			stored = append(stored, e.blob.Digest)
		}
	}
	s.finish(batch, failed)
	s.note(stored)
	s.replaceDamaged(stored)
	switch {
	case first != nil:
		first = s.trouble(first)
	case ill:
		s.recovered()
	}
	for _, done := range syncs {
		done <- first
	}
}

// finish forgets what is durable now and queues the rest again.
func (s *Store) finish(batch, failed []*entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range batch {
		if e.err != nil {
			continue
		}
		if s.pending[e.blob.Digest] == e {
			delete(s.pending, e.blob.Digest)
		}
		for _, a := range e.aliases {
			delete(s.aliases, a)
		}
	}
	s.queue = append(failed, s.queue...)
}

// recovered notes that the disk takes writes again.
func (s *Store) recovered() {
	s.mu.Lock()
	s.health = nil
	s.mu.Unlock()
	s.log.Info("the disk takes writes again", "data", s.dir)
}

func (s *Store) isDropped(e *entry) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return e.dropped
}

// settle makes the entries durable under their final names, as far as their
// errors do not say otherwise. It returns the folders that could not be synced,
// with the reason.
func (s *Store) settle(batch []*entry) (bad map[string]error) {
	each := func(do func(*entry) error) {
		var g errgroup.Group
		g.SetLimit(syncWorkers)
		for _, e := range batch {
			if e.err == nil {
				g.Go(func() error { e.err = do(e); return nil })
			}
		}
		g.Wait()
	}
	for _, e := range batch {
		e.err, e.dirs = nil, nil
	}
	each(s.prepare)
	many := len(batch) >= s.o.SyncAll
	if many {
		err := s.disk.SyncAll(s.dir)
		if many = !errors.Is(err, errors.ErrUnsupported); many && err != nil {
			for _, e := range batch {
				e.err, e.suspect = err, e.suspect || e.path != "" && e.err == nil
			}
		}
	}
	if !many {
		each(s.syncFile)
	}
	each(s.name)
	dirs := map[string]bool{}
	for _, e := range batch {
		for _, d := range e.dirs {
			dirs[d] = true
		}
	}
	if many {
		return s.syncAll(dirs)
	}
	return s.syncDirs(dirs)
}

// unnamed reports whether the entry's bytes are not yet under the final name.
func (s *Store) unnamed(e *entry) bool {
	return e.mem != nil || e.path != "" && e.path != s.blobPath(e.blob.Digest)
}

// prepare brings the bytes of an entry into a file that can be synced.
func (s *Store) prepare(e *entry) error {
	if !s.unnamed(e) {
		return nil
	}
	if e.suspect || e.mem != nil {
		if err := s.copyAnew(e, filepath.Dir(s.blobPath(e.blob.Digest))); err != nil {
			return err
		}
	}
	return s.disk.Times(e.path, time.Now(), e.blob.Modified)
}

func (s *Store) syncFile(e *entry) error {
	if !s.unnamed(e) {
		return nil
	}
	err := s.disk.Sync(e.path)
	e.suspect = e.suspect || err != nil
	return err
}

// name gives a synced file its final name, and writes its aliases.
func (s *Store) name(e *entry) error {
	if e.path != "" {
		final := s.blobPath(e.blob.Digest)
		if e.path != final {
			replaced, _ := s.disk.Stat(final) // a damaged one that could not be moved away
			if err := s.disk.Rename(e.path, final); err != nil {
				return err
			}
			if replaced != nil {
				s.usage.add(e.blob.Digest, -1, -replaced.Size())
			}
			s.usage.add(e.blob.Digest, 1, e.blob.Size)
			s.mu.Lock()
			e.path = final
			s.mu.Unlock()
		}
		e.dirs = append(e.dirs, filepath.Dir(final))
	}
	for _, a := range e.aliases {
		dirs, err := s.writeAlias(a, e.blob.Digest)
		if err != nil {
			return fmt.Errorf("alias %s: %w", a, err)
		}
		e.dirs = append(e.dirs, dirs...)
	}
	return nil
}

// copyAnew writes the bytes to another file in dir: they are in memory; or a
// sync failed, and a second one on the same file can succeed without the bytes
// being on disk.
func (s *Store) copyAnew(e *entry, dir string) error {
	from, err := s.openEntry(e)
	if err != nil {
		return err
	}
	defer from.Close()
	tmp := s.temp(dir)
	to, err := s.disk.Create(tmp, 0o444)
	if err != nil {
		return err
	}
	sums := newSums(nil)
	n, err := io.Copy(io.MultiWriter(to, sums.hashes[0]), from)
	if err == nil {
		_, err = sums.check(Want{Path: e.path, Digests: []chantal.Digest{e.blob.Digest}}, e.blob.Size, n)
	}
	if err = errors.Join(err, to.Close()); err != nil {
		s.disk.Remove(tmp)
		return err
	}
	s.mu.Lock()
	old, mem := e.path, e.mem
	e.path, e.mem, e.suspect = tmp, nil, false
	if mem != nil && !e.dropped {
		s.unkeep(mem)
	}
	s.mu.Unlock()
	if mem != nil {
		return nil
	}
	return s.disk.Remove(old)
}

// openEntry opens the bytes of an entry where they are now.
func (s *Store) openEntry(e *entry) (*disk.File, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case e.dropped:
		return nil, fs.ErrNotExist
	case e.mem != nil:
		return e.mem.Reopen()
	}
	return s.disk.Open(e.path)
}

// syncAll syncs folders together, and returns those with the error where that
// failed.
func (s *Store) syncAll(dirs map[string]bool) map[string]error {
	err := s.disk.SyncAll(s.dir)
	bad := make(map[string]error)
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := range dirs {
		if s.settled[d] = err == nil; err != nil {
			bad[d] = err
		}
	}
	return bad
}

// syncDirs syncs folders one by one and returns the errors.
func (s *Store) syncDirs(dirs map[string]bool) map[string]error {
	var mu sync.Mutex
	bad := make(map[string]error)
	var g errgroup.Group
	g.SetLimit(syncWorkers)
	for _, d := range slices.Sorted(maps.Keys(dirs)) {
		g.Go(func() error {
			err := s.disk.Sync(d)
			s.mu.Lock()
			s.settled[d] = err == nil
			s.mu.Unlock()
			if err != nil {
				mu.Lock()
				bad[d] = err
				mu.Unlock()
			}
			return nil
		})
	}
	g.Wait()
	return bad
}

// flushUses writes when blobs were last opened.
func (s *Store) flushUses() {
	s.useMu.Lock()
	used := s.used
	s.used = make(map[chantal.Digest]time.Time)
	s.useMu.Unlock()
	for d, at := range used {
		// A zero time leaves the mtime alone. A failure only makes the blob
		// look older than it is.
		s.disk.Times(s.blobPath(d), at, time.Time{})
	}
}
