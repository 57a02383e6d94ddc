package keep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
)

// Needs knows what is needed beside what the catalog names. A mirror does.
type Needs interface {
	// Promised calls use for everything that an index promises, with its
	// digests as they are written, separated by spaces and valid during the
	// call. The error is a fs.ErrNotExist where the store lacks the index and
	// nothing is known of it.
	Promised(line string, index chantal.Promise, use func(digests []byte, size int64, kind chantal.Kind)) error
	// Begun returns the generations that clients are in the middle of.
	Begun() []chantal.Generation
	// Forgot tells that the catalog has forgotten history.
	Forgot()
}

// evictTo is how far below the limit eviction goes: so many thousandths of it
// are left.
const evictTo = 920

// CollectRequest says what to collect.
type CollectRequest struct {
	DryRun   bool      // only say what would be done
	Since    time.Time // what was in force at it or later is history, and stays
	Instants bool      // artifacts that only history promises stay, too
	Limit    int64     // bytes that blobs may take together; 0 for any
	Gently   bool      // leave the disk to others half of the time

	// Kept calls use for every blob that is needed beside what generations
	// promise; it may be evicted. Why shows by. It may be nil.
	Kept func(use func(by string, d chantal.Digest) error) error
	// Progress tells people what is going on; it may be nil.
	Progress func(line string)
}

// Collected is what Collect did, or would do.
type Collected struct {
	BlobsFreed   int   `json:"blobs_freed"`
	BytesFreed   int64 `json:"bytes_freed"` // by which the data directory is smaller, going by the lengths of files
	BlobsKept    int   `json:"blobs_kept"`
	DiskFreed    int64 `json:"disk_freed"` // what the files that went took on the disk, going by its blocks
	BytesKept    int64 `json:"bytes_kept"` // of blobs
	BlobsEvicted int   `json:"blobs_evicted"`
	Forgotten    int   `json:"observations_forgotten"`
	OverLimit    int64 `json:"over_limit,omitempty"` // bytes beyond the limit that something pins
	DryRun       bool  `json:"dry_run,omitempty"`
}

// UnknownError says that nothing can be collected, because it is not known what
// something promises that is kept.
type UnknownError struct {
	What string // index or root
	Of   string // generation and ref
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("%s of %s was stored once and is lost, so what it names is not known, and nothing is freed", e.What, e.Of)
}

// Collect forgets history and frees what nothing needs: not what live promises,
// a snapshot holds, history can ask for, clients have begun to fetch, or work
// under way has stored or found. Everything else may go on meanwhile. Beyond the
// limit artifacts that no snapshot holds go, too, those that were not used for
// the longest time first.
//
// The errors are an *UnknownError, cas.ErrCollecting, and those of the disk. What
// had been freed by then is returned with them.
func (k *Keeper) Collect(ctx context.Context, q CollectRequest) (Collected, error) {
	done := Collected{DryRun: q.DryRun}
	watch := k.Catalog.Watch()
	defer watch.Close()
	c, err := k.Store.Collect()
	if err != nil {
		return done, err
	}
	defer c.End()
	// What was stored before has its aliases then, too. On a disk that takes
	// nothing it stays in memory, and that is no reason not to make room.
	if err := k.Store.Sync(ctx); ctx.Err() != nil {
		return done, err
	}
	m := k.newMarking(ctx, c, q)
	forgot, err := k.Catalog.Forget(q.Since, !q.DryRun)
	if full(err) {
		m.progress("there is no room to write down that history is forgotten: it stays until the next time")
		forgot, err = catalog.Forgotten{}, nil
	}
	if err != nil {
		return done, err
	}
	if forgot.Observations > 0 && !q.DryRun {
		k.Needs.Forgot()
	}
	done.Forgotten, done.BytesFreed, done.DiskFreed = forgot.Observations, forgot.Bytes, forgot.Bytes
	if err := m.all(); err != nil {
		return done, err
	}
	victims, err := m.victims(ctx, &done)
	if err != nil {
		return done, err
	}
	m.progress("freeing")
	var freed cas.Freed
	if q.DryRun {
		freed, err = c.Weigh(victims)
	} else {
		freed, err = c.Sweep(ctx, victims, func(remove func() error) error { return m.still(watch, remove) }, q.Gently)
	}
	done.BlobsFreed = freed.Blobs
	done.BytesFreed += freed.Bytes
	done.DiskFreed += freed.Disk
	if err != nil {
		return done, fmt.Errorf("freeing what nothing needs: %w", err)
	}
	return done, nil
}

