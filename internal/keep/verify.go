package keep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
)

// Promises knows what generations promise. A mirror does.
type Promises interface {
	// Listing returns what the roots of a generation promise, from the store
	// alone: fs.ErrNotExist where a root is not there; another error where one
	// cannot be read.
	Listing(g chantal.Generation) ([]chantal.Promise, error)
	// Index yields what an index of a repository promises, as far as the store
	// knows it.
	Index(repo string, index chantal.Promise) iter.Seq2[chantal.Promise, error]
	// Closure returns those of listed that a frozen generation always holds.
	Closure(repo string, listed []chantal.Promise) []chantal.Promise
	// Restore fetches what a repository promises and the store lacks, from any
	// upstream of it, and verifies it.
	Restore(ctx context.Context, repo string, p chantal.Promise) error
}

// Keeper looks after one store and its catalog. It is safe for concurrent use.
type Keeper struct {
	Store    *cas.Store
	Catalog  *catalog.Catalog
	Promises Promises
	Needs    Needs // for Collect and Why only
}

// Request says what to verify.
type Request struct {
	States     []State             // that have to be servable
	Blobs      bool                // read every blob, not only those that States need; and look at everything else
	Repair     bool                // fetch again what is corrupt or missing
	Everything []State             // all states there are: where else a file that is to be repaired may be promised
	Progress   func(done Progress) // called now and then, never concurrently; may be nil
}

// Progress says how far Verify has come.
type Progress struct {
	Blobs, Total int
	Bytes        int64
}

// Report says what Verify found. Lists are sorted and never nil.
type Report struct {
	BlobsChecked int       `json:"blobs_checked"`
	BytesChecked int64     `json:"bytes_checked"`
	Corrupt      []Finding `json:"corrupt"`  // other bytes than the name says; set aside
	Missing      []Finding `json:"missing"`  // needed, or there once, and not there
	Repaired     []Finding `json:"repaired"` // those of both that were fetched again
	Problems     []string  `json:"problems"` // what is wrong beside blobs, one sentence each
	OK           bool      `json:"ok"`       // nothing is wrong any more
}

// Finding is one file.
type Finding struct {
	Digest chantal.Digest `json:"digest"`
	Repo   string         `json:"repo,omitempty"` // one of those that promise it
	Path   string         `json:"path,omitempty"`
	Refs   []string       `json:"refs"`             // what cannot be served without it
	Reason string         `json:"reason,omitempty"` // why it could not be repaired
}

// Verify reads blobs again and finds out whether all states asked for can be
// served from the store, as far as the store ever held them. Damaged blobs are
// set aside, so that the next request fetches them again. It may run while
// everything else goes on. The error says why it could not be done.
func (k *Keeper) Verify(ctx context.Context, q Request) (Report, error) {
	v := &verification{Keeper: k, Request: q, groups: grouped(q.States), damaged: map[chantal.Digest]bool{}, repaired: map[chantal.Digest]bool{},
		seen: map[chantal.Digest]bool{}}
	if q.Blobs {
		if err := v.surroundings(ctx); err != nil {
			return Report{}, err
		}
	}
	if err := v.read(ctx); err != nil {
		return Report{}, err
	}
	if err := v.find(ctx); err != nil {
		return Report{}, err
	}
	if q.Repair {
		if err := v.repair(ctx); err != nil {
			return Report{}, err
		}
	}
	return v.finish(), nil
}

// verification is one run of Verify.
type verification struct {
	*Keeper
	Request
	groups  []*group
	aliases map[chantal.Digest][]cas.Alias // by blob
	seen    map[chantal.Digest]bool        // read, where not all blobs are

	mu       sync.Mutex
	report   Report
	progress Progress
	damaged  map[chantal.Digest]bool // found by this run
	found    map[chantal.Digest]*finding
	repaired map[chantal.Digest]bool
}

// finding is a file that is not there, and where it may be had.
type finding struct {
	Finding
	corrupt bool
	sources []source
}

type source struct {
	repo    string
	promise chantal.Promise
}

// surroundings looks at what lies beside the blobs.
func (v *verification) surroundings(ctx context.Context) error {
	differences, err := v.Catalog.Check()
	if err != nil {
		differences = append(differences, err.Error())
	}
	strays, err := v.Store.Strays(ctx)
	if err != nil {
		return err
	}
	v.report.Problems = append(differences, strays...)
	v.aliases = map[chantal.Digest][]cas.Alias{}
	return v.Store.Aliases(func(a cas.Alias) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if a.Blob == "" {
			return v.wrongAlias(a)
		}
		v.aliases[a.Blob] = append(v.aliases[a.Blob], a)
		return nil
	})
}

