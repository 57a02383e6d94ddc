package plain

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/disk"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// bench is a folder for a store and for what is made of it.
type bench struct {
	t    *testing.T
	disk disk.Disk
	dir  string
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir()}
	b.must(os.Mkdir(b.dir+"/store", 0o755))
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// www is the folder that is made.
func (b *bench) www() string { return b.dir + "/top/www" }

// file is a stored file with that content, to be found at places; one of which
// the first place begins with "root" is mutable.
func (b *bench) file(content string, places ...string) File {
	b.t.Helper()
	sum := sha256.Sum256([]byte(content))
	f := File{Places: places, SHA256: sum, Size: int64(len(content)), Modified: noon}
	if strings.HasPrefix(places[0], "root") {
		f.Content, f.Mutable = []byte(content), true
		return f
	}
	f.From = filepath.Join(b.dir, "store", content)
	if _, err := os.Stat(f.From); err != nil {
		b.must(os.WriteFile(f.From, []byte(content), 0o444))
		b.must(os.Chtimes(f.From, noon, noon))
	}
	return f
}

// publish makes a folder of files.
func (b *bench) publish(mode Mode, files ...File) (r Report, err error) {
	t, err := Begin(b.disk, b.www(), mode)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	for _, f := range files {
		if err := t.Put(f); err != nil {
			return r, err
		}
	}
	return t.Swap(About{Ref: "live"})
}

func (b *bench) mustPublish(mode Mode, files ...File) Report {
	b.t.Helper()
	r, err := b.publish(mode, files...)
	b.must(err)
	return r
}

// holds returns the files below a folder by path, with their content, but for
// the marker.
func holds(dir string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == markerName {
			return err
		}
		body, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir+"/")] = string(body)
		return err
	})
	return all, err
}

func (b *bench) wantFolder(want map[string]string) {
	b.t.Helper()
	got, err := holds(b.www())
	b.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("the folder (-want +got):\n%s", diff)
	}
	left, err := os.ReadDir(filepath.Dir(b.www()))
	if b.must(err); len(left) != 1 {
		b.t.Errorf("beside the folder: %v", left)
	}
}

func TestAFolderIsReplacedAndWhatIsTheSameStays(t *testing.T) {
	for _, mode := range []Mode{Hard, Sym, Copy} {
		t.Run(string(mode), func(t *testing.T) {
			b := newBench(t)
			b.must(os.Mkdir(b.dir+"/top", 0o755))
			first := []File{b.file("one", "root"), b.file("same", "root2"), b.file("A", "pool/a", "by-hash/a"), b.file("B", "pool/b"), b.file("C", "pool/c")}
			r := b.mustPublish(mode, first...)
			if diff := cmp.Diff(Report{Files: 6, Bytes: 11, Added: 6}, r); diff != "" {
				t.Errorf("at first (-want +got):\n%s", diff)
			}
			b.wantFolder(map[string]string{"root": "one", "root2": "same", "pool/a": "A", "by-hash/a": "A", "pool/b": "B", "pool/c": "C"})
			before := b.stats()
			r = b.mustPublish(mode, b.file("two", "root"), b.file("same", "root2"), b.file("A", "pool/a", "by-hash/a"), b.file("BB", "pool/b"), b.file("D", "pool/d"))
			if diff := cmp.Diff(Report{Files: 6, Bytes: 12, Added: 1, Replaced: 2, Unchanged: 3, Removed: 1}, r); diff != "" {
				t.Errorf("again (-want +got):\n%s", diff)
			}
			b.wantFolder(map[string]string{"root": "two", "root2": "same", "pool/a": "A", "by-hash/a": "A", "pool/b": "BB", "pool/d": "D"})
			after := b.stats()
			for _, same := range []string{"root2", "pool/a", "by-hash/a"} {
				if !os.SameFile(before[same], after[same]) || !before[same].ModTime().Equal(after[same].ModTime()) {
					t.Errorf("%s is another file, or has another time: %v, %v", same, before[same], after[same])
				}
			}
			dir, err := os.Stat(b.www())
			b.must(err)
			r = b.mustPublish(mode, b.file("two", "root"), b.file("same", "root2"), b.file("A", "pool/a", "by-hash/a"), b.file("BB", "pool/b"), b.file("D", "pool/d"))
			if now, err := os.Stat(b.www()); err != nil || !os.SameFile(dir, now) || r.Unchanged != 6 {
				t.Errorf("nothing to do, and the folder is another: %+v, %v", r, err)
			}
		})
	}
}

