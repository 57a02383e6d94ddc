// Package plain writes a folder of plain files that any web server can serve:
// beside what is there, so that readers see the old folder or the new one and
// never a mixture, and reusing what has not changed.
//
// Everything goes through internal/disk. The package knows nothing of
// repositories, of the store, or of where the files come from.
//
// On disk, for the folder DIR:
//
//	DIR/.chantal          marks DIR as made here: one line of JSON, then the SHA-256 and path of every file
//	.DIR.chantal/         beside DIR while work is under way, locked by who does it
//	.DIR.chantal/new/     the folder that is to take the place of DIR; after that the former one
//	.DIR.chantal/old/     the former one, where the file system cannot exchange two folders
//
// What a process that was killed left is removed by the next one.
package plain

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"chantal/internal/disk"
)

// Mode says what the files of a folder are.
type Mode string

// The modes.
const (
	Hard    Mode = "hard"    // further names of the files that they come from
	Sym     Mode = "sym"     // symbolic links to them
	Copy    Mode = "copy"    // copies
	Reflink Mode = "reflink" // copies that share their blocks, where the file system can
)

// Modes returns all of them.
func Modes() []Mode { return []Mode{Hard, Sym, Copy, Reflink} }

const (
	markerName = ".chantal"
	filePerm   = fs.FileMode(0o644)
	folderPerm = fs.FileMode(0o755)
	readable   = fs.FileMode(0o444) // by everybody: what a web server needs
)

// File is one file to be written.
type File struct {
	Places   []string // the paths at which it is found, relative to the folder; at least one
	From     string   // the file that it comes from; "" where Content is all of it
	Content  []byte
	SHA256   [sha256.Size]byte // of the content
	Size     int64             // in bytes
	Modified time.Time         // whole seconds
	// Mutable files have other content under the same path in another state.
	// They are always copies, and their times never fall when the content
	// changes: clients that ask by date get what is new, also of an older state.
	Mutable bool
	Spare   bool // left out where its path is taken by then
}

// RefusedError says why a folder is not written.
type RefusedError struct{ Dir, Why string }

func (e *RefusedError) Error() string { return e.Dir + ": " + e.Why }

// Tree is a folder in the making. It is for one goroutine at a time.
type Tree struct {
	disk   disk.Disk
	mode   Mode
	dir    string // the folder that is to be
	work   string // beside it
	next   string // in work
	unlock func() error

	masked  bool // the umask takes something away from new files
	exists  bool
	old     marker
	folders map[string]bool
	files   map[string][sha256.Size]byte
	report  Report
}

// Report says what a new folder has in place of the former one.
type Report struct {
	Files     int   `json:"files"`
	Bytes     int64 `json:"bytes"`
	Added     int   `json:"added"`    // files that were not there
	Replaced  int   `json:"replaced"` // files that were another file
	Unchanged int   `json:"unchanged"`
	Removed   int   `json:"removed"`
	Gap       bool  `json:"gap,omitempty"` // the file system cannot exchange two folders: for a moment there was none
}

// Begin prepares a folder that is to take the place of dir, an absolute path,
// of which the parent has to be there. dir itself need not; it may be empty, or
// be one that was made here. The error is a *RefusedError where it is something
// else, and disk.ErrLocked while somebody else does the same. The caller calls
// Close.
func Begin(d disk.Disk, dir string, mode Mode) (*Tree, error) {
	if !slices.Contains(Modes(), mode) {
		return nil, fmt.Errorf("there is no way %q to link files", mode)
	}
	if dir = filepath.Clean(dir); !filepath.IsAbs(dir) || dir == filepath.Dir(dir) {
		return nil, &RefusedError{dir, "it has to be a folder inside of another one, by its absolute path"}
	}
	// The parents are followed once: what becomes of their links later leads
	// nowhere else.
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return nil, fmt.Errorf("the folder that %s is to be in: %w", dir, err)
	}
	name := filepath.Base(dir)
	t := &Tree{
		disk: d, mode: mode, dir: filepath.Join(parent, name), work: filepath.Join(parent, "."+name+".chantal"),
		folders: map[string]bool{".": true}, files: map[string][sha256.Size]byte{},
	}
	t.next = filepath.Join(t.work, "new")
	if err := t.look(); err != nil { // before anything is written
		return nil, err
	}
	if err := t.lock(); err != nil {
		return nil, err
	}
	if err := t.prepare(); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// lock makes the folder for the work, and takes it for this process alone. The
// one who had it may remove it at the end, so that it is another one by then.
func (t *Tree) lock() error {
	for {
		if err := t.disk.Mkdir(t.work); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("working beside %s: %w", t.dir, err)
		}
		before, err := t.disk.Stat(t.work)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !before.IsDir() {
			return &RefusedError{t.work, "it is in the way: the work is done there"}
		}
		unlock, err := t.disk.Lock(t.work)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("working beside %s: %w", t.dir, err)
		}
		if after, err := t.disk.Stat(t.work); err == nil && disk.Same(before, after) {
			t.unlock = unlock
			return nil
		}
		_ = unlock() // that of a folder which is gone
	}
}

