package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"chantal"
	"chantal/internal/disk"
)

// HoldBack is how many bytes at the end of a file nobody gets before the whole
// has been verified: without them no client takes the file for complete.
const HoldBack = 64 << 10

// Want says what a file that is about to be stored has to be.
type Want struct {
	Repo, Path string           // for whom; Path is for error messages only
	Digests    []chantal.Digest // all of known algorithms are checked; may be empty
	Size       int64            // in bytes; -1 where nothing is promised
	Modified   time.Time        // upstream's Last-Modified; zero means now
}

// ready returns w with its digests checked for form and the aliases for it.
func (w Want) ready() (Want, []string, error) {
	ds := make([]chantal.Digest, len(w.Digests))
	for i, d := range w.Digests {
		var err error
		if ds[i], err = chantal.ParseDigest(string(d)); err != nil {
			return w, nil, fmt.Errorf("storing %s: %w", w.Path, err)
		}
	}
	w.Digests = ds
	if w.Modified.IsZero() {
		w.Modified = time.Now()
	}
	w.Modified = w.Modified.UTC().Truncate(time.Second)
	aliases, err := aliasPaths(w)
	if err != nil {
		return w, nil, fmt.Errorf("storing %s: %w", w.Path, err)
	}
	return w, aliases, nil
}

// Put stores content, which must be what w says, else the error is a
// *chantal.MismatchError. The blob can be opened at once and becomes durable
// with the next batch. Where the disk does not take it, it is in memory until
// then, if there is room; a *chantal.DiskError if not.
func (s *Store) Put(w Want, content []byte) (Blob, error) {
	w, aliases, err := w.ready()
	if err != nil {
		return Blob{}, err
	}
	sums := newSums(w.Digests)
	sums.write(content)
	d, err := sums.check(w, w.Size, int64(len(content)))
	if err != nil {
		return Blob{}, err
	}
	b := Blob{Digest: d, Size: int64(len(content)), Modified: w.Modified}
	if have, err := s.admit(b, "", nil, aliases); !errors.Is(err, fs.ErrNotExist) {
		return have, err
	}
	temp := s.temp(filepath.Dir(s.blobPath(d)))
	f, err := s.disk.Create(temp, 0o444)
	if err == nil {
		_, err = f.Write(content)
		if err = errors.Join(err, f.Close()); err != nil {
			s.disk.Remove(temp)
		}
	}
	if err != nil {
		if b, err = s.putInMemory(b, content, aliases, s.trouble(err)); err != nil {
			err = fmt.Errorf("storing %s: %w", w.Path, err)
		}
		return b, err
	}
	return s.admit(b, temp, nil, aliases)
}

// Growing is a file that is arriving: one writer fills it, any number of
// followers read it. When the disk does not take it, it goes on in memory. All
// methods are safe for concurrent use.
type Growing struct {
	s       *Store
	w       Want
	aliases []string
	temp    string
	stays   bool // temp names a beginning that is kept where the rest does not come
	done    chan struct{}

	writing sync.Mutex   // held by Write, Commit and Abort
	f       *disk.Output // nil in memory
	hash    pipeline

	mu      sync.Mutex
	size    int64 // -1 unknown
	written int64
	changed chan struct{} // closed at the next change; nil while nobody waits
	ended   bool
	blob    Blob
	err     error
	spilled spilled
	follows map[*Follower]int64 // and how far they have read

	moved chan struct{} // signalled when a follower has read something, or leaves
}

// Create begins a file that has to be what w says. Commit or Abort ends it.
func (s *Store) Create(w Want) (*Growing, error) {
	g, err := s.newGrowing(w)
	if err != nil {
		return nil, err
	}
	perm := fs.FileMode(0o444)
	if path, ok := s.claim(g.w); ok {
		g.temp, g.stays, perm = path, true, 0o644 // for going on with it
		s.disk.Remove(path)
	}
	if g.f, err = s.disk.Create(g.temp, perm); err != nil {
		if err := g.spill(0, err); err != nil {
			g.unclaim(false)
			return nil, fmt.Errorf("storing %s: %w", w.Path, err)
		}
	}
	return g, nil
}

func (s *Store) newGrowing(w Want) (*Growing, error) {
	w, aliases, err := w.ready()
	if err != nil {
		return nil, err
	}
	if s.isClosed() {
		return nil, fmt.Errorf("storing %s: %w", w.Path, fs.ErrClosed)
	}
	dir := filepath.Join(s.dir, "blobs", fmt.Sprintf("%02x", byte(s.seq.Add(1))))
	if d := sha256Of(w); d != "" {
		dir = filepath.Dir(s.blobPath(d))
	}
	return &Growing{
		s: s, w: w, aliases: aliases, temp: s.temp(dir), size: w.Size,
		hash: pipeline{sums: newSums(w.Digests)}, done: make(chan struct{}),
		follows: make(map[*Follower]int64), moved: make(chan struct{}, 1),
	}, nil
}

// Write appends p. More bytes than promised end the file with a
// *chantal.MismatchError.
func (g *Growing) Write(p []byte) (int, error) {
	g.writing.Lock()
	defer g.writing.Unlock()
	g.mu.Lock()
	size, written, ended, err := g.size, g.written, g.ended, g.err
	g.mu.Unlock()
	if ended {
		if err == nil {
			err = fs.ErrClosed
		}
		return 0, err
	}
	if size >= 0 && written+int64(len(p)) > size {
		err := sizeMismatch(g.w.Path, size, written+int64(len(p)))
		g.fail(err)
		return 0, err
	}
	g.hash.write(p)
	if g.f != nil {
		_, err = g.f.Write(p)
		if err != nil {
			err = g.spill(written, err)
		}
	}
	if g.f == nil && err == nil {
		err = g.writeMemory(p, written)
	}
	if err != nil {
		err = fmt.Errorf("storing %s: %w", g.w.Path, err)
		g.fail(err)
		return 0, err
	}
	g.mu.Lock()
	g.written += int64(len(p))
	g.wakeLocked()
	g.mu.Unlock()
	return len(p), nil
}

