package rpm

import (
	"strings"

	"chantal"
)

// names are patterns on packages. Each is a glob on the name, and whatever else
// rpm and dnf write a package as: NAME.ARCH, NAME-VERSION, NAME-VERSION-RELEASE
// and these with an epoch before the version, or before all, and with .ARCH.
// Where that is ambiguous a pattern means all that it can.
type names struct {
	plain map[string][]named // by name: lists of packages have thousands
	globs []globbed
}

// named is what a pattern wants beside the name.
type named struct {
	version chantal.Globs // of VERSION or VERSION-RELEASE, with or without its epoch
	any     bool          // version is of no importance
	arch    string        // "" for any
}

type globbed struct {
	name chantal.Globs
	named
}

// newNames reads patterns. The error names one that is none.
func newNames(patterns []string) (names, error) {
	n := names{plain: make(map[string][]named)}
	for _, pattern := range patterns {
		if err := n.add(pattern, named{any: true}); err != nil {
			return names{}, err
		}
		base, arch, ok := cutLast(pattern, ".")
		if ok = ok && isArch(arch) && base != ""; ok {
			if err := n.add(base, named{any: true, arch: arch}); err != nil {
				return names{}, err
			}
		}
		if err := n.addVersions(pattern, ""); err != nil {
			return names{}, err
		}
		if ok {
			if err := n.addVersions(base, arch); err != nil {
				return names{}, err
			}
		}
	}
	return n, nil
}

// addVersions takes up what a pattern means when a version begins behind one of
// its hyphens. Versions begin with a digit, or foo-* would be every foo.
func (n *names) addVersions(pattern, arch string) error {
	epoch := ""
	if digits, rest, ok := strings.Cut(pattern, ":"); ok && digits != "" && strings.Trim(digits, "0123456789") == "" {
		epoch, pattern = digits+":", rest
	}
	for i := 1; i+1 < len(pattern); i++ {
		if pattern[i] != '-' || !isDigit(rune(pattern[i+1])) {
			continue
		}
		version, err := chantal.NewGlobs([]string{epoch + pattern[i+1:]})
		if err != nil {
			return err
		}
		if err := n.add(pattern[:i], named{version: version, arch: arch}); err != nil {
			return err
		}
	}
	return nil
}

func (n *names) add(name string, want named) error {
	glob, err := chantal.NewGlobs([]string{name})
	switch {
	case err != nil:
		return err
	case strings.ContainsAny(name, `*?[\`):
		n.globs = append(n.globs, globbed{glob, want})
	default:
		n.plain[name] = append(n.plain[name], want)
	}
	return nil
}

func (n *names) match(p *chantal.Package) bool {
	for _, want := range n.plain[p.Name] {
		if want.match(p) {
			return true
		}
	}
	for _, g := range n.globs {
		if g.named.match(p) && g.name.Match(p.Name) {
			return true
		}
	}
	return false
}

func (w *named) match(p *chantal.Package) bool {
	if w.arch != "" && w.arch != p.Arch {
		return false
	}
	if w.any {
		return true
	}
	v := parseEVR(p.Version)
	epoch := v.epoch
	if epoch == "" {
		epoch = "0"
	}
	for _, s := range [...]string{v.version, v.version + "-" + v.release} {
		if w.version.Match(s) || w.version.Match(epoch+":"+s) {
			return true
		}
	}
	return false
}

// isArch reports whether s is an architecture of packages, rather than the end
// of a name or version.
func isArch(s string) bool {
	switch s {
	case "noarch", "src", "nosrc", "x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4", "i386", "i486", "i586", "i686", "athlon", "geode",
		"aarch64", "armv5tel", "armv6hl", "armv6l", "armv7hl", "armv7hnl", "armv7l", "ppc", "ppc64", "ppc64le", "s390", "s390x",
		"riscv64", "loongarch64", "ia64", "alpha", "sparc", "sparcv9", "sparc64", "mips", "mipsel", "mips64", "mips64el", "e2k":
		return true
	}
	return false
}
