package main

import (
	"fmt"
	"strings"

	"chantal/internal/config"
)

// aptSource is one or several lines of sources.list(5): what they have in
// common is said once.
type aptSource struct {
	from       string // the file
	types      []string
	uris       []string
	suites     []string
	components []string
	arches     []string
	signedBy   []string // files, or fingerprints
	embedded   string   // an armored key
	trusted    bool     // signatures are not looked at
}

// aptRepos are the repositories that apt is configured for: one for each URI.
func (s *system) aptRepos() (repos []*found, left []string, err error) {
	files := append([]string{"/etc/apt/sources.list"}, s.glob("/etc/apt/sources.list.d/*.list")...)
	native := s.aptArchitectures()
	byBase := map[string]*found{}
	for _, file := range append(files, s.glob("/etc/apt/sources.list.d/*.sources")...) {
		text, err := s.read(file)
		if err != nil {
			return nil, nil, err
		}
		read := aptLines
		if strings.HasSuffix(file, ".sources") {
			read = deb822
		}
		sources, rest := read(text)
		for _, why := range rest {
			left = append(left, file+": "+why)
		}
		for _, source := range sources {
			source.from = file
			if len(source.arches) == 0 {
				source.arches = native
			}
			for _, uri := range source.uris {
				bare, secret, ok := upstreamOf(uri)
				if !ok {
					left = append(left, fmt.Sprintf("%s: %s is nothing that can be asked over http", file, withoutSecrets(uri)))
					continue
				}
				bare = strings.TrimRight(bare, "/") + "/"
				f := byBase[bare]
				if f == nil {
					f = &found{typ: config.Apt, upstream: []string{bare}}
					byBase[bare] = f
					repos = append(repos, f)
				}
				f.addSource(&source, secret)
			}
		}
	}
	if auth := append(s.glob("/etc/apt/auth.conf"), s.glob("/etc/apt/auth.conf.d/*.conf")...); len(auth) > 0 && len(repos) > 0 {
		left = append(left, "apt has credentials in files that Chantal can read, too: egress: {netrc: ["+strings.Join(auth, ", ")+"]}")
	}
	return repos, left, nil
}

// addSource puts together what several sources say of one base.
func (f *found) addSource(s *aptSource, secret bool) {
	f.from = addTo(f.from, s.from)
	if secret {
		f.notes = addTo(f.notes, secretNote)
	}
	for _, by := range s.signedBy {
		if strings.HasPrefix(by, "/") {
			f.keyrings = addTo(f.keyrings, by)
		} else {
			f.notes = addTo(f.notes, "signed by the key "+by+": keyring: takes a file with that key")
		}
	}
	switch {
	case s.embedded != "" && f.embedded != "" && s.embedded != f.embedded:
		f.notes = addTo(f.notes, "the system has several keys for it: put them into one file, and name that as keyring:")
	case s.embedded != "":
		f.embedded = s.embedded
	case len(s.signedBy) == 0 && s.trusted:
		f.notes = addTo(f.notes, "apt does not look at its signatures (trusted)")
	case len(s.signedBy) == 0:
		f.notes = addTo(f.notes, "apt trusts every key of /etc/apt/trusted.gpg.d for it: name the right one as keyring:")
	}
	f.selects("suites", s.suites...)
	f.selects("components", s.components...)
	f.selects("architectures", s.arches...)
	for _, t := range s.types {
		if t == "deb-src" {
			f.selects("sources", "true")
		}
	}
}

// selects adds values of one key of sync.
func (f *found) selects(key string, values ...string) {
	for i := range f.sync {
		if f.sync[i].key == key {
			f.sync[i].values = addTo(f.sync[i].values, values...)
			return
		}
	}
	if list := addTo(nil, values...); len(list) > 0 {
		f.sync = append(f.sync, selected{key, list})
	}
}

