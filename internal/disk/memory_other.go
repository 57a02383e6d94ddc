//go:build !linux

package disk

import (
	"errors"
	"os"
)

// Memory is a file that has no name and lies in memory. This system has none.
type Memory struct{ *os.File }

// NewMemory fails.
func NewMemory(string) (*Memory, error) { return nil, errors.ErrUnsupported }

// Reopen fails.
func (m *Memory) Reopen() (*File, error) { return nil, errors.ErrUnsupported }

// Forget fails.
func (m *Memory) Forget(int64) error { return errors.ErrUnsupported }