// stats describes all files of the folder.
func (b *bench) stats() map[string]fs.FileInfo {
	b.t.Helper()
	all := map[string]fs.FileInfo{}
	files, err := holds(b.www())
	b.must(err)
	for name := range maps.Keys(files) {
		fi, err := os.Lstat(filepath.Join(b.www(), name))
		b.must(err)
		all[name] = fi
	}
	return all
}

func TestWhatTheFilesAre(t *testing.T) {
	for mode, want := range map[Mode]string{Hard: "-r--r--r--", Copy: "-rw-r--r--", Sym: "Lrwxrwxrwx"} {
		b := newBench(t)
		b.must(os.Mkdir(b.dir+"/top", 0o755))
		f := b.file("A", "pool/a")
		b.must(os.Chmod(f.From, 0o400)) // as a strict umask makes it
		old := syscall.Umask(0o077)
		b.mustPublish(mode, f, b.file("one", "root"))
		syscall.Umask(old)
		stats := b.stats()
		if got := stats["pool/a"].Mode().String(); got != want {
			t.Errorf("%s: %s, want %s", mode, got, want)
		}
		if root := stats["root"]; root.Mode().Perm() != 0o644 || !root.ModTime().Equal(noon) {
			t.Errorf("%s: the root: %v, %v", mode, root.Mode(), root.ModTime())
		}
		if file, err := os.Stat(b.www() + "/pool/a"); err != nil || !file.ModTime().Equal(noon) {
			t.Errorf("%s: the file: %v, %v", mode, file.ModTime(), err)
		}
		for _, dir := range []string{"", "/pool"} {
			if fi, err := os.Stat(b.www() + dir); err != nil || fi.Mode().Perm() != 0o755 {
				t.Errorf("%s: folder %s: %v, %v", mode, dir, fi.Mode(), err)
			}
		}
		from, err := os.Stat(f.From)
		b.must(err)
		to, err := os.Stat(b.www() + "/pool/a")
		b.must(err)
		if os.SameFile(from, to) != (mode != Copy) {
			t.Errorf("%s: whether it is the stored file is %v", mode, mode == Copy)
		}
	}
}

