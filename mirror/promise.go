package mirror

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"chantal"
)

// listing is what the roots of one generation promise.
type listing struct {
	all     []chantal.Promise
	path    map[string]int
	name    map[string]int // indexes, by wantName
	digest  map[chantal.Digest]int
	indexes []int // those that promise files in turn
	plain   bool  // has indexes that exist under names without a digest only
}

type listingKey struct {
	repo, tree string
	root       chantal.Digest
}

type lookupKey struct{ view, path string }

// found is where a path is promised.
type found struct {
	promise  chantal.Promise
	line     string // the repository's name, or an edition of it
	tree     string
	number   int
	observed time.Time
	ok       bool
	inRoot   bool // the root itself promises it: an index, or a file of a project page
}

// parseListing reads the promises of all roots; body holds them by path.
func parseListing(f chantal.Format, roots []chantal.RootFile, body map[string][]byte) (*listing, error) {
	l := &listing{path: map[string]int{}, name: map[string]int{}, digest: map[chantal.Digest]int{}}
	for _, root := range roots {
		seq := f.Parse(root.Path, bytes.NewReader(body[root.Path]))
		if seq == nil {
			continue
		}
		for p, err := range seq {
			if err != nil {
				return nil, err
			}
			l.add(f, p)
		}
		break // the roots of a generation agree with each other
	}
	return l, nil
}

func (l *listing) add(f chantal.Format, p chantal.Promise) {
	if i, ok := l.path[p.Path]; ok {
		if slices.Equal(l.all[i].Digests, p.Digests) {
			return
		}
	}
	i := len(l.all)
	l.all = append(l.all, p)
	l.path[p.Path] = i
	for _, d := range p.Digests {
		if _, ok := l.digest[d]; !ok {
			l.digest[d] = i
		}
	}
	if p.Kind == chantal.Meta && f.Parse(p.Path, strings.NewReader("")) != nil {
		l.indexes = append(l.indexes, i)
	}
	if p.Kind != chantal.Meta {
		return
	}
	name := wantName(f, p.Path)
	l.name[name] = i
	if p.URL == "" && p.Alt == "" && name == p.Path {
		l.plain = true
	}
}

// wantName is what an index is called in every generation: its path without
// the digest, where that is part of it.
func wantName(f chantal.Format, path string) string {
	if d := f.Classify(path).Digest; d != "" {
		return strings.Replace(path, d.Hex(), "", 1)
	}
	return path
}

// listing returns what a generation's roots promise.
func (r *Repo) listing(s state) (*listing, error) {
	key := listingKey{r.Name, s.Tree, s.gen.Roots[0].Digest}
	if l, ok := r.m.listings.Get(key); ok {
		return l, nil
	}
	body := map[string][]byte{}
	for _, root := range s.gen.Roots {
		b, err := r.rootBody(&root)
		if err != nil {
			return nil, err
		}
		body[root.Path] = b
	}
	l, err := parseListing(r.Format, s.gen.Roots, body)
	if err != nil {
		return nil, err
	}
	r.m.listings.Add(key, l)
	return l, nil
}

// promised looks class up in one generation: in what its roots promise, then
// in the indexes below them that are stored.
func (r *Repo) promised(s state, class chantal.Class) (found, error) {
	l, err := r.listing(s)
	if err != nil {
		return found{}, err
	}
	hit := func(p chantal.Promise, inRoot bool) (found, error) {
		return found{promise: p, line: s.Repo, tree: s.Tree, number: s.Generation, observed: s.Observed, ok: true, inRoot: inRoot}, nil
	}
	if i, ok := l.path[class.Path]; ok && agrees(&l.all[i], class.Digest) {
		return hit(l.all[i], true)
	}
	if class.Digest != "" && !foreign(class) {
		if i, ok := l.digest[class.Digest]; ok {
			return hit(l.all[i], true)
		}
		if class.Kind == chantal.Meta {
			return found{}, nil
		}
	}
	for _, i := range l.indexes {
		p, ok, err := r.inIndex(&l.all[i], class)
		if lost(err) {
			return found{}, err
		}
		if err != nil {
			r.m.Log.Warn("index cannot be read", "repo", r.Name, "path", l.all[i].Path, "error", err)
			continue
		}
		if ok {
			return hit(p, false)
		}
	}
	return found{}, nil
}

// agrees reports whether a path that names a digest may be answered by p.
func agrees(p *chantal.Promise, d chantal.Digest) bool { return d == "" || p.Has(d) }

