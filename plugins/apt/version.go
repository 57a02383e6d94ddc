package apt

import (
	"strings"

	"chantal"
)

var _ chantal.Comparer = (*Format)(nil)

// CompareVersions implements chantal.Comparer as dpkg does (deb-version(7)).
// What dpkg only warns of is compared all the same; what it refuses is no
// version.
func (*Format) CompareVersions(a, b string) int {
	v, okV := parseVersion(a)
	w, okW := parseVersion(b)
	switch {
	case !okV && !okW:
		return strings.Compare(a, b)
	case !okV:
		return -1
	case !okW:
		return 1
	}
	if c := compareNumbers(v.epoch, w.epoch); c != 0 {
		return c
	}
	if c := comparePart(v.upstream, w.upstream); c != 0 {
		return c
	}
	return comparePart(v.revision, w.revision)
}

// version is [epoch:]upstream[-revision]. No epoch is 0; no revision is one
// that is equal to "0".
type version struct{ epoch, upstream, revision string }

func parseVersion(s string) (v version, ok bool) {
	s = strings.Trim(s, " \t\n\v\f\r")
	if strings.ContainsAny(s, " \t\n\v\f\r") {
		return v, false
	}
	if epoch, rest, found := strings.Cut(s, ":"); found {
		if epoch == "" || strings.Trim(epoch, "0123456789") != "" || compareNumbers(epoch, "2147483647") > 0 {
			return v, false
		}
		v.epoch, s = epoch, rest
	}
	v.upstream = s
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		v.upstream, v.revision = s[:i], s[i+1:]
		if v.revision == "" {
			return v, false
		}
	}
	return v, v.upstream != ""
}

// comparePart compares two upstream versions or revisions: in turn what is not
// digits, by weight, and digits, as numbers.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !isDigit(a[0]) || b != "" && !isDigit(b[0]) {
			if c := weight(a) - weight(b); c != 0 {
				return c
			}
			// Of equal weight and not both digits or ends, so both have a character.
			a, b = a[1:], b[1:]
		}
		var m, n string
		m, a = cutDigits(a)
		n, b = cutDigits(b)
		if c := compareNumbers(m, n); c != 0 {
			return c
		}
	}
	return 0
}

// weight orders the first characters of s: a tilde, the end or a digit,
// letters, everything else.
func weight(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case 'a' <= s[0]|0x20 && s[0]|0x20 <= 'z', s[0] >= 0x80: // dpkg's characters have a sign
		return int(s[0])
	}
	return int(s[0]) + 256
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func cutDigits(s string) (digits, rest string) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return s[:n], s[n:]
}

// compareNumbers compares digits as numbers of any size; none at all is 0.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
