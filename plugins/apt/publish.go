package apt

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"chantal"

	"golang.org/x/sync/errgroup"
)

// Publish implements chantal.Publisher. What is written are the indexes of
// packages that a source has stored, with the translated descriptions of what
// is kept, and a Release that names these and nothing else. Lists of files
// (Contents), AppStream metadata, command-not-found data, differences between
// indexes and the installer's images would name what is not kept, and are left
// out. Stanzas are copied as they are.
//
// An index that nobody has fetched is taken for one that nobody wants: its
// component or architecture is left out. Where none is stored the tree is.
//
// keep is called concurrently. Beside the fields of the stanza it can ask for
// "component" and for "source", the name of the source package.
func (f *Format) Publish(sources []chantal.Contents, keep chantal.Keep, out chantal.Publication) (map[string][]byte, error) {
	tree := sources[len(sources)-1].Tree()
	text, err := textOf(tree, sources[len(sources)-1].Root)
	if err != nil {
		return nil, err
	}
	e := edition{sources: sources, keep: keep, out: out, dir: tree.Name, described: map[string]*described{}}
	targets := e.targets()
	of := func(pass func(*rewrite) bool) (some []*rewrite) {
		for _, t := range targets {
			if pass(t) {
				some = append(some, t)
			}
		}
		return some
	}
	if err := e.writeAll(of(func(t *rewrite) bool { return t.stanzas && !t.empty && t.kind != translation })); err != nil {
		return nil, err
	}
	h := heldIn(targets)
	if len(h.folders) == 0 {
		return nil, nil
	}
	// What is empty is there where its architecture is, unless its component has
	// packages that nobody fetched.
	filled := map[string]bool{}
	for _, t := range targets {
		if t.stanzas && !t.empty && t.kind != translation {
			filled[t.component] = true
		}
	}
	rest := of(func(t *rewrite) bool {
		return t.kind == translation && h.components[t.component] ||
			t.empty && h.archs[t.arch] && (h.components[t.component] || !filled[t.component])
	})
	if err := e.writeAll(rest); err != nil {
		return nil, err
	}
	r := newRelease(text, heldIn(targets))
	for _, t := range of(func(t *rewrite) bool { return !t.stanzas && h.folders[path.Dir(t.name)] }) {
		w, err := out.Write("", listedAlgos, func(w io.Writer) error { return r.writeFolder(w, t) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		t.files = []releaseEntry{{t.name, w.Size, w.Digests}}
	}
	for _, t := range targets {
		r.files = append(r.files, t.files...)
	}
	return sign(tree, r.text(out.Date()), out.Date(), out)
}

// listedAlgos are the algorithms that a Release of ours lists.
var listedAlgos = []string{"sha256", "sha512"}

// edition is a tree that is being published.
type edition struct {
	sources []chantal.Contents
	keep    chantal.Keep
	out     chantal.Publication
	dir     string // of the roots

	described map[string]*described // by component
}

// described is which descriptions are needed of a component.
type described struct {
	mu    sync.Mutex
	sums  map[string]bool // values of Description-md5
	names map[string]bool // packages without one
}

// rewrite is an index that is being written anew, whatever its compression.
type rewrite struct {
	target
	name     string              // relative to the folder of the roots, without the suffix of a compression
	stanzas  bool                // copied from the sources; else the small Release that installers read beside Packages
	empty    bool                // upstream's has no packages
	variants [][]chantal.Promise // what each source lists of it
	files    []releaseEntry      // what was written; nil for nothing
}

// readable are suffixes of compressions, the cheapest to read first.
var readable = []string{"", ".gz", ".zst", ".xz", ".bz2", ".lzma"}

// targets returns what the sources list and Publish knows to write, by name.
func (e *edition) targets() []*rewrite {
	known := map[string]*rewrite{}
	for i, source := range e.sources {
		for _, p := range source.Listed() {
			plain := plainName(p.Path)
			t, ok := targetOf(plain, e.dir)
			ok = ok && (t.kind == binaries || t.kind == udebs || t.kind == sources || t.kind == translation)
			if !ok || p.Kind != chantal.Meta || readableAt(p.Path) < 0 {
				continue
			}
			r := known[plain]
			if r == nil {
				r = &rewrite{target: t, name: plain, stanzas: path.Base(plain) != release, variants: make([][]chantal.Promise, len(e.sources))}
				if e.dir != "." {
					r.name = strings.TrimPrefix(plain, e.dir+"/")
				}
				known[plain] = r
			}
			r.variants[i] = append(r.variants[i], p)
		}
	}
	var all []*rewrite
	nothing := true // in any index of packages
	for _, t := range known {
		empty := true
		for _, variants := range t.variants {
			slices.SortFunc(variants, func(a, b chantal.Promise) int { return readableAt(a.Path) - readableAt(b.Path) })
			empty = empty && (len(variants) == 0 || variants[0].Size == 0)
		}
		t.empty = empty && t.stanzas && (t.kind == binaries || t.kind == udebs)
		nothing = nothing && (t.empty || !t.stanzas || t.kind == translation)
		all = append(all, t)
	}
	for _, t := range all {
		t.empty = t.empty && !nothing // else this is all that there is
		if e.described[t.component] == nil {
			e.described[t.component] = &described{sums: map[string]bool{}, names: map[string]bool{}}
		}
	}
	slices.SortFunc(all, func(a, b *rewrite) int { return strings.Compare(a.name, b.name) })
	return all
}

// held is what a tree has after all.
type held struct {
	archs, components, folders map[string]bool // folders of indexes, relative to that of the roots
}

func heldIn(targets []*rewrite) held {
	h := held{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for _, t := range targets {
		if t.files == nil || t.kind == translation {
			continue
		}
		h.folders[path.Dir(t.name)], h.components[t.component] = true, true
		if t.arch != "" {
			h.archs[t.arch] = true
		}
	}
	return h
}

// writeAll writes targets side by side.
func (e *edition) writeAll(targets []*rewrite) error {
	var jobs errgroup.Group
	jobs.SetLimit(runtime.GOMAXPROCS(0))
	for _, t := range targets {
		jobs.Go(func() error { return e.write(t) })
	}
	return jobs.Wait()
}

func readableAt(name string) int {
	return slices.Index(readable, strings.TrimPrefix(name, plainName(name)))
}

// open opens what a source has of a target; nil where that is nothing.
func (e *edition) open(source int, t *rewrite) (io.ReadCloser, error) {
	for _, p := range t.variants[source] {
		if p.Size == 0 {
			return io.NopCloser(strings.NewReader("")), nil
		}
		r, err := e.sources[source].Open(p)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
	}
	return nil, nil
}

// write writes a target, plain and compressed, where a source has it.
func (e *edition) write(t *rewrite) error {
	parts := make([]io.ReadCloser, len(e.sources))
	defer func() {
		for _, r := range parts {
			if r != nil {
				r.Close()
			}
		}
	}()
	stored := false
	for i := range e.sources {
		var err error
		if parts[i], err = e.open(i, t); err != nil {
			return fmt.Errorf("%s: %w", path.Join(e.dir, t.name), err)
		}
		stored = stored || parts[i] != nil
	}
	if !stored {
		return nil
	}
	c := newCopier(e, t)
	var plain chantal.Written
	packed, err := e.out.Write(".gz", listedAlgos, func(w io.Writer) (err error) {
		plain, err = e.out.Write("", listedAlgos, func(p io.Writer) error {
			c.to = io.MultiWriter(w, p)
			for i, r := range parts {
				if r != nil {
					if err := c.copy(i, r); err != nil {
						return err
					}
				}
			}
			return nil
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path.Join(e.dir, t.name), err)
	}
	t.files = []releaseEntry{{t.name, plain.Size, plain.Digests}, {t.name + ".gz", packed.Size, packed.Digests}}
	return nil
}
