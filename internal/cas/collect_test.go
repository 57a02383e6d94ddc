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
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/disk"
	"chantal/internal/disk/disktest"
)

// putAll stores contents and makes them durable.
func putAll(t *testing.T, s *Store, contents ...string) (all []chantal.Digest) {
	t.Helper()
	for _, c := range contents {
		b, err := s.Put(Want{Size: int64(len(c))}, []byte(c))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b.Digest)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return all
}

func collect(t *testing.T, s *Store) *Collection {
	t.Helper()
	c, err := s.Collect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.End)
	return c
}

// sweep removes all that is not marked.
func sweep(t *testing.T, c *Collection) Freed {
	t.Helper()
	victims, err := c.Victims(t.Context(), func(m Mark) bool { return m == 0 })
	if err != nil {
		t.Fatal(err)
	}
	freed, err := c.Sweep(t.Context(), victims, func(f func() error) error { return f() }, false)
	if err != nil {
		t.Fatal(err)
	}
	return freed
}

func there(s *Store, d chantal.Digest) bool {
	f, _, err := s.Open(d)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// apparent adds up the sizes of all files below a folder.
func apparent(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			fi, err := d.Info()
			if err != nil {
				return err
			}
			n += fi.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhatNothingMarksIsSwept(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	big := string(bytes.Repeat([]byte("x"), bigBlob))
	ds := putAll(t, s, "kept", "gone", big)
	other := []byte("known by another name")
	sum := chantal.Digest(fmt.Sprintf("sha512:%x", sha512.Sum512(other)))
	b, err := s.Put(Want{Digests: []chantal.Digest{sum}, Size: -1}, other)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range append(ds, b.Digest) {
		if err := s.PutDerived("apt-1-"+d.Hex()+"-0123456789ab", func(w io.Writer) error { _, err := io.WriteString(w, "lines"); return err }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Epoch() == "" {
		t.Fatal("no epoch")
	}
	before := apparent(t, dir)

	c := collect(t, s)
	c.MarkDigest("", ds[0], Keep)
	victims, err := c.Victims(t.Context(), func(m Mark) bool { return m == 0 })
	if err != nil {
		t.Fatal(err)
	}
	would, err := c.Weigh(victims)
	if err != nil || apparent(t, dir) != before {
		t.Fatalf("weighing changed something, or failed: %v", err)
	}
	freed := sweep(t, c)
	c.End()
	if d := cmp.Diff(would, freed); d != "" {
		t.Errorf("what was weighed is not what was freed:\n%s", d)
	}
	if got := before - apparent(t, dir); got != freed.Bytes || freed.Blobs != 3 {
		t.Errorf("%d blobs and %d bytes are said to be freed; %d bytes are", freed.Blobs, freed.Bytes, got)
	}
	if !there(s, ds[0]) || there(s, ds[1]) || there(s, ds[2]) || there(s, b.Digest) {
		t.Error("the wrong blobs went")
	}
	if _, err := s.Resolve("", sum); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an alias leads to a blob that is gone: %v", err)
	}
	if lost, err := s.Lost(); err != nil || len(lost) != 0 {
		t.Errorf("what was swept counts as lost: %v, %v", lost, err)
	}
	if n, size, err := s.Usage(t.Context()); err != nil || n != 1 || size != 4 {
		t.Errorf("usage is %d blobs and %d bytes, %v", n, size, err)
	}
}

func TestWhatSomebodyUsesIsNotSwept(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ds := putAll(t, s, "found under a hold", "found before it", "stored again", "opened meanwhile", "nobody's")
	if _, err := s.Find("", ds[1]); err != nil {
		t.Fatal(err)
	}
	release := s.Hold()
	if _, err := s.Find("", ds[0]); err != nil {
		t.Fatal(err)
	}
	c := collect(t, s)
	if _, err := s.Collect(); !errors.Is(err, ErrCollecting) {
		t.Errorf("a second collection: %v", err)
	}
	putAll(t, s, "stored again", "new")
	if !there(s, ds[3]) {
		t.Fatal("a blob is not there")
	}
	if freed := sweep(t, c); freed.Blobs != 2 {
		t.Errorf("%d blobs went, not the two that nobody used", freed.Blobs)
	}
	c.End()
	release()
	for i, want := range []bool{true, false, true, true, false} {
		if got := there(s, ds[i]); got != want {
			t.Errorf("blob %d is there: %v", i, got)
		}
	}
	if lost, err := s.Lost(); err != nil || len(lost) != 0 {
		t.Errorf("lost: %v, %v", lost, err)
	}
	// The holds have ended: now they go.
	c = collect(t, s)
	if freed := sweep(t, c); freed.Blobs != 4 {
		t.Errorf("%d blobs went, not the four that are left", freed.Blobs)
	}
}

func TestAHoldThatLastsForgetsWhatCameBeforeIt(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	name := func(i int) chantal.Digest { return chantal.Digest(fmt.Sprintf("sha256:%064x", i)) }
	release := s.Hold()
	for i := range 5 * heldMin {
		if i%heldMin == 0 { // there is always one open
			next := s.Hold()
			release()
			release = next
		}
		s.touch(name(i))
	}
	if n := len(s.holds.touched); n > 3*heldMin {
		t.Errorf("%d blobs are kept in mind", n)
	}
	last, _ := parseSum([]byte(name(5*heldMin - 1).Hex()))
	if !s.holds.held(last) {
		t.Error("a blob under a hold is forgotten")
	}
	release()
	release()
	if len(s.holds.touched) != 0 || s.holds.n.Load() != 0 {
		t.Error("without a hold something is kept in mind")
	}
}

// Whoever finds a blob under a hold has it until the hold ends, whatever is
// swept meanwhile.
func TestWhatIsFoundStays(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var contents []string
	for i := range 40 {
		contents = append(contents, fmt.Sprint("content ", i))
	}
	ds := putAll(t, s, contents...)
	var work sync.WaitGroup
	for n := range 4 {
		work.Go(func() {
			for i := range 200 {
				at := (i*7 + n) % len(ds)
				release := s.Hold()
				_, err := s.Find("", ds[at])
				if errors.Is(err, fs.ErrNotExist) {
					_, err = s.Put(Want{Size: -1}, []byte(contents[at]))
				}
				if err == nil && !there(s, ds[at]) {
					err = errors.New("it is gone")
				}
				release()
				if err != nil {
					t.Errorf("%s: %v", ds[at], err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	for open := true; open; {
		select {
		case <-done:
			open = false
		default:
		}
		c := collect(t, s)
		sweep(t, c)
		c.End()
	}
}

func TestDamagedCopiesThatNobodyNeedsAreSwept(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ds := putAll(t, s, "needed", "not needed")
	for _, d := range ds {
		os.Chmod(s.blobPath(d), 0o644)
		if err := os.WriteFile(s.blobPath(d), []byte("other bytes"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Check(t.Context(), d, nil, nil); err == nil {
			t.Fatal("damage was not found")
		}
	}
	c := collect(t, s)
	c.MarkDigest("", ds[0], Keep)
	sweep(t, c)
	if d := cmp.Diff([]chantal.Digest{ds[0]}, s.SetAside()); d != "" {
		t.Errorf("set aside is (-want +got)\n%s", d)
	}
	if _, err := os.Stat(filepath.Join(dir, damagedDir, ds[1].Hex())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a damaged copy is still there: %v", err)
	}
	lost, err := s.Lost()
	if d := cmp.Diff(map[chantal.Digest]bool{ds[0]: true}, lost); err != nil || d != "" {
		t.Errorf("lost is (-want +got)\n%s, %v", d, err)
	}
}

// What the disk refuses in the middle of a sweep loses nothing that is said to
// be there, and the next one goes on.
func TestADiskThatRefusesEndsASweep(t *testing.T) {
	for _, kind := range []disk.Kind{disk.Remove, disk.Rename, disk.Sync, disk.Create, disk.Write, disk.List} {
		t.Run(string(kind), func(t *testing.T) {
			var faults disktest.Faults
			s, err := Open(t.TempDir(), Options{Disk: faults.Disk()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			ds := putAll(t, s, "kept", "a", "b", string(bytes.Repeat([]byte("x"), bigBlob)))
			faults.Set(disktest.Fault{Kinds: []disk.Kind{kind}, Err: errors.New("I/O error")})
			// Some of it fails, whichever.
			if c, err := s.Collect(); err == nil {
				c.MarkDigest("", ds[0], Keep)
				if victims, err := c.Victims(t.Context(), func(m Mark) bool { return m == 0 }); err == nil {
					_, _ = c.Sweep(t.Context(), victims, func(f func() error) error { return f() }, false)
				}
				c.End()
			}
			if faults.Failed() == 0 {
				t.Error("nothing failed")
			}
			faults.Set()
			if lost, err := s.Lost(); err != nil || len(lost) != 0 {
				t.Errorf("lost: %v, %v", lost, err)
			}
			c := collect(t, s)
			c.MarkDigest("", ds[0], Keep)
			sweep(t, c)
			c.End()
			if n, _, err := s.Usage(context.Background()); err != nil || n != 1 || !there(s, ds[0]) {
				t.Errorf("%d blobs are left, %v", n, err)
			}
		})
	}
}

func TestRecordsAreRewrittenAsAWhole(t *testing.T) {
	dir := t.TempDir()
	rec := disktest.NewRecorder(dir)
	s, err := Open(dir, Options{Disk: rec.Disk()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := s.AppendRecord("repos/a", i); err != nil {
			t.Fatal(err)
		}
	}
	from := rec.Len()
	_, err = s.RewriteRecords("repos/a", func(add func(any) error) error {
		return s.Records("repos/a", func(line []byte) error {
			if string(line) == "1" {
				return nil
			}
			return add("new " + string(line))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	done := rec.Len()
	if err := s.AppendRecord("repos/a", "appended"); err != nil {
		t.Fatal(err)
	}
	appended := rec.Len()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	older, newer := []string{"0", "1", "2"}, []string{`"new 0"`, `"new 2"`}
	seen := map[string]bool{}
	for n := from; n <= appended; n++ {
		for _, crash := range disktest.Crashes() {
			left, err := rec.After(n, crash)
			if err != nil {
				t.Fatal(err)
			}
			// Many leave the same, and promise the same.
			key := fmt.Sprintf("%x %v %v", left.Sum(), n >= done, n == appended && !crash.Torn)
			if seen[key] {
				continue
			}
			seen[key] = true
			got := linesOf(t, left)
			was, is := cmp.Equal(got, older), len(got) >= 2 && cmp.Equal(got[:2], newer)
			if !was && !is || n >= done && !is || n == appended && !crash.Torn && len(got) != 3 {
				t.Errorf("after operation %d, %s: the log is %q", n, crash.Name, got)
			}
		}
	}
}

// linesOf returns the log a as a crash leaves it.
func linesOf(t *testing.T, left *disktest.Left) (lines []string) {
	t.Helper()
	dir := t.TempDir()
	if err := left.Restore(dir); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Records("repos/a", func(line []byte) error { lines = append(lines, string(line)); return nil }); err != nil {
		t.Error(err)
	}
	return lines
}

// On a disk that is full there is no room for a new list before something has
// gone.
func TestAFullDiskIsSwept(t *testing.T) {
	var faults disktest.Faults
	s, err := Open(t.TempDir(), Options{Disk: faults.Disk()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ds := putAll(t, s, "kept", "small", string(bytes.Repeat([]byte("x"), 2*bigBlob)))
	faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Create}, Path: "state", Times: 1, Err: syscall.ENOSPC})
	c := collect(t, s)
	c.MarkDigest("", ds[0], Keep)
	if freed := sweep(t, c); freed.Blobs != 2 || faults.Failed() != 1 {
		t.Errorf("%d blobs went, and %d operations failed", freed.Blobs, faults.Failed())
	}
	if lost, err := s.Lost(); err != nil || len(lost) != 0 || !there(s, ds[0]) {
		t.Errorf("lost: %v, %v", lost, err)
	}
}
