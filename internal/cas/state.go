package cas

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
)

// State reads what SetState has written under a name, of [a-z0-9.-], into v.
// The error is fs.ErrNotExist when there is nothing.
func (s *Store) State(name string, v any) error {
	text, err := s.disk.ReadFile(filepath.Join(s.dir, "state", name+".json"))
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return fmt.Errorf("state of %s: %w", name, cause(err))
	}
	return nil
}

// SetState keeps v, which has a form in JSON, in place of what was under the
// name. It is for progress that may be lost: nothing is synced.
func (s *Store) SetState(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("state of %s: %w", name, err)
	}
	dir := filepath.Join(s.dir, "state")
	temp := s.temp(dir)
	f, err := s.disk.Create(temp, 0o644)
	if err != nil {
		return fmt.Errorf("state of %s: %w", name, cause(err))
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.disk.Rename(temp, filepath.Join(dir, name+".json"))
	}
	if err != nil {
		s.disk.Remove(temp)
		return fmt.Errorf("state of %s: %w", name, cause(err))
	}
	return nil
}
