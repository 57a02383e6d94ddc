package rpm

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"chantal"
)

// build is one document of a stream: what was built together.
type build struct {
	module, stream string // NAME, NAME:STREAM
	context        string // NAME:STREAM:CONTEXT:ARCH, of which there are several versions
	version        string
	packages       []string // as nevra joins them
}

// moduleBuilds is which packages are part of modules.
type moduleBuilds struct {
	builds []*build
	of     map[string][]*build // by package, as nevra joins it
}

// readModules reads the modules of c; none where it has none, or where their
// record is not stored.
func readModules(c chantal.Contents) (*moduleBuilds, error) {
	m := &moduleBuilds{of: make(map[string][]*build)}
	root := c.Tree().Roots[0]
	records, err := readRepomd(strings.NewReader(string(c.Root(root))))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", root, err)
	}
	dir, _ := home(root)
	for _, r := range records {
		if r.Type != "modules" {
			continue
		}
		p, err := r.promise(dir)
		if err == nil {
			err = m.read(c, p)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read %s: %w", p.Path, err)
		}
	}
	return m, nil
}

func (m *moduleBuilds) read(c chantal.Contents, p chantal.Promise) error {
	r, err := c.Open(p)
	if err != nil {
		return err
	}
	defer r.Close()
	for d, err := range documents(r) {
		if err != nil {
			return err
		}
		if !isStream(d.kind) {
			continue
		}
		b := &build{stream: d.stream(), version: d.values["data/version"]}
		b.module, _, _ = strings.Cut(b.stream, ":")
		b.context = b.stream + ":" + d.values["data/context"] + ":" + d.values["data/arch"]
		for _, a := range d.artifacts {
			b.packages = append(b.packages, a.nevra)
			m.of[a.nevra] = append(m.of[a.nevra], b)
		}
		m.builds = append(m.builds, b)
	}
	return nil
}

// hasStream reports whether a build is of a module stream that is held.
func (f *filter) hasStream(b *build) bool {
	return len(f.sel.Modules) == 0 || f.streams.Match(b.module) || f.streams.Match(b.stream)
}

// keepNewest finds out which versions are new enough. Packages of modules count
// only among those of their stream and context. Of these builds are held as a
// whole, for dnf installs nothing from a stream with parts of several: the
// newest, and those that the newest packages come from, which after a mistake
// upstream are others.
func (f *filter) keepNewest(c chantal.Contents) error {
	var plain highest
	modular := make(map[string]*highest) // by context
	for p, err := range primaries(c) {
		if err != nil {
			return err
		}
		if !f.admits(&p) {
			continue
		}
		in := f.modules.of[nevra(p.Package.Name, p.Package.Version, p.Package.Arch)]
		if len(in) == 0 {
			plain.add(p.Package, f.sel.Newest)
		}
		for _, b := range in {
			if modular[b.context] == nil {
				modular[b.context] = new(highest)
			}
			modular[b.context].add(p.Package, f.sel.Newest)
		}
	}
	f.oldest = plain.oldest()
	f.builds = f.newestBuilds(modular)
	return nil
}

// primaries yields the packages of c.
func primaries(c chantal.Contents) func(yield func(chantal.Promise, error) bool) {
	return func(yield func(chantal.Promise, error) bool) {
		for _, index := range c.Listed() {
			if !isPrimary(path.Base(index.Path)) {
				continue
			}
			for p, err := range c.Promises(index) {
				if errors.Is(err, fs.ErrNotExist) {
					break
				}
				if err != nil {
					err = fmt.Errorf("read %s: %w", index.Path, err)
				}
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
	}
}

// newestBuilds returns the packages of the builds that are held. modular has
// the newest packages of each context.
func (f *filter) newestBuilds(modular map[string]*highest) map[string]bool {
	contexts := make(map[string][]*build)
	for _, b := range f.modules.builds {
		if f.hasStream(b) {
			contexts[b.context] = append(contexts[b.context], b)
		}
	}
	held := make(map[string]bool)
	for context, builds := range contexts {
		slices.SortStableFunc(builds, func(a, b *build) int { return compareNumbers(b.version, a.version) })
		wanted := modular[context].packages()
		versions := 0
		for i, b := range builds {
			if i == 0 || b.version != builds[i-1].version {
				versions++
			}
			holds := func(pkg string) bool { return wanted[pkg] }
			if versions > f.sel.Newest && !slices.ContainsFunc(b.packages, holds) {
				continue
			}
			for _, pkg := range b.packages {
				held[pkg] = true
				delete(wanted, pkg) // an older build that has it too is of no use
			}
		}
	}
	return held
}

// highest collects the highest versions of packages.
type highest struct {
	versions map[nameArch][]string // the highest first
}

func (m *highest) add(p *chantal.Package, n int) {
	if m.versions == nil {
		m.versions = make(map[nameArch][]string)
	}
	of := nameArch{p.Name, p.Arch}
	versions := m.versions[of]
	at, known := slices.BinarySearchFunc(versions, p.Version, func(a, b string) int { return Format{}.CompareVersions(b, a) })
	if !known && at < n {
		versions = slices.Insert(versions, at, p.Version)
		m.versions[of] = versions[:min(len(versions), n)]
	}
}

// oldest returns the lowest of the versions that were collected of each.
func (m *highest) oldest() map[nameArch]string {
	oldest := make(map[nameArch]string, len(m.versions))
	for of, versions := range m.versions {
		oldest[of] = versions[len(versions)-1]
	}
	return oldest
}

// packages returns what was collected, as nevra joins it; nothing of nil.
func (m *highest) packages() map[string]bool {
	all := make(map[string]bool)
	if m == nil {
		return all
	}
	for of, versions := range m.versions {
		for _, v := range versions {
			all[nevra(of.name, v, of.arch)] = true
		}
	}
	return all
}
