// Package disktest sees and breaks what goes through a disk.Disk, for tests: a
// Recorder lays out what a crash at any point would have left, Faults let
// operations fail.
package disktest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"chantal/internal/disk"
)

// Recorder writes down what changes the disk below a folder. Operations are
// done one after the other, so their order is that of their effects.
type Recorder struct {
	root string

	mu    sync.Mutex
	steps []step
}

// step is one operation that was done.
type step struct {
	disk.Op
	content []byte    // Update, Clone: the whole file afterwards; nil where there is none
	target  string    // Symlink: where it leads
	changed time.Time // Times: what the file has afterwards
}

// NewRecorder returns a Recorder for what is done below root, which is empty.
func NewRecorder(root string) *Recorder { return &Recorder{root: root} }

// Disk returns the disk to be used. Sync is left out of what is really done:
// whether bytes are on the disk is what the Recorder plays with.
func (r *Recorder) Disk() disk.Disk { return disk.Disk{Around: r.around} }

// Len returns how many operations there were so far.
func (r *Recorder) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.steps)
}

// Kinds counts the operations so far.
func (r *Recorder) Kinds() map[disk.Kind]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := map[disk.Kind]int{}
	for _, s := range r.steps {
		n[s.Kind]++
	}
	return n
}

// String describes operation n, for messages.
func (r *Recorder) String(n int) string {
	s := r.steps[n]
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", s.Kind, r.rel(s.Path), r.rel(s.To)))
}

func (r *Recorder) rel(path string) string {
	if rel, err := filepath.Rel(r.root, path); err == nil {
		return rel
	}
	return path
}

