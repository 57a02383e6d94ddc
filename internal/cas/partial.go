package cas

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"chantal"
)

// A large file that did not arrive to its end keeps its first bytes, under a
// name that tells what it was to become, so that whoever fetches it the next
// time goes on from there: in this run or a later one, also after this process
// was killed. The bytes are as good as any that come from upstream: the digest
// decides at the end.

// partialPrefix begins the names of such files.
const partialPrefix = ".p-"

const (
	// partialMin is the size in bytes from which on a file is worth going on
	// with, and as much of it has to be there.
	partialMin = 1 << 20
	// partialKept is how long the beginning of a file is kept.
	partialKept = 7 * 24 * time.Hour
)

// partials are the beginnings of files. Store.mu guards them.
type partials struct {
	growing map[chantal.Digest]bool // somebody is writing them
	left    map[string]time.Time    // by path: those that nobody is writing, and since when
}

// claim returns where a file that is arriving is written to, and whether its
// beginning stays when it does not arrive to its end.
func (s *Store) claim(w Want) (path string, stays bool) {
	d := sha256Of(w)
	if d == "" || w.Size < partialMin {
		return "", false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partials.growing[d] || s.pending[d] != nil {
		return "", false
	}
	path = s.partialPath(d)
	s.partials.growing[d] = true
	delete(s.partials.left, path)
	return path, true
}

func sha256Of(w Want) chantal.Digest {
	for _, d := range w.Digests {
		if d.Algo() == "sha256" {
			return d
		}
	}
	return ""
}

func (s *Store) partialPath(d chantal.Digest) string {
	return filepath.Join(filepath.Dir(s.blobPath(d)), partialPrefix+d.Hex())
}

// unclaim ends the claim to the beginning of the file. left says that it is
// there for others to go on with.
func (g *Growing) unclaim(left bool) {
	if g.stays {
		g.s.unclaim(g.w, g.temp, left)
		g.stays = false
	}
}

func (s *Store) unclaim(w Want, path string, left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.partials.growing, sha256Of(w))
	if left {
		s.partials.left[path] = time.Now()
	}
}

// Resume is Create for a file of which an earlier attempt has left the
// beginning: Written says how much. The error is a fs.ErrNotExist where there
// is none.
func (s *Store) Resume(w Want) (*Growing, error) {
	g, err := s.newGrowing(w)
	if err != nil {
		return nil, err
	}
	path, ok := s.claim(g.w)
	if !ok {
		return nil, fmt.Errorf("resuming %s: %w", w.Path, fs.ErrNotExist)
	}
	if err := g.goOn(path); err != nil {
		s.unclaim(g.w, path, !errors.Is(err, fs.ErrNotExist))
		return nil, fmt.Errorf("resuming %s: %w", w.Path, cause(err))
	}
	return g, nil
}

// goOn reads what is there of the file at path and opens it for what is to
// come.
func (g *Growing) goOn(path string) error {
	from, err := g.s.disk.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	fi, err := from.Stat()
	if err != nil {
		return err
	}
	if n := fi.Size(); n < partialMin || n > g.w.Size {
		return errors.Join(fs.ErrNotExist, g.s.disk.Remove(path))
	}
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	for {
		n, err := from.Read((*buf)[:chunk])
		g.hash.write((*buf)[:n])
		g.written += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			g.hash.finish()
			return err
		}
	}
	if g.f, err = g.s.disk.Append(path, 0o644); err != nil {
		g.hash.finish()
		return err
	}
	g.temp, g.stays = path, true
	return nil
}

// notePartial takes in a beginning that an earlier run left.
func (s *Store) notePartial(path string) {
	fi, err := s.disk.Stat(path)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := chantal.NewDigest("sha256", strings.TrimPrefix(filepath.Base(path), partialPrefix))
	if err != nil || !s.partials.growing[d] && s.pending[d] == nil {
		s.partials.left[path] = fi.ModTime()
	}
}

// dropPartials removes the beginnings that nobody has gone on with for long.
func (s *Store) dropPartials(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.partials.left, func(path string, since time.Time) bool {
		if now.Sub(since) < partialKept {
			return false
		}
		// Under the lock, so that nobody begins to go on with it.
		s.disk.Remove(path)
		return true
	})
}
