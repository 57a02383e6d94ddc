package pypi

import (
	"fmt"
	"strings"
)

// specifier is one clause of a version specifier (PEP 440): an operator and a
// version.
type specifier struct {
	operator string
	version  version
	prefix   bool   // the version ends in ".*"
	written  string // the version as written
}

// operators, longest first.
var operators = [...]string{"===", "~=", "==", "!=", "<=", ">=", "<", ">"}

// parseSpecifiers reads clauses that are separated by commas.
func parseSpecifiers(s string) ([]specifier, error) {
	var all []specifier
	for clause := range strings.SplitSeq(s, ",") {
		if clause = strings.TrimSpace(clause); clause == "" {
			continue
		}
		spec, err := parseSpecifier(clause)
		if err != nil {
			return nil, err
		}
		all = append(all, spec)
	}
	return all, nil
}

func parseSpecifier(clause string) (specifier, error) {
	var s specifier
	for _, op := range operators {
		if rest, ok := strings.CutPrefix(clause, op); ok {
			s.operator, s.written = op, strings.TrimSpace(rest)
			break
		}
	}
	switch s.operator {
	case "":
		return s, fmt.Errorf("%q begins with no operator: ==, !=, <, <=, >, >=, ~=, ===", clause)
	case "===":
		s.version, _ = parseVersion(s.written)
		return s, nil
	}
	plain := s.written
	if s.operator == "==" || s.operator == "!=" {
		plain, s.prefix = strings.CutSuffix(s.written, ".*")
	}
	var ok bool
	s.version, ok = parseVersion(plain)
	v := s.version
	switch {
	case !ok:
		return s, fmt.Errorf("%q has no version that PEP 440 knows", clause)
	case s.prefix && (v.phase != "" || v.post != "" || v.dev != "" || v.local != nil):
		return s, fmt.Errorf("%q: what is before .* has to be a release", clause)
	case s.operator == "~=" && len(v.release) < 2:
		return s, fmt.Errorf("%q: ~= needs a version of two numbers", clause)
	case v.local != nil && s.operator != "==" && s.operator != "!=":
		return s, fmt.Errorf("%q: only == and != compare local versions", clause)
	}
	return s, nil
}

// namesPrerelease reports whether whoever wrote s wants pre-releases.
func (s specifier) namesPrerelease() bool { return s.operator != "!=" && s.version.prerelease() }

// contains reports whether a version is one that s admits. written is its text.
func (s specifier) contains(v version, written string) bool {
	public := v
	public.local = nil
	switch s.operator {
	case "===":
		return strings.EqualFold(written, s.written)
	case "==":
		return s.equals(v)
	case "!=":
		return !s.equals(v)
	case "<=":
		return public.compare(s.version) <= 0
	case ">=":
		return public.compare(s.version) >= 0
	case "<": // no pre-release of the version itself
		return v.compare(s.version) < 0 && (s.version.prerelease() || !v.prerelease() || !v.sameRelease(s.version))
	case ">": // neither a local version nor a post-release of the version itself
		return public.compare(s.version) > 0 && !v.isPostReleaseOf(s.version)
	}
	family := s.version
	family.release = family.release[:len(family.release)-1]
	return public.compare(s.version) >= 0 && v.hasPrefix(family)
}

func (s specifier) equals(v version) bool {
	if s.prefix {
		return v.hasPrefix(s.version)
	}
	if s.version.local == nil {
		v.local = nil
	}
	return v.compare(s.version) == 0
}

// hasPrefix reports whether v is of the epoch, and begins with the release, of
// prefix.
func (v version) hasPrefix(prefix version) bool {
	if v.epoch != prefix.epoch {
		return false
	}
	for i, part := range prefix.release {
		if i < len(v.release) && v.release[i] != part || i >= len(v.release) && part != "0" {
			return false
		}
	}
	return true
}

// isPostReleaseOf reports whether v is one of w, which is none itself.
func (v version) isPostReleaseOf(w version) bool {
	return v.post != "" && w.post == "" && w.dev == "" &&
		version{epoch: v.epoch, release: v.release, phase: v.phase, pre: v.pre}.compare(w) == 0
}

// sameRelease reports whether v and w differ at most in what follows the
// release.
func (v version) sameRelease(w version) bool {
	return version{epoch: v.epoch, release: v.release}.compare(version{epoch: w.epoch, release: w.release}) == 0
}
