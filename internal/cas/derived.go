package cas

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"chantal/internal/disk"
)

// derived knows the files that can be made again, to evict the least recently
// used ones.
type derived struct {
	mu    sync.Mutex
	files map[string]*derivedFile // nil until listed
	total int64
}

type derivedFile struct {
	size int64
	used time.Time // as of this process; the file's atime is at most a minute older
	kept time.Time // what the atime says
}

func (s *Store) derivedPath(key string) (string, error) {
	ok := key != "" && key[0] != '.' && len(key) <= 255
	for _, c := range []byte(key) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-')
	}
	if !ok {
		return "", fmt.Errorf("%q cannot be the key of a derived file", key)
	}
	return filepath.Join(s.dir, "derived", key), nil
}

// Derived opens what PutDerived has written under key, of [a-z0-9.-] and not
// beginning with a dot. The caller closes the file. The error is
// fs.ErrNotExist when it is not there (any more).
func (s *Store) Derived(key string) (*disk.File, error) {
	path, err := s.derivedPath(key)
	if err != nil {
		return nil, err
	}
	if f, err := s.derivedOf(key); f != nil || err != nil {
		return f, err
	}
	f, err := s.disk.Open(path)
	if err != nil {
		return nil, fmt.Errorf("derived file %s: %w", key, cause(err))
	}
	s.derived.mu.Lock()
	defer s.derived.mu.Unlock()
	if d := s.derived.files[key]; d != nil {
		d.used = time.Now()
		if d.used.Sub(d.kept) < useEvery {
			return f, nil
		}
		d.kept = d.used
	}
	s.disk.Times(path, time.Now(), time.Time{}) // failing makes it look older, no more
	return f, nil
}

// PutDerived keeps what write writes under key, in place of what was there,
// and evicts the least recently used derived files beyond the limit. Nothing
// is synced: after a crash of the machine the file may be gone, or not what
// was written, so readers check its form. Where the disk does not take it, it
// is written once more, and kept in memory as long as there is room.
func (s *Store) PutDerived(key string, write func(io.Writer) error) error {
	path, err := s.derivedPath(key)
	if err != nil {
		return err
	}
	refused := false
	err = s.putDerived(key, path, func(w io.Writer) error {
		c := &refusable{w: w}
		err := write(c)
		refused = c.err != nil
		return err
	}, &refused)
	if err != nil && refused {
		return s.derivedInMemory(key, write, s.trouble(err))
	}
	return err
}

// refusable notes when writing fails, as against making what is to be written.
type refusable struct {
	w   io.Writer
	err error
}

func (r *refusable) Write(p []byte) (n int, err error) {
	n, err = r.w.Write(p)
	r.err = err
	return n, err
}

// putDerived is PutDerived on disk; refused is set where the disk is to blame.
func (s *Store) putDerived(key, path string, write func(io.Writer) error, refused *bool) error {
	temp := s.temp(filepath.Dir(path))
	f, err := s.disk.Create(temp, 0o644)
	if err != nil {
		*refused = true
		return fmt.Errorf("derived file %s: %w", key, err)
	}
	defer s.disk.Remove(temp) // gone after success
	w := &countingWriter{w: f}
	b := bufio.NewWriterSize(w, 64<<10)
	err = write(b)
	if err == nil {
		err = b.Flush()
		*refused = err != nil
	}
	if closed := f.Close(); closed != nil {
		err, *refused = errors.Join(err, closed), true
	}
	if err != nil {
		return fmt.Errorf("derived file %s: %w", key, err)
	}
	s.derived.mu.Lock()
	defer s.derived.mu.Unlock()
	if err := s.listDerived(); err != nil {
		return err
	}
	if err := s.disk.Rename(temp, path); err != nil {
		*refused = true
		return fmt.Errorf("derived file %s: %w", key, err)
	}
	if old := s.derived.files[key]; old != nil {
		s.derived.total -= old.size
	}
	now := time.Now()
	s.derived.files[key] = &derivedFile{size: w.n, used: now, kept: now}
	s.derived.total += w.n
	s.evictDerived(key)
	return nil
}

