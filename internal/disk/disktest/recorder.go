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
	content []byte    // Update: the whole file afterwards; nil where there is none
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
	folder        bool
	data          []byte
	changed       time.Time
	synced        []byte // data as of the last sync
	syncedChanged time.Time
}

// image is what is on a disk: names to inodes, as processes see it, and as it
// is sure to be after a crash.
type image struct{ now, sure map[string]*inode }

// Left is what a crash left: the files and folders below the root.
type Left struct {
	names map[string]leftFile
}

type leftFile struct {
	folder  bool
	data    []byte
	changed time.Time
}

// After returns what is left of the first n operations after a crash.
func (r *Recorder) After(n int, c Crash) (*Left, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := image{now: map[string]*inode{}, sure: map[string]*inode{}}
	for i, s := range r.steps[:n] {
		if err := m.apply(r, s, c.Torn && i == n-1); err != nil {
			return nil, fmt.Errorf("operation %d, %s: %w", i, r.String(i), err)
		}
	}
	dice := rand.New(rand.NewPCG(uint64(n), 1))
	names, left := m.left(c.Names, dice), &Left{map[string]leftFile{}}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := names[name]
		if up := filepath.Dir(name); up != "." && !left.names[up].folder {
			continue // the folder's own name is lost
		}
		one := leftFile{folder: f.folder}
		if !f.folder {
			one.data, one.changed = f.left(c.Data, dice)
		}
		left.names[name] = one
	}
	return left, nil
}

// Sum identifies what is left: crashes that leave the same have the same.
func (l *Left) Sum() [sha256.Size]byte {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(l.names)) {
		f := l.names[name]
		fmt.Fprintf(h, "%q %v %v %d\n", name, f.folder, f.changed.UnixNano(), len(f.data))
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
	name := r.rel(s.Path)
	f := m.now[name]
	switch s.Kind {
	case disk.Mkdir:
		m.now[name] = &inode{folder: true}
	case disk.Create, disk.Append:
		if f == nil {
			m.now[name] = &inode{}
		}
	case disk.Remove:
		delete(m.now, name)
	case disk.Rename:
		m.now[r.rel(s.To)] = f
		delete(m.now, name)
	case disk.Update:
		if f == nil && s.content != nil {
			f = &inode{}
			m.now[name] = f
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
	case disk.Sync:
		m.sync(name, f)
	case disk.SyncAll:
		for _, f := range m.now {
			f.synced, f.syncedChanged = f.data, f.changed
		}
		m.sure = maps.Clone(m.now)
	case disk.Write, disk.Truncate, disk.Times:
		if f == nil {
			return fmt.Errorf("no file has that name")
		}
		f.change(s, torn)
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
func (m *image) sync(name string, f *inode) {
	if f != nil && !f.folder {
		f.synced, f.syncedChanged = f.data, f.changed
		return
	}
	for n := range m.sure {
		if filepath.Dir(n) == name {
			delete(m.sure, n)
		}
	}
	for n, f := range m.now {
		if filepath.Dir(n) == name {
			m.sure[n] = f
		}
	}
}

// left returns the names after a crash.
func (m *image) left(l Loss, dice *rand.Rand) map[string]*inode {
	switch l {
	case None:
		return m.now
	case All:
		return m.sure
	}
	some := map[string]*inode{}
	for _, from := range []map[string]*inode{m.sure, m.now} {
		for _, n := range slices.Sorted(maps.Keys(from)) {
			if m.sure[n] == m.now[n] || dice.IntN(2) == 0 {
				some[n] = from[n]
			}
		}
	}
	return some
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
