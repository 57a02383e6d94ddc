package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one mistake in a configuration file.
type Error struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // in characters, from 1
	Message string `json:"message"`
}

func (e Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Errors are all mistakes of a file, in its order; never empty where it is
// returned as an error. Its text has a line for each.
type Errors []Error

func (list Errors) Error() string {
	lines := make([]string, len(list))
	for i, e := range list {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

func (list Errors) sort() {
	slices.SortStableFunc(list, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// Nearest returns the one of known that word differs least from, by edit
// distance, the first of several; near says that it is a likely misspelling
// of it. It returns "" where known is empty.
func Nearest(word string, known []string) (nearest string, near bool) {
	best := -1
	for _, k := range known {
		if n := distance(strings.ToLower(word), k); best < 0 || n < best {
			nearest, best = k, n
		}
	}
	return nearest, best >= 0 && best <= max(1, min(3, len(nearest)/2))
}

// distance counts the characters to insert, remove, replace or swap with a
// neighbour to make b of a.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// suggest says which of known was probably meant by word; what names the kind
// of thing they are.
func suggest(word, what string, known []string) string {
	nearest, near := Nearest(word, known)
	if near {
		return fmt.Sprintf("did you mean %q?", nearest)
	}
	return fmt.Sprintf("the nearest known %s is %q", what, nearest)
}
