package pypi

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chantal"
)

var _ chantal.Publisher = Format{}

// Publish implements chantal.Publisher: pages in the kept form, with the files
// that are held and the versions that such a file remains of. All else that a
// page says, of itself and of its files, stays as it is, whether anybody here
// knows it or not. A project of which no file is held has no page, and the list
// of projects has those whose pages Keep accepts. A tree that is no page stays
// as it is in the last source.
//
// Fields of a file are "filename", "requires-python", "yanked" (the reason, or
// "true"), "size" in bytes, "upload-time", "packagetype" ("wheel", "sdist",
// "egg", or what else a file's name ends in), "python", "abi" and "platform" of
// wheels as their names have them (PEP 425, several joined by dots), and
// "status", the project's (PEP 792).
func (Format) Publish(sources []chantal.Contents, keep chantal.Keep, _ chantal.Publication) (map[string][]byte, error) {
	if len(sources) == 0 {
		return nil, errors.New("publish: there is no source")
	}
	last := sources[len(sources)-1]
	t := last.Tree()
	if len(t.Roots) == 0 {
		return nil, fmt.Errorf("publish %q: it has no roots", t.Name)
	}
	root := t.Roots[0]
	if _, ok := pageProject(root); !ok {
		return map[string][]byte{root: last.Root(root)}, nil
	}
	e := edition{keep: keep, taken: map[string]chantal.Promise{}, remaining: map[string]bool{}}
	for i, c := range slices.Backward(sources) {
		p, err := decodePage(root, c.Root(root))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", root, err)
		}
		e.sources = append(e.sources, source{p, i})
	}
	body, err := e.publish()
	if body == nil || err != nil {
		return nil, err
	}
	return map[string][]byte{root: body}, nil
}

// edition is one publishing of a page.
type edition struct {
	sources   []source // the last one first, for what it says goes before what the others say
	keep      chantal.Keep
	entries   []byte                     // the array of files or projects, as far as it is written
	taken     map[string]chantal.Promise // by file name, or project
	remaining map[string]bool            // versions of the files held, in one spelling
}

// source is one of the pages that are put together.
type source struct {
	*page
	number int // as Keep counts
}

// publish returns the page, or nil where nothing is left on it.
func (e *edition) publish() ([]byte, error) {
	first := e.sources[0].page
	take, key := e.files, "files"
	if first.project == "" {
		take, key = e.projects, "projects"
	}
	for _, s := range e.sources {
		if err := take(s); err != nil {
			return nil, err
		}
	}
	if len(e.taken) == 0 || first.status == "quarantined" {
		return nil, nil
	}
	dst := append(make([]byte, 0, len(first.body)+len(e.entries)), '{')
	for _, m := range first.top {
		switch m.key {
		case key:
			dst = append(append(append(appendKey(dst, key), '['), e.entries...), ']')
		case "versions":
		default:
			dst = first.appendMember(dst, m.key, m.span)
		}
	}
	return append(e.appendVersions(dst), "}\n"...), nil
}

// add adds an entry of s that is held.
func (e *edition) add(s source, at span) {
	if len(e.entries) > 0 {
		e.entries = append(e.entries, ',')
	}
	e.entries = append(e.entries, at.of(s.body)...)
}

// files takes the files of s that are held, but those that a later source has.
func (e *edition) files(s source) error {
	for f, err := range s.offered() {
		if err != nil {
			return err
		}
		p := promises(s.project, f)[0]
		held, err := e.keep(s.number, &p, func(name string) string { return s.field(f, name) })
		if err != nil {
			return err
		}
		if !held {
			continue
		}
		if before, taken := e.taken[f.name]; taken && len(e.sources) > 1 {
			if !agree(before, p) {
				return fmt.Errorf("%s is another file in each of two sources: %s %v and %s %v", f.name, before.URL, before.Digests, p.URL, p.Digests)
			}
			continue
		}
		e.taken[f.name] = p
		e.remaining[canonicalVersion(p.Package.Version)] = true
		e.add(s, f.at)
	}
	return nil
}

// agree reports whether two promises are of one file: by their digests, or where
// these tell nothing by where it lies.
func agree(a, b chantal.Promise) bool {
	for _, d := range a.Digests {
		for _, e := range b.Digests {
			if d.Algo() == e.Algo() {
				return d == e
			}
		}
	}
	return a.URL == b.URL
}

// projects takes the projects of s that are held, but those that a later
// source has.
func (e *edition) projects(s source) error {
	var members []member
	for at := range elements(s.body, s.entries) {
		var err error
		if members, err = object(s.body, at, members); err != nil {
			return fmt.Errorf("a project: %w", err)
		}
		written, _ := text(s.body, get(members, "name"))
		if !validName(written) {
			continue
		}
		name := Normalize(written)
		if _, taken := e.taken[name]; taken {
			continue
		}
		p := chantal.Promise{Path: pagePath(name), Kind: chantal.Root, Size: -1, Package: &chantal.Package{Name: name}}
		held, err := e.keep(s.number, &p, func(string) string { return "" })
		if err != nil {
			return err
		}
		if held {
			e.taken[name] = p
			e.add(s, at)
		}
	}
	return nil
}

// appendVersions appends the versions that sources list and a file remains of,
// each once. It appends nothing where no source lists any.
func (e *edition) appendVersions(dst []byte) []byte {
	listed := false
	for _, s := range e.sources {
		if s.versions == (span{}) {
			continue
		}
		if !listed {
			listed, dst = true, append(appendKey(dst, "versions"), '[')
		}
		for at := range elements(s.body, s.versions) {
			version, _ := text(s.body, at)
			if version = canonicalVersion(version); !e.remaining[version] {
				continue
			}
			delete(e.remaining, version)
			if dst[len(dst)-1] != '[' {
				dst = append(dst, ',')
			}
			dst = append(dst, at.of(s.body)...)
		}
	}
	if listed {
		dst = append(dst, ']')
	}
	return dst
}

// field returns what the page says of a file beside its promise.
func (p *page) field(f *file, name string) string {
	switch name {
	case "filename":
		return f.name
	case "requires-python", "upload-time":
		value, _ := text(p.body, get(f.members, name))
		return value
	case "yanked":
		reason, yanked := f.yanked(p.body)
		if yanked && reason == "" {
			return "true"
		}
		return reason
	case "size":
		if f.size < 0 {
			return ""
		}
		return strconv.FormatInt(f.size, 10)
	case "status":
		return p.status
	case "packagetype":
		return packageType(f.name)
	case "python":
		python, _, _ := tagsOf(f.name)
		return python
	case "abi":
		_, abi, _ := tagsOf(f.name)
		return abi
	case "platform":
		_, _, platform := tagsOf(f.name)
		return platform
	}
	return ""
}

// packageType returns what sort of distribution a file is, by its name.
func packageType(filename string) string {
	switch _, suffix := cutSuffix(filename); suffix {
	case wheelSuffix:
		return "wheel"
	case ".exe", ".msi", ".rpm", ".deb", ".dmg", eggSuffix, "":
		return strings.TrimPrefix(suffix, ".")
	}
	return "sdist"
}

// tagsOf returns the tags in the name of a wheel, "" for other files.
func tagsOf(filename string) (python, abi, platform string) {
	stem, suffix := cutSuffix(filename)
	parts := strings.Split(stem, "-")
	if n := len(parts); suffix == wheelSuffix && n >= 5 {
		return parts[n-3], parts[n-2], parts[n-1]
	}
	return "", "", ""
}
