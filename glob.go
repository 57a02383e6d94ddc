package chantal

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Globs are shell globs on names: "*", "?", "[a-z]", "[!a-z]", "\*". The zero
// value matches nothing. They are safe for concurrent use.
type Globs struct {
	names    map[string]bool // those without a special character: lists may have thousands
	patterns []string
}

// NewGlobs reads globs. The error names the first one that is none.
func NewGlobs(globs []string) (Globs, error) {
	var g Globs
	for _, glob := range globs {
		if glob == "" {
			return Globs{}, errors.New("a glob is empty")
		}
		if !strings.ContainsAny(glob, `*?[\`) {
			if g.names == nil {
				g.names = make(map[string]bool)
			}
			g.names[glob] = true
			continue
		}
		pattern := strings.ReplaceAll(glob, "[!", "[^")
		if _, err := path.Match(pattern, ""); err != nil {
			return Globs{}, fmt.Errorf("the glob %q: a bracket is not closed, or holds nothing", glob)
		}
		g.patterns = append(g.patterns, pattern)
	}
	return g, nil
}

// Match reports whether one of the globs matches the whole of name.
func (g Globs) Match(name string) bool {
	if g.names[name] {
		return true
	}
	for _, pattern := range g.patterns {
		if ok, _ := path.Match(pattern, name); ok { // NewGlobs saw to the error
			return true
		}
	}
	return false
}
