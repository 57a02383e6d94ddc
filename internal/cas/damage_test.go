package cas

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/disk"
)

// keep stores content durably and returns its digest.
func keep(t *testing.T, s *Store, data []byte) chantal.Digest {
	t.Helper()
	b, err := s.Put(Want{Repo: "debian", Path: "x", Size: -1}, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b.Digest
}

// flip changes one bit of a stored blob.
func flip(t *testing.T, s *Store, d chantal.Digest) {
	t.Helper()
	path := s.blobPath(d)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func sha512Of(b []byte) chantal.Digest {
	return chantal.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512(b)))
}

func check(s *Store, d chantal.Digest) error {
	_, _, err := s.Check(context.Background(), d, nil, nil)
	return err
}

func TestADamagedBlobIsSetAsideAndCanBeStoredAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	data := content(1, 600<<10)
	d, other := keep(t, s, data), keep(t, s, content(2, 100))
	if err := check(s, d); err != nil {
		t.Fatalf("a sound blob: %v", err)
	}
	flip(t, s, d)
	var damaged *DamagedError
	if err := check(s, d); !errors.As(err, &damaged) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	if _, err := s.Find("", d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still found: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "damaged", d.Hex())); err != nil {
		t.Error(err)
	}
	if err := check(s, other); err != nil || s.Damaged() != 1 {
		t.Errorf("the other one: %v; %d damaged", err, s.Damaged())
	}
	if diff := cmp.Diff([]chantal.Digest{d}, s.SetAside()); diff != "" {
		t.Error(diff)
	}
	keep(t, s, data)
	if !bytes.Equal(read(t, s, d), data) {
		t.Error("other bytes after it was stored again")
	}
	if aside := s.SetAside(); len(aside) > 0 || s.WasDamaged(d) {
		t.Errorf("still without a copy: %v", aside)
	}
	if left := names(t, filepath.Join(dir, damagedDir)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAShorterBlobIsDamaged(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for _, size := range []int64{0, 99} {
		d := keep(t, s, content(uint64(size), 100))
		if err := os.Truncate(s.blobPath(d), size); err != nil {
			t.Fatal(err)
		}
		if err := check(s, d); !errors.As(err, new(*DamagedError)) {
			t.Errorf("%d of 100 bytes: %v", size, err)
		}
	}
}

// What cannot be moved away is not handed out either, and a sound copy takes
// its place.
func TestADamagedBlobThatCannotBeMovedIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{Disk: disk.Disk{Around: func(op *disk.Op, do func() error) error {
		if op.Kind == disk.Rename && filepath.Base(filepath.Dir(op.To)) == damagedDir {
			return fs.ErrPermission
		}
		return do()
	}}})
	data := content(3, 1000)
	d := keep(t, s, data)
	flip(t, s, d)
	if err := check(s, d); !errors.As(err, new(*DamagedError)) {
		t.Fatalf("got %v", err)
	}
	if _, err := s.Find("", d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found: %v", err)
	}
	if _, _, err := s.Open(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened: %v", err)
	}
	keep(t, s, data)
	if !bytes.Equal(read(t, s, d), data) {
		t.Error("other bytes after it was stored again")
	}
	if err := check(s, d); err != nil {
		t.Error(err)
	}
}