// countingWriter counts what it writes.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// listDerived learns once what earlier runs left. s.derived.mu is held.
func (s *Store) listDerived() error {
	if s.derived.files != nil {
		return nil
	}
	files, err := s.disk.List(filepath.Join(s.dir, "derived"))
	if err != nil {
		return fmt.Errorf("listing derived files: %w", err)
	}
	s.derived.files = make(map[string]*derivedFile)
	for _, f := range files {
		fi, err := f.Info()
		if err != nil || strings.HasPrefix(f.Name(), tempPrefix) {
			continue
		}
		used := lastUse(fi)
		s.derived.files[f.Name()] = &derivedFile{size: fi.Size(), used: used, kept: used}
		s.derived.total += fi.Size()
	}
	return nil
}

// evictDerived removes files until the limit holds, but not keep.
// s.derived.mu is held.
func (s *Store) evictDerived(keep string) {
	if s.derived.total <= s.o.DerivedMax {
		return
	}
	keys := slices.SortedFunc(maps.Keys(s.derived.files), func(a, b string) int {
		return cmp.Or(s.derived.files[a].used.Compare(s.derived.files[b].used), cmp.Compare(a, b))
	})
	for _, k := range keys {
		if s.derived.total <= s.o.DerivedMax {
			return
		}
		if k == keep {
			continue
		}
		err := s.disk.Remove(filepath.Join(s.dir, "derived", k))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("evicting a derived file", "key", k, "error", err)
			continue
		}
		s.derived.total -= s.derived.files[k].size
		delete(s.derived.files, k)
	}
}

// dropDerived removes the derived files that which names, or with really unset
// only adds them up. They are made again when they are needed.
func (s *Store) dropDerived(which func(fs.DirEntry) bool, really bool) (bytes, disk int64) {
	files, err := s.disk.List(filepath.Join(s.dir, "derived"))
	if err != nil {
		s.log.Warn("listing derived files", "error", err)
	}
	s.derived.mu.Lock()
	defer s.derived.mu.Unlock()
	for _, f := range files {
		if !which(f) {
			continue
		}
		fi, err := f.Info()
		if err == nil && really {
			err = s.disk.Remove(filepath.Join(s.dir, "derived", f.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("removing a derived file", "key", f.Name(), "error", err)
		}
		if err != nil {
			continue
		}
		bytes, disk = bytes+fi.Size(), disk+allocated(fi)
		if d := s.derived.files[f.Name()]; d != nil && really {
			s.derived.total -= d.size
			delete(s.derived.files, f.Name())
		}
	}
	return bytes, disk
}

// EachDerived calls use with the content of every derived file whose key begins
// with prefix, in no order. It is no use of them: none stays longer for it. What
// leaves meanwhile is left out.
func (s *Store) EachDerived(prefix string, use func(key string, content []byte) error) error {
	files, err := s.disk.List(filepath.Join(s.dir, "derived"))
	if err != nil {
		return fmt.Errorf("listing derived files: %w", cause(err))
	}
	keys := make(map[string]bool)
	for _, f := range files {
		keys[f.Name()] = true
	}
	s.mu.RLock()
	for key := range s.derivedMem {
		keys[key] = true
	}
	s.mu.RUnlock()
	for key := range keys {
		if !strings.HasPrefix(key, prefix) || strings.HasPrefix(key, tempPrefix) {
			continue
		}
		content, err := s.readDerived(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = use(key, content)
		}
		if err != nil {
			return fmt.Errorf("derived file %s: %w", key, cause(err))
		}
	}
	return nil
}

func (s *Store) readDerived(key string) ([]byte, error) {
	if f, err := s.derivedOf(key); f != nil || err != nil {
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(f)
	}
	return s.disk.ReadFile(filepath.Join(s.dir, "derived", key))
}
