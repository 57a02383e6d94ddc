package cas

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"chantal"
	"chantal/internal/disk"
	"chantal/internal/disk/disktest"
)

// broken opens a store on a disk that can be told to fail.
func broken(t *testing.T, o Options) (*Store, *disktest.Faults, string) {
	t.Helper()
	faults, dir := &disktest.Faults{}, t.TempDir()
	o.Disk = faults.Disk()
	return open(t, dir, o), faults, dir
}

// arrive lets content arrive in pieces of 100 KB.
func arrive(s *Store, w Want, content []byte, follow func(*Growing)) (Blob, error) {
	g, err := s.Create(w)
	if err != nil {
		return Blob{}, err
	}
	follow(g)
	for i := 0; i < len(content); i += 100 << 10 {
		if _, err := g.Write(content[i:min(i+100<<10, len(content))]); err != nil {
			return Blob{}, err
		}
	}
	return g.Commit()
}

// readers follow a file, in both ways, and check what they get.
type readers struct {
	t    *testing.T
	want []byte
	wg   sync.WaitGroup
}

func (r *readers) follow(g *Growing) {
	for i := range 3 {
		f, err := g.Follow(r.t.Context())
		if err != nil {
			r.t.Errorf("reader %d: %v", i, err)
			return
		}
		r.wg.Go(func() {
			defer f.Close()
			var got bytes.Buffer
			var err error
			if i == 0 {
				_, err = io.Copy(&got, struct{ io.Reader }{f})
			} else {
				_, err = f.WriteTo(&got)
			}
			if err != nil || !bytes.Equal(got.Bytes(), r.want) {
				r.t.Errorf("reader %d got %d bytes of %d, %v", i, got.Len(), len(r.want), err)
			}
		})
	}
}

func TestFollowersGetAFileThatTheDiskDoesNotTake(t *testing.T) {
	const small, middle, large = 70 << 10, 1 << 20, wholeMax + 1<<20
	for _, tc := range []struct {
		f     disktest.Fault
		sizes []int
	}{
		{disktest.Fault{Kinds: []disk.Kind{disk.Create}, Err: syscall.ENOSPC}, []int{small, middle, large}},
		{disktest.Fault{Kinds: []disk.Kind{disk.Write}, Err: syscall.ENOSPC}, []int{small, middle}},
		{disktest.Fault{Kinds: []disk.Kind{disk.Write}, Skip: 1, Err: syscall.EIO}, []int{middle}},
		{disktest.Fault{Kinds: []disk.Kind{disk.Write}, Skip: 8, Short: true, Err: syscall.ENOSPC}, []int{middle, large}},
		{disktest.Fault{Kinds: []disk.Kind{disk.Close}, Err: syscall.EIO}, []int{small, large}},
		{disktest.Fault{Kinds: []disk.Kind{disk.Create, disk.Write, disk.Sync, disk.Rename}, Skip: 1, Err: syscall.EDQUOT}, []int{small, middle}},
		{disktest.Fault{Kinds: []disk.Kind{disk.Sync}, Err: syscall.EIO}, []int{small}},
		{disktest.Fault{Kinds: []disk.Kind{disk.Rename}, Err: syscall.EIO}, []int{small}},
		{disktest.Fault{Kinds: []disk.Kind{disk.Times}, Err: syscall.EROFS}, []int{middle}},
	} {
		tc.f.Path = "blobs"
		for i, size := range tc.sizes {
			if testing.Short() && size != tc.sizes[0] {
				continue
			}
			t.Run(fmt.Sprintf("%v %v %d %d", tc.f.Kinds, tc.f.Err, tc.f.Skip, size), func(t *testing.T) {
				testSpill(t, tc.f, content(1, size), i%2 == 0)
			})
		}
	}
}

func testSpill(t *testing.T, f disktest.Fault, data []byte, known bool) {
	s, faults, dir := broken(t, Options{})
	faults.Set(f)
	w := Want{Repo: "r", Path: "p", Size: -1, Digests: []chantal.Digest{sha(data)}}
	if known {
		w.Size = int64(len(data))
	}
	r := readers{t: t, want: data}
	b, err := arrive(s, w, data, r.follow)
	r.wg.Wait()
	if kept := !errors.Is(err, chantal.ErrNotKept); err != nil && kept || b.Digest != sha(data) {
		t.Fatalf("%+v %v", b, err)
	}
	if err == nil {
		if got := read(t, s, b.Digest); !bytes.Equal(got, data) {
			t.Error("it cannot be opened")
		}
	} else if _, _, err := s.Open(b.Digest); !errors.Is(err, fs.ErrNotExist) || len(data) <= wholeMax {
		t.Errorf("what is not kept: %v", err)
	}
	synced := s.Sync(t.Context())
	var de *chantal.DiskError
	if health := s.Health(); !errors.As(health, &de) || !errors.Is(health, f.Err) || err == nil && synced == nil {
		t.Errorf("Health: %v, Sync: %v", health, synced)
	}
	if faults.Failed() == 0 {
		t.Error("nothing failed")
	}
	faults.Set()
	if err := s.Sync(t.Context()); err != nil || s.Health() != nil {
		t.Fatalf("after the fault: %v, %v", err, s.Health())
	}
	if err == nil {
		if fi, err := os.Stat(s.blobPath(b.Digest)); err != nil || fi.Size() != b.Size {
			t.Errorf("it is not durable: %v", err)
		}
		if got := read(t, s, b.Digest); !bytes.Equal(got, data) {
			t.Error("other bytes")
		}
	}
	if left := temps(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if n := s.InMemory(); n != 0 {
		t.Errorf("%d bytes are in memory", n)
	}
}

func TestWhatComesLateToALargeFileIsTold(t *testing.T) {
	s, faults, _ := broken(t, Options{})
	faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Write}, Skip: 20, Err: syscall.ENOSPC})
	data := content(2, wholeMax+windowMax)
	r := readers{t: t, want: data}
	var g *Growing
	if _, err := arrive(s, Want{Size: int64(len(data))}, data, func(grow *Growing) { g = grow; r.follow(g) }); !errors.Is(err, chantal.ErrNotKept) {
		t.Errorf("got %v", err)
	}
	if _, err := g.Follow(t.Context()); !errors.Is(err, chantal.ErrNotKept) {
		t.Errorf("a late follower: %v", err)
	}
	r.wg.Wait()
	if err := g.Err(); err != nil {
		t.Errorf("it failed: %v", err)
	}
}

