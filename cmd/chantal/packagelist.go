package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"chantal"
	"chantal/internal/config"
)

// selection is what sync of c is to hold, with what its lists of packages name
// at this moment. An error is a mistake at the place of the list's name.
func selection(cfg *config.Config, c *config.Repo) (chantal.Selection, error) {
	sel := c.Sync.Selection
	var listed []string
	for _, list := range c.Sync.PackageLists {
		name := list.Path
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(cfg.File), name)
		}
		text, err := os.ReadFile(name)
		var names []string
		if err == nil {
			names, err = packageList(string(text), c.Type)
		}
		if err != nil {
			place := config.Error{File: cfg.File, Line: list.Line, Column: list.Column, Message: "package_list of " + c.Name + ": " + err.Error()}
			return sel, &failure{Exit: 2, Message: place.Error(), Next: "correct the list or its name", Err: err}
		}
		listed = append(listed, names...)
	}
	if c.Type == config.PyPI {
		sel.Projects = slices.Concat(sel.Projects, listed)
	} else {
		sel.Packages = slices.Concat(sel.Packages, listed)
	}
	return sel, nil
}

// packageList reads a list of names, for repositories of a type: one on each
// line, as dpkg --get-selections, rpm -qa or pip freeze print them. One that
// names nothing is an error, as it would be taken for "all".
func packageList(text, typ string) (names []string, err error) {
	entry := packageEntry
	if typ == config.PyPI {
		entry = requirement
	}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if i := strings.Index(line, "#"); i == 0 || i > 0 && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = strings.TrimSpace(line[:i])
		}
		if line == "" {
			continue
		}
		name, err := entry(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if name != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the list names nothing")
	}
	return names, nil
}

// packageEntry returns the name or glob of a line "NAME" or, as dpkg has it,
// "NAME[:ARCHITECTURE] STATE"; "" for what is not to be installed.
func packageEntry(line string) (string, error) {
	words := strings.Fields(line)
	name, _, _ := strings.Cut(words[0], ":")
	if len(words) == 2 {
		switch words[1] {
		case "install", "hold":
		case "deinstall", "purge":
			return "", nil
		default:
			words = append(words, "")
		}
	}
	if len(words) > 2 {
		return "", fmt.Errorf("%q is not one name", line)
	}
	if _, err := path.Match(name, ""); err != nil || name == "" {
		return "", fmt.Errorf("%q is neither a name nor a glob", line)
	}
	return name, nil
}

// requirement returns name and versions of a line as pip has it (PEP 508);
// "" for options and for what comes from elsewhere than an index.
func requirement(line string) (string, error) {
	line, _, _ = strings.Cut(line, ";") // the environment that it is for
	line, _, _ = strings.Cut(line, " --")
	line = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), `\`))
	if line == "" || strings.HasPrefix(line, "-") || strings.Contains(line, "@") || strings.Contains(line, "://") {
		return "", nil
	}
	// Extras, "name[socks]==2.0", are no part of the name; a glob has no such
	// brackets behind a name.
	if begin, end := strings.Index(line, "["), strings.Index(line, "]"); begin > 0 && end > begin {
		if rest := strings.TrimSpace(line[end+1:]); rest == "" || strings.ContainsRune("=<>!~(", rune(rest[0])) {
			line = line[:begin] + rest
		}
	}
	return strings.Join(strings.Fields(line), ""), nil
}
