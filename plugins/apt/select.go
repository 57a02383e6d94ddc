package apt

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"chantal"
)

var _ chantal.Selector = (*Format)(nil)

// Catalog implements chantal.Selector: nothing lists the suites of a
// repository.
func (*Format) Catalog(*chantal.Selection) chantal.Tree { return chantal.Tree{} }

// Serial implements chantal.Selector: a Release has a date and no number.
func (*Format) Serial(string, []byte) int64 { return 0 }

// Trees implements chantal.Selector. A suite is what a line in sources.list
// has in its place: a name below dists/, which may have slashes, or where it
// ends in a slash the folder of a flat repository. One that has dists/ itself
// is the path of the suite's folder.
func (*Format) Trees(sel *chantal.Selection, _ []byte) ([]chantal.SelectedTree, error) {
	if _, err := newNames(sel); err != nil {
		return nil, err
	}
	if len(sel.Suites) == 0 {
		return nil, errors.New(`no suites are selected; suites: [NAME], or ["./"] where the repository is flat`)
	}
	var trees []chantal.SelectedTree
	for _, suite := range sel.Suites {
		dir, err := suiteFolder(suite)
		if err != nil {
			return nil, fmt.Errorf("the suite %q: %w", suite, err)
		}
		same := func(t chantal.SelectedTree) bool { return t.Name == dir }
		if !slices.ContainsFunc(trees, same) {
			trees = append(trees, chantal.SelectedTree{Tree: tree(dir)})
		}
	}
	return trees, nil
}

// suiteFolder returns the folder in which the roots of a suite lie.
func suiteFolder(suite string) (string, error) {
	if strings.Trim(suite, "./") == "" && strings.HasSuffix(suite, "/") && !strings.Contains(suite, "..") {
		return ".", nil
	}
	dir, err := clean(suite)
	if err != nil {
		return "", err
	}
	if _, _, ok := cutDists(dir); !ok && !strings.HasSuffix(suite, "/") {
		dir = "dists/" + dir
	}
	return dir, nil
}

// Indexes implements chantal.Selector: what apt asks for with these
// components, architectures and languages, in the order of compressions in
// which it does. Of .diff folders nothing: whoever has the whole index needs
// no patches.
func (*Format) Indexes(sel *chantal.Selection, c chantal.Contents) ([][]chantal.Promise, error) {
	var (
		groups [][]chantal.Promise
		at     = make(map[string]int) // what a group's files are called without a compression → position
		noAll  = saysNoAll(c)
		there  offer
	)
	for _, p := range c.Listed() {
		plain := plainName(p.Path)
		t, ok := targetOf(plain, c.Tree().Name)
		if !ok {
			continue
		}
		there.add(t)
		if t.arch == "all" && noAll || !t.selected(sel) {
			continue
		}
		i, ok := at[plain]
		if !ok {
			i = len(groups)
			at[plain] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], p)
	}
	if len(groups) == 0 {
		return nil, fmt.Errorf("%s has nothing of what is selected; it has %s", c.Tree().Name, there)
	}
	for _, group := range groups {
		slices.SortStableFunc(group, func(a, b chantal.Promise) int { return preference(a.Path) - preference(b.Path) })
	}
	return groups, nil
}

// saysNoAll reports whether the Release of c says that clients need not read
// binary-all/Packages.
func saysNoAll(c chantal.Contents) bool {
	for _, root := range c.Tree().Roots {
		name := path.Base(root)
		if name == releaseGPG {
			continue
		}
		if rel, err := openRelease(name, c.Root(root)); err == nil {
			return rel.noAll
		}
	}
	return false
}

// preference orders the compressions of one file as apt does, with what cannot
// be read here at the end.
func preference(name string) int {
	return slices.Index([]string{".xz", ".bz2", ".lzma", ".gz", ".zst", "", ".lz4"}, name[len(plainName(name)):])
}

// target is what one file that a Release lists is for.
type target struct {
	kind      targetKind
	component string // "" for files of the whole suite
	arch      string // "" for those of every architecture
	language  string // of a translation
}

type targetKind uint8

const (
	binaries targetKind = iota
	sources
	udebs
	translation
	contents
	images
	desktop // what software centres and command-not-found read
)

