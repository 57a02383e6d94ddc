//go:build !linux

package disk

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

func clone(string, string) error { return fmt.Errorf("clone: %w", errors.ErrUnsupported) }

func exchange(string, string) error { return fmt.Errorf("exchange: %w", errors.ErrUnsupported) }

func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}
