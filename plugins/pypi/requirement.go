package pypi

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"chantal"
)

// requirements are projects that are named, each perhaps with versions.
type requirements struct {
	plain map[string][]requirement // by normalised name
	globs []globbed
}

type requirement struct {
	specifiers []specifier // all have to hold
}

type globbed struct {
	name chantal.Globs
	requirement
}

// extras is what a requirement may want of a project beside its name.
var extras = regexp.MustCompile(`^([A-Za-z0-9._-]+)\s*\[[A-Za-z0-9._, -]*\]$`)

// newRequirements reads requirements (PEP 508), whose names may be globs. What
// says when one applies (";…") or where else a file is ("@…") is left out, and
// so are extras: a bracket behind a whole name is one, and no glob.
func newRequirements(list []string) (requirements, error) {
	r := requirements{plain: make(map[string][]requirement)}
	for _, line := range list {
		name, specifiers, err := splitRequirement(line)
		if err != nil {
			return requirements{}, fmt.Errorf("%q: %w", line, err)
		}
		if !strings.ContainsAny(name, `*?[`) {
			r.plain[name] = append(r.plain[name], requirement{specifiers})
			continue
		}
		glob, err := chantal.NewGlobs([]string{name})
		if err != nil {
			return requirements{}, err
		}
		r.globs = append(r.globs, globbed{glob, requirement{specifiers}})
	}
	return r, nil
}

func splitRequirement(line string) (name string, specifiers []specifier, err error) {
	name, _, _ = strings.Cut(line, ";")
	name, _, _ = strings.Cut(name, " @")
	at := len(name)
	for _, op := range operators {
		if i := strings.Index(name, op); i >= 0 {
			at = min(at, i)
		}
	}
	name, clauses := name[:at], strings.TrimSpace(name[at:])
	name = strings.TrimSpace(name)
	if open, ok := strings.CutSuffix(name, "("); ok { // "name (>=1)", as metadata of old has it
		name, clauses = strings.TrimSpace(open), strings.TrimSuffix(clauses, ")")
	}
	if m := extras.FindStringSubmatch(name); m != nil {
		name = m[1]
	}
	if name = Normalize(name); strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-*?[]!^") != "" || name == "" {
		return "", nil, errors.New("that is not the name of a project")
	}
	if !strings.ContainsAny(name, `*?[`) && !validName(name) {
		return "", nil, errors.New("that is not the name of a project")
	}
	specifiers, err = parseSpecifiers(clauses)
	return name, specifiers, err
}

// of returns the requirements on a project, nil where it is not named.
func (r *requirements) of(project string) []requirement {
	all := r.plain[project]
	for _, g := range r.globs {
		if g.name.Match(project) {
			all = append(all[:len(all):len(all)], g.requirement)
		}
	}
	return all
}

// admits reports whether a version is one that r names. What is no version at
// all is admitted where none is asked for.
func (r requirement) admits(v version, ok bool, written string) bool {
	for _, s := range r.specifiers {
		if !ok && s.operator != "===" || !s.contains(v, written) {
			return false
		}
	}
	return true
}

func (r requirement) namesPrerelease() bool {
	for _, s := range r.specifiers {
		if s.namesPrerelease() {
			return true
		}
	}
	return false
}
