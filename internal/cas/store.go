// Package cas keeps everything of Chantal that is bytes on disk: blobs named
// by their SHA-256, files that are still arriving, aliases from other digests
// to blobs, own records, and derived files that can be made again.
//
// It knows neither network nor repository formats, and no name but digests.
// One process at a time may use a folder; its owner takes the lock.
//
// On disk, below the folder given to Open:
//
//	blobs/ab/<hex>                     a blob; mtime is its Last-Modified, atime its last use
//	blobs/ab/.t-<run>-<n>              a blob that is arriving, or not yet durable
//	blobs/ab/.p-<hex>                  the beginning of a large one, to go on with
//	alias/<algo>/ab/<hex>              the SHA-256 of the blob with that digest
//	alias-repo/<repo>/<algo>/ab/<hex>  the same for md5 and sha1, for one repository
//	records/<log>.jsonl                own facts, one JSON value a line
//	derived/<key>                      what can be computed again
//	damaged/<hex>                      a blob that was not what its name says
//	state/<name>.json                  how far work has come that goes on later
//	stored                             the name of every blob that was ever stored
//	unclean                            there while a process works here
//	epoch                              names the time since when no blob was removed
//
// Whatever stands under its final name is complete and has been synced to
// disk; only what is in derived/, state/ and the last three files is not.
package cas

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chantal"
	"chantal/internal/disk"
)

// tempPrefix begins the names of all temporary files.
const tempPrefix = ".t-"

// useEvery is how often uses of blobs are written to their atime.
const useEvery = time.Minute

// Options tunes a Store; zero fields get the defaults given here.
type Options struct {
	Disk       disk.Disk     // default: the operating system's
	Log        *slog.Logger  // default: nothing is logged
	SyncEvery  time.Duration // how long a verified blob waits to be made durable at most; 200 ms
	SyncFiles  int           // that many waiting blobs are made durable without waiting longer; 1,000
	SyncAll    int           // from that many on with the whole file system, not one by one; 32
	DerivedMax int64         // bytes that derived files may take together; 2 GiB
	MemoryMax  int64         // bytes that may be kept in memory together while the disk takes no writes; 256 MiB
}

// Store is a content-addressed store in one folder. All methods are safe for
// concurrent use.
type Store struct {
	dir  string
	disk disk.Disk
	log  *slog.Logger
	o    Options
	run  string       // in the names of this process's temporary files
	seq  atomic.Int64 // and their number

	mu      sync.RWMutex
	pending map[chantal.Digest]*entry // verified, not yet durable
	aliases map[string]chantal.Digest // alias path → sha256, not yet durable
	queue   []*entry                  // what the committer takes next
	syncs   []chan error              // callers of Sync, answered after the next batch
	aside   map[chantal.Digest]bool   // found damaged, by any run
	refused map[chantal.Digest]bool   // damaged, and could not be moved away
	doubt   doubt
	closed  bool
	settled map[string]bool // folders that this process has synced, and made no folder in since
	health  error           // why the disk takes no writes; nil while it does

	kept       []*memory          // files that the disk did not take, the oldest first
	inMemory   int64              // bytes reserved for them, and for those that arrive
	derivedMem map[string]*memory // derived files among them
	failures   atomic.Int64

	useMu sync.Mutex
	used  map[chantal.Digest]time.Time

	wake chan struct{} // the queue is no longer empty, or Sync or Close wants a batch
	full chan struct{} // the batch must not wait
	bg   sync.WaitGroup

	records   recordLogs
	derived   derived
	inventory inventory
	epoch     epoch
	partials  partials
	holds     holds
	usage     usage
	sweeping  atomic.Bool   // a Collection is open
	damaged   atomic.Int64  // blobs found damaged by this run
	tidied    chan struct{} // closed when temporary files of earlier runs are gone
}

// Blob is a stored file.
type Blob struct {
	Digest   chantal.Digest // sha256
	Size     int64          // in bytes
	Modified time.Time      // whole seconds: the Last-Modified of its first fetch
}

