// Package disk is the one way to the disk for those who keep state there: the
// store and the catalog.
//
// Everything goes through a Disk, and every operation of a Disk through one
// function, Around, which a test can set: to write down what is done and in
// which order, so that it can lay out afterwards what a crash at any point
// would have left; and to let operations fail. In production there is none,
// and an operation is the call of package os. Files are read as *os.File, so
// that the kernel sends them.
//
// The package knows nothing of what is kept.
package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// Kind says what an operation does.
type Kind string

const (
	Create   Kind = "create"   // make a new file and open it for writing
	Append   Kind = "append"   // open a file for writing at its end, made where there is none
	Write    Kind = "write"    // add bytes to the end of a file
	Truncate Kind = "truncate" // cut a file
	Sync     Kind = "sync"     // bring what a file or folder holds to the disk
	SyncAll  Kind = "syncall"  // bring everything of a file system to its disk
	Close    Kind = "close"    // close a file that was open for writing
	Mkdir    Kind = "mkdir"    // make a folder
	Rename   Kind = "rename"   // give a file another name, in place of what has it
	Exchange Kind = "exchange" // let two files or folders have each other's names
	Link     Kind = "link"     // give a file one more name
	Symlink  Kind = "symlink"  // make a symbolic link
	Clone    Kind = "clone"    // make a new file that shares the blocks of another
	Chmod    Kind = "chmod"    // set who may do what with a file
	Remove   Kind = "remove"   // remove a file or an empty folder
	Times    Kind = "times"    // set the times of a file
	Update   Kind = "update"   // somebody else's code changes a file, and syncs it
	Open     Kind = "open"     // open a file for reading
	Stat     Kind = "stat"     // look at a file's name
	List     Kind = "list"     // read the names in a folder
)

// Op is one operation that is about to be done.
type Op struct {
	Kind  Kind
	Path  string
	To    string // Rename, Exchange, Link, Symlink, Clone: the other name
	Bytes []byte // Write: what to add; a hook may cut it short and has to fail then
	Size  int64  // Truncate: to how many bytes
}

// Changes reports whether the operation changes what is on the disk.
func (o *Op) Changes() bool {
	switch o.Kind {
	case Open, Stat, List:
		return false
	}
	return true
}

// Disk is the way to the disk. The zero Disk is that of the operating system.
// It is safe for concurrent use where Around is. Its errors are those of
// package os.
type Disk struct {
	// Around, when set, is called in place of every operation; do does it.
	Around func(op *Op, do func() error) error
}

// File is a file that is open for reading.
type File = os.File

func (d Disk) do(op Op, do func() error) error {
	if d.Around == nil {
		return do()
	}
	return d.Around(&op, do)
}

