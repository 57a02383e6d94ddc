package mirror

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"chantal"
)

// Side is a repository in one state: one side of a comparison.
type Side struct {
	Repo  *Repo
	Line  string    // what the generations are recorded under; "" for the repository's own
	At    time.Time // zero for the newest
	Lacks []string  // paths of metadata that the state was frozen without
}

func (s Side) line() string { return cmp.Or(s.Line, s.Repo.Name) }

// Diff is what two states of a repository, or of two, differ in.
type Diff struct {
	Changes    []Change         // by tree, name and architecture
	Advisories []ChangedNotice  // those that are new, and those that concern what changed
	Yanked     []ChangedNotice  // files that the second state alone takes back
	Unyanked   []ChangedNotice  // files that the first state alone takes back
	Unknown    []UnknownContent // what could not be compared
}

// A Direction says how a package changed.
type Direction string

// The directions. A package is rebuilt where neither version is the newer one
// and the bytes differ.
const (
	Added     Direction = "added"
	Removed   Direction = "removed"
	Upgrade   Direction = "upgrade"
	Downgrade Direction = "downgrade"
	Rebuild   Direction = "rebuild"
)

// Change is one difference of a package.
type Change struct {
	Tree, Name, Arch string
	Direction        Direction
	From, To         string // versions; one is empty where the package was added or removed
	File             string // the one file of a version that was added or removed; "" for all of it
}

// ChangedNotice is what a repository says of packages, in the tree that does.
type ChangedNotice struct {
	Tree string
	chantal.Advisory
	New bool // the first state does not have it
}

// UnknownContent is an index that is listed and not stored on one side or both,
// so that nobody can tell what is in it without asking upstream.
type UnknownContent struct {
	Tree, Index string
	A, B        bool // where it is not stored
}

// Diff compares the packages of two states by name and architecture, going by
// what is stored and asking nobody. Trees of one name are compared with each
// other, and the trees that one side alone has with those of the other. What
// has one digest on both sides is not read.
//
// Where several versions of a package are in one state, the newest of both
// sides are compared, as whoever installs would be given them; the others are
// added or removed where one side alone has them.
func (m *Mirror) Diff(ctx context.Context, a, b Side) (*Diff, error) {
	left, _, err := a.states()
	if err != nil {
		return nil, err
	}
	right, _, err := b.states()
	if err != nil {
		return nil, err
	}
	d := &differ{ctx: ctx, diff: &Diff{}, versions: comparer(b.Repo.Format)}
	var onlyA, onlyB []*contents
	for _, name := range slices.Sorted(maps.Keys(left)) {
		ours, theirs := left[name], right[name]
		switch {
		case theirs == nil:
			if d.readable(ours) {
				onlyA = append(onlyA, ours)
			}
		case !ours.same(theirs) && d.readable(ours) && d.readable(theirs):
			changes, err := d.trees([]*contents{ours}, []*contents{theirs})
			if err == nil {
				err = d.notices(ours, theirs, changes)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(right)) {
		if left[name] == nil && d.readable(right[name]) {
			onlyB = append(onlyB, right[name])
		}
	}
	if _, err := d.trees(onlyA, onlyB); err != nil {
		return nil, err
	}
	slices.SortStableFunc(d.diff.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Tree, b.Tree), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch))
	})
	return d.diff, nil
}

// same reports whether two generations have the same main root, and with it
// all that is below.
func (c *contents) same(o *contents) bool {
	return c.state.gen.Roots[0].Digest == o.state.gen.Roots[0].Digest
}

// comparer returns the order of versions of a format, or that of their bytes
// where it has none of its own.
func comparer(f chantal.Format) func(a, b string) int {
	if c, ok := f.(chantal.Comparer); ok {
		return c.CompareVersions
	}
	return strings.Compare
}

// Observed reports whether there is anything on that side.
func (s Side) Observed() (bool, error) {
	names, err := s.Repo.m.Catalog.TreesAt(s.line(), s.instant())
	return len(names) > 0, err
}