// targetOf tells what a file in the suite with that folder is for, by its name
// without a compression; false for what apt has no use of.
func targetOf(name, suite string) (target, bool) {
	if suite != "." {
		name = strings.TrimPrefix(name, suite+"/")
	}
	folders := strings.Split(name, "/")
	file := folders[len(folders)-1]
	i := slices.IndexFunc(folders[:len(folders)-1], isIndexFolder)
	if i < 0 {
		return topTarget(strings.Join(folders[:len(folders)-1], "/"), file)
	}
	t := target{component: strings.Join(folders[:i], "/")}
	folder, below := folders[i], folders[i+1:len(folders)-1]
	if folder == "debian-installer" && len(below) == 1 {
		t.kind, folder, below = udebs, below[0], nil
	}
	if arch, ok := strings.CutPrefix(folder, "binary-"); ok && len(below) == 0 {
		t.arch = arch
		return t, file == "Packages" || file == release
	}
	if arch, ok := strings.CutPrefix(folder, "installer-"); ok {
		t.kind, t.arch = images, arch
		return t, len(below) == 2 && below[0] == "current" && file == sums
	}
	if t.kind == udebs || len(below) > 0 {
		return t, false
	}
	ok := false
	switch folder {
	case "source":
		t.kind, ok = sources, file == "Sources" || file == release
	case "i18n":
		t.kind = translation
		t.language, ok = strings.CutPrefix(file, "Translation-")
	case "dep11":
		t.kind = desktop
		if strings.HasPrefix(file, "icons-") {
			return t, true
		}
		t.arch, ok = strings.CutPrefix(strings.TrimSuffix(file, ".yml"), "Components-")
	case "cnf":
		t.kind = desktop
		t.arch, ok = strings.CutPrefix(file, "Commands-")
	}
	return t, ok
}

var languageName = regexp.MustCompile(`^[a-z]{2,3}(_[A-Z]{2})?$`)

// topTarget is targetOf for files that lie in no folder of their own kind:
// those of a flat repository, and lists of contents.
func topTarget(component, file string) (target, bool) {
	t := target{component: component, kind: contents}
	if of, ok := strings.CutPrefix(file, "Contents-"); ok {
		t.arch = of
		return t, true
	}
	switch {
	case component != "":
		return t, false
	case file == "Packages":
		t.kind = binaries
	case file == "Sources":
		t.kind = sources
	default:
		// apt asks a flat repository for a file that is called as the language.
		t.kind, t.language = translation, file
		return t, languageName.MatchString(file)
	}
	return t, true
}

func (t target) selected(sel *chantal.Selection) bool {
	if len(sel.Components) > 0 && t.component != "" && !slices.Contains(sel.Components, t.component) {
		return false
	}
	switch t.kind {
	case sources:
		return sel.Sources
	case udebs:
		return sel.Udebs && hasArch(sel, t.arch)
	case images:
		return sel.Installer && hasArch(sel, t.arch)
	case translation:
		return hasLanguage(sel, t.language)
	case contents:
		arch, udeb := strings.CutPrefix(t.arch, "udeb-")
		if arch == "source" {
			return sel.Contents && sel.Sources
		}
		return sel.Contents && (sel.Udebs || !udeb) && hasArch(sel, arch)
	}
	return t.arch == "" || hasArch(sel, t.arch)
}

// hasArch reports whether packages of that architecture are held; "all" always
// is.
func hasArch(sel *chantal.Selection, arch string) bool {
	return len(sel.Architectures) == 0 || arch == "all" || slices.Contains(sel.Architectures, arch)
}

func hasLanguage(sel *chantal.Selection, language string) bool {
	return len(sel.Languages) == 0 && language == "en" || slices.Contains(sel.Languages, "all") ||
		slices.Contains(sel.Languages, language)
}

// offer is what a suite has that can be selected.
type offer struct{ components, architectures []string }

func (o *offer) add(t target) {
	if t.kind != binaries {
		return
	}
	o.components = withNew(o.components, t.component)
	o.architectures = withNew(o.architectures, t.arch)
}

