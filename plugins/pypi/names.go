package pypi

import "strings"

const (
	metadataSuffix  = ".metadata"  // PEP 658
	signatureSuffix = ".asc"       // PEP 503
	provenance      = "provenance" // PEP 740: …/FILE/provenance
	wheelSuffix     = ".whl"
	eggSuffix       = ".egg"
)

// maxName is the longest name of a project, and maxCandidates the most
// projects that one file name is taken to hint at; both are far above what
// occurs and keep hostile names cheap.
const (
	maxName       = 256
	maxCandidates = 32
)

// suffixes are those of source distributions, of wheels and eggs, and of the
// retired kinds that indexes still list.
var suffixes = [...]string{
	wheelSuffix, ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar.z", ".tbz", ".txz", ".tar.zst",
	".tar.lzma", ".tar.lz", ".tlz", ".tar", eggSuffix, ".exe", ".msi", ".rpm", ".deb", ".dmg",
}

// Normalize returns the normalised form of a project's name (PEP 503): lower
// case, with one hyphen for every run of hyphens, underscores and dots.
func Normalize(name string) string {
	if isNormal(name) {
		return name
	}
	b := make([]byte, 0, len(name))
	for i := range len(name) {
		switch c := name[i]; {
		case separator(c):
			if i == 0 || !separator(name[i-1]) {
				b = append(b, '-')
			}
		case 'A' <= c && c <= 'Z':
			b = append(b, c+'a'-'A')
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

func isNormal(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c == '_' || c == '.' || 'A' <= c && c <= 'Z' || c == '-' && i > 0 && name[i-1] == '-' {
			return false
		}
	}
	return true
}

func separator(c byte) bool { return c == '-' || c == '_' || c == '.' }

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// validName reports whether name may name a project (PEP 508): ASCII letters,
// digits, hyphens, underscores and dots, the first and last a letter or digit.
func validName(name string) bool {
	if name == "" || len(name) > maxName || separator(name[0]) || separator(name[len(name)-1]) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !alphanumeric(c) && !separator(c) {
			return false
		}
	}
	return true
}

// cutSuffix splits a distribution's file name; suffix is in lower case, and ""
// when the name is not that of a distribution.
func cutSuffix(filename string) (stem, suffix string) {
	for _, s := range suffixes {
		if n := len(filename) - len(s); n > 0 && strings.EqualFold(filename[n:], s) {
			return filename[:n], s
		}
	}
	return filename, ""
}

func isDistribution(filename string) bool {
	_, suffix := cutSuffix(filename)
	return suffix != ""
}

// ProjectOf returns the normalised names of the projects that a file of that
// name can belong to, shortest first: one for a wheel; for other files, whose
// names may have hyphens on both sides of the one before the version, every
// part up to a hyphen. Nil when the name is no help.
func ProjectOf(filename string) []string {
	stem, suffix := cutSuffix(filename)
	if suffix == wheelSuffix {
		stem, _, _ = strings.Cut(stem, "-")
		if !validName(stem) {
			return nil
		}
		return []string{Normalize(stem)}
	}
	var projects []string
	add := func(name string) {
		if !validName(name) {
			return
		}
		name = Normalize(name)
		if len(projects) == 0 || projects[len(projects)-1] != name {
			projects = append(projects, name)
		}
	}
	hyphens := 0
	for i := 0; i < len(stem) && i <= maxName && hyphens < maxCandidates; i++ {
		if stem[i] == '-' {
			hyphens++
			add(stem[:i])
		}
	}
	if hyphens == 0 {
		add(stem)
	}
	return projects
}

// versionOf returns the version in the name of one of the project's files as
// it is written there, or "" where it cannot be told.
func versionOf(filename, project string) string {
	stem, suffix := cutSuffix(filename)
	if suffix == "" {
		return ""
	}
	for i := 0; i < len(stem) && i <= maxName; i++ {
		if stem[i] != '-' || Normalize(stem[:i]) != project {
			continue
		}
		version := stem[i+1:]
		switch suffix {
		case wheelSuffix, eggSuffix:
			version, _, _ = strings.Cut(version, "-")
		default:
			// Binary distributions of old had the platform behind the version.
			for _, platform := range [...]string{".win", ".linux", ".macosx"} {
				version, _, _ = strings.Cut(version, platform)
			}
		}
		return version
	}
	return ""
}
