package main

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"chantal/internal/config"
)

// indexes are the package indexes that pip and uv are configured for.
func (s *system) indexes() (repos []*found, left []string, err error) {
	add := func(from, raw string) {
		bare, secret, ok := upstreamOf(raw)
		if !ok {
			left = append(left, from+": "+withoutSecrets(raw)+" is nothing that can be asked over http")
			return
		}
		bare = strings.TrimRight(bare, "/") + "/"
		i := slices.IndexFunc(repos, func(f *found) bool { return f.upstream[0] == bare })
		if i < 0 {
			name := ""
			if len(repos) == 0 {
				name = "pypi"
			}
			repos = append(repos, &found{
				name: name, typ: config.PyPI, upstream: []string{bare}, sync: []selected{{"package_list", []string{"requirements.txt"}}},
			})
			i = len(repos) - 1
		}
		repos[i].from = addTo(repos[i].from, from)
		if secret {
			repos[i].notes = addTo(repos[i].notes, secretNote)
		}
	}
	for _, variable := range []string{"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"} {
		for _, raw := range strings.Fields(s.env(variable)) {
			// UV_INDEX may give names: NAME=URL.
			if name, address, ok := strings.Cut(raw, "="); ok && !strings.ContainsAny(name, ":/") {
				raw = address
			}
			add("$"+variable, raw)
		}
	}
	for _, file := range s.pipFiles() {
		text, err := s.read(file)
		if err != nil {
			return nil, nil, err
		}
		for _, section := range iniSections(text) {
			for _, key := range []string{"index-url", "index_url", "extra-index-url", "extra_index_url"} {
				for _, raw := range section.list(key) {
					add(file, raw)
				}
			}
		}
	}
	for _, file := range s.uvFiles() {
		text, err := s.read(file)
		if err != nil {
			return nil, nil, err
		}
		for _, raw := range uvIndexes(text) {
			add(file, raw)
		}
	}
	return repos, left, nil
}

// pipFiles are the files that pip reads, the strongest first.
func (s *system) pipFiles() (files []string) {
	if named := s.env("PIP_CONFIG_FILE"); path.IsAbs(named) {
		files = append(files, named)
	}
	if venv := s.env("VIRTUAL_ENV"); path.IsAbs(venv) {
		files = append(files, path.Join(venv, "pip.conf"))
	}
	return append(files,
		path.Join(s.configHome(), "pip/pip.conf"), path.Join(s.home(), ".pip/pip.conf"),
		"/etc/pip.conf", "/etc/xdg/pip/pip.conf")
}

func (s *system) uvFiles() []string {
	return []string{path.Join(s.configHome(), "uv/uv.toml"), "/etc/uv/uv.toml"}
}

func (s *system) configHome() string {
	return cmpOr(s.env("XDG_CONFIG_HOME"), path.Join(s.home(), ".config"))
}

var (
	uvIndex  = regexp.MustCompile(`(?m)^\s*(?:index-url|url)\s*=\s*["']([^"']+)["']`)
	uvExtra  = regexp.MustCompile(`(?ms)^\s*extra-index-url\s*=\s*\[(.*?)\]`)
	uvQuoted = regexp.MustCompile(`["']([^"']+)["']`)
)

// uvIndexes are the indexes that a uv.toml names: index-url, extra-index-url,
// and the url of each [[index]].
func uvIndexes(text string) (urls []string) {
	for _, m := range uvIndex.FindAllStringSubmatch(text, -1) {
		urls = append(urls, m[1])
	}
	for _, list := range uvExtra.FindAllStringSubmatch(text, -1) {
		for _, m := range uvQuoted.FindAllStringSubmatch(list[1], -1) {
			urls = append(urls, m[1])
		}
	}
	return urls
}
