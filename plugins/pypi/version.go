package pypi

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"chantal"
)

var _ chantal.Comparer = Format{}

// CompareVersions implements chantal.Comparer as PEP 440 orders versions.
// Other strings, which old files have for a version, come before all of them,
// in the order of their bytes.
func (Format) CompareVersions(a, b string) int {
	v, okV := parseVersion(a)
	w, okW := parseVersion(b)
	switch {
	case okV && okW:
		return v.compare(w)
	case okV:
		return 1
	case okW:
		return -1
	}
	return strings.Compare(a, b)
}

// version is a version of PEP 440. Numbers are digits without leading zeros,
// "0" for zero and "" where the part is not there.
type version struct {
	epoch          string
	release        []string
	phase          string // "a", "b", "rc"; "" for none
	pre, post, dev string
	local          []string // in lower case
}

// versionPattern is the permissive form of PEP 440, appendix B, for lower case;
// an underscore also stands for the hyphen that file names escape.
var versionPattern = regexp.MustCompile(`^v?(?:0*([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)` +
	`(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?([0-9]*))?` +
	`(?:[-_]([0-9]+)|[-_.]?(post|rev|r)[-_.]?([0-9]*))?` +
	`(?:[-_.]?(dev)[-_.]?([0-9]*))?` +
	`(?:[+]([a-z0-9]+(?:[-_.][a-z0-9]+)*))?$`)

// parseVersion reads any spelling of a version that PEP 440 knows.
func parseVersion(s string) (v version, ok bool) {
	m := versionPattern.FindStringSubmatch(strings.ToLower(strings.TrimSpace(s)))
	if m == nil {
		return version{}, false
	}
	v.epoch = number(m[1])
	for part := range strings.SplitSeq(m[2], ".") {
		v.release = append(v.release, number(part))
	}
	switch m[3] {
	case "":
	case "a", "alpha":
		v.phase = "a"
	case "b", "beta":
		v.phase = "b"
	default:
		v.phase = "rc"
	}
	if m[3] != "" {
		v.pre = number(m[4])
	}
	switch {
	case m[5] != "":
		v.post = number(m[5])
	case m[6] != "":
		v.post = number(m[7])
	}
	if m[8] != "" {
		v.dev = number(m[9])
	}
	if m[10] != "" {
		v.local = strings.FieldsFunc(m[10], func(c rune) bool { return c == '.' || c == '-' || c == '_' })
		for i, part := range v.local {
			if strings.Trim(part, "0123456789") == "" {
				v.local[i] = number(part)
			}
		}
	}
	return v, true
}

// canonicalVersion returns one text for all spellings of a version that PEP 440
// holds equal. What is no such version is returned in lower case.
func canonicalVersion(s string) string {
	v, ok := parseVersion(s)
	if !ok {
		return strings.ToLower(strings.TrimSpace(s))
	}
	return v.String()
}

// String returns the one spelling that all equal versions have here: zeros at
// the end of the release are left out.
func (v version) String() string {
	var b strings.Builder
	if v.epoch != "0" {
		b.WriteString(v.epoch + "!")
	}
	b.WriteString(strings.Join(v.shortest(), ".") + v.phase + v.pre)
	if v.post != "" {
		b.WriteString(".post" + v.post)
	}
	if v.dev != "" {
		b.WriteString(".dev" + v.dev)
	}
	if len(v.local) > 0 {
		b.WriteString("+" + strings.Join(v.local, "."))
	}
	return b.String()
}

// prerelease reports whether who does not ask for it should not get it.
func (v version) prerelease() bool { return v.phase != "" || v.dev != "" }

func (v version) compare(w version) int {
	if c := compareNumbers(v.epoch, w.epoch); c != 0 {
		return c
	}
	if c := slices.CompareFunc(v.shortest(), w.shortest(), compareNumbers); c != 0 {
		return c
	}
	if c := cmp.Compare(v.rank(), w.rank()); c != 0 {
		return c
	}
	if c := compareNumbers(v.pre, w.pre); c != 0 {
		return c
	}
	if c := compareNumbers(v.post, w.post); c != 0 {
		return c
	}
	c := compareNumbers(v.dev, w.dev)
	if v.dev == "" || w.dev == "" {
		c = -c // none is behind any
	}
	return cmp.Or(c, slices.CompareFunc(v.local, w.local, compareLocal))
}

// shortest returns the release without zeros at its end, but for the first.
func (v version) shortest() []string {
	n := len(v.release)
	for n > 1 && v.release[n-1] == "0" {
		n--
	}
	return v.release[:n]
}

// rank orders what may follow a release: a development release of it, its
// alphas, betas and candidates, and the release with what comes after it.
func (v version) rank() int {
	switch {
	case v.phase != "":
		return strings.Index("abrc", v.phase) + 1
	case v.post == "" && v.dev != "":
		return 0
	}
	return 5
}

// compareNumbers compares what number returns; "" is before 0.
func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// compareLocal compares parts of local versions: words come before numbers.
func compareLocal(a, b string) int {
	switch na, nb := strings.Trim(a, "0123456789") == "", strings.Trim(b, "0123456789") == ""; {
	case na && nb:
		return compareNumbers(a, b)
	case na:
		return 1
	case nb:
		return -1
	}
	return strings.Compare(a, b)
}

// number strips leading zeros; nothing at all counts as zero.
func number(digits string) string {
	if digits = strings.TrimLeft(digits, "0"); digits == "" {
		return "0"
	}
	return digits
}