// SetModified tells upstream's Last-Modified of a file that goes on (Resume).
func (g *Growing) SetModified(t time.Time) {
	g.writing.Lock()
	defer g.writing.Unlock()
	g.w.Modified = t.UTC().Truncate(time.Second)
}

// SetSize tells the size that upstream announced, before the first Write. It
// does nothing where metadata has promised a size.
func (g *Growing) SetSize(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.size < 0 && g.written == 0 {
		g.size = n
		g.wakeLocked()
	}
}

// Size returns the size that the file will have, or -1 while that is unknown.
func (g *Growing) Size() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sizeLocked()
}

func (g *Growing) sizeLocked() int64 {
	if g.ended && g.err == nil {
		return g.blob.Size
	}
	return g.size
}

// Written returns how many bytes have arrived.
func (g *Growing) Written() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.written
}

// Alias has the blob found under ds, too: digests of all that is written, which
// the caller has computed itself. It is called before Commit, at most once.
func (g *Growing) Alias(ds ...chantal.Digest) error {
	_, paths, err := Want{Repo: g.w.Repo, Path: g.w.Path, Digests: ds}.ready()
	if err != nil {
		return err
	}
	g.writing.Lock()
	defer g.writing.Unlock()
	g.aliases = append(slices.Clip(g.aliases), paths...)
	return nil
}

// Commit verifies size and digests. On success the blob can be opened at once
// and becomes durable with the next batch; otherwise the bytes are dropped and
// followers get the same error, a *chantal.MismatchError where the content is
// to blame. chantal.ErrNotKept is no failure: followers get the verified file,
// and the store does not have it.
func (g *Growing) Commit() (Blob, error) {
	g.writing.Lock()
	defer g.writing.Unlock()
	g.mu.Lock()
	size, written, ended, err := g.size, g.written, g.ended, g.err
	g.mu.Unlock()
	if ended {
		return g.blob, err
	}
	d, err := g.hash.finish().check(g.w, size, written)
	if err == nil && g.f != nil {
		if err = g.f.Close(); err != nil {
			err = g.spill(written, err)
		}
	}
	b := Blob{Digest: d, Size: written, Modified: g.w.Modified}
	switch {
	case err != nil:
	case g.f != nil:
		if g.stays {
			// As all blobs are; where it fails nothing depends on it.
			_ = g.s.disk.Chmod(g.temp, 0o444)
		}
		if b, err = g.s.admit(b, g.temp, nil, g.aliases); err == nil {
			g.unclaim(false)
		}
	default:
		b, err = g.commitMemory(b)
	}
	if err != nil && !errors.Is(err, chantal.ErrNotKept) {
		g.fail(err)
		return Blob{}, g.Err()
	}
	g.end(b, nil)
	return b, err
}

// Abort drops the bytes; followers get err, which says why. After Commit it
// does nothing.
func (g *Growing) Abort(err error) {
	if err == nil {
		err = errors.New("given up")
	}
	g.writing.Lock()
	defer g.writing.Unlock()
	g.fail(fmt.Errorf("fetching %s: %w", g.w.Path, err))
}

// fail ends the file with err unless it has ended. g.writing is held.
func (g *Growing) fail(err error) {
	if g.end(Blob{}, err) {
		g.hash.finish()
		if g.f != nil {
			g.f.Close()
			wrong := (*chantal.MismatchError)(nil)
			left := g.stays && g.Written() >= partialMin && !errors.As(err, &wrong)
			if !left {
				g.s.disk.Remove(g.temp)
			}
			g.unclaim(left)
		}
		g.leaveMemory()
	}
}

// end settles the outcome once and reports whether this call did it.
func (g *Growing) end(b Blob, err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return false
	}
	g.ended, g.blob, g.err = true, b, err
	g.wakeLocked()
	close(g.done)
	return true
}

func (g *Growing) wakeLocked() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

// Done is closed when the file has been committed or has failed.
func (g *Growing) Done() <-chan struct{} { return g.done }

// Err returns why the file failed; nil while it is arriving and after Commit.
func (g *Growing) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Blob returns what Commit stored; the zero Blob before that.
func (g *Growing) Blob() Blob {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.blob
}

// Ready returns when a follower could read at least one byte or the file has
// been committed, or with the reason why it failed.
func (g *Growing) Ready(ctx context.Context) error {
	_, _, err := g.await(ctx, 0)
	return err
}

// await waits until bytes after off may be read and returns how many. end is
// true when the file is complete and off is at or past its end.
func (g *Growing) await(ctx context.Context, off int64) (n int64, end bool, err error) {
	for {
		g.mu.Lock()
		limit := g.written - HoldBack
		if size := g.sizeLocked(); size >= 0 {
			limit = min(g.written, size-HoldBack)
		}
		if g.ended {
			limit = g.blob.Size
		}
		switch {
		case g.err != nil:
			err := g.err
			g.mu.Unlock()
			return 0, false, err
		case off < g.spilled.gone && off >= g.spilled.base:
			g.mu.Unlock()
			return 0, false, chantal.ErrNotKept
		case limit > off:
			g.mu.Unlock()
			return limit - off, false, nil
		case g.ended:
			g.mu.Unlock()
			return 0, true, nil
		}
		if g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false, context.Cause(ctx)
		}
	}
}