// Create makes a file, which must not be there yet, for writing.
func (d Disk) Create(name string, perm fs.FileMode) (*Output, error) {
	return d.output(Op{Kind: Create, Path: name}, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
}

// Append opens a file for writing at its end, and makes it where there is none.
func (d Disk) Append(name string, perm fs.FileMode) (*Output, error) {
	return d.output(Op{Kind: Append, Path: name}, os.O_CREATE|os.O_WRONLY|os.O_APPEND, perm)
}

func (d Disk) output(op Op, flag int, perm fs.FileMode) (*Output, error) {
	o := &Output{d: d}
	err := d.do(op, func() (err error) { o.f, err = os.OpenFile(op.Path, flag, perm); return err })
	if err != nil {
		return nil, err
	}
	return o, nil
}

// Mkdir makes one folder, for everybody to read.
func (d Disk) Mkdir(name string) error {
	return d.do(Op{Kind: Mkdir, Path: name}, func() error { return os.Mkdir(name, 0o755) })
}

// Rename gives a file another name, in place of what has that.
func (d Disk) Rename(from, to string) error {
	return d.do(Op{Kind: Rename, Path: from, To: to}, func() error { return os.Rename(from, to) })
}

// Remove removes a file, or a folder that is empty.
func (d Disk) Remove(name string) error {
	return d.do(Op{Kind: Remove, Path: name}, func() error { return os.Remove(name) })
}

// Times sets when a file was used and changed last; a zero time leaves one as
// it is.
func (d Disk) Times(name string, used, changed time.Time) error {
	return d.do(Op{Kind: Times, Path: name}, func() error { return os.Chtimes(name, used, changed) })
}

// Link gives a file one more name, which nothing has yet. A symbolic link is
// not followed.
func (d Disk) Link(name, to string) error {
	return d.do(Op{Kind: Link, Path: name, To: to}, func() error { return os.Link(name, to) })
}

// Symlink makes a symbolic link with the name to that leads to target.
func (d Disk) Symlink(target, to string) error {
	return d.do(Op{Kind: Symlink, Path: target, To: to}, func() error { return os.Symlink(target, to) })
}

// Chmod sets who may do what with a file or folder.
func (d Disk) Chmod(name string, perm fs.FileMode) error {
	return d.do(Op{Kind: Chmod, Path: name}, func() error { return os.Chmod(name, perm) })
}

// Clone makes a new file that has the content of another and shares its blocks.
// The error is errors.ErrUnsupported where the file system has no such thing.
func (d Disk) Clone(name, to string) error {
	return d.do(Op{Kind: Clone, Path: name, To: to}, func() error { return clone(name, to) })
}

// Exchange lets two files or folders of one file system have each other's names
// at once. The error is errors.ErrUnsupported where that cannot be done.
func (d Disk) Exchange(a, b string) error {
	return d.do(Op{Kind: Exchange, Path: a, To: b}, func() error { return exchange(a, b) })
}

// Sync returns when what a file or a folder holds is on the disk: of a folder,
// the names in it. After an error the bytes may be lost although a second call
// succeeds.
func (d Disk) Sync(name string) error {
	return d.do(Op{Kind: Sync, Path: name}, func() error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// SyncAll returns when everything that was written to the file system which
// holds the folder name is on the disk, by whoever it was written. For many
// files it is much faster than Sync of each. The error is
// errors.ErrUnsupported where the operating system has no such thing; after
// another one bytes may be lost as after Sync.
func (d Disk) SyncAll(name string) error {
	return d.do(Op{Kind: SyncAll, Path: name}, func() error { return syncAll(name) })
}

// Update calls write, which changes the file and syncs it by means of its own.
func (d Disk) Update(name string, write func() error) error {
	return d.do(Op{Kind: Update, Path: name}, write)
}

// Open opens a file for reading, which is no use of it: Times says what is. The
// caller closes it.
func (d Disk) Open(name string) (f *File, err error) {
	if d.Around == nil { // every hit comes by here
		return open(name)
	}
	err = d.do(Op{Kind: Open, Path: name}, func() (err error) { f, err = open(name); return err })
	return f, err
}

// Stat describes a file; it does not follow a link.
func (d Disk) Stat(name string) (fi fs.FileInfo, err error) {
	if d.Around == nil {
		return os.Lstat(name)
	}
	err = d.do(Op{Kind: Stat, Path: name}, func() (err error) { fi, err = os.Lstat(name); return err })
	return fi, err
}

// Same reports whether a and b, from Stat or an open file, describe one file,
// whatever its names.
func Same(a, b fs.FileInfo) bool { return os.SameFile(a, b) }

// Readlink returns where a symbolic link leads.
func (d Disk) Readlink(name string) (target string, err error) {
	err = d.do(Op{Kind: Stat, Path: name}, func() (err error) { target, err = os.Readlink(name); return err })
	return target, err
}

// Lock takes a folder for the caller alone, until the returned function is
// called or the process ends. The error is ErrLocked where somebody else has it.
func (d Disk) Lock(name string) (unlock func() error, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f.Close, nil
}

// ErrLocked means that somebody else has the lock.
var ErrLocked = errors.New("somebody else has it locked")

// List returns what is in a folder, in no order.
func (d Disk) List(name string) (entries []fs.DirEntry, err error) {
	err = d.do(Op{Kind: List, Path: name}, func() error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		entries, err = f.ReadDir(-1)
		return err
	})
	return entries, err
}

// ReadFile returns the content of a file.
func (d Disk) ReadFile(name string) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// Output is a file that is open for writing at its end. It is for one
// goroutine at a time.
type Output struct {
	d Disk
	f *os.File
}

// Write adds p to the end of the file. Fewer bytes than that are an error.
func (o *Output) Write(p []byte) (n int, err error) {
	if o.d.Around == nil {
		return o.f.Write(p)
	}
	op := &Op{Kind: Write, Path: o.f.Name(), Bytes: p}
	err = o.d.Around(op, func() (err error) { n, err = o.f.Write(op.Bytes); return err })
	return n, err
}

// Truncate cuts the file to size bytes.
func (o *Output) Truncate(size int64) error {
	return o.d.do(Op{Kind: Truncate, Path: o.f.Name(), Size: size}, func() error { return o.f.Truncate(size) })
}

// Sync returns when the file's bytes are on the disk.
func (o *Output) Sync() error {
	return o.d.do(Op{Kind: Sync, Path: o.f.Name()}, o.f.Sync)
}

// Close closes the file. Where it fails the file is closed all the same.
func (o *Output) Close() error {
	return o.d.do(Op{Kind: Close, Path: o.f.Name()}, o.f.Close)
}
