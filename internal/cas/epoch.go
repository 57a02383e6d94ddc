package cas

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
)

// epoch says whether blobs may have left the store. Its file is not there while
// some are being taken away, so that a process which dies over that leaves no
// epoch behind that anybody knows.
type epoch struct {
	mu        sync.Mutex
	now       string // "" while not known
	shrinking int    // how many calls of Shrink are under way
}

func (s *Store) epochFile() string { return filepath.Join(s.dir, "epoch") }

// Epoch names a time during which no blob left the store, so far: whoever has
// found blobs there at a time with that name will find them as long as the name
// is the same, after a restart too. It is "" where nothing can be said, while
// blobs are being removed.
func (s *Store) Epoch() string {
	s.epoch.mu.Lock()
	defer s.epoch.mu.Unlock()
	if s.epoch.shrinking > 0 {
		return ""
	}
	if s.epoch.now == "" {
		text, err := s.disk.ReadFile(s.epochFile())
		s.epoch.now = strings.TrimSpace(string(text))
		if err != nil || len(s.epoch.now) < 20 {
			s.epoch.now = s.newEpoch()
		}
	}
	return s.epoch.now
}

// newEpoch begins an epoch; "" where it cannot be written down.
func (s *Store) newEpoch() string {
	name := rand.Text()
	temp := s.temp(filepath.Join(s.dir, "state"))
	f, err := s.disk.Create(temp, 0o644)
	if err != nil {
		return ""
	}
	_, err = f.Write([]byte(name + "\n"))
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.disk.Rename(temp, s.epochFile())
	}
	if err != nil {
		s.disk.Remove(temp)
		return ""
	}
	return name
}

// Shrink calls take, which may take blobs away from the store, and ends the
// Epoch: whoever remembers what is there has to look again. It does not call it
// where that cannot be made sure.
func (s *Store) Shrink(take func() error) error {
	s.epoch.mu.Lock()
	s.epoch.shrinking++
	s.epoch.now = ""
	err := s.disk.Remove(s.epochFile())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = s.disk.Sync(s.dir)
	}
	s.epoch.mu.Unlock()
	defer func() {
		s.epoch.mu.Lock()
		s.epoch.shrinking--
		s.epoch.mu.Unlock()
	}()
	if err != nil {
		return fmt.Errorf("making known that blobs are removed: %w", cause(err))
	}
	return take()
}

// epochSize returns how many bytes the file has that Shrink takes away.
func (s *Store) epochSize() int64 {
	if fi, err := s.disk.Stat(s.epochFile()); err == nil {
		return fi.Size()
	}
	return 0
}