func withNew(list []string, s string) []string {
	if s == "" || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

func (o offer) String() string {
	if len(o.components) == 0 {
		return "no lists of packages"
	}
	return fmt.Sprintf("the components %s and the architectures %s",
		strings.Join(o.components, ", "), strings.Join(o.architectures, ", "))
}

// Artifacts implements chantal.Selector. Packages are told by name and
// architecture. Where packages are named, a source package is held if it is
// named itself or a package that is held was built from it; in which version
// is not looked at.
func (f *Format) Artifacts(sel *chantal.Selection, c chantal.Contents) (func(*chantal.Promise) bool, error) {
	names, err := newNames(sel)
	if err != nil {
		return nil, err
	}
	var built map[string]bool
	if sel.Sources && len(sel.Packages) > 0 {
		if built, err = f.builtFrom(sel, c, names); err != nil {
			return nil, err
		}
	}
	return func(p *chantal.Promise) bool {
		switch {
		case p.Kind != chantal.Artifact:
			return false
		case p.Package == nil:
			return true // an image of the installer, or a package without a name
		case p.Package.Arch == "source":
			return sel.Sources && (names.match(p.Package.Name, "source") ||
				built[p.Package.Name] && !names.exclude.match(p.Package.Name, "source"))
		}
		return hasArch(sel, p.Package.Arch) && names.match(p.Package.Name, p.Package.Arch)
	}, nil
}

// builtFrom returns the names of the source packages that the selected ones
// were built from.
func (f *Format) builtFrom(sel *chantal.Selection, c chantal.Contents, names *names) (map[string]bool, error) {
	groups, err := f.Indexes(sel, c)
	if err != nil {
		return nil, err
	}
	from := make(map[string]bool)
	for _, group := range groups {
		if path.Base(plainName(group[0].Path)) != "Packages" {
			continue
		}
		for _, p := range group {
			r, err := c.Open(p)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = errors.Join(readSources(r, func(name, arch, source string) {
					if hasArch(sel, arch) && names.match(name, arch) {
						from[source] = true
					}
				}), r.Close())
			}
			if err != nil {
				return nil, fmt.Errorf("reading the sources in %s: %w", p.Path, err)
			}
			break
		}
	}
	return from, nil
}

// readSources calls found for each package of a Packages index with the name
// of the source package that it was built from.
func readSources(r io.Reader, found func(name, arch, source string)) error {
	c := newControl(r)
	var name, arch, source string
	for {
		err := c.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil || c.kind == blank {
			if source == "" {
				source = name // it is named only where it differs
			}
			if name != "" {
				found(name, arch, source)
			}
			if name, arch, source = "", "", ""; err != nil {
				return nil
			}
			continue
		}
		if c.kind != field {
			continue
		}
		switch string(c.name) {
		case "package":
			name = string(c.value)
		case "architecture":
			arch = string(c.value)
		case "source":
			word, _ := cutWord(c.value) // a version in brackets may follow
			source = string(word)
		}
	}
}

// names are the globs of a selection on package names.
type names struct {
	all            bool // no package is named, so each one is
	named, exclude byArch
}

// byArch are globs on names by the architecture that they are restricted to.
type byArch map[string]chantal.Globs

// newNames reads the globs of sel. Each may end in ":ARCH", as apt and dpkg
// write names; ":any" is every one.
func newNames(sel *chantal.Selection) (*names, error) {
	n := names{all: len(sel.Packages) == 0}
	var err error
	if n.named, err = newByArch(sel.Packages); err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	if n.exclude, err = newByArch(sel.Exclude); err != nil {
		return nil, fmt.Errorf("exclude: %w", err)
	}
	return &n, nil
}

func newByArch(globs []string) (byArch, error) {
	split := make(map[string][]string)
	for _, glob := range globs {
		name, arch, _ := strings.Cut(glob, ":")
		if arch == "any" {
			arch = ""
		}
		split[arch] = append(split[arch], name)
	}
	b := make(byArch, len(split))
	for arch, names := range split {
		var err error
		if b[arch], err = chantal.NewGlobs(names); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (n *names) match(name, arch string) bool {
	return (n.all || n.named.match(name, arch)) && !n.exclude.match(name, arch)
}

// match reports whether a package is named. One for all architectures is one
// of each of them, as it is for apt.
func (b byArch) match(name, arch string) bool {
	for of, globs := range b {
		if (of == "" || of == arch || arch == "all") && globs.Match(name) {
			return true
		}
	}
	return false
}
