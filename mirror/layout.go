package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"chantal"
)

// Layout is all that a state of a repository consists of, laid out as plain
// files for web servers that know nothing of repositories. It is for one
// goroutine at a time.
type Layout struct {
	repo    *Repo
	live    bool
	trees   []*contents
	lone    []state
	lacks   map[string]bool // what the state was frozen without
	roots   chantal.View    // where roots come from; nil for as they were observed
	release func()
}

// LaidFile is one file of a Layout.
type LaidFile struct {
	Places   []string // relative to the repository
	Digest   chantal.Digest
	Stored   string // where it lies, absolutely; "" where Content is all of it
	Content  []byte
	Size     int64 // in bytes
	Modified time.Time
	Mutable  bool // has other content under its path in other states
	Spare    bool // nothing promises it: what does goes before, where both have one path
}

// LayoutFailure is a file that a Layout needs and that cannot be had.
type LayoutFailure struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Layout returns the files of one state, and protects what is stored of them
// against collecting until Close is called. Where as is not nil, it turns the
// view of the state into the one that roots come from.
func (m *Mirror) Layout(side Side, as func(chantal.View) chantal.View) (*Layout, error) {
	live := side.At.IsZero()
	if live { // and it stays what it is now
		var err error
		if side.At, err = m.Catalog.Clock(); err != nil {
			return nil, err
		}
	}
	trees, lone, err := side.states()
	if err != nil {
		return nil, err
	}
	l := &Layout{repo: side.Repo, live: live, lone: lone, lacks: map[string]bool{}, release: m.Store.Hold()}
	if as != nil {
		l.roots = as(side.Repo.At(side.line(), side.At, false))
	}
	for _, name := range slices.Sorted(maps.Keys(trees)) {
		l.trees = append(l.trees, trees[name])
	}
	for _, p := range side.Lacks {
		l.lacks[p] = true
	}
	return l, nil
}

// Close ends the protection.
func (l *Layout) Close() { l.release() }

// places returns where the files of listed lie.
func (l *Layout) places(listed []chantal.Promise) [][]string {
	if f, ok := l.repo.Format.(chantal.Layouter); ok {
		return f.Places(listed)
	}
	places := make([][]string, len(listed))
	for i := range listed {
		places[i] = []string{listed[i].Path}
	}
	return places
}

// needed is a file that a state promises, and where it lies.
type needed struct {
	chantal.Promise
	places []string
	lost   string // why it cannot be had, whatever upstream has
}

// promised yields what one tree promises and has to be there: what its roots
// list, as far as anybody has asked for it or the format requires it, and the
// packages of the indexes among that.
func (l *Layout) promised(c *contents) iter.Seq2[needed, error] {
	return func(yield func(needed, error) bool) {
		must, err := l.must(c)
		if err != nil {
			yield(needed{}, err)
			return
		}
		places := l.places(c.listed.all)
		for i, p := range c.listed.all {
			n := needed{Promise: p, places: places[i]}
			if len(n.places) == 0 || !l.wants(&n, must) {
				continue
			}
			if !yield(n, nil) {
				return
			}
		}
		read := map[string]bool{}
		for _, i := range c.listed.indexes {
			index := c.listed.all[i]
			name := indexName(l.repo.Format, index.Path)
			if _, err := l.repo.stored(&index); err != nil || read[name] {
				continue
			}
			read[name] = true
			for p, err := range c.Promises(index) {
				n := needed{Promise: p, places: []string{p.Path}}
				if err == nil && !l.wants(&n, nil) {
					continue
				}
				if !yield(n, err) || err != nil {
					return
				}
			}
		}
		if len(c.listed.indexes) > 0 && len(read) == 0 {
			yield(needed{Promise: chantal.Promise{Path: c.state.Tree}, lost: "none of its indexes is stored; chantal sync or a client has to fetch one first"}, nil)
		}
	}
}

