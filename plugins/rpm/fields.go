package rpm

import (
	"bytes"
	"strings"

	"chantal"
)

// place is where in a <package> of primary.xml a field is: in the element path
// below it, in an attribute or, without one, as text.
type place struct {
	path, attr string
	list       bool // of all such elements, not only the first
}

// placeOf returns where a field is; ok is false for what is none.
func placeOf(field string) (p place, ok bool) {
	switch field {
	case "summary", "description", "packager", "url":
		return place{path: field}, true
	case "license", "vendor", "group", "buildhost", "sourcerpm":
		return place{path: "format/" + field}, true
	case "provides", "requires", "conflicts", "obsoletes", "recommends", "suggests", "supplements", "enhances":
		return place{path: "format/" + field + "/entry", attr: "name", list: true}, true
	case "epoch":
		return place{path: "version", attr: "epoch"}, true
	case "version":
		return place{path: "version", attr: "ver"}, true
	case "release":
		return place{path: "version", attr: "rel"}, true
	case "size":
		return place{path: "size", attr: "package"}, true
	case "installed-size":
		return place{path: "size", attr: "installed"}, true
	case "buildtime":
		return place{path: "time", attr: "build"}, true
	}
	return place{}, false
}

// field returns what the metadata of s says of a package beside its promise.
func (e *edition) field(s *source, p *chantal.Promise, element []byte, name string) (string, error) {
	if name == "module" {
		if err := s.readStreams(); err != nil {
			return "", err
		}
		return s.streams[nevra(p.Package.Name, p.Package.Version, p.Package.Arch)], nil
	}
	if name == "source" {
		built, err := place{path: "format/sourcerpm"}.read(element)
		if err != nil || built == "" {
			return p.Package.Name, err // it is one itself
		}
		built, _, _ = cutLast(built, "-") // the release
		built, _, _ = cutLast(built, "-") // the version
		return built, nil
	}
	at, ok := placeOf(name)
	if !ok {
		return "", nil
	}
	return at.read(element)
}

// read returns what is there in a raw element; "" where there is nothing.
func (at place) read(element []byte) (string, error) {
	var found []string
	m := markup{rest: element}
	path := make([]byte, 0, 64) // of the elements that are open, each with a slash before it
	for depth := 0; ; {
		t, err := m.next()
		if err != nil {
			return "", err
		}
		if t.kind == closing {
			if depth--; depth <= 0 {
				return strings.Join(found, ", "), nil
			}
			if at.attr == "" && string(path[1:]) == at.path {
				return m.line()
			}
			path = path[:bytes.LastIndexByte(path, '/')]
			continue
		}
		below := path
		if depth > 0 {
			below = append(append(path, '/'), t.name...)
			if at.attr != "" && string(below[1:]) == at.path {
				value, err := t.attr(at.attr)
				if err != nil || !at.list {
					return value, err
				}
				found = append(found, value)
			}
		}
		if t.kind == empty {
			if depth == 0 {
				return "", nil
			}
			continue
		}
		path = below
		depth++
	}
}
