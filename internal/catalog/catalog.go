// Package catalog keeps names and times: repositories, which generation of a
// tree was observed when, what clients want of a tree, and snapshots. It holds
// no content, and no row per package.
//
// Every fact is appended to a record log before it is committed to the
// database, so the database can be made again from the logs at any time: a
// lost one is, by Open; one that a crash left behind its logs is brought up to
// date. Only what clients want is not recorded; it comes back as they ask.
//
// The logs are "repos/<repo>" and "names"; their lines are JSON objects with a
// type and a version, as type record says.
package catalog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"chantal"
	"chantal/internal/disk"
)

var (
	// ErrConflict means that the head of a tree is not the one that the
	// caller started from: somebody else has observed the tree meanwhile.
	ErrConflict = errors.New("the tree has been observed by somebody else meanwhile")
	// ErrExists means that a name is taken.
	ErrExists = errors.New("the name is taken")
	// ErrDeleted means that a deleted snapshot had the name. Whoever still
	// uses it would get something else without notice.
	ErrDeleted = errors.New("a deleted snapshot had this name")
)

// Log keeps the records. Appended records are durable when AppendRecord
// returns, and not there when it fails; Records yields them in order.
type Log interface {
	AppendRecord(log string, v any) error
	Records(log string, yield func(line []byte) error) error
	RecordLogs() ([]string, error)
}

// The buckets. Keys that have several parts are joined with NUL, which no part
// contains; numbers and times (microseconds) are big-endian, so that keys sort.
var (
	bktMeta         = []byte("meta")         // "clock" → time
	bktApplied      = []byte("applied")      // log → number of its records that are in the database
	bktRepos        = []byte("repos")        // repo → Repo
	bktHeads        = []byte("heads")        // repo, tree → Observation
	bktObservations = []byte("observations") // repo, tree, time → Observation
	bktGenerations  = []byte("generations")  // repo, tree, number → Generation
	bktRoots        = []byte("roots")        // repo, tree, hash of the roots → number
	bktNames        = []byte("names")        // name → named
	bktDeleted      = []byte("deleted")      // name → when it was deleted
	bktWants        = []byte("wants")        // repo, tree, path → when it was last asked for

	recorded = [][]byte{bktMeta, bktApplied, bktRepos, bktHeads, bktObservations, bktGenerations, bktRoots, bktNames, bktDeleted}

	keyClock = []byte("clock")
)

// Catalog is an open catalog. All methods are safe for concurrent use.
type Catalog struct {
	path string
	file fs.FileInfo // what path was when it was opened
	db   *bolt.DB
	log  Log
	now  func() time.Time
	disk disk.Disk

	mu     sync.Mutex // from choosing a time to the commit: times become visible in order
	behind bool       // a record may be in its log and not in the database
}

// Repo is a repository.
type Repo struct {
	Name       string    `json:"name"` // [a-z0-9][a-z0-9._-]*
	Type       string    `json:"type"`
	Upstream   []string  `json:"upstream"`
	Discovered bool      `json:"discovered,omitempty"` // recognised in requests; nobody configured it
	Created    time.Time `json:"created"`
}

// Options tunes a Catalog; zero fields get the defaults given here.
type Options struct {
	Now    func() time.Time // default: time.Now
	Logger *slog.Logger     // default: nothing is logged
	Disk   disk.Disk        // default: the operating system's
}

// Open opens the catalog in the file path, and makes it from the records of
// log when it is new. It fails when another process has it open, and when the
// file is damaged.
func Open(path string, log Log, o Options) (*Catalog, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	db, err := openDB(path, o.Disk)
	if err != nil {
		return nil, err
	}
	c := &Catalog{path: path, db: db, log: log, now: o.Now, disk: o.Disk}
	c.file, _ = o.Disk.Stat(path)
	if err := c.catchUp(); err != nil {
		db.Close()
		return nil, fmt.Errorf("catalog %s: %w", path, err)
	}
	return c, nil
}

func openDB(path string, d disk.Disk) (db *bolt.DB, err error) {
	// bbolt maps the file and trusts it: damage shows as a panic or a fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		switch {
		case err == nil:
			return
		case errors.Is(err, bolterrors.ErrTimeout):
			err = fmt.Errorf("catalog %s is in use by another process", path)
		case errors.As(err, new(*fs.PathError)):
			err = fmt.Errorf("catalog %s: %w", path, err)
		default:
			err = fmt.Errorf("%s: %w (%w); `chantal verify --rebuild` makes it anew from the records, nothing is lost", path, ErrDamaged, err)
		}
		if db != nil {
			db.Close()
			db = nil
		}
	}()
	err = d.Update(path, func() (err error) {
		if db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second}); err != nil {
			return err
		}
		return db.Update(layOut)
	})
	return db, err
}

// update runs f in a transaction that writes: the only way to change the
// database.
func (c *Catalog) update(f func(*bolt.Tx) error) error {
	return c.disk.Update(c.path, func() error { return c.db.Update(f) })
}