func TestTimesOfRootsRiseWithTheirContent(t *testing.T) {
	b := newBench(t)
	b.must(os.Mkdir(b.dir+"/top", 0o755))
	root := func(content string, modified time.Time) File {
		f := b.file(content, "root")
		f.Modified = modified
		return f
	}
	for i, step := range []struct {
		content string
		at      time.Time
		want    time.Time
	}{
		{"one", noon, noon},
		{"two", noon.Add(time.Hour), noon.Add(time.Hour)},
		{"one", noon, noon.Add(time.Hour + time.Second)},
		{"one", noon.Add(time.Minute), noon.Add(time.Hour + time.Second)},
	} {
		b.mustPublish(Hard, root(step.content, step.at))
		if got := b.stats()["root"].ModTime(); !got.Equal(step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}

func TestFoldersThatAreNotTouched(t *testing.T) {
	b := newBench(t)
	top := b.dir + "/top"
	if _, err := b.publish(Hard); err == nil || !strings.Contains(err.Error(), "top") {
		t.Errorf("a folder in none: %v", err)
	}
	for what, make := range map[string]func() error{
		"somebody's files": func() error { return errors.Join(os.Mkdir(b.www(), 0o755), os.WriteFile(b.www()+"/x", nil, 0o644)) },
		"a file":           func() error { return os.WriteFile(b.www(), nil, 0o644) },
		"a link":           func() error { return os.Symlink("/nowhere", b.www()) },
		"a damaged marker": func() error {
			return errors.Join(os.Mkdir(b.www(), 0o755), os.WriteFile(b.www()+"/"+markerName, []byte("{\"chantal\":1}\nxyz\n"), 0o644))
		},
		"a newer marker": func() error {
			return errors.Join(os.Mkdir(b.www(), 0o755), os.WriteFile(b.www()+"/"+markerName, []byte("{\"chantal\":2}\n"), 0o644))
		},
	} {
		b.must(os.RemoveAll(top))
		b.must(os.Mkdir(top, 0o755))
		b.must(make())
		if _, err := b.publish(Hard); err == nil {
			t.Errorf("%s: no error", what)
		}
		if left, err := os.ReadDir(top); err != nil || len(left) != 1 {
			t.Errorf("%s: left are %v, %v", what, left, err)
		}
	}
	b.must(os.RemoveAll(top))
	b.must(os.MkdirAll(b.www(), 0o755))
	b.mustPublish(Hard, b.file("A", "a"))
	if _, err := Begin(disk.Disk{}, "/", Hard); err == nil {
		t.Error("the top of everything: no error")
	}
	if _, err := Begin(disk.Disk{}, "www", Hard); err == nil {
		t.Error("a relative path: no error")
	}
}

func TestTwoAtATimeAreRefused(t *testing.T) {
	b := newBench(t)
	b.must(os.Mkdir(b.dir+"/top", 0o755))
	one, err := Begin(disk.Disk{}, b.www(), Hard)
	b.must(err)
	if _, err := Begin(disk.Disk{}, b.www(), Hard); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("the second: %v", err)
	}
	b.must(one.Put(b.file("A", "a")))
	_, err = one.Swap(About{})
	b.must(err)
	b.must(one.Close())
	b.mustPublish(Hard, b.file("B", "a"))
	b.wantFolder(map[string]string{"a": "B"})
}

func TestPathsThatLeadOutOfTheFolder(t *testing.T) {
	b := newBench(t)
	b.must(os.Mkdir(b.dir+"/top", 0o755))
	for _, place := range []string{"", ".", "..", "../a", "a/../../b", "/etc/a", "a//b", "a/", "a\x00b", "a\nb", markerName} {
		if _, err := b.publish(Hard, b.file("A", place)); err == nil {
			t.Errorf("%q: no error", place)
		}
	}
	for what, files := range map[string][]File{
		"two files of one path":            {b.file("A", "a"), b.file("B", "a")},
		"a file and a folder of one path":  {b.file("A", "a"), b.file("B", "a/b")},
		"a folder and a file of one path":  {b.file("B", "a/b"), b.file("A", "a")},
		"below what is a link to a folder": {{Places: []string{"a"}, From: b.dir, SHA256: [32]byte{1}}, b.file("B", "a/b")},
	} {
		if _, err := b.publish(Sym, files...); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := os.Lstat(b.www()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is there: %v", err)
	}
	files := []File{b.file("A", "root"), b.file("A", "pool/a"), b.file("A", "x")}
	for _, place := range []string{"root", "pool", "pool/a/b", "x/y", "extra"} {
		spare := b.file("B", place)
		spare.Spare = true
		files = append(files, spare)
	}
	b.mustPublish(Hard, files...)
	b.wantFolder(map[string]string{"root": "A", "pool/a": "A", "x": "A", "extra": "B"})
}

func TestADamagedFileIsNotCopied(t *testing.T) {
	b := newBench(t)
	b.must(os.Mkdir(b.dir+"/top", 0o755))
	f := b.file("A", "a")
	b.must(os.Chmod(f.From, 0o644))
	b.must(os.WriteFile(f.From, []byte("X"), 0o644))
	if _, err := b.publish(Copy, f); !errors.Is(err, errDamaged) {
		t.Errorf("got %v", err)
	}
	// Nor is one kept that somebody has changed in the folder.
	g := b.file("G", "g")
	b.mustPublish(Copy, g)
	b.must(os.WriteFile(b.www()+"/g", []byte("X"), 0o644))
	b.mustPublish(Copy, g)
	b.wantFolder(map[string]string{"g": "G"})
}
