package plain

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/disk"
	"chantal/internal/disk/disktest"
)

// twice is a folder in two states.
func (b *bench) twice() [2][]File {
	return [2][]File{
		{b.file("one", "root"), b.file("A", "pool/a", "by-hash/a"), b.file("B", "pool/b")},
		{b.file("two", "root"), b.file("A", "pool/a", "by-hash/a"), b.file("C", "pool/c"), b.file("BB", "pool/b")},
	}
}

var (
	stateOne = map[string]string{"root": "one", "pool/a": "A", "by-hash/a": "A", "pool/b": "B"}
	stateTwo = map[string]string{"root": "two", "pool/a": "A", "by-hash/a": "A", "pool/b": "BB", "pool/c": "C"}
)

func TestAfterACrashAnywhereThereIsAWholeFolder(t *testing.T) {
	t.Run("one call syncs all", func(t *testing.T) { crashAnywhere(t, nil) })
	t.Run("each file is synced", func(t *testing.T) { crashAnywhere(t, errors.ErrUnsupported) })
}

// crashAnywhere has SyncAll fail with that error.
func crashAnywhere(t *testing.T, syncAll error) {
	b := newBench(t)
	top := b.dir + "/top"
	b.must(os.Mkdir(top, 0o755))
	rec := disktest.NewRecorder(top)
	around := rec.Disk().Around
	b.disk = disk.Disk{Around: func(op *disk.Op, do func() error) error {
		if op.Kind == disk.SyncAll && syncAll != nil {
			return syncAll
		}
		return around(op, do)
	}}
	states := b.twice()
	b.mustPublish(Copy, states[0]...)
	between := rec.Len()
	b.mustPublish(Copy, states[1]...)
	seen := map[[32]byte]bool{}
	for n := 0; n <= rec.Len(); n++ {
		for _, crash := range disktest.Crashes() {
			left, err := rec.After(n, crash)
			b.must(err)
			if seen[left.Sum()] {
				continue
			}
			seen[left.Sum()] = true
			after := &bench{t: t, dir: t.TempDir()}
			b.must(os.Mkdir(after.dir+"/top", 0o755))
			b.must(os.Mkdir(after.dir+"/store", 0o755))
			b.must(left.Restore(after.dir + "/top"))
			what := crash.Name
			if n > 0 {
				what += " after " + rec.String(n-1)
			}
			after.wantWhole(what, n < between)
			after.mustPublish(Copy, after.twice()[1]...)
			after.wantFolder(stateTwo)
		}
	}
	if len(seen) < 30 {
		t.Errorf("%d crashes that differ are too few to mean anything", len(seen))
	}
}

// wantWhole checks that there is a folder in one of both states; none at all is
// fine as long as the first has not been made.
func (b *bench) wantWhole(what string, none bool) {
	b.t.Helper()
	got, err := holds(b.www())
	if errors.Is(err, os.ErrNotExist) && none {
		return
	}
	if err != nil {
		b.t.Errorf("%s: %v", what, err)
		return
	}
	if !maps.Equal(got, stateOne) && !maps.Equal(got, stateTwo) {
		b.t.Errorf("%s: the folder is in neither state:\n%s", what, cmp.Diff(stateTwo, got))
	}
}

func TestAnyOperationMayFail(t *testing.T) {
	for _, mode := range []Mode{Hard, Sym, Copy} {
		for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
			for n, failed := 0, true; failed; n++ {
				b := newBench(t)
				b.must(os.Mkdir(b.dir+"/top", 0o755))
				states := b.twice()
				b.mustPublish(mode, states[0]...)
				var faults disktest.Faults
				b.disk = faults.Disk()
				faults.Set(disktest.Fault{Skip: n, Times: 1, Short: n%2 == 0, Err: cause})
				_, err := b.publish(mode, states[1]...)
				if failed = faults.Failed() > 0; failed && !errors.Is(err, cause) {
					t.Errorf("%s, operation %d: got %v, want %v", mode, n, err, cause)
				}
				faults.Set()
				b.wantWhole("after a failure", false)
				b.mustPublish(mode, states[1]...)
				b.wantFolder(stateTwo)
			}
		}
	}
}

func TestWhereFoldersCannotBeExchanged(t *testing.T) {
	unsupported := func(faults ...disktest.Fault) disk.Disk {
		var f disktest.Faults
		f.Set(append(faults, disktest.Fault{Kinds: []disk.Kind{disk.Exchange}, Err: errors.ErrUnsupported})...)
		return f.Disk()
	}
	b := newBench(t)
	b.must(os.Mkdir(b.dir+"/top", 0o755))
	states := b.twice()
	b.mustPublish(Hard, states[0]...)
	b.disk = unsupported()
	if r := b.mustPublish(Hard, states[1]...); !r.Gap {
		t.Errorf("got %+v, which says nothing of a gap", r)
	}
	b.wantFolder(stateTwo)
	// The former folder goes back where the new one cannot be put in its place,
	// at once or in the next run.
	for times := 1; times <= 4; times++ {
		b.disk = unsupported(disktest.Fault{Kinds: []disk.Kind{disk.Rename}, Skip: 1, Times: times, Err: syscall.EIO})
		if _, err := b.publish(Hard, states[0]...); !errors.Is(err, syscall.EIO) {
			t.Errorf("got %v", err)
		}
		b.disk = disk.Disk{}
		one, err := Begin(b.disk, b.www(), Hard)
		b.must(err)
		b.must(one.Close())
		b.wantFolder(stateTwo)
	}
}

func TestFileSystemsThatCannotLinkOrClone(t *testing.T) {
	for mode, kind := range map[Mode]disk.Kind{Hard: disk.Link, Reflink: disk.Clone} {
		b := newBench(t)
		b.must(os.Mkdir(b.dir+"/top", 0o755))
		f := b.file("A", "a")
		var faults disktest.Faults
		b.disk = faults.Disk()
		faults.Set(disktest.Fault{Kinds: []disk.Kind{kind}, Err: syscall.EXDEV})
		var refused *RefusedError
		if _, err := b.publish(mode, f); !errors.As(err, &refused) {
			t.Errorf("%s: got %v", mode, err)
		}
		if _, err := os.Lstat(filepath.Dir(b.www()) + "/.www.chantal"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: left behind: %v", mode, err)
		}
	}
}

// A clone is a copy that the file system makes; here the test does.
func TestClones(t *testing.T) {
	b := newBench(t)
	b.must(os.Mkdir(b.dir+"/top", 0o755))
	b.disk = disk.Disk{Around: func(op *disk.Op, do func() error) error {
		if op.Kind != disk.Clone {
			return do()
		}
		body, err := os.ReadFile(op.Path)
		return errors.Join(err, os.WriteFile(op.To, body, 0o644))
	}}
	states := b.twice()
	b.mustPublish(Reflink, states[0]...)
	b.wantFolder(stateOne)
	before := b.stats()
	b.mustPublish(Reflink, states[1]...)
	b.wantFolder(stateTwo)
	if after := b.stats(); !os.SameFile(before["pool/a"], after["pool/a"]) {
		t.Error("what has not changed was cloned again")
	}
}