// must returns the paths of the indexes that have to be there.
func (l *Layout) must(c *contents) (map[string]bool, error) {
	var err error
	if c.listed, err = l.repo.listing(c.state); err != nil {
		return nil, err
	}
	var need []chantal.Promise
	if t := l.repo.observed(c.state.Tree); l.live && t != nil {
		need, err = t.closureOf(c.listed)
	} else if f, ok := l.repo.Format.(chantal.Closer); ok {
		need = append(f.Required(c.listed.all), f.Closure(c.listed.all)...)
	}
	must := map[string]bool{}
	for _, p := range need {
		must[p.Path] = !l.lacks[p.Path]
	}
	return must, err
}

// wants reports whether a file belongs to the layout. Indexes that nobody has
// asked for do not, nor do files that metadata tells nothing of but the path:
// these are there as far as they have been observed.
func (l *Layout) wants(n *needed, must map[string]bool) bool {
	switch {
	case len(n.Digests) == 0:
		if n.Kind != chantal.Artifact || slices.ContainsFunc(l.lone, func(s state) bool { return s.Tree == n.Path }) {
			return false
		}
		n.lost = "metadata gives no digest of it, and nobody has fetched it"
		return true
	case n.Kind == chantal.Artifact, n.Package != nil, must[n.Path]:
		return true
	}
	_, err := l.repo.stored(&n.Promise)
	return err == nil
}

// maxLayoutFailures is how many failures are told with their reasons.
const maxLayoutFailures = 1000