// Open opens the store in dir, and makes its folders where they are missing.
// Temporary files of earlier runs are removed in the background. The error
// says which folder cannot be written.
func Open(dir string, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = 200 * time.Millisecond
	}
	if o.SyncFiles <= 0 {
		o.SyncFiles = 1000
	}
	if o.SyncAll <= 0 {
		o.SyncAll = 32
	}
	if o.DerivedMax <= 0 {
		o.DerivedMax = 2 << 30
	}
	if o.MemoryMax <= 0 {
		o.MemoryMax = 256 << 20
	}
	var id [6]byte
	rand.Read(id[:])
	s := &Store{
		dir: dir, disk: o.Disk, log: o.Log, o: o, run: hex.EncodeToString(id[:]),
		pending:    make(map[chantal.Digest]*entry),
		aliases:    make(map[string]chantal.Digest),
		aside:      make(map[chantal.Digest]bool),
		refused:    make(map[chantal.Digest]bool),
		tidied:     make(chan struct{}),
		settled:    make(map[string]bool),
		derivedMem: make(map[string]*memory),
		used:       make(map[chantal.Digest]time.Time),
		partials:   partials{make(map[chantal.Digest]bool), make(map[string]time.Time)},
		wake:       make(chan struct{}, 1),
		full:       make(chan struct{}, 1),
	}
	err := s.layOut()
	if err == nil {
		err = s.loadAside()
	}
	if err == nil {
		err = s.begin()
	}
	if err != nil {
		return nil, fmt.Errorf("store %s cannot be written: %w", dir, err)
	}
	s.bg.Go(s.removeOldTemps)
	s.bg.Go(s.commitLoop)
	return s, nil
}

// layOut makes the folders and proves that files can be made in them.
func (s *Store) layOut() error {
	if err := s.makeDirs(s.dir); err != nil {
		return err
	}
	dirs := []string{"blobs", "alias", "alias-repo", "records", "derived", damagedDir, "state"}
	for i := range 256 {
		dirs = append(dirs, filepath.Join("blobs", fmt.Sprintf("%02x", i)))
	}
	for _, d := range dirs {
		if err := s.disk.Mkdir(filepath.Join(s.dir, d)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	// Also what is there may have been made by a process that was killed before
	// this.
	for _, d := range []string{filepath.Join(s.dir, "blobs"), s.dir, filepath.Dir(s.dir)} {
		if err := s.disk.Sync(d); err != nil {
			return err
		}
	}
	probe := s.temp(filepath.Join(s.dir, "blobs", "00"))
	f, err := s.disk.Create(probe, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), s.disk.Remove(probe))
}

// Close makes everything committed durable and ends the background work. What
// is still arriving can no longer be committed. The error is that of the last
// batch. Calling it again does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.hurry()
	s.bg.Wait()
	s.end()
	return s.Health()
}

// Health returns the *chantal.DiskError that keeps files from becoming durable,
// or nil. They are served all the same, and the disk is tried again.
func (s *Store) Health() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.health
}

// blobPath returns where the blob with that SHA-256 is kept.
func (s *Store) blobPath(d chantal.Digest) string {
	h := d.Hex()
	return filepath.Join(s.dir, "blobs", h[:2], h)
}

// temp returns an unused name for a temporary file in the folder dir.
func (s *Store) temp(dir string) string {
	return filepath.Join(dir, fmt.Sprintf("%s%s-%d", tempPrefix, s.run, s.seq.Add(1)))
}

// sha256Digest makes sure that d can be part of a path.
func sha256Digest(d chantal.Digest) (chantal.Digest, error) {
	d, err := chantal.ParseDigest(string(d))
	if err == nil && d.Algo() != "sha256" {
		err = fmt.Errorf("blobs are named by sha256, not %s", d.Algo())
	}
	return d, err
}

// Find returns the blob with the digest d. SHA-256 names blobs; other strong
// algorithms are found when a blob was once promised with them; md5 and sha1
// only when it was promised with nothing stronger, and to the same repository.
// The error is fs.ErrNotExist when there is none.
func (s *Store) Find(repo string, d chantal.Digest) (Blob, error) {
	d, err := chantal.ParseDigest(string(d))
	if err != nil {
		return Blob{}, err
	}
	if d.Algo() != "sha256" {
		if d, err = s.Resolve(repo, d); err != nil {
			return Blob{}, err
		}
	}
	s.touch(d)
	s.mu.RLock()
	e, refused := s.pending[d], s.refused[d]
	s.mu.RUnlock()
	if e != nil {
		return e.blob, nil
	}
	if refused {
		return Blob{}, fmt.Errorf("blob %s is damaged: %w", d, fs.ErrNotExist)
	}
	fi, err := s.disk.Stat(s.blobPath(d))
	if err != nil {
		return Blob{}, fmt.Errorf("blob %s: %w", d, cause(err))
	}
	return blobOf(d, fi), nil
}

