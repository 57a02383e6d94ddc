package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func syncAll(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	if err != nil {
		err = &os.PathError{Op: "syncfs", Path: name, Err: err}
	}
	return errors.Join(err, f.Close())
}