// wrongAlias removes an alias that leads nowhere or to another file.
func (v *verification) wrongAlias(a cas.Alias) error {
	v.mu.Lock()
	v.damaged[a.Digest] = true
	v.mu.Unlock()
	return v.Store.DropAlias(a)
}

// read reads every blob that is to be checked.
func (v *verification) read(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.GOMAXPROCS(0))
	check := func(d chantal.Digest) { work.Go(func() error { return v.check(ctx, d) }) }
	err := v.eachBlob(ctx, func(d chantal.Digest) error {
		check(d)
		return ctx.Err()
	})
	if failed := work.Wait(); failed != nil {
		return failed
	}
	return err
}

// eachBlob yields the blobs to be read that were not yet.
func (v *verification) eachBlob(ctx context.Context, yield func(chantal.Digest) error) error {
	if v.Blobs {
		all, err := v.Store.Digests()
		if err != nil {
			return err
		}
		v.progress.Total = len(all)
		return v.Store.Walk("", func(b cas.Blob) error { return yield(b.Digest) })
	}
	var there []chantal.Digest
	// What cannot be read is judged when every file has been.
	ignore := func(string) {}
	err := v.needs(ctx, v.groups, true, ignore, func(g *group, p chantal.Promise, _ bool) error {
		d, err := v.sum(catalog.RepoOf(g.Repo), p)
		if err == nil && !v.seen[d] {
			if _, err := v.Store.Find("", d); err == nil {
				v.seen[d] = true
				there = append(there, d)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.progress.Total = len(v.seen)
	for _, d := range there {
		if err := yield(d); err != nil {
			return err
		}
	}
	return nil
}

// check reads one blob.
func (v *verification) check(ctx context.Context, d chantal.Digest) error {
	aliases := v.aliases[d]
	also := make([]chantal.Digest, len(aliases))
	for i, a := range aliases {
		also[i] = a.Digest
	}
	b, wrong, err := v.Store.Check(ctx, d, also, nil)
	var damage *cas.DamagedError
	switch {
	case errors.As(err, &damage):
		v.mu.Lock()
		v.damaged[d] = true
		v.mu.Unlock()
	case errors.Is(err, fs.ErrNotExist):
		return nil // gone meanwhile
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		v.mu.Lock()
		v.report.Problems = append(v.report.Problems, err.Error())
		v.mu.Unlock()
	}
	for _, a := range aliases {
		if slices.Contains(wrong, a.Digest) {
			if err := v.wrongAlias(a); err != nil {
				return err
			}
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.progress.Blobs++
	v.progress.Bytes += b.Size
	if v.Progress != nil {
		v.Progress(v.progress)
	}
	return nil
}

// finish sums up.
func (v *verification) finish() Report {
	r := v.report
	r.BlobsChecked, r.BytesChecked = v.progress.Blobs, v.progress.Bytes
	r.Corrupt, r.Missing, r.Repaired = []Finding{}, []Finding{}, []Finding{}
	r.OK = len(r.Problems) == 0
	for _, f := range v.found {
		into := &r.Missing
		if f.corrupt {
			into = &r.Corrupt
		}
		switch {
		case v.repaired[f.Digest]:
			r.Repaired = append(r.Repaired, f.Finding)
		// What nothing needs is repaired by having been set aside.
		case !v.Repair || len(f.Refs) > 0:
			r.OK = false
		}
		*into = append(*into, f.Finding)
	}
	for _, list := range [][]Finding{r.Corrupt, r.Missing, r.Repaired} {
		slices.SortFunc(list, func(a, b Finding) int {
			return cmp.Or(cmp.Compare(a.Repo, b.Repo), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Digest, b.Digest))
		})
	}
	slices.Sort(r.Problems)
	if r.Problems == nil {
		r.Problems = []string{}
	}
	return r
}

func compareGroups(a, b *group) int {
	return cmp.Or(cmp.Compare(a.Repo, b.Repo), cmp.Compare(a.Tree, b.Tree), cmp.Compare(a.Number, b.Number))
}

// title names a generation for people.
func (g *group) title() string { return title(g.Generation) }

func title(g chantal.Generation) string {
	return fmt.Sprintf("generation %d of %s %s", g.Number, g.Repo, g.Tree)
}
