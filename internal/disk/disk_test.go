package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// work does every operation once.
func work(d Disk, dir string) error {
	sub, a, b := filepath.Join(dir, "sub"), filepath.Join(dir, "sub", "a"), filepath.Join(dir, "sub", "b")
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	add(d.Mkdir(sub))
	o, err := d.Create(a, 0o644)
	add(err)
	_, err = o.Write([]byte("one two"))
	add(errors.Join(err, o.Truncate(4), o.Sync(), o.Close()))
	o, err = d.Append(a, 0o644)
	add(err)
	_, err = o.Write([]byte("three"))
	add(errors.Join(err, o.Close()))
	add(d.Rename(a, b))
	add(d.Times(b, time.Unix(1, 0), time.Unix(2, 0)))
	add(d.Sync(sub))
	add(d.Update(b, func() error { return nil }))
	content, err := d.ReadFile(b)
	if string(content) != "one three" {
		err = errors.Join(err, errors.New("the file has "+string(content)))
	}
	add(err)
	fi, err := d.Stat(b)
	if err == nil && !fi.ModTime().Equal(time.Unix(2, 0)) {
		err = errors.New("other time")
	}
	add(err)
	entries, err := d.List(sub)
	if err == nil && (len(entries) != 1 || entries[0].Name() != "b") {
		err = errors.New("other names")
	}
	add(err)
	add(d.Remove(b))
	add(others(d, sub))
	return errors.Join(errs...)
}

// others does what only folders of plain files need.
func others(d Disk, dir string) error {
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	o, err := d.Create(a, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(o.Close(), d.Chmod(a, 0o644), d.Link(a, b), d.Remove(a), d.Symlink("b", c), d.SyncAll(dir))
	if err := errors.Join(err, orUnsupported(d.Exchange(b, c)), orUnsupported(d.Clone(c, a))); err != nil {
		return err
	}
	unlock, err := d.Lock(dir)
	if err != nil {
		return err
	}
	if _, err := d.Lock(dir); !errors.Is(err, ErrLocked) {
		return errors.New("a second one has the lock, too")
	}
	return unlock()
}

func orUnsupported(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

func TestEveryOperationComesByTheHook(t *testing.T) {
	if err := work(Disk{}, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	var got []Kind
	d := Disk{Around: func(op *Op, do func() error) error { got = append(got, op.Kind); return do() }}
	if err := work(d, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	want := []Kind{Mkdir, Create, Write, Truncate, Sync, Close, Append, Write, Close, Rename, Times, Sync, Update, Open, Stat, List, Remove,
		Create, Close, Chmod, Link, Remove, Symlink, SyncAll, Exchange, Clone}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAWriteThatIsCutShortLeavesWhatWasWritten(t *testing.T) {
	full := errors.New("full")
	d := Disk{Around: func(op *Op, do func() error) error {
		if op.Kind != Write {
			return do()
		}
		op.Bytes = op.Bytes[:3]
		return errors.Join(do(), full)
	}}
	name := filepath.Join(t.TempDir(), "a")
	o, err := d.Create(name, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := o.Write([]byte("content")); n != 3 || !errors.Is(err, full) {
		t.Errorf("got %d, %v", n, err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != "con" {
		t.Errorf("got %q, %v", got, err)
	}
}