func (r *Recorder) around(op *disk.Op, do func() error) error {
	if !op.Changes() {
		return do()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if op.Kind == disk.Sync || op.Kind == disk.SyncAll {
		do = func() error { _, err := os.Lstat(op.Path); return err }
	}
	err := do()
	s := step{Op: *op}
	s.Bytes = bytes.Clone(op.Bytes)
	switch op.Kind {
	case disk.Update: // it may have failed and changed the file all the same
		s.content, _ = os.ReadFile(op.Path)
	case disk.Clone:
		s.content, _ = os.ReadFile(op.To)
	case disk.Symlink:
		s.target = op.Path
	case disk.Times:
		if fi, err := os.Lstat(op.Path); err == nil {
			s.changed = fi.ModTime()
		}
	}
	if err == nil || op.Kind == disk.Update {
		r.steps = append(r.steps, s)
	}
	return err
}

// A Crash says what of the operations before it is lost.
type Crash struct {
	Name  string
	Data  Loss // of what was written to a file and not synced
	Names Loss // of what was made, renamed or removed in a folder that was not synced
	Torn  bool // the last operation is half done, if it can be
}

// Loss is how much of what was not synced is gone.
type Loss uint8

const (
	None   Loss = iota
	All         // gone
	Zeros       // for Data: the length is there, the bytes are not
	Chance      // each by a throw of the dice
)

// Crashes are the ways to crash that tests go through.
func Crashes() []Crash {
	return []Crash{
		{Name: "process killed"},
		{Name: "last operation torn", Torn: true},
		{Name: "writes dropped", Data: All},
		{Name: "writes are zeros", Data: Zeros},
		{Name: "names lost", Names: All},
		{Name: "writes dropped, names lost", Data: All, Names: All},
		{Name: "some of each", Data: Chance, Names: Chance},
		{Name: "some of each, and torn", Data: Chance, Names: Chance, Torn: true},
	}
}

// inode is a file or folder, whatever its names.
type inode struct {
	data          []byte
	changed       time.Time
	synced        []byte // data as of the last sync
	syncedChanged time.Time
	target        string // where a symbolic link leads

	// Of a folder: what it holds, as processes see it, and as it is sure to be
	// after a crash. nil for files.
	now, sure map[string]*inode
}

func newFolder() *inode { return &inode{now: map[string]*inode{}, sure: map[string]*inode{}} }

// image is what is on a disk: the folder at the top.
type image struct{ root *inode }

// folder returns the folder that holds name, and the last part of that.
func (m *image) folder(name string) (*inode, string, error) {
	dir := m.root
	above, base := filepath.Split(name)
	for part := range strings.SplitSeq(filepath.Clean(above), "/") {
		if part == "." {
			continue
		}
		if dir = dir.now[part]; dir == nil || dir.now == nil {
			return nil, "", fmt.Errorf("%s is in no folder", name)
		}
	}
	return dir, base, nil
}

// Left is what a crash left: the files and folders below the root.
type Left struct {
	names map[string]leftFile
}

type leftFile struct {
	folder  bool
	data    []byte
	target  string // where a symbolic link leads
	changed time.Time
}

// After returns what is left of the first n operations after a crash.
func (r *Recorder) After(n int, c Crash) (*Left, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := image{newFolder()}
	for i, s := range r.steps[:n] {
		if err := m.apply(r, s, c.Torn && i == n-1); err != nil {
			return nil, fmt.Errorf("operation %d, %s: %w", i, r.String(i), err)
		}
	}
	left := &Left{map[string]leftFile{}}
	m.root.leave(left.names, "", c, rand.New(rand.NewPCG(uint64(n), 1)))
	return left, nil
}

// Sum identifies what is left: crashes that leave the same have the same.
func (l *Left) Sum() [sha256.Size]byte {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(l.names)) {
		f := l.names[name]
		fmt.Fprintf(h, "%q %v %q %v %d\n", name, f.folder, f.target, f.changed.UnixNano(), len(f.data))
		h.Write(f.data)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Restore lays it out in dir, which is empty.
func (l *Left) Restore(dir string) error {
	for _, name := range slices.Sorted(maps.Keys(l.names)) { // a folder before what is in it
		f, path := l.names[name], filepath.Join(dir, name)
		if f.folder {
			if err := os.Mkdir(path, 0o755); err != nil {
				return err
			}
			continue
		}
		if f.target != "" {
			if err := os.Symlink(f.target, path); err != nil {
				return err
			}
			continue
		}
		if err := os.WriteFile(path, f.data, 0o644); err != nil {
			return err
		}
		if !f.changed.IsZero() {
			if err := os.Chtimes(path, f.changed, f.changed); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply does one operation, or half of it.
func (m *image) apply(r *Recorder, s step, torn bool) error {
	switch s.Kind {
	case disk.SyncAll:
		m.root.syncAll()
		return nil
	case disk.Rename, disk.Exchange, disk.Link:
		return m.name(s.Kind, r.rel(s.Path), r.rel(s.To))
	case disk.Symlink, disk.Clone:
		dir, base, err := m.folder(r.rel(s.To))
		if err == nil {
			dir.now[base] = &inode{data: s.content, synced: nil, target: s.target}
		}
		return err
	}
	name := r.rel(s.Path)
	switch {
	case name == "." && s.Kind == disk.Sync:
		m.root.sync()
		return nil
	case strings.HasPrefix(name, ".."): // what is above the folder is not looked at
		return nil
	}
	dir, base, err := m.folder(name)
	if err != nil {
		return err
	}
	f := dir.now[base]
	switch s.Kind {
	case disk.Mkdir:
		dir.now[base] = newFolder()
	case disk.Create, disk.Append:
		if f == nil {
			dir.now[base] = &inode{}
		}
	case disk.Remove:
		delete(dir.now, base)
	case disk.Update:
		if f == nil && s.content != nil {
			f = &inode{}
			dir.now[base] = f
		}
		if f == nil {
			return nil
		}
		if torn {
			f.data = tornPages(f.data, s.content)
		} else {
			f.data = s.content
		}
		f.synced = f.data
	case disk.Sync, disk.Write, disk.Truncate, disk.Times:
		if f == nil {
			return fmt.Errorf("nothing has that name")
		}
		if s.Kind == disk.Sync {
			f.sync()
		} else {
			f.change(s, torn)
		}
	}
	return nil
}

// name does what changes the names of files and folders that are there.
func (m *image) name(kind disk.Kind, name, to string) error {
	from, base, err := m.folder(name)
	if err != nil {
		return err
	}
	into, other, err := m.folder(to)
	if err != nil {
		return err
	}
	f, g := from.now[base], into.now[other]
	if f == nil {
		return fmt.Errorf("nothing has that name")
	}
	into.now[other] = f
	switch kind {
	case disk.Rename:
		delete(from.now, base)
	case disk.Exchange:
		from.now[base] = g
	}
	return nil
}

func (f *inode) change(s step, torn bool) {
	switch s.Kind {
	case disk.Write:
		if torn {
			s.Bytes = s.Bytes[:len(s.Bytes)/2]
		}
		f.data = append(slices.Clip(f.data), s.Bytes...)
	case disk.Truncate:
		if int(s.Size) < len(f.data) {
			f.data = f.data[:s.Size]
		}
	case disk.Times:
		f.changed = s.changed
	}
}

// sync makes a file's bytes, or the names in a folder, sure.
func (f *inode) sync() {
	f.synced, f.syncedChanged = f.data, f.changed
	if f.now != nil {
		f.sure = maps.Clone(f.now)
	}
}

// syncAll makes everything sure.
func (f *inode) syncAll() {
	f.sync()
	for _, below := range f.now {
		below.syncAll()
	}
}

// leave adds what a crash leaves of a folder to names.
func (f *inode) leave(names map[string]leftFile, at string, c Crash, dice *rand.Rand) {
	have := f.now
	switch c.Names {
	case All:
		have = f.sure
	case Chance:
		have = map[string]*inode{}
		for _, from := range []map[string]*inode{f.sure, f.now} {
			for _, n := range slices.Sorted(maps.Keys(from)) {
				if f.sure[n] == f.now[n] || dice.IntN(2) == 0 {
					have[n] = from[n]
				}
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(have)) {
		below, name := have[n], filepath.Join(at, n)
		one := leftFile{folder: below.now != nil, target: below.target}
		if !one.folder {
			one.data, one.changed = below.left(c.Data, dice)
		}
		names[name] = one
		if one.folder {
			below.leave(names, name, c, dice)
		}
	}
}

// left returns the bytes and the time of a file after a crash.
func (f *inode) left(l Loss, dice *rand.Rand) ([]byte, time.Time) {
	if l == Chance {
		l = []Loss{None, All, Zeros}[dice.IntN(3)]
	}
	switch l {
	case All:
		return f.synced, f.syncedChanged
	case Zeros:
		zeros := make([]byte, len(f.data))
		if bytes.HasPrefix(f.data, f.synced) {
			copy(zeros, f.synced)
		}
		return zeros, f.syncedChanged
	}
	return f.data, f.changed
}

// tornPages returns before with every other page that differs as in after.
func tornPages(before, after []byte) []byte {
	const page = 4096
	torn := make([]byte, len(after))
	copy(torn, before)
	odd := false
	for at := 0; at < len(after); at += page {
		end := min(at+page, len(after))
		if !bytes.Equal(torn[at:end], after[at:end]) {
			if odd = !odd; odd {
				copy(torn[at:end], after[at:end])
			}
		}
	}
	return torn
}
