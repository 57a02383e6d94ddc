package pypi

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"chantal"
)

// tags are the globs of a selection on the tags of wheels (PEP 425).
type tags struct {
	python, platform chantal.Globs
	anyPython, any   bool // no globs: every one
	interpreters     []interpreter
}

// interpreter is a version of an implementation: "cp311", "pp310".
type interpreter struct {
	name         string // "cp", "pp"
	major, minor int
}

var interpreterTag = regexp.MustCompile(`^(cp|pp)([0-9])([0-9]+)$`)

func newTags(sel *chantal.Selection) (tags, error) {
	t := tags{anyPython: len(sel.Python) == 0, any: len(sel.Platforms) == 0}
	var err error
	if t.python, err = chantal.NewGlobs(sel.Python); err != nil {
		return tags{}, err
	}
	if t.platform, err = chantal.NewGlobs(sel.Platforms); err != nil {
		return tags{}, err
	}
	for _, tag := range sel.Python {
		if i, ok := parseInterpreter(tag); ok {
			t.interpreters = append(t.interpreters, i)
		}
	}
	return t, nil
}

func parseInterpreter(tag string) (i interpreter, ok bool) {
	m := interpreterTag.FindStringSubmatch(tag)
	if m == nil {
		return i, false
	}
	i.name = m[1]
	i.major, _ = strconv.Atoi(m[2])
	var err error
	i.minor, err = strconv.Atoi(m[3])
	return i, err == nil
}

// match reports whether a wheel of that name is selected. Each of its three
// tags may be several, joined by dots, and one of each has to fit.
func (t *tags) match(filename string) bool {
	if t.anyPython && t.any {
		return true
	}
	python, abi, platform := tagsOf(filename)
	if python == "" {
		return false
	}
	return (t.any || slices.ContainsFunc(strings.Split(platform, "."), t.platform.Match)) &&
		(t.anyPython || t.matchPython(strings.Split(python, "."), strings.Split(abi, ".")))
}

// matchPython reports whether one of the Python or ABI tags is named, or an
// interpreter is that can use one of them.
func (t *tags) matchPython(python, abi []string) bool {
	if slices.ContainsFunc(python, t.python.Match) || slices.ContainsFunc(abi, t.python.Match) {
		return true
	}
	for _, i := range t.interpreters {
		for _, p := range python {
			for _, a := range abi {
				if i.uses(p, a) {
					return true
				}
			}
		}
	}
	return false
}

// uses reports whether i loads wheels with these tags, though they are not
// named after it: those of the stable ABI for an older one of the same name,
// and those without compiled code for its language or an older one.
func (i interpreter) uses(python, abi string) bool {
	if p, ok := parseInterpreter(python); ok {
		return abi == "abi3" && p.name == i.name && p.major == i.major && p.minor <= i.minor
	}
	version, ok := strings.CutPrefix(python, "py"+strconv.Itoa(i.major))
	if !ok || abi != "none" {
		return false
	}
	minor, err := strconv.Atoi(version)
	return version == "" || err == nil && minor <= i.minor
}