// full reports whether an error says that there is no room on the disk.
func full(err error) bool {
	var disk *chantal.DiskError
	return errors.As(err, &disk) && disk.Full || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// marking marks what is needed.
type marking struct {
	*Keeper
	CollectRequest
	ctx    context.Context
	c      *cas.Collection
	absent map[chantal.Digest]*UnknownError // indexes that are not there: what to say if one of them was; nil once none was

	tree        [2]string           // line and tree of the last generation
	generations map[int]cas.Mark    // of that tree, by number: how the artifacts of those that are done are marked
	indexes     map[string]cas.Mark // by repository, path and digest: the same
}

func (k *Keeper) newMarking(ctx context.Context, c *cas.Collection, q CollectRequest) *marking {
	return &marking{
		Keeper: k, CollectRequest: q, ctx: ctx, c: c,
		absent: map[chantal.Digest]*UnknownError{}, generations: map[int]cas.Mark{}, indexes: map[string]cas.Mark{},
	}
}

func (m *marking) progress(line string) {
	if m.Progress != nil {
		m.Progress(line)
	}
}

// all marks everything that something keeps.
func (m *marking) all() error {
	last := ""
	err := m.eachKept(m.Since, func(g chantal.Generation, by hold, ref string) error {
		if g.Repo != last {
			last = g.Repo
			m.progress("looking at what " + g.Repo + " needs")
		}
		return m.generation(g, by, ref)
	})
	if err == nil {
		err = m.certain()
	}
	if err != nil || m.Kept == nil {
		return err
	}
	return m.Kept(func(_ string, d chantal.Digest) error {
		m.c.MarkDigest("", d, cas.Keep)
		return m.ctx.Err()
	})
}

// still removes once all that was named meanwhile is marked.
func (m *marking) still(watch *catalog.Watch, remove func() error) error {
	for {
		named, err := watch.Still(remove)
		if err != nil || named.Empty() {
			return err
		}
		for _, o := range named.Observed {
			g, err := m.Catalog.Generation(o.Repo, o.Tree, o.Generation)
			if errors.Is(err, fs.ErrNotExist) {
				continue // history by now, and forgotten here
			}
			if err == nil {
				err = m.generation(g, byHead, "live")
			}
			if err != nil {
				return err
			}
		}
		for _, s := range named.Snapshots {
			for _, f := range s.Repos {
				err := m.eachOf(s, f, m.generation)
				if err != nil {
					return err
				}
			}
		}
		if err := m.certain(); err != nil {
			return err
		}
	}
}

// certain returns an *UnknownError where one of the indexes that are not there
// was stored once: artifacts may have been fetched that only it promises.
func (m *marking) certain() error {
	var open []chantal.Digest
	for d, unknown := range m.absent {
		if unknown != nil {
			open = append(open, d)
		}
	}
	if len(open) == 0 {
		return nil
	}
	lost, err := m.Store.EverStored(open)
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		return m.absent[slices.Min(lost)]
	}
	for _, d := range open {
		m.absent[d] = nil
	}
	return nil
}

// generation marks a generation and what it promises. Metadata is never
// evicted; artifacts are, unless a snapshot holds them or a client fetches them.
func (m *marking) generation(g chantal.Generation, by hold, ref string) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	artifacts := cas.Mark(0)
	switch by {
	case bySnapshot, byClient:
		artifacts = cas.Keep | cas.Pin
	case byHead:
		artifacts = cas.Keep
	case byHistory:
		if m.Instants {
			artifacts = cas.Keep
		}
	}
	if lone(g) {
		// The file is all there is, and not metadata: it may be large.
		m.c.MarkDigest(g.Repo, g.Roots[0].Digest, artifacts|cas.Keep)
		return nil
	}
	if tree := [2]string{g.Repo, g.Tree}; tree != m.tree {
		m.tree = tree
		clear(m.generations)
	}
	if before, ok := m.generations[g.Number]; ok && before|artifacts == before {
		return nil
	}
	for _, root := range g.Roots {
		m.c.MarkDigest(g.Repo, root.Digest, cas.Keep|cas.Pin)
	}
	of := title(g) + " (" + by.String() + " " + ref + ")"
	listed, err := m.Promises.Listing(g)
	switch {
	case errors.Is(err, fs.ErrNotExist) && (artifacts != 0):
		return &UnknownError{"the root", of}
	case err != nil && m.serious(err):
		return fmt.Errorf("reading %s: %w", of, err)
	}
	for _, p := range listed {
		if err := m.listed(g.Repo, p, artifacts, of); err != nil {
			return err
		}
	}
	m.generations[g.Number] |= artifacts
	return nil
}