// instant is At, or a time after everything.
func (s Side) instant() time.Time {
	if s.At.IsZero() {
		return time.Unix(1<<40, 0)
	}
	return s.At
}

// states returns the generations of the trees that promise anything, by name,
// and those of the files that stand for themselves.
func (s Side) states() (trees map[string]*contents, lone []state, err error) {
	c, at := s.Repo.m.Catalog, s.instant()
	names, err := c.TreesAt(s.line(), at)
	if err != nil {
		return nil, nil, err
	}
	trees = map[string]*contents{}
	for _, name := range names {
		o, err := c.At(s.line(), name, at)
		if err != nil {
			return nil, nil, err
		}
		g, err := c.Generation(s.line(), name, o.Generation)
		if err != nil {
			return nil, nil, err
		}
		if g.Roots[0].Path == name {
			lone = append(lone, state{o, g})
		} else {
			trees[name] = &contents{repo: s.Repo, state: state{o, g}}
		}
	}
	return trees, lone, nil
}

// differ is one comparison of two states.
type differ struct {
	ctx      context.Context
	diff     *Diff
	versions func(a, b string) int
}

// readable reads what the roots of a generation list; where a root is not
// stored, it notes that the tree cannot be compared.
func (d *differ) readable(c *contents) bool {
	var err error
	if c.listed, err = c.repo.listing(c.state); err != nil {
		d.diff.Unknown = append(d.diff.Unknown, UnknownContent{Tree: c.state.Tree, Index: c.state.gen.Roots[0].Path, A: true, B: true})
	}
	return err == nil
}

// trees compares what is in some trees with what is in others.
func (d *differ) trees(a, b []*contents) ([]Change, error) {
	if err := d.ctx.Err(); err != nil || len(a)+len(b) == 0 {
		return nil, err
	}
	packages, err := d.collect(a, b)
	if err != nil {
		return nil, err
	}
	changes := packages.changes(d.versions)
	d.diff.Changes = append(d.diff.Changes, changes...)
	return changes, nil
}

// collect returns the packages of which the trees have different files, with
// all their versions.
func (d *differ) collect(a, b []*contents) (*packageSet, error) {
	packages := newPackageSet()
	for side, trees := range [][]*contents{a, b} {
		for _, c := range trees {
			for i := range c.listed.all {
				packages.add(side, c.state.Tree, &c.listed.all[i])
			}
		}
	}
	pairs := d.pairs(a, b)
	for _, p := range pairs {
		if err := p.differences(packages); err != nil {
			return nil, err
		}
	}
	if packages.empty() {
		return packages, nil
	}
	for _, p := range pairs {
		if err := p.others(packages); err != nil {
			return nil, err
		}
	}
	return packages, nil
}

// indexPair is one index of two trees: of either side the forms that it comes
// in; none where a side does not list it.
type indexPair struct {
	tree, name string
	sides      [2]indexSide
	same       bool // both have the same content
}

type indexSide struct {
	repo   *Repo
	forms  []chantal.Promise
	stored *chantal.Promise // one of forms; nil where none is stored
}

// pairs returns the indexes of the trees that can be compared, and notes those
// that cannot.
func (d *differ) pairs(a, b []*contents) (pairs []*indexPair) {
	known := map[[2]string]*indexPair{}
	for side, trees := range [][]*contents{a, b} {
		for _, c := range trees {
			lists := listsPackages(c)
			for _, i := range c.listed.indexes {
				form := c.listed.all[i]
				if !lists(form.Path) {
					continue
				}
				key := [2]string{c.state.Tree, indexName(c.repo.Format, form.Path)}
				if known[key] == nil {
					known[key] = &indexPair{tree: key[0], name: key[1]}
					pairs = append(pairs, known[key])
				}
				s := &known[key].sides[side]
				s.repo, s.forms = c.repo, append(s.forms, form)
			}
		}
	}
	return slices.DeleteFunc(pairs, func(p *indexPair) bool {
		p.look()
		left, right := p.sides[0].unknown(), p.sides[1].unknown()
		if !p.same && (left || right) {
			d.diff.Unknown = append(d.diff.Unknown, UnknownContent{Tree: p.tree, Index: p.name, A: left, B: right})
			return true
		}
		return false
	})
}