func TestAWrongFileIsNeverCompleteInMemoryEither(t *testing.T) {
	for _, size := range []int{1 << 20, wholeMax + 1<<20} {
		s, faults, _ := broken(t, Options{})
		faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Write}, Skip: 3, Err: syscall.ENOSPC})
		data := content(3, size)
		var got bytes.Buffer
		var ferr error
		var wg sync.WaitGroup
		_, err := arrive(s, Want{Path: "p", Size: int64(size), Digests: []chantal.Digest{sha([]byte("other"))}}, data, func(g *Growing) {
			f, err := g.Follow(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { defer f.Close(); _, ferr = f.WriteTo(&got) })
		})
		wg.Wait()
		var mm *chantal.MismatchError
		if !errors.As(err, &mm) || !errors.As(ferr, &mm) {
			t.Errorf("writer: %v, follower: %v", err, ferr)
		}
		if got.Len() > size-HoldBack || !bytes.HasPrefix(data, got.Bytes()) {
			t.Errorf("the follower got %d of %d bytes", got.Len(), size)
		}
	}
}

func TestAFollowerThatReadsNothingIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults, dir := &disktest.Faults{}, t.TempDir()
		s, err := Open(dir, Options{Disk: faults.Disk()})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Write, disk.Create}, Err: syscall.ENOSPC})
		data := content(4, wholeMax+1<<20)
		r := readers{t: t, want: data}
		var lazy *Follower
		start := time.Now()
		_, err = arrive(s, Want{Size: int64(len(data))}, data, func(g *Growing) {
			r.follow(g)
			if lazy, err = g.Follow(t.Context()); err != nil {
				t.Error(err)
			}
		})
		r.wg.Wait()
		if !errors.Is(err, chantal.ErrNotKept) || time.Since(start) < laggardMax || time.Since(start) > 2*laggardMax {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if _, err := io.Copy(io.Discard, lazy); !errors.Is(err, chantal.ErrNotKept) {
			t.Errorf("the one that read nothing: %v", err)
		}
		lazy.Close()
		start = time.Now()
		if _, err := arrive(s, Want{Size: int64(len(data))}, data, func(*Growing) {}); !errors.Is(err, chantal.ErrNotKept) || time.Since(start) != laggardMax {
			t.Errorf("for nobody: %v after %v", err, time.Since(start))
		}
	})
}

func TestAFullDiskKeepsTheNewestInMemory(t *testing.T) {
	s, faults, _ := broken(t, Options{MemoryMax: 100 << 10, SyncEvery: time.Hour})
	faults.Set(disktest.Fault{Err: syscall.ENOSPC})
	var all [][]byte
	for i := range 5 {
		all = append(all, content(uint64(i), 30<<10))
		if _, err := s.Put(Want{Size: -1}, all[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i, data := range all {
		_, err := s.Find("", sha(data))
		if i < 2 && !errors.Is(err, fs.ErrNotExist) || i >= 2 && err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if got := read(t, s, sha(all[4])); !bytes.Equal(got, all[4]) {
		t.Error("other bytes")
	}
	var de *chantal.DiskError
	if _, err := s.Put(Want{Size: -1}, content(9, 200<<10)); !errors.As(err, &de) || !de.Full {
		t.Errorf("too large: %v", err)
	}
	if err := s.AppendRecord("names", 1); !errors.As(err, &de) {
		t.Errorf("a record: %v", err)
	}
	faults.Set()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, data := range all[2:] {
		if fi, err := os.Stat(s.blobPath(sha(data))); err != nil || fi.Size() != int64(len(data)) {
			t.Errorf("not durable: %v", err)
		}
	}
	if err := s.AppendRecord("names", 1); err != nil || s.InMemory() != 0 {
		t.Errorf("%v, %d bytes in memory", err, s.InMemory())
	}
}

func TestDerivedFilesNeedNoDisk(t *testing.T) {
	for _, k := range []disk.Kind{disk.Create, disk.Write, disk.Close, disk.Rename} {
		s, faults, dir := broken(t, Options{})
		faults.Set(disktest.Fault{Kinds: []disk.Kind{k}, Path: "derived", Err: syscall.ENOSPC})
		derive(t, s, "a", 1000)
		f, err := s.Derived("a")
		if err != nil {
			t.Fatalf("%s: %v", k, err)
		}
		if got, err := io.ReadAll(f); err != nil || len(got) != 1000 {
			t.Errorf("%s: %d bytes, %v", k, len(got), err)
		}
		f.Close()
		if left := temps(t, dir); len(left) > 0 {
			t.Errorf("%s: left behind: %v", k, left)
		}
		bad := errors.New("not a list of packages")
		if err := s.PutDerived("b", func(io.Writer) error { return bad }); !errors.Is(err, bad) {
			t.Errorf("%s: got %v", k, err)
		}
	}
}
