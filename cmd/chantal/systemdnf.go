package main

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"chantal/internal/config"
)

// dnfRepos are the repositories of .repo files.
func (s *system) dnfRepos() (repos []*found, left []string, err error) {
	vars := s.dnfVariables()
	for _, file := range s.glob("/etc/yum.repos.d/*.repo") {
		text, err := s.read(file)
		if err != nil {
			return nil, nil, err
		}
		for _, section := range iniSections(text) {
			if enabled := section.first("enabled"); enabled != "" && !yes(enabled) {
				left = append(left, fmt.Sprintf("%s: disabled: [%s]", file, section.name))
				continue
			}
			f, why := dnfRepo(section, vars)
			if why != "" {
				left = append(left, fmt.Sprintf("%s: [%s] %s", file, section.name, why))
				continue
			}
			f.from = []string{file}
			f.selects("architectures", vars["basearch"])
			f.selects("newest", "1")
			repos = append(repos, f)
		}
	}
	return repos, left, nil
}

// dnfRepo is the repository of one section; why says why there is none.
func dnfRepo(section iniSection, vars map[string]string) (f *found, why string) {
	f = &found{name: repoWord(section.name), typ: config.RPM}
	secret := section.first("username") != "" || section.first("password") != ""
	for _, raw := range section.list("baseurl") {
		bare, has, ok := upstreamOf(expandDNF(raw, vars))
		if !ok {
			f.notes = addTo(f.notes, "left out: "+withoutSecrets(raw))
			continue
		}
		secret = secret || has
		f.upstream = addTo(f.upstream, strings.TrimRight(bare, "/")+"/")
	}
	for _, key := range []string{"mirrorlist", "metalink"} {
		raw := section.first(key)
		if raw == "" {
			continue
		}
		bare, has, ok := upstreamOf(expandDNF(raw, vars))
		if !ok {
			f.notes = addTo(f.notes, "left out: "+withoutSecrets(raw))
			continue
		}
		secret = secret || has
		// dnf looks at the name of a list of mirrors, too.
		if strings.Contains(bare, "metalink") {
			key = "metalink"
		}
		f.list, f.listKey = bare, key
	}
	if len(f.upstream) == 0 && f.list == "" {
		return nil, "has no address that can be asked over http"
	}
	if secret {
		f.notes = addTo(f.notes, secretNote)
	}
	var keys []string
	for _, raw := range section.list("gpgkey") {
		if file, ok := strings.CutPrefix(expandDNF(raw, vars), "file://"); ok {
			keys = addTo(keys, file)
		}
	}
	switch checks := section.first("repo_gpgcheck"); {
	case yes(checks):
		f.keyrings = keys
	case len(keys) > 0:
		f.notes = append(f.notes, "keyring: "+keys[0]+" would check its metadata, which dnf does not (repo_gpgcheck): upstream may not sign it")
	}
	return f, ""
}

// iniSection is one section of a file of settings.
type iniSection struct {
	name   string
	values map[string][]string // lines, by key in lower case
}

func (s iniSection) first(key string) string {
	if list := s.list(key); len(list) > 0 {
		return list[0]
	}
	return ""
}

// list is a value that is several words or lines.
func (s iniSection) list(key string) []string {
	return strings.FieldsFunc(strings.Join(s.values[key], " "), func(r rune) bool { return r == ' ' || r == '\t' || r == ',' })
}

// iniSections reads a file of sections with "key = value" lines; lines that
// begin with white space belong to the one before.
func iniSections(text string) (sections []iniSection) {
	key := ""
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		last := len(sections) - 1
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
		case trimmed[0] == '[' && strings.HasSuffix(trimmed, "]"):
			sections = append(sections, iniSection{trimmed[1 : len(trimmed)-1], map[string][]string{}})
			key = ""
		case last < 0:
		case (line[0] == ' ' || line[0] == '\t') && key != "":
			sections[last].values[key] = append(sections[last].values[key], trimmed)
		default:
			name, value, ok := strings.Cut(trimmed, "=")
			if ok {
				key = strings.ToLower(strings.TrimSpace(name))
				sections[last].values[key] = []string{strings.TrimSpace(value)}
			}
		}
	}
	return sections
}

// dnfVariables are those that dnf replaces in addresses.
func (s *system) dnfVariables() map[string]string {
	release := map[string]string{}
	for _, name := range []string{"/usr/lib/os-release", "/etc/os-release"} {
		text, err := s.read(name)
		if err != nil {
			continue // one of the two is enough
		}
		for line := range strings.Lines(text) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				release[key] = strings.Trim(value, `"'`)
			}
		}
	}
	version := release["VERSION_ID"]
	// The distributions made from one another have minor versions, and name
	// their repositories by the major one.
	if like := strings.Fields(release["ID"] + " " + release["ID_LIKE"]); slices.Contains(like, "rhel") || slices.Contains(like, "centos") {
		version, _, _ = strings.Cut(version, ".")
	}
	arch := s.machine
	base := arch
	switch {
	case len(arch) == 4 && arch[0] == 'i' && strings.HasSuffix(arch, "86"):
		base = "i386"
	case strings.HasPrefix(arch, "armv7"):
		base = "armhfp"
	}
	vars := map[string]string{"releasever": version, "basearch": base, "arch": arch}
	for _, file := range append(s.glob("/etc/yum/vars/*"), s.glob("/etc/dnf/vars/*")...) {
		text, err := s.read(file)
		if value, _, _ := strings.Cut(text, "\n"); err == nil && strings.TrimSpace(value) != "" {
			vars[path.Base(file)] = strings.TrimSpace(value)
		}
	}
	major, minor, _ := strings.Cut(vars["releasever"], ".")
	vars["releasever_major"], vars["releasever_minor"] = major, minor
	for key, value := range vars {
		if value == "" {
			delete(vars, key)
		}
	}
	return vars
}

var dnfVariable = regexp.MustCompile(`\$(\{[A-Za-z0-9_]+\}|[A-Za-z0-9_]+)`)

// expandDNF replaces the variables that are known; others stay.
func expandDNF(text string, vars map[string]string) string {
	return dnfVariable.ReplaceAllStringFunc(text, func(written string) string {
		if value, ok := vars[strings.Trim(written, "${}")]; ok {
			return value
		}
		return written
	})
}
