package mirror

import (
	"bytes"
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"

	"chantal"
)

// packageSet collects what may differ between two states, by name and
// architecture.
type packageSet struct {
	known map[string]map[string]*versions // name → architecture
}

// versions are the files of one package and architecture: those that only one
// of both states has, as far as the indexes tell, and those that both have.
type versions struct {
	only [2][]file
	both []file
}

// file is one file of a package.
type file struct {
	version, name string
	digests       string // as lines have them
	size          string
	tree          string
}

func newPackageSet() *packageSet { return &packageSet{known: map[string]map[string]*versions{}} }

func (p *packageSet) empty() bool { return len(p.known) == 0 }

// add adds what a root itself promises, when it is a package.
func (p *packageSet) add(side int, tree string, promise *chantal.Promise) {
	if promise.Package != nil && promise.Kind == chantal.Artifact {
		p.addLine(side, tree, appendLine(nil, promise))
	}
}

// The fields of a line that tell a package.
const (
	linePath = iota
	lineDigests
	lineSize
	lineKind
	lineURL
	lineName
	lineVersion
	lineArch
	lineSection
	lineUploaded
	lineFields
)

// cutLine takes a line apart; ok is false where it is of no package.
func cutLine(line []byte) (fields [lineFields][]byte, ok bool) {
	for i := range fields {
		end := bytes.IndexByte(line, '\t')
		if end < 0 {
			if end = len(line); i < lineUploaded {
				return fields, false
			}
		}
		fields[i], line = line[:end], line[min(end+1, len(line)):]
	}
	return fields, len(fields[lineName]) > 0 && string(fields[lineKind]) == string('0'+rune(chantal.Artifact))
}

func fileOf(tree string, fields *[lineFields][]byte) file {
	return file{
		version: string(fields[lineVersion]), name: path.Base(string(fields[linePath])),
		digests: string(fields[lineDigests]), size: string(fields[lineSize]), tree: tree,
	}
}

// addLine adds the package of a line that one side has.
func (p *packageSet) addLine(side int, tree string, line []byte) {
	fields, ok := cutLine(line)
	if !ok {
		return
	}
	arches := p.known[string(fields[lineName])]
	if arches == nil {
		arches = map[string]*versions{}
		p.known[string(fields[lineName])] = arches
	}
	v := arches[string(fields[lineArch])]
	if v == nil {
		v = &versions{}
		arches[string(fields[lineArch])] = v
	}
	v.only[side] = append(v.only[side], fileOf(tree, &fields))
}

// addOther adds the package of a line of the first side, or of both, where its
// name is known.
func (p *packageSet) addOther(tree string, line []byte) {
	fields, ok := cutLine(line)
	if !ok {
		return
	}
	v := p.known[string(fields[lineName])][string(fields[lineArch])]
	if v == nil {
		return
	}
	if f := fileOf(tree, &fields); !slices.Contains(v.only[0], f) {
		v.both = append(v.both, f)
	}
}

// changes returns the differences, by name and architecture.
func (p *packageSet) changes(order func(a, b string) int) (all []Change) {
	for _, name := range slices.Sorted(maps.Keys(p.known)) {
		for _, arch := range slices.Sorted(maps.Keys(p.known[name])) {
			for _, c := range p.known[name][arch].changes(order) {
				c.Name, c.Arch = name, arch
				all = append(all, c)
			}
		}
	}
	return all
}

// changes returns how the package differs: first the newest versions of both
// sides, then all the others.
func (v *versions) changes(order func(a, b string) int) (all []Change) {
	v.settle()
	newest := func(side int) (f file) {
		if files := slices.Concat(v.only[side], v.both); len(files) > 0 {
			f = slices.MaxFunc(files, func(a, b file) int {
				return cmp.Or(order(a.version, b.version), cmp.Compare(a.version, b.version))
			})
		}
		return f
	}
	from, to := newest(0), newest(1)
	moved := from.version != "" && to.version != "" && from.version != to.version
	if moved {
		c := Change{Tree: to.tree, Direction: Rebuild, From: from.version, To: to.version}
		if n := order(from.version, to.version); n < 0 {
			c.Direction = Upgrade
		} else if n > 0 {
			c.Direction = Downgrade
		}
		all = append(all, c)
	}
	seen := map[string]bool{}
	for _, f := range slices.Concat(v.only[0], v.only[1]) {
		if seen[f.version] {
			continue
		}
		seen[f.version] = true
		a, b, both := of(v.only[0], f.version), of(v.only[1], f.version), of(v.both, f.version)
		switch {
		case len(a) > 0 && len(b) > 0 || len(both) > 0:
			all = append(all, withinVersion(a, b)...)
		case moved && len(a) > 0 && f.version == from.version, moved && len(b) > 0 && f.version == to.version:
			// said already
		case len(a) > 0:
			all = append(all, Change{Tree: f.tree, Direction: Removed, From: f.version})
		default:
			all = append(all, Change{Tree: f.tree, Direction: Added, To: f.version})
		}
	}
	return all
}

// settle takes out what both sides have after all, if in different places, and
// what one side has twice.
func (v *versions) settle() {
	for _, f := range v.only[0] {
		if slices.ContainsFunc(v.only[1], f.same) {
			v.both = append(v.both, f)
		}
	}
	for side := range v.only {
		var kept []file
		for _, f := range v.only[side] {
			if !slices.ContainsFunc(v.both, f.same) && !slices.ContainsFunc(kept, f.same) {
				kept = append(kept, f)
			}
		}
		v.only[side] = kept
	}
}

func of(files []file, version string) (these []file) {
	for _, f := range files {
		if f.version == version {
			these = append(these, f)
		}
	}
	return these
}

// withinVersion returns how a version that both sides have differs, of which a
// and b are the files that one side alone has: a file in place of one of the
// same name, or of the only one, is a rebuild, and the others were added or
// removed.
func withinVersion(a, b []file) (all []Change) {
	if len(a) == 1 && len(b) == 1 {
		return []Change{{Tree: b[0].tree, Direction: Rebuild, From: a[0].version, To: b[0].version}}
	}
	named := func(files []file, name string) bool {
		return slices.ContainsFunc(files, func(f file) bool { return f.name == name })
	}
	rebuilt := false
	for _, f := range b {
		switch {
		case !named(a, f.name):
			all = append(all, Change{Tree: f.tree, Direction: Added, To: f.version, File: f.name})
		case !rebuilt:
			rebuilt = true
			all = append(all, Change{Tree: f.tree, Direction: Rebuild, From: f.version, To: f.version})
		}
	}
	for _, f := range a {
		if !named(b, f.name) {
			all = append(all, Change{Tree: f.tree, Direction: Removed, From: f.version, File: f.name})
		}
	}
	return all
}

// same reports whether two files have one version and one content, as far as
// their digests tell; where these are of different algorithms, their sizes.
func (f file) same(g file) bool {
	if f.version != g.version {
		return false
	}
	if f.digests == g.digests && f.digests != "" {
		return true
	}
	comparable := false
	for d := range strings.FieldsSeq(f.digests) {
		for e := range strings.FieldsSeq(g.digests) {
			if d == e {
				return true
			}
			comparable = comparable || chantal.Digest(d).Algo() == chantal.Digest(e).Algo()
		}
	}
	return !comparable && f.size == g.size && f.name == g.name
}