func TestOtherDigestsOfABlobAreChecked(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	data := content(4, 1000)
	d := keep(t, s, data)
	right, wrong := sha512Of(data), sha512Of([]byte("something else"))
	_, got, err := s.Check(t.Context(), d, []chantal.Digest{right}, nil)
	if len(got) > 0 || err != nil {
		t.Errorf("its own digest is wrong: %v %v", got, err)
	}
	_, got, err = s.Check(t.Context(), d, []chantal.Digest{wrong}, nil)
	if diff := cmp.Diff([]chantal.Digest{wrong}, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestWhatIsGoneIsToldFromWhatNeverWas(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	gone, damaged, there := keep(t, s, content(1, 50)), keep(t, s, content(2, 50)), keep(t, s, content(3, 50))
	lost := func(s *Store) map[chantal.Digest]bool {
		t.Helper()
		l, err := s.Lost()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := lost(s); len(l) > 0 {
		t.Errorf("nothing is lost, and it says %v", l)
	}
	if err := os.Remove(s.blobPath(gone)); err != nil {
		t.Fatal(err)
	}
	flip(t, s, damaged)
	if err := check(s, damaged); err == nil {
		t.Fatal("no damage found")
	}
	want := map[chantal.Digest]bool{gone: false, damaged: true}
	if diff := cmp.Diff(want, lost(s)); diff != "" {
		t.Error(diff)
	}

	// A crash tore the last line and lost others: what is there is listed anew.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, inventoryName), []byte(gone.Hex()+"\n"+there.Hex()[:20]), 0o644); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if diff := cmp.Diff(want, lost(s)); diff != "" {
		t.Error(diff)
	}
	if err := os.Remove(s.blobPath(there)); err != nil {
		t.Fatal(err)
	}
	want[there] = false
	if diff := cmp.Diff(want, lost(s)); diff != "" {
		t.Error(diff)
	}
}

func TestAfterABadEndWhatWasWrittenLastIsReadFirst(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint("killed ", killed), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{})
			data := content(1, 5000)
			d := keep(t, s, data)
			if !killed {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			flip(t, s, d)
			again := open(t, dir, Options{})
			f, _, err := again.Open(d)
			if err == nil {
				f.Close()
			}
			if got := errors.Is(err, fs.ErrNotExist); got != killed {
				t.Errorf("after a kill: %v, damage found: %v (%v)", killed, got, err)
			}
		})
	}
}

// A run that ends before it has read everything leaves the doubt to the next.
func TestDoubtOutlivesARunThatDoesNotResolveIt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	d := keep(t, s, content(1, 5000))
	short := open(t, dir, Options{Disk: disk.Disk{Around: func(op *disk.Op, do func() error) error {
		if op.Kind == disk.List && filepath.Base(filepath.Dir(op.Path)) == "blobs" {
			return errors.New("not now")
		}
		return do()
	}}})
	if err := short.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, s, d)
	again := open(t, dir, Options{})
	if _, _, err := again.Open(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the damage was not found: %v", err)
	}
}

func TestStateIsKeptAndReplaced(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	var got struct{ At time.Time }
	if err := s.State("work", &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	for range 2 {
		want := struct{ At time.Time }{time.Now().UTC().Round(0)}
		if err := s.SetState("work", want); err != nil {
			t.Fatal(err)
		}
		if err := s.State("work", &got); err != nil || !got.At.Equal(want.At) {
			t.Errorf("got %v %v, want %v", got, err, want)
		}
	}
}

// What was computed from a damaged index is as wrong as the index, and what
// was written at a bad end may be a part of what it should be.
func TestDerivedFilesGoWithTheDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	d := keep(t, s, content(1, 100))
	derive := func(s *Store, key string) {
		t.Helper()
		if err := s.PutDerived(key, func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err }); err != nil {
			t.Fatal(err)
		}
	}
	is := func(s *Store, key string) bool {
		t.Helper()
		f, err := s.Derived(key)
		if err == nil {
			f.Close()
		}
		return err == nil
	}
	of, other := "apt-1-"+d.Hex()+"-0123", "apt-1-0000-0123"
	derive(s, of)
	derive(s, other)
	flip(t, s, d)
	if err := check(s, d); err == nil {
		t.Fatal("no damage found")
	}
	if is(s, of) || !is(s, other) {
		t.Errorf("after the damage: its own is there: %v; the other: %v", is(s, of), is(s, other))
	}
	if again := open(t, dir, Options{}); is(again, other) {
		t.Error("it is still there after a bad end")
	}
}