// Fetch makes everything be stored, and returns what cannot be had: so many
// files, and why. progress tells people how far it has come, one call at a time.
func (l *Layout) Fetch(ctx context.Context, progress func(string)) (failed int, failures []LayoutFailure, err error) {
	f := &layoutFetch{Layout: l, progress: progress, slots: make(chan struct{}, l.repo.m.Parallel), failed: map[string]string{}}
	for _, c := range l.trees {
		// An index that is fetched here promises packages in turn.
		for again := true; again; {
			if again, err = f.tree(ctx, c); err != nil {
				return 0, nil, err
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(f.failed)) {
		if len(failures) < maxLayoutFailures {
			failures = append(failures, LayoutFailure{path, f.failed[path]})
		}
	}
	return len(f.failed), failures, l.repo.m.Store.Sync(ctx)
}

// layoutFetch is a Fetch under way.
type layoutFetch struct {
	*Layout
	slots chan struct{} // files on their way

	mu       sync.Mutex
	progress func(string)
	fetched  int
	failed   map[string]string // why, by path
}

// tree fetches what is missing of a tree; indexes reports whether there are
// indexes among that.
func (f *layoutFetch) tree(ctx context.Context, c *contents) (indexes bool, err error) {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	delete(f.failed, c.state.Tree) // what could be read so far does not count any more
	for n, err := range f.promised(c) {
		if err != nil {
			return false, fmt.Errorf("laying out %s: %w", c.state.Tree, err)
		}
		if n.lost != "" {
			f.fail(n.Path, n.lost)
			continue
		}
		_, err := f.repo.stored(&n.Promise)
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			f.fail(n.Path, err.Error())
			continue
		}
		if !enter(ctx, f.slots) {
			return false, context.Cause(ctx)
		}
		indexes = indexes || f.repo.lists(n.Path) && !f.hasFailed(n.Path)
		jobs.Go(func() {
			defer func() { <-f.slots }()
			if err := f.repo.ensure(ctx, n.Promise); err != nil {
				f.fail(n.Path, err.Error())
				return
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.fetched++
			f.progress(fmt.Sprintf("%s: %d files fetched, the last one %s", f.repo.Name, f.fetched, n.Path))
		})
	}
	return indexes, ctx.Err()
}

func (f *layoutFetch) hasFailed(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed[path] != ""
}

func (f *layoutFetch) fail(path, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed[path] = reason
}

// Files yields everything, when Fetch has succeeded.
func (l *Layout) Files(ctx context.Context) iter.Seq2[LaidFile, error] {
	return func(yield func(LaidFile, error) bool) {
		err := l.files(ctx, func(f LaidFile) error {
			if !yield(f, nil) {
				return errLeft
			}
			return ctx.Err()
		})
		if err != nil && !errors.Is(err, errLeft) {
			yield(LaidFile{}, err)
		}
	}
}

// errLeft means that the consumer of a sequence has left.
var errLeft = errors.New("the consumer has left")

func (l *Layout) files(ctx context.Context, put func(LaidFile) error) error {
	lister, _ := l.repo.Format.(chantal.Layouter)
	var list string
	if lister != nil {
		list, _ = lister.List(nil)
	}
	var roots []string
	var newest time.Time
	for _, c := range l.trees {
		main := c.state.gen.Roots[0].Path
		if main == list {
			continue // it lists what upstream has
		}
		roots = append(roots, main)
		if c.state.Modified.After(newest) {
			newest = c.state.Modified
		}
		if err := l.filesOf(ctx, c, put); err != nil {
			return fmt.Errorf("laying out %s: %w", c.state.Tree, err)
		}
	}
	if list != "" && len(roots) > 0 {
		_, page := lister.List(roots)
		if err := put(pageFile(list, page, newest)); err != nil {
			return err
		}
	}
	for _, s := range l.lone {
		if s.Tree == "" || strings.HasSuffix(s.Tree, "/") {
			continue // the listing of a folder is the web server's to make
		}
		f, err := l.stored(&chantal.Promise{Path: s.Tree, Kind: chantal.Artifact, Digests: []chantal.Digest{s.gen.Roots[0].Digest}, Size: s.gen.Roots[0].Size})
		if err != nil {
			return err
		}
		f.Places = l.places([]chantal.Promise{{Path: s.Tree, Kind: chantal.Artifact}})[0]
		f.Modified, f.Mutable, f.Spare = s.Modified, true, true
		if err := put(f); err != nil {
			return err
		}
	}
	return nil
}

// filesOf hands over the files of one tree: what it promises before what leads
// there.
func (l *Layout) filesOf(ctx context.Context, c *contents, put func(LaidFile) error) error {
	for n, err := range l.promised(c) {
		if err == nil && n.lost != "" {
			err = errors.New(n.lost)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", n.Path, err)
		}
		f, err := l.stored(&n.Promise)
		if err != nil {
			return err
		}
		f.Places = n.places
		if err := put(f); err != nil {
			return err
		}
	}
	if l.roots != nil {
		return l.viewed(ctx, c, put)
	}
	renderer, pages := l.repo.Format.(chantal.Renderer)
	for _, root := range c.state.gen.Roots {
		body, err := l.repo.rootBody(&root)
		if err != nil {
			return err
		}
		f := LaidFile{Places: []string{root.Path}, Digest: root.Digest, Content: body, Size: root.Size, Modified: c.state.Modified, Mutable: true}
		if pages && strings.HasSuffix(root.Path, "/") {
			if body, err = renderer.Render(root.Path, body, "text/html", chantal.Rendering{Local: true}); err != nil {
				return err
			}
			f = pageFile(root.Path, body, c.state.Modified)
		}
		if err := put(f); err != nil {
			return err
		}
	}
	return nil
}

// viewed hands over the roots of a tree as the view for roots has them.
func (l *Layout) viewed(ctx context.Context, c *contents, put func(LaidFile) error) error {
	for _, path := range l.repo.Format.Classify(c.state.gen.Roots[0].Path).Tree.Roots {
		f, err := l.roots.Open(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		body, err := io.ReadAll(f.Content)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		laid := LaidFile{Places: []string{path}, Digest: f.Digest, Content: body, Size: f.Size, Modified: f.Modified, Mutable: true}
		if err := put(laid); err != nil {
			return err
		}
	}
	return nil
}

// pageFile is a page as web servers answer a folder with.
func pageFile(path string, page []byte, modified time.Time) LaidFile {
	sum := sha256.Sum256(page)
	return LaidFile{
		Places: []string{path + "index.html"}, Digest: chantal.Digest("sha256:" + hex.EncodeToString(sum[:])),
		Content: page, Size: int64(len(page)), Modified: modified, Mutable: true,
	}
}

// stored returns a stored file without its places.
func (l *Layout) stored(p *chantal.Promise) (LaidFile, error) {
	blob, err := l.repo.stored(p)
	if err != nil {
		return LaidFile{}, fmt.Errorf("%s: %w", p.Path, err)
	}
	return LaidFile{Digest: blob.Digest, Stored: l.repo.m.Store.Path(blob.Digest), Size: blob.Size, Modified: blob.Modified}, nil
}