// Open opens the blob with the SHA-256 d, which may not be durable yet. The
// caller closes the file. The error is fs.ErrNotExist when there is none. After
// a run that did not end well, what that wrote last is read before it is opened;
// a *DamagedError, which is a fs.ErrNotExist, says that it is not what it was.
func (s *Store) Open(d chantal.Digest) (*disk.File, Blob, error) {
	d, err := sha256Digest(d)
	if err != nil {
		return nil, Blob{}, err
	}
	s.touch(d)
	for range 4 { // the committer may rename it meanwhile, after a disk error more than once
		f, path, b, err := s.openPending(d)
		if err != nil || f != nil {
			return f, b, err
		}
		if path == "" {
			break
		}
		f, err = s.disk.Open(path)
		if err == nil {
			return f, b, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, Blob{}, fmt.Errorf("blob %s: %w", d, cause(err))
		}
	}
	f, fi, err := s.openBlob(d)
	if err != nil {
		return nil, Blob{}, err
	}
	if s.doubtful(d, fi) {
		if _, _, err := s.Check(context.Background(), d, nil, nil); err != nil {
			f.Close()
			return nil, Blob{}, err
		}
	}
	s.useMu.Lock()
	s.used[d] = time.Now()
	s.useMu.Unlock()
	return f, blobOf(d, fi), nil
}

// Path returns where a blob lies when it is durable, below the folder given to
// Open. Whoever reads or links it there holds it meanwhile, and finds out by
// itself when it is damaged.
func (s *Store) Path(d chantal.Digest) string { return s.blobPath(d) }

// Walk yields every durable blob whose digest is after from ("" for all), in
// the order of digests, and ends with the first error of yield or of the disk.
func (s *Store) Walk(from chantal.Digest, yield func(Blob) error) error {
	first := 0
	if sum, ok := parseSum([]byte(from.Hex())); ok {
		first = int(sum[0])
	}
	for i := first; i < 256; i++ {
		err := s.walkShard(i, func(b Blob, _ fs.FileInfo) error {
			if b.Digest <= from {
				return nil
			}
			return yield(b)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// walkShard yields the durable blobs of one folder in the order of digests.
func (s *Store) walkShard(i int, yield func(Blob, fs.FileInfo) error) error {
	files, err := s.disk.List(s.shard(i))
	if err != nil {
		return fmt.Errorf("listing blobs: %w", err)
	}
	slices.SortFunc(files, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, f := range files {
		d, err := chantal.NewDigest("sha256", f.Name())
		if err != nil {
			continue
		}
		fi, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("listing blobs: %w", err)
		}
		if err := yield(blobOf(d, fi), fi); err != nil {
			return err
		}
	}
	return nil
}

// Digests returns the digests of all blobs, for those who have many to look up.
// It reads the folders' names only.
func (s *Store) Digests() (map[chantal.Digest]struct{}, error) {
	all := map[chantal.Digest]struct{}{}
	s.mu.Lock()
	for d := range s.pending {
		all[d] = struct{}{}
	}
	s.mu.Unlock()
	for i := range 256 {
		files, err := s.disk.List(filepath.Join(s.dir, "blobs", fmt.Sprintf("%02x", i)))
		if err != nil {
			return nil, fmt.Errorf("listing blobs: %w", err)
		}
		for _, f := range files {
			if name := f.Name(); len(name) == 64 {
				all[chantal.Digest("sha256:"+name)] = struct{}{}
			}
		}
	}
	return all, nil
}

func blobOf(d chantal.Digest, fi fs.FileInfo) Blob {
	return Blob{Digest: d, Size: fi.Size(), Modified: fi.ModTime().UTC().Truncate(time.Second)}
}

// cause drops the path from an error of package os: it is long and the digest
// says more.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// removeOldTemps removes what earlier runs left behind.
func (s *Store) removeOldTemps() {
	defer close(s.tidied)
	own := tempPrefix + s.run + "-"
	n := 0
	for _, top := range []string{"blobs", "alias", "alias-repo", "records", "derived", "state"} {
		for path, err := range s.files(filepath.Join(s.dir, top)) {
			if s.isClosed() {
				return
			}
			if err != nil {
				continue // a folder that cannot be read is somebody else's finding
			}
			switch name := filepath.Base(path); {
			case strings.HasPrefix(name, partialPrefix):
				s.notePartial(path)
			case strings.HasPrefix(name, tempPrefix) && !strings.HasPrefix(name, own):
				if s.disk.Remove(path) == nil {
					n++
				}
			}
		}
	}
	if n > 0 {
		s.log.Info("removed temporary files of an earlier run", "files", n)
	}
}

func (s *Store) isClosed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}