// linesOf returns the derived file of an index; fs.ErrNotExist if that is not
// stored.
func (r *Repo) linesOf(index *chantal.Promise) (*lines, error) {
	blob, err := r.stored(index)
	if err != nil {
		return nil, err
	}
	return r.lines(index.Path, blob)
}

// inIndex looks class up in one index, if that is stored.
func (r *Repo) inIndex(index *chantal.Promise, class chantal.Class) (chantal.Promise, bool, error) {
	lines, err := r.linesOf(index)
	if errors.Is(err, fs.ErrNotExist) {
		damaged, failed := r.damagedIndex(index)
		if !damaged || failed != nil {
			return chantal.Promise{}, false, failed
		}
		lines, err = r.linesOf(index)
	}
	if err != nil {
		return chantal.Promise{}, false, err
	}
	defer lines.Close()
	for p, err := range lines.find(class.Path) {
		if err != nil {
			return chantal.Promise{}, false, err
		}
		if agrees(&p, class.Digest) {
			return p, true, nil
		}
	}
	return chantal.Promise{}, false, nil
}

// A line of a derived file is one promise; fields are separated by tabs.
func appendLine(b []byte, p *chantal.Promise) []byte {
	b = append(b, p.Path...)
	b = append(b, '\t')
	for i, d := range p.Digests {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, d...)
	}
	b = append(b, '\t')
	b = strconv.AppendInt(b, p.Size, 10)
	b = append(b, '\t', '0'+byte(p.Kind), '\t')
	b = append(b, p.URL...)
	b = append(b, '\t')
	if k := p.Package; k != nil {
		for _, s := range []string{k.Name, k.Version, k.Arch, k.Section} {
			b = append(b, strings.Map(printable, s)...)
			b = append(b, '\t')
		}
		if !k.Uploaded.IsZero() {
			b = k.Uploaded.UTC().AppendFormat(b, time.RFC3339Nano)
		}
	}
	return append(b, '\n')
}

func printable(c rune) rune {
	if c < ' ' {
		return -1
	}
	return c
}

func parseLine(line string) (chantal.Promise, error) {
	f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
	bad := errors.New("a derived index has a line that is not one of ours")
	if len(f) < 6 || len(f[3]) != 1 {
		return chantal.Promise{}, bad
	}
	size, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return chantal.Promise{}, bad
	}
	p := chantal.Promise{Path: f[0], Size: size, Kind: chantal.Kind(f[3][0] - '0'), URL: f[4]}
	for d := range strings.FieldsSeq(f[1]) {
		p.Digests = append(p.Digests, chantal.Digest(d))
	}
	if len(f) == 10 {
		p.Package = &chantal.Package{Name: f[5], Version: f[6], Arch: f[7], Section: f[8]}
		p.Package.Uploaded, _ = time.Parse(time.RFC3339Nano, f[9])
	}
	return p, nil
}

// search looks class up in the states that seq yields and returns the first
// hit.
func (r *Repo) search(ctx context.Context, class chantal.Class, states func(yield func(state, error) bool)) (found, error) {
	var result found
	var failed error
	seen := map[listingKey]bool{}
	states(func(s state, err error) bool {
		if err != nil {
			failed = err
			return false
		}
		key := listingKey{tree: s.Tree, root: s.gen.Roots[0].Digest}
		if seen[key] {
			return true
		}
		seen[key] = true
		if result, err = r.promised(s, class); err != nil {
			failed = err
		}
		return !result.ok && failed == nil && ctx.Err() == nil
	})
	if failed == nil {
		failed = ctx.Err()
	}
	return result, failed
}

// candidates returns the names of trees that may promise class, the most
// likely first: those whose folder holds the path, longest first. The caller
// does not change them.
func (r *Repo) candidates(class chantal.Class) ([]string, error) {
	if class.Trees != nil {
		return class.Trees, nil
	}
	all, err := r.rootedTrees()
	if err != nil {
		return nil, err
	}
	rank := func(name string) int {
		if rest, ok := strings.CutPrefix(class.Path, name); ok && strings.HasPrefix(rest, "/") {
			return len(name)
		}
		return 0
	}
	// A package lies in no tree's folder: nothing to sort, for every request.
	if !slices.ContainsFunc(all, func(name string) bool { return rank(name) > 0 }) {
		return all, nil
	}
	names := slices.Clone(all)
	slices.SortStableFunc(names, func(a, b string) int { return rank(b) - rank(a) })
	return names, nil
}