// prepare removes what a process that was killed has left, looks at what is
// there, and makes an empty folder.
func (t *Tree) prepare() error {
	if err := errors.Join(t.tidy(), t.look()); err != nil {
		return err
	}
	if err := t.disk.Mkdir(t.next); err != nil {
		return err
	}
	fi, err := t.disk.Stat(t.next)
	if err != nil {
		return err
	}
	if t.masked = fi.Mode().Perm() != folderPerm; t.masked {
		return t.disk.Chmod(t.next, folderPerm)
	}
	return nil
}

// look finds out what is at the place of the folder.
func (t *Tree) look() error {
	fi, err := t.disk.Stat(t.dir)
	if errors.Is(err, fs.ErrNotExist) {
		t.exists = false
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		return &RefusedError{t.dir, "it is a symbolic link, which would be replaced; name the folder that it leads to"}
	case !fi.IsDir():
		return &RefusedError{t.dir, "it is there and no folder"}
	}
	t.exists = true
	text, err := t.disk.ReadFile(filepath.Join(t.dir, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		entries, err := t.disk.List(t.dir)
		if err == nil && len(entries) > 0 {
			err = &RefusedError{t.dir, "it has files in it and was not made by chantal publish; name a new folder, or empty it"}
		}
		return err
	}
	if err == nil {
		t.old, err = parseMarker(text)
	}
	if err != nil {
		return fmt.Errorf("reading %s of %s: %w", markerName, t.dir, err)
	}
	return nil
}

// Put writes one file, at all of its places. What has other content at one of
// them already is an error, and so is a path that is none below the folder.
func (t *Tree) Put(f File) error {
	for i, place := range f.Places {
		if f.Spare && t.taken(place) {
			continue
		}
		if have, ok := t.files[place]; ok {
			if have != f.SHA256 {
				return fmt.Errorf("%s: the state has two files of that path with different content, and a folder has room for one", place)
			}
			continue
		}
		if err := t.folder(place); err != nil {
			return err
		}
		t.files[place] = f.SHA256
		if err := t.put(&f, place, i > 0); err != nil {
			return fmt.Errorf("writing %s: %w", place, err)
		}
		t.report.Files++
		t.report.Bytes += f.Size
	}
	return nil
}

// taken reports whether there is no room for a file at a path: something is
// there, or a file is in the place of a folder above.
func (t *Tree) taken(place string) bool {
	if _, ok := t.files[place]; ok || t.folders[place] {
		return true
	}
	for dir := path.Dir(place); dir != "."; dir = path.Dir(dir) {
		if _, ok := t.files[dir]; ok {
			return true
		}
	}
	return false
}

// put writes a file at one place; again says that it is at its first one.
func (t *Tree) put(f *File, place string, again bool) error {
	to, had := filepath.Join(t.next, filepath.FromSlash(place)), t.former(place)
	same, err := t.kept(f, place, had)
	if err != nil {
		return err
	}
	switch {
	case same:
		t.report.Unchanged++
		return t.disk.Link(filepath.Join(t.dir, filepath.FromSlash(place)), to)
	case had == nil:
		t.report.Added++
	default:
		t.report.Replaced++
	}
	switch {
	case again && (f.Mutable || t.mode == Copy || t.mode == Reflink):
		return t.disk.Link(filepath.Join(t.next, filepath.FromSlash(f.Places[0])), to)
	case f.Mutable:
		return t.putMutable(f, to, had)
	case t.mode == Sym:
		return t.disk.Symlink(f.From, to)
	case t.mode == Hard:
		return t.putHard(f.From, to)
	}
	return t.putCopy(f, to)
}

// former describes what the folder has at a path so far; nil for nothing, or
// where a link would have to be followed.
func (t *Tree) former(place string) fs.FileInfo {
	if !t.exists {
		return nil
	}
	fi, err := t.disk.Stat(filepath.Join(t.dir, filepath.FromSlash(place)))
	if err != nil || fi.IsDir() {
		return nil
	}
	return fi
}

// kept reports whether the file in the former folder is as the new one would
// be.
func (t *Tree) kept(f *File, place string, had fs.FileInfo) (bool, error) {
	switch {
	case had == nil:
		return false, nil
	case f.Mutable:
		if !had.Mode().IsRegular() || had.Mode().Perm() != filePerm || had.Size() != f.Size {
			return false, nil
		}
		body, err := t.disk.ReadFile(filepath.Join(t.dir, filepath.FromSlash(place)))
		return sha256.Sum256(body) == f.SHA256, err
	case t.mode == Hard:
		from, err := t.disk.Stat(f.From)
		return err == nil && disk.Same(from, had), err
	case t.mode == Sym:
		if had.Mode()&fs.ModeSymlink == 0 {
			return false, nil
		}
		target, err := t.disk.Readlink(filepath.Join(t.dir, filepath.FromSlash(place)))
		return target == f.From, err
	}
	// Whoever changes a file of the folder changes its size or its time.
	copied := t.old.Link == Copy || t.old.Link == Reflink
	sum, listed := t.old.files[place]
	return copied && listed && sum == f.SHA256 && had.Mode().IsRegular() && had.Mode().Perm() == filePerm &&
		had.Size() == f.Size && had.ModTime().Equal(f.Modified), nil
}

// folder makes the folders above a path that is checked first. Nothing that was
// not made here as a folder is followed.
func (t *Tree) folder(place string) error {
	if !fs.ValidPath(place) || place == "." || place == markerName ||
		strings.ContainsFunc(place, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return fmt.Errorf("%q is no path in a folder", place)
	}
	dir := path.Dir(place)
	if t.folders[dir] {
		return nil
	}
	var missing []string
	for d := dir; !t.folders[d]; d = path.Dir(d) {
		missing = append(missing, d)
	}
	for _, d := range slices.Backward(missing) {
		at := filepath.Join(t.next, filepath.FromSlash(d))
		err := t.disk.Mkdir(at)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s: %s is a file and would have to be a folder, too", place, d)
		}
		if err == nil && t.masked {
			err = t.disk.Chmod(at, folderPerm)
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", place, err)
		}
		t.folders[d] = true
	}
	return nil
}