// listsPackages returns what tells which indexes of a tree list packages. Some
// list other files, differences between indexes for example, which nobody
// misses.
func listsPackages(c *contents) func(path string) bool {
	selector, ok := c.repo.Format.(chantal.Selector)
	if !ok || len(c.listed.indexes) == 0 {
		return func(string) bool { return true }
	}
	groups, err := selector.Indexes(&chantal.Selection{Sources: true, Udebs: true}, c)
	if err != nil { // it has none of them
		return func(string) bool { return false }
	}
	lists := map[string]bool{}
	for _, group := range groups {
		for _, p := range group {
			lists[p.Path] = true
		}
	}
	return func(path string) bool { return lists[path] }
}

// indexName is what an index is called in every generation and compression.
func indexName(f chantal.Format, at string) string {
	name := wantName(f, at)
	switch ext := path.Ext(name); ext {
	case ".gz", ".bz2", ".xz", ".zst", ".lzma", ".lz4":
		return strings.TrimSuffix(name, ext)
	}
	return name
}

// look finds out what is stored, and whether both sides are the same.
func (p *indexPair) look() {
	for i := range p.sides {
		s := &p.sides[i]
		for j := range s.forms {
			if _, err := s.repo.stored(&s.forms[j]); err == nil {
				s.stored = &s.forms[j]
				break
			}
		}
	}
	for _, form := range p.sides[0].forms {
		for _, other := range p.sides[1].forms {
			same := path.Ext(form.Path) == path.Ext(other.Path) && slices.ContainsFunc(form.Digests, other.Has)
			p.same = p.same || same
		}
	}
}

func (s *indexSide) unknown() bool { return len(s.forms) > 0 && s.stored == nil }

// open returns a reader of the lines of the index; one without any where the
// side does not list it.
func (s *indexSide) open() (*lineReader, func() error, error) {
	if s.stored == nil {
		return &lineReader{err: io.EOF}, func() error { return nil }, nil
	}
	l, err := s.repo.linesOf(s.stored)
	if err != nil {
		return nil, nil, fmt.Errorf("comparing %s: %w", s.stored.Path, err)
	}
	return l.reader(), l.Close, nil
}

// differences adds the packages of the lines that one side alone has: both
// sides are sorted the same way, and are read side by side.
func (p *indexPair) differences(to *packageSet) error {
	if p.same {
		return nil
	}
	a, closeA, err := p.sides[0].open()
	if err != nil {
		return err
	}
	defer closeA()
	b, closeB, err := p.sides[1].open()
	if err != nil {
		return err
	}
	defer closeB()
	for left, right := a.next(), b.next(); left || right; {
		if err := cmp.Or(a.failed(), b.failed()); err != nil {
			return fmt.Errorf("comparing %s: %w", p.name, err)
		}
		order := bytes.Compare(a.line, b.line)
		switch {
		case !right || left && order < 0:
			to.addLine(0, p.tree, a.line)
			left = a.next()
		case !left || order > 0:
			to.addLine(1, p.tree, b.line)
			right = b.next()
		default:
			left, right = a.next(), b.next()
		}
	}
	return nil
}

// others adds the packages of the lines that both sides have, of those names
// that are known to differ somewhere: other versions of them count.
func (p *indexPair) others(to *packageSet) error {
	side := &p.sides[0]
	if side.stored == nil {
		if side = &p.sides[1]; side.stored == nil || !p.same {
			return nil
		}
	}
	r, closed, err := side.open()
	if err != nil {
		return err
	}
	defer closed()
	for r.next() {
		if r.err != nil {
			return fmt.Errorf("comparing %s: %w", side.stored.Path, r.err)
		}
		to.addOther(p.tree, r.line)
	}
	return nil
}