// layOut makes the buckets that are missing, and reads all of them.
func layOut(tx *bolt.Tx) error {
	for _, name := range append([][]byte{bktWants}, recorded...) {
		b, err := tx.CreateBucketIfNotExists(name)
		if err != nil {
			return err
		}
		// Reading everything once finds pages that are not there.
		if err := b.ForEach(func(_, _ []byte) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the database.
func (c *Catalog) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.db.Close()
}

var repoName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,199}$`)

func checkRepo(name string) error {
	if !repoName.MatchString(name) {
		return fmt.Errorf("%q cannot be the name of a repository", name)
	}
	return nil
}

// PutRepo adds a repository, or changes the one with that name; its creation
// time then stays. A zero Created means now.
func (c *Catalog) PutRepo(r Repo) error {
	if err := checkRepo(r.Name); err != nil {
		return err
	}
	return c.change(func() error {
		old, err := c.Repo(r.Name)
		switch {
		case err == nil:
			r.Created = old.Created
			if r.same(old) {
				return nil
			}
		case !errors.Is(err, fs.ErrNotExist):
			return err
		case r.Created.IsZero():
			r.Created = c.now()
		}
		r.Created = r.Created.UTC().Truncate(time.Microsecond)
		return c.commit(repoLog(r.Name), record{Type: typeRepo, V: 1, Repo: &r})
	})
}

func (r Repo) same(s Repo) bool {
	return r.Name == s.Name && r.Type == s.Type && r.Discovered == s.Discovered &&
		strings.Join(r.Upstream, "\n") == strings.Join(s.Upstream, "\n")
}

// Repo returns the repository with that name, or fs.ErrNotExist.
func (c *Catalog) Repo(name string) (r Repo, err error) {
	err = c.get(bktRepos, []byte(name), &r, "repository "+name)
	return r, err
}

// Repos returns all repositories by name.
func (c *Catalog) Repos() (repos []Repo, err error) {
	err = c.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bktRepos).ForEach(func(_, v []byte) error {
			var r Repo
			if err := json.Unmarshal(v, &r); err != nil {
				return err
			}
			repos = append(repos, r)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("listing repositories: %w", err)
	}
	return repos, nil
}

// get reads the JSON value of a key into v; what names it in errors.
func (c *Catalog) get(bucket, key []byte, v any, what string) error {
	return c.db.View(func(tx *bolt.Tx) error { return get(tx, bucket, key, v, what) })
}

func get(tx *bolt.Tx, bucket, key []byte, v any, what string) error {
	b := tx.Bucket(bucket).Get(key)
	if b == nil {
		return fmt.Errorf("%s: %w", what, fs.ErrNotExist)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func put(tx *bolt.Tx, bucket, key []byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put(key, b)
}

// key joins parts with NUL.
func key(parts ...string) []byte { return []byte(strings.Join(parts, "\x00")) }

// treeKey returns what the keys of a tree begin with.
func treeKey(repo, tree string) []byte { return key(repo, tree, "") }

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// micros is t as keys have it; times before 1970 are 1970.
func micros(t time.Time) []byte { return number(uint64(max(t.UnixMicro(), 0))) }

func microTime(b []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b))).UTC()
}

func checkTree(repo, tree string) error {
	if err := checkRepo(repo); err != nil {
		return err
	}
	if tree == "" || strings.Contains(tree, "\x00") || len(tree) > 4096 {
		return fmt.Errorf("%q cannot be the name of a tree of %s", tree, repo)
	}
	return nil
}

func treeName(repo, tree string) string { return fmt.Sprintf("tree %s of %s", tree, repo) }

// Clock returns an instant such that everything observed so far is not after
// it and everything observed later is.
func (c *Catalog) Clock() (t time.Time, err error) {
	err = c.change(func() error {
		if t, err = c.clock(); err != nil {
			return err
		}
		now := c.now().UTC().Truncate(time.Microsecond)
		if !now.After(t) {
			return nil
		}
		t = now
		return c.update(func(tx *bolt.Tx) error { return raiseClock(tx, t) })
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the catalog's clock: %w", err)
	}
	return t, nil
}

// clock returns the latest time handed out.
func (c *Catalog) clock() (t time.Time, err error) {
	err = c.db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(bktMeta).Get(keyClock); b != nil {
			t = microTime(b)
		}
		return nil
	})
	return t, err
}

// raiseClock makes sure that no later time is t or before it.
func raiseClock(tx *bolt.Tx, t time.Time) error {
	b := tx.Bucket(bktMeta)
	if old := b.Get(keyClock); old != nil && !t.After(microTime(old)) {
		return nil
	}
	return b.Put(keyClock, micros(t))
}

// sameObservation reports whether a and b are the same fact.
func sameObservation(a, b chantal.Observation) bool {
	return a.Generation == b.Generation && a.Observed.Equal(b.Observed)
}