// Swap puts the new folder in the place of the former one, when all of it is on
// the disk; about says what it is. Where nothing differs the former one stays
// as it is.
func (t *Tree) Swap(about About) (Report, error) {
	about.Link = t.mode
	text := about.text(t.files)
	t.report.Removed = max(0, len(t.old.files)-t.report.Unchanged-t.report.Replaced)
	if t.exists && t.report.Unchanged == t.report.Files && t.report.Removed == 0 && bytes.Equal(text, t.old.text) {
		return t.report, nil
	}
	at := filepath.Join(t.next, markerName)
	if err := t.write(at, text, time.Time{}); err != nil {
		return Report{}, fmt.Errorf("writing %s: %w", markerName, err)
	}
	if err := t.sync(); err != nil {
		return Report{}, fmt.Errorf("bringing %s to the disk: %w", t.dir, err)
	}
	if err := t.exchange(); err != nil {
		return Report{}, fmt.Errorf("putting the new folder at %s: %w", t.dir, err)
	}
	if err := t.disk.Sync(filepath.Dir(t.dir)); err != nil {
		return Report{}, fmt.Errorf("bringing %s to the disk: %w", t.dir, err)
	}
	return t.report, nil
}

// sync brings everything that was written to the disk: names, and what is in
// the files.
func (t *Tree) sync() error {
	err := t.disk.SyncAll(t.next)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	for place := range t.files {
		at := filepath.Join(t.next, filepath.FromSlash(place))
		if fi, err := t.disk.Stat(at); err != nil {
			return err
		} else if fi.Mode().IsRegular() {
			if err := t.disk.Sync(at); err != nil {
				return err
			}
		}
	}
	for dir := range t.folders {
		if err := t.disk.Sync(filepath.Join(t.next, filepath.FromSlash(dir))); err != nil {
			return err
		}
	}
	return t.disk.Sync(filepath.Join(t.next, markerName))
}

func (t *Tree) exchange() error {
	if !t.exists {
		return t.disk.Rename(t.next, t.dir)
	}
	err := t.disk.Exchange(t.next, t.dir)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	t.report.Gap = true
	former := filepath.Join(t.work, "old")
	if err := t.disk.Rename(t.dir, former); err != nil {
		return err
	}
	if err := t.disk.Rename(t.next, t.dir); err != nil {
		return errors.Join(err, t.disk.Rename(former, t.dir))
	}
	return nil
}

// Close removes what is not needed: the new folder where it was not swapped in,
// and the former one where it was.
func (t *Tree) Close() error {
	err := t.tidy()
	if err == nil {
		err = t.disk.Remove(t.work)
	}
	return errors.Join(err, t.unlock())
}

// tidy empties the folder for the work. A former folder that was taken away,
// and nothing put there, goes back first.
func (t *Tree) tidy() error {
	former := filepath.Join(t.work, "old")
	_, err := t.disk.Stat(t.dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = t.disk.Rename(former, t.dir); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return errors.Join(t.removeAll(t.next), t.removeAll(former))
}

// removeAll removes a file or folder with all that is in it, if it is there.
func (t *Tree) removeAll(name string) error {
	entries, err := t.disk.List(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		at := filepath.Join(name, e.Name())
		if e.IsDir() {
			err = t.removeAll(at)
		} else {
			err = t.disk.Remove(at)
		}
		if err != nil {
			return err
		}
	}
	return t.disk.Remove(name)
}
