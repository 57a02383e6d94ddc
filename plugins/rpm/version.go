package rpm

import (
	"cmp"
	"strings"

	"chantal"
)

var _ chantal.Comparer = Format{}

// CompareVersions implements chantal.Comparer as rpm does. Versions have the
// form that Promise.Package.Version has: "epoch:version-release", without an
// epoch of 0. What has no version is none.
func (Format) CompareVersions(a, b string) int {
	v, w := parseEVR(a), parseEVR(b)
	if v.version == "" || w.version == "" {
		if v.version == w.version {
			return strings.Compare(a, b)
		}
		return strings.Compare(v.version, w.version)
	}
	if c := compareNumbers(v.epoch, w.epoch); c != 0 {
		return c
	}
	if c := compareLabels(v.version, w.version); c != 0 {
		return c
	}
	if v.release == "" || w.release == "" {
		return strings.Compare(v.release, w.release)
	}
	return compareLabels(v.release, w.release)
}

// version is the three parts of an EVR. No epoch is 0.
type version struct{ epoch, version, release string }

func parseEVR(s string) version {
	var v version
	if epoch, rest, ok := strings.Cut(s, ":"); ok && strings.Trim(epoch, "0123456789") == "" {
		v.epoch, s = epoch, rest
	}
	v.version, v.release, _ = cutLast(s, "-")
	return v
}

// The tokens of a label, in their order: a tilde comes before the end, a caret
// behind it, letters before numbers.
const (
	tilde = iota
	end
	caret
	letters
	number
)

// compareLabels compares two versions, or two releases. They are runs of
// letters, runs of digits, tildes and carets; everything else only separates.
func compareLabels(a, b string) int {
	for {
		var kindA, kindB int
		var textA, textB string
		kindA, textA, a = cutToken(a)
		kindB, textB, b = cutToken(b)
		c := cmp.Compare(kindA, kindB)
		if c == 0 && kindA == letters {
			c = strings.Compare(textA, textB)
		}
		if c == 0 && kindA == number {
			c = compareNumbers(textA, textB)
		}
		if c != 0 || kindA == end {
			return c
		}
	}
}

// cutToken cuts the first token off s.
func cutToken(s string) (kind int, text, rest string) {
	s = strings.TrimLeftFunc(s, func(c rune) bool { return c != '~' && c != '^' && !isLetter(c) && !isDigit(c) })
	if s == "" {
		return end, "", ""
	}
	is := isLetter
	switch c := rune(s[0]); {
	case c == '~':
		return tilde, "", s[1:]
	case c == '^':
		return caret, "", s[1:]
	case isDigit(c):
		kind, is = number, isDigit
	default:
		kind = letters
	}
	n := strings.IndexFunc(s, func(c rune) bool { return !is(c) })
	if n < 0 {
		n = len(s)
	}
	return kind, s[:n], s[n:]
}

func isLetter(c rune) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isDigit(c rune) bool { return '0' <= c && c <= '9' }

// compareNumbers compares digits as numbers of any size; none at all is 0.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return cmp.Compare(len(a), len(b))
	}
	return strings.Compare(a, b)
}