// lone reports whether a generation is one file that nothing promises.
func lone(g chantal.Generation) bool { return g.Roots[0].Path == g.Tree }

// listed marks what a root promises, and what that promises in turn where
// artifacts are to be marked.
func (m *marking) listed(line string, p chantal.Promise, artifacts cas.Mark, of string) error {
	mark := artifacts
	if p.Kind != chantal.Artifact {
		mark = cas.Keep | cas.Pin
	}
	repo := catalog.RepoOf(line)
	if d := p.SHA256(); d != "" {
		m.c.MarkDigest(repo, d, mark)
	} else {
		for _, d := range p.Digests {
			m.c.MarkDigest(repo, d, mark)
		}
	}
	if artifacts == 0 || p.Kind != chantal.Meta || len(p.Digests) == 0 {
		return nil
	}
	key := repo + "\x00" + p.Path + "\x00" + string(p.Digests[0])
	if before, ok := m.indexes[key]; ok && before|artifacts == before {
		return nil
	}
	lists := false
	err := m.Needs.Promised(line, p, func(digests []byte, _ int64, kind chantal.Kind) {
		lists = true
		if kind == chantal.Artifact {
			m.promised(repo, digests, artifacts)
		} else {
			m.promised(repo, digests, cas.Keep|cas.Pin)
		}
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		for _, d := range p.Digests {
			if d.Algo() != "sha256" {
				d, _ = m.Store.Resolve(repo, d)
			}
			if _, known := m.absent[d]; d != "" && !known {
				m.absent[d] = &UnknownError{p.Path, of}
			}
		}
	case err != nil && m.serious(err):
		return fmt.Errorf("reading %s of %s: %w", p.Path, of, err)
	}
	if lists {
		m.indexes[key] |= artifacts
	}
	return nil
}

// serious reports whether an error is about the disk or the end of the work, and
// not about what upstream wrote: what cannot be parsed promises nothing to
// anybody.
func (m *marking) serious(err error) bool {
	var path *fs.PathError
	var errno syscall.Errno
	var disk *chantal.DiskError
	return m.ctx.Err() != nil || errors.As(err, &path) || errors.As(err, &errno) || errors.As(err, &disk)
}

// promised marks what has digests, which are separated by spaces.
func (m *marking) promised(repo string, digests []byte, mark cas.Mark) {
	if sum, ok := promisedSum(digests); ok {
		m.c.Mark(sum, mark)
		return
	}
	for d := range strings.FieldsSeq(string(digests)) {
		m.c.MarkDigest(repo, chantal.Digest(d), mark)
	}
}

// victims returns what can go: what has no mark, and beyond the limit what may
// be evicted.
func (m *marking) victims(ctx context.Context, done *Collected) ([]cas.Victim, error) {
	all, err := m.c.Victims(ctx, func(k cas.Mark) bool { return k == 0 })
	if err != nil {
		return nil, err
	}
	_, total, err := m.Store.Usage(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if !v.Damaged {
			total -= v.Size
			done.BlobsKept--
		}
	}
	if m.Limit > 0 && total > m.Limit {
		loose, err := m.c.Victims(ctx, func(k cas.Mark) bool { return k == cas.Keep })
		if err != nil {
			return nil, err
		}
		slices.SortFunc(loose, func(a, b cas.Victim) int { return cmp.Compare(a.Used, b.Used) })
		for _, v := range loose {
			if total <= m.Limit/1000*evictTo {
				break
			}
			if v.Damaged {
				continue
			}
			all = append(all, v)
			total -= v.Size
			done.BlobsEvicted++
			done.BlobsKept--
		}
		done.OverLimit = max(total-m.Limit, 0)
	}
	done.BlobsKept += m.c.Len()
	done.BytesKept = total
	return all, nil
}
