package plain

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"chantal/internal/disk"
)

// putMutable writes a copy, of which the time is later than that of what it
// replaces.
func (t *Tree) putMutable(f *File, to string, had fs.FileInfo) error {
	modified := f.Modified
	if had != nil && !modified.After(had.ModTime()) {
		modified = had.ModTime().Truncate(time.Second).Add(time.Second)
	}
	body := f.Content
	if f.From != "" {
		var err error
		if body, err = t.disk.ReadFile(f.From); err != nil {
			return err
		}
	}
	if sha256.Sum256(body) != f.SHA256 {
		return errDamaged
	}
	return t.write(to, body, modified)
}

// errDamaged means that a file is not what its digest says.
var errDamaged = errors.New("the stored file is damaged; chantal verify --repair fetches it again")

// putHard gives the file one more name. It is for everybody to read there, and
// so it is at its own place; it does not become writable.
func (t *Tree) putHard(from, to string) error {
	err := t.disk.Link(from, to)
	if errors.Is(err, syscall.EXDEV) {
		return &RefusedError{t.dir, "it is on another file system than the data directory, where hard links cannot lead; use --link sym or --link copy"}
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; run it as the user that owns the data directory, or as root", err)
	}
	if err != nil {
		return err
	}
	fi, err := t.disk.Stat(to)
	if err == nil && fi.Mode().Perm()&readable != readable {
		err = t.disk.Chmod(to, fi.Mode().Perm()|readable)
	}
	return err
}

// putCopy copies the file, or clones it.
func (t *Tree) putCopy(f *File, to string) error {
	var err error
	if t.mode == Reflink {
		if err = t.disk.Clone(f.From, to); errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EXDEV) {
			return &RefusedError{t.dir, "files cannot be cloned to it: that takes one file system with the data directory, Btrfs or XFS for example; use --link hard or --link copy"}
		}
		if err == nil && t.masked {
			err = t.disk.Chmod(to, filePerm)
		}
	} else {
		err = t.copy(f, to)
	}
	if err == nil {
		err = t.disk.Times(to, time.Time{}, f.Modified)
	}
	return err
}

// copy copies the file and checks that the bytes are right.
func (t *Tree) copy(f *File, to string) error {
	from, err := t.disk.Open(f.From)
	if err != nil {
		return err
	}
	defer from.Close()
	out, err := t.create(to)
	if err != nil {
		return err
	}
	h := sha256.New()
	// Neither side may go around the disk's hooks, or the hash.
	_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(out, h)}, struct{ io.Reader }{from}, make([]byte, 256<<10))
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if [sha256.Size]byte(h.Sum(nil)) != f.SHA256 {
		return errDamaged
	}
	return nil
}

// write writes a new file.
func (t *Tree) write(to string, body []byte, modified time.Time) error {
	out, err := t.create(to)
	if err != nil {
		return err
	}
	_, err = out.Write(body)
	if err = errors.Join(err, out.Close()); err == nil && !modified.IsZero() {
		err = t.disk.Times(to, time.Time{}, modified)
	}
	return err
}

func (t *Tree) create(to string) (*disk.Output, error) {
	out, err := t.disk.Create(to, filePerm)
	if err == nil && t.masked {
		if err = t.disk.Chmod(to, filePerm); err != nil {
			err = errors.Join(err, out.Close())
		}
	}
	return out, err
}
