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
// RewriteRecords replaces a log by what write adds, durably and as a whole,
// while nothing is appended to it; with an error it says whether it has.
type Log interface {
	AppendRecord(log string, v any) error
	Records(log string, yield func(line []byte) error) error
	RecordLogs() ([]string, error)
	RewriteRecords(log string, write func(add func(v any) error) error) (replaced bool, err error)
}

// The buckets. Keys that have several parts are joined with NUL, which no part
// contains; numbers and times (microseconds) are big-endian, so that keys sort.
var (
	bktMeta         = []byte("meta")         // "clock" → time; "sum" → of all other rows, see rows
	bktApplied      = []byte("applied")      // log → number of its records that are in the database; how often it was rewritten, if it was
	bktRepos        = []byte("repos")        // repo → Repo
	bktHeads        = []byte("heads")        // repo, tree → Observation
	bktObservations = []byte("observations") // repo, tree, time → Observation
	bktGenerations  = []byte("generations")  // repo, tree, number → Generation
	bktRoots        = []byte("roots")        // repo, tree, hash of the roots → number
	bktNames        = []byte("names")        // name → named
	bktDeleted      = []byte("deleted")      // name → when it was deleted
	bktForgotten    = []byte("forgotten")    // repo, tree → forgotten
	bktWants        = []byte("wants")        // repo, tree, path → when it was last asked for

	recorded = [][]byte{bktMeta, bktApplied, bktRepos, bktHeads, bktObservations, bktGenerations, bktRoots, bktNames, bktDeleted, bktForgotten}

	keyClock = []byte("clock")
	keySum   = []byte("sum")
)

func buckets() [][]byte { return append([][]byte{bktWants}, recorded...) }

// Catalog is an open catalog. All methods are safe for concurrent use.
type Catalog struct {
	path string
	file fs.FileInfo // what path was when it was opened
	db   *bolt.DB
	log  Log
	now  func() time.Time
	disk disk.Disk

	mu      sync.Mutex // from choosing a time to the commit: times become visible in order
	behind  bool       // a record may be in its log and not in the database
	watches map[*Watch]struct{}
}

// Repo is a repository.
type Repo struct {
	Name       string    `json:"name"` // [a-z0-9][a-z0-9._-]*
	Type       string    `json:"type"`
	Upstream   []string  `json:"upstream"`
	List       string    `json:"list,omitempty"`       // URL of a list of mirrors; "" for none
	ListForm   string    `json:"list_form,omitempty"`  // and the form it has
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
// log when it is new, or not what it was when it was written last. What clients
// want is lost then, and nothing else; the damaged file stays beside it, with
// ".old" added to its name. Open fails when another process has it open.
func Open(path string, log Log, o Options) (*Catalog, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Catalog{path: path, log: log, now: o.Now, disk: o.Disk}
	old := path + ".old"
	err := c.openDB()
	damaged := (*damage)(nil)
	if errors.As(err, &damaged) {
		o.Logger.Warn("the catalog cannot be used and is made anew from the records; nothing that they hold is lost",
			"file", path, "reason", damaged.cause, "kept as", old)
		if err = c.disk.Rename(path, old); err == nil {
			err = c.openDB()
		}
	}
	if err == nil {
		c.file, _ = o.Disk.Stat(path)
		if err = c.catchUp(); err != nil {
			c.db.Close()
		}
		if err != nil && damaged != nil {
			err = errors.Join(err, c.disk.Rename(old, path))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("catalog %s: %w", path, err)
	}
	return c, nil
}

// damage says that the file is no database, or not the one that was written.
type damage struct{ cause any }

func (d *damage) Error() string { return fmt.Sprintf("it is damaged: %v", d.cause) }

// inspect looks at the file before bbolt does: a *damage when its pages do not
// hang together. fresh is true where there is none yet.
func (c *Catalog) inspect() (fresh bool, err error) {
	f, err := c.disk.Open(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return true, err
	}
	if err := soundPages(f, fi.Size()); err != nil {
		return false, &damage{err}
	}
	return false, nil
}

// openDB opens the database and reads all of it; a *damage when it is not what
// was written.
func (c *Catalog) openDB() (err error) {
	// bbolt maps the file and trusts it: damage shows as a panic or a fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var db *bolt.DB
	defer func() {
		if p := recover(); p != nil {
			err = &damage{p}
		}
		if err == nil {
			c.db = db
		} else if db != nil {
			db.Close()
		}
	}()
	fresh, err := c.inspect()
	if err != nil {
		return err
	}
	open := func() (err error) {
		db, err = bolt.Open(c.path, 0o600, &bolt.Options{Timeout: time.Second})
		return err
	}
	if fresh {
		err = c.disk.Update(c.path, func() error {
			if err := open(); err != nil {
				return err
			}
			return db.Update(layOut)
		})
	} else if err = open(); err == nil {
		if err = c.extend(db); err == nil {
			err = db.View(check)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return errors.New("it is in use by another process")
	case fresh, errors.As(err, new(*fs.PathError)):
		return err
	}
	return &damage{err}
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
		strings.Join(r.Upstream, "\n") == strings.Join(s.Upstream, "\n") && r.List == s.List && r.ListForm == s.ListForm
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
		return c.update(func(r *rows) error { return r.raiseClock(t) })
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

// sameObservation reports whether a and b are the same fact.
func sameObservation(a, b chantal.Observation) bool {
	return a.Generation == b.Generation && a.Observed.Equal(b.Observed)
}
