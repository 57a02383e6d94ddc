package pypi

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chantal"
)

var _ chantal.Selector = Format{}

// Catalog implements chantal.Selector: the list of projects, where they are not
// all named in full.
func (Format) Catalog(sel *chantal.Selection) chantal.Tree {
	if f, err := newFilter(sel); err == nil && f.named != nil && len(f.named.globs) == 0 {
		return chantal.Tree{}
	}
	return rootClass("").Tree
}

// Serial implements chantal.Selector: what the public index counts its changes
// by.
func (Format) Serial(path string, root []byte) int64 {
	p, err := decodePage(path, root)
	if err != nil {
		return 0
	}
	return serial(p.body, p.meta)
}

// serial returns the "_last-serial" among members, 0 where there is none.
func serial(b []byte, members []member) int64 {
	n, err := strconv.ParseInt(string(get(members, "_last-serial").of(b)), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Trees implements chantal.Selector: the pages of the projects.
func (Format) Trees(sel *chantal.Selection, catalog []byte) ([]chantal.SelectedTree, error) {
	f, err := newFilter(sel)
	if err != nil {
		return nil, err
	}
	var trees []chantal.SelectedTree
	if f.named != nil && len(f.named.globs) == 0 {
		for project := range f.named.plain {
			if !f.leavesOut(project) {
				trees = append(trees, chantal.SelectedTree{Tree: rootClass(project).Tree})
			}
		}
		slices.SortFunc(trees, func(a, b chantal.SelectedTree) int { return strings.Compare(a.Name, b.Name) })
		return trees, nil
	}
	if catalog == nil {
		return nil, errors.New("the list of projects is needed to tell which are selected")
	}
	p, err := decodePage(list, catalog)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", list, err)
	}
	seen := make(map[string]bool)
	var members []member
	for s := range elements(p.body, p.entries) {
		if members, err = object(p.body, s, members); err != nil {
			return nil, fmt.Errorf("read %s: a project: %w", list, err)
		}
		name, _ := text(p.body, get(members, "name"))
		project := Normalize(name)
		if !validName(name) || seen[project] || f.leavesOut(project) || len(f.requirements(project)) == 0 {
			continue
		}
		seen[project] = true
		trees = append(trees, chantal.SelectedTree{Tree: rootClass(project).Tree, Serial: serial(p.body, members)})
	}
	return trees, nil
}

// Indexes implements chantal.Selector: the metadata of the wheels that belong
// to sel. A page that has none is none the worse.
func (Format) Indexes(sel *chantal.Selection, c chantal.Contents) ([][]chantal.Promise, error) {
	held, err := heldFiles(sel, c)
	if err != nil {
		return nil, err
	}
	var groups [][]chantal.Promise
	at := make(map[string]int) // URL → position in groups
	for _, p := range c.Listed() {
		wheel, ok := strings.CutSuffix(p.URL, metadataSuffix)
		if p.Kind != chantal.Meta || !ok || !held[wheel] {
			continue
		}
		i, ok := at[wheel]
		if !ok {
			i = len(groups)
			at[wheel] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], p)
	}
	for _, group := range groups {
		slices.Reverse(group) // clients ask by the path that names the wheel's digest
	}
	return groups, nil
}

// Artifacts implements chantal.Selector.
func (Format) Artifacts(sel *chantal.Selection, c chantal.Contents) (func(*chantal.Promise) bool, error) {
	held, err := heldFiles(sel, c)
	if err != nil {
		return nil, err
	}
	return func(p *chantal.Promise) bool { return p.Kind == chantal.Artifact && held[p.URL] }, nil
}

// heldFiles returns the URLs of the files of c's page that belong to sel.
func heldFiles(sel *chantal.Selection, c chantal.Contents) (map[string]bool, error) {
	f, err := newFilter(sel)
	if err != nil {
		return nil, err
	}
	root := c.Tree().Roots[0]
	project, ok := pageProject(root)
	if !ok || project == "" || f.leavesOut(project) {
		return nil, nil
	}
	p, err := decodePage(root, c.Root(root))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", root, err)
	}
	admits, err := f.versions(p)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", root, err)
	}
	held := make(map[string]bool)
	for file, err := range p.offered() {
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", root, err)
		}
		if f.holds(file.name) && admits[versionOf(file.name, project)] {
			held[file.link.url] = true
		}
	}
	return held, nil
}

// filter is a selection, read.
type filter struct {
	sel      *chantal.Selection
	named    *requirements // nil for every project
	excluded requirements
	tags     tags
}

func newFilter(sel *chantal.Selection) (*filter, error) {
	f := &filter{sel: sel}
	var err error
	if len(sel.Projects) > 0 {
		named, err := newRequirements(sel.Projects)
		if err != nil {
			return nil, fmt.Errorf("projects: %w", err)
		}
		f.named = &named
	}
	if f.excluded, err = newRequirements(sel.Exclude); err != nil {
		return nil, fmt.Errorf("exclude: %w", err)
	}
	if f.tags, err = newTags(sel); err != nil {
		return nil, fmt.Errorf("python, platforms: %w", err)
	}
	return f, nil
}

// requirements returns what is wanted of a project, nil where it is not named.
func (f *filter) requirements(project string) []requirement {
	if f.named == nil {
		return []requirement{{}}
	}
	return f.named.of(project)
}

// leavesOut reports whether a project is excluded, all versions of it.
func (f *filter) leavesOut(project string) bool {
	return slices.ContainsFunc(f.excluded.of(project), func(r requirement) bool { return len(r.specifiers) == 0 })
}

// holds reports whether files of that kind are held, whatever their version.
// Eggs and installers are not: pip has no use of them.
func (f *filter) holds(filename string) bool {
	switch _, suffix := cutSuffix(filename); suffix {
	case "", eggSuffix, ".exe", ".msi", ".rpm", ".deb", ".dmg":
		return false
	case wheelSuffix:
		return f.sel.Wheels && f.tags.match(filename)
	}
	return f.sel.Sdists
}

// versions returns which of the versions that p has files of are held, as they
// are written in the names of files. As for pip, pre-releases are where sel
// wants them, where a requirement names one, and where there is nothing else.
func (f *filter) versions(p *page) (map[string]bool, error) {
	type release struct {
		version
		ok bool
	}
	all := make(map[string]release)
	for file, err := range p.offered() {
		if err != nil {
			return nil, err
		}
		written := versionOf(file.name, p.project)
		if _, known := all[written]; !known {
			v, ok := parseVersion(written)
			all[written] = release{v, ok}
		}
	}
	held := make(map[string]bool)
	for _, r := range f.requirements(p.project) {
		var pre, others []string
		for written, v := range all {
			switch {
			case !r.admits(v.version, v.ok, written):
			case v.prerelease():
				pre = append(pre, written)
			default:
				others = append(others, written)
			}
		}
		if f.sel.Prereleases || r.namesPrerelease() || len(others) == 0 {
			others = append(others, pre...)
		}
		for _, written := range others {
			held[written] = true
		}
	}
	for _, r := range f.excluded.of(p.project) {
		for written, v := range all {
			if r.admits(v.version, v.ok, written) {
				delete(held, written)
			}
		}
	}
	return held, nil
}
