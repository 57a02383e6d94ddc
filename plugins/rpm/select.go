package rpm

import (
	"fmt"
	"slices"

	"chantal"
)

var _ chantal.Selector = Format{}

// Catalog implements chantal.Selector: the trees have fixed names.
func (Format) Catalog(*chantal.Selection) chantal.Tree { return chantal.Tree{} }

// Serial implements chantal.Selector: a repomd.xml has no number that can be
// relied on to rise.
func (Format) Serial(string, []byte) int64 { return 0 }

// Trees implements chantal.Selector: the repository at the top and, where sel
// wants it, the tree to install from.
func (Format) Trees(sel *chantal.Selection, _ []byte) ([]chantal.SelectedTree, error) {
	if _, err := newFilter(sel); err != nil {
		return nil, err
	}
	trees := []chantal.SelectedTree{{Tree: tree(repodata)}}
	if sel.Tree {
		trees = append(trees, chantal.SelectedTree{Tree: installTree(".")})
	}
	return trees, nil
}

// Indexes implements chantal.Selector: every record. Which of them clients read
// is up to their settings, and all together are small beside packages.
func (Format) Indexes(_ *chantal.Selection, c chantal.Contents) ([][]chantal.Promise, error) {
	var groups [][]chantal.Promise
	seen := make(map[string]bool)
	for _, p := range c.Listed() {
		if p.Kind == chantal.Meta && !seen[p.Path] {
			seen[p.Path] = true
			groups = append(groups, []chantal.Promise{p})
		}
	}
	return groups, nil
}

// Artifacts implements chantal.Selector. Delta packages never belong to a
// selection: clients do without, and the present ones know none.
func (Format) Artifacts(sel *chantal.Selection, c chantal.Contents) (func(*chantal.Promise) bool, error) {
	if isTreeInfo(c.Tree().Roots[0]) {
		return func(p *chantal.Promise) bool { return sel.Tree && p.Kind == chantal.Artifact }, nil
	}
	f, err := newFilter(sel)
	if err != nil {
		return nil, err
	}
	if len(sel.Modules) > 0 || sel.Newest > 0 {
		if f.modules, err = readModules(c); err != nil {
			return nil, err
		}
	}
	if sel.Newest > 0 {
		if err := f.keepNewest(c); err != nil {
			return nil, err
		}
	}
	return f.match, nil
}

// filter tells packages by what they say themselves, and by what newer ones
// there are.
type filter struct {
	sel            *chantal.Selection
	named, exclude names
	streams        chantal.Globs
	modules        *moduleBuilds       // nil where it does not matter what is modular
	oldest         map[nameArch]string // the oldest version of each that is held; nil for all
	builds         map[string]bool     // of modular packages those that are held, by nevra
}

// nameArch is what versions are counted of.
type nameArch struct{ name, arch string }

func newFilter(sel *chantal.Selection) (*filter, error) {
	f := &filter{sel: sel}
	var err error
	if f.named, err = newNames(sel.Packages); err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	if f.exclude, err = newNames(sel.Exclude); err != nil {
		return nil, fmt.Errorf("exclude: %w", err)
	}
	if f.streams, err = chantal.NewGlobs(sel.Modules); err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	if sel.Newest < 0 {
		return nil, fmt.Errorf("newest: %d versions cannot be held", sel.Newest)
	}
	return f, nil
}

func (f *filter) match(p *chantal.Promise) bool {
	if !f.admits(p) {
		return false
	}
	if f.oldest == nil {
		return true
	}
	key := nevra(p.Package.Name, p.Package.Version, p.Package.Arch)
	if len(f.modules.of[key]) > 0 {
		return f.builds[key]
	}
	return Format{}.CompareVersions(p.Package.Version, f.oldest[nameArch{p.Package.Name, p.Package.Arch}]) >= 0
}

// admits is match without regard to newer packages.
func (f *filter) admits(p *chantal.Promise) bool {
	return p.Kind == chantal.Artifact && p.Package != nil && f.hasArch(p.Package.Arch) &&
		(len(f.sel.Packages) == 0 || f.named.match(p.Package)) && !f.exclude.match(p.Package) &&
		(len(f.sel.Modules) == 0 || f.admitsModule(nevra(p.Package.Name, p.Package.Version, p.Package.Arch)))
}

// admitsModule reports whether a package is part of no module, or of one that is
// held.
func (f *filter) admitsModule(key string) bool {
	in := f.modules.of[key]
	return len(in) == 0 || slices.ContainsFunc(in, f.hasStream)
}

func (f *filter) hasArch(arch string) bool {
	return len(f.sel.Architectures) == 0 || arch == "noarch" || slices.Contains(f.sel.Architectures, arch) ||
		arch == "nosrc" && slices.Contains(f.sel.Architectures, "src")
}