// aptArchitectures are those that dpkg has packages of.
func (s *system) aptArchitectures() []string {
	text, err := s.read("/var/lib/dpkg/arch")
	if words := strings.Fields(text); err == nil && len(words) > 0 {
		return words
	}
	if arch := map[string]string{
		"x86_64": "amd64", "aarch64": "arm64", "i386": "i386", "i686": "i386", "armv7l": "armhf", "armv6l": "armel",
		"ppc64le": "ppc64el", "s390x": "s390x", "riscv64": "riscv64", "loongarch64": "loong64",
	}[s.machine]; arch != "" {
		return []string{arch}
	}
	return nil
}

// aptLines reads the one-line form: "deb [OPTION=VALUE…] URI SUITE COMPONENT…".
func aptLines(text string) (sources []aptSource, left []string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		source := aptSource{types: words[:1]}
		words = words[1:]
		if len(words) > 0 && strings.HasPrefix(words[0], "[") {
			end := 0
			for end < len(words) && !strings.HasSuffix(words[end], "]") {
				end++
			}
			if end == len(words) {
				left = append(left, "a line whose options do not end")
				continue
			}
			options := strings.Join(words[:end+1], " ")
			source.options(strings.Fields(options[1 : len(options)-1]))
			words = words[end+1:]
		}
		if source.types[0] != "deb" && source.types[0] != "deb-src" || len(words) < 2 {
			left = append(left, fmt.Sprintf("a line that begins with %q and is no source", source.types[0]))
			continue
		}
		source.uris, source.suites, source.components = words[:1], words[1:2], words[2:]
		sources = append(sources, source)
	}
	return sources, left
}

// options reads those of the one-line form.
func (s *aptSource) options(words []string) {
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		values := strings.Split(value, ",")
		switch strings.TrimRight(strings.ToLower(key), "+-") {
		case "arch":
			if !strings.HasSuffix(key, "-") {
				s.arches = addTo(s.arches, values...)
			}
		case "signed-by":
			s.signedBy = addTo(s.signedBy, values...)
		case "trusted":
			s.trusted = yes(value)
		}
	}
}

// yes reports a word that apt takes for true.
func yes(word string) bool {
	switch strings.ToLower(strings.TrimSpace(word)) {
	case "yes", "true", "with", "on", "enable", "1":
		return true
	}
	return false
}

// deb822 reads the form of stanzas (deb822(5)).
func deb822(text string) (sources []aptSource, left []string) {
	fields, last := map[string][]string{}, ""
	end := func() {
		if len(fields) > 0 {
			source, why := sourceOf(fields)
			if why != "" {
				left = append(left, why)
			} else {
				sources = append(sources, source)
			}
		}
		fields, last = map[string][]string{}, ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			end()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] = append(fields[last], strings.TrimSpace(line))
		default:
			key, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(strings.TrimSpace(key))
			fields[last] = []string{strings.TrimSpace(value)}
		}
	}
	end()
	return sources, left
}

// sourceOf is one stanza; why says why it is left out.
func sourceOf(fields map[string][]string) (source aptSource, why string) {
	words := func(key string) []string { return strings.Fields(strings.Join(fields[key], " ")) }
	name := strings.Join(words("uris"), " ")
	if lines := fields["enabled"]; len(lines) > 0 && !yes(lines[0]) {
		var shown []string
		for _, uri := range words("uris") {
			shown = append(shown, withoutSecrets(uri))
		}
		return source, "disabled: " + strings.Join(shown, " ")
	}
	if name == "" || len(words("suites")) == 0 || len(words("types")) == 0 {
		return source, "a stanza without Types, URIs and Suites"
	}
	source = aptSource{
		types: words("types"), uris: words("uris"), suites: words("suites"), components: words("components"),
		arches: append(words("architectures"), words("architectures-add")...),
	}
	source.trusted = len(words("trusted")) > 0 && yes(words("trusted")[0])
	if lines := fields["signed-by"]; strings.Contains(strings.Join(lines, "\n"), "-----BEGIN PGP") {
		var key strings.Builder
		for _, line := range lines {
			if line == "." {
				line = ""
			}
			if key.Len() > 0 || line != "" {
				key.WriteString(line + "\n")
			}
		}
		source.embedded = key.String()
	} else {
		source.signedBy = strings.FieldsFunc(strings.Join(lines, " "), func(r rune) bool { return r == ' ' || r == ',' })
	}
	return source, ""
}
