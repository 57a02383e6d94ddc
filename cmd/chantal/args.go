package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"chantal/internal/config"
)

// arrange puts the parts of a command line into the order in which they are
// parsed: global flags, commands, their flags, arguments. So flags may stand
// anywhere, and unknown commands and flags are told with the nearest known.
func arrange(tree *cli.App, args []string) ([]string, error) {
	line := commandLine{tree: tree, commands: tree.Commands, name: tree.Name}
	for rest := args[1:]; len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		var err error
		switch {
		case word == "--":
			line.arguments = append(line.arguments, rest...)
			rest = nil
		case len(word) > 1 && word[0] == '-':
			rest, err = line.flag(word, rest)
		case len(line.commands) > 0:
			err = line.command(word)
		default:
			line.arguments = append(line.arguments, word)
		}
		if err != nil {
			return nil, err
		}
	}
	return line.words(args[0]), nil
}

// commandLine is what arrange has seen so far.
type commandLine struct {
	tree      *cli.App
	name      string         // the command so far, for people
	commands  []*cli.Command // what may follow
	own       []cli.Flag     // flags of the command so far
	path      []string
	global    []string
	local     []string
	arguments []string
	help      bool
}

func (l *commandLine) words(program string) []string {
	words := append([]string{program}, l.global...)
	words = append(words, l.path...)
	if l.help {
		// Help comes before whatever else the command line has.
		return append(words, "--help")
	}
	words = append(words, l.local...)
	if len(l.arguments) > 0 {
		words = append(append(words, "--"), l.arguments...)
	}
	return words
}

func (l *commandLine) command(word string) error {
	var known []string
	for _, c := range l.commands {
		if c.HasName(word) {
			l.path = append(l.path, c.Name)
			l.name += " " + c.Name
			l.commands = c.Subcommands
			l.own = append(l.own, c.Flags...)
			return nil
		}
		if !c.Hidden {
			known = append(known, c.Name)
		}
	}
	if word == "help" && !l.help {
		l.help = true
		return nil
	}
	return &failure{
		Exit: 2, Message: fmt.Sprintf("unknown command %q of %s", word, l.name),
		Next: nearest(word, known) + fmt.Sprintf(" See %s --help", l.name),
	}
}

// flag takes a flag and, where it has one, its value from rest.
func (l *commandLine) flag(word string, rest []string) ([]string, error) {
	name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
	if name == "help" || name == "h" {
		l.help = true
		return rest, nil
	}
	into, found := &l.local, findFlag(l.own, name)
	if found == nil {
		into, found = &l.global, findFlag(l.tree.Flags, name)
	}
	if found == nil {
		var known []string
		for _, f := range slices.Concat(l.own, l.tree.Flags) {
			for _, n := range f.Names() {
				if len(n) > 1 {
					known = append(known, n)
				}
			}
		}
		hint := nearest(name, known)
		return nil, &failure{
			Exit: 2, Message: fmt.Sprintf("unknown flag %q of %s", word, l.name),
			Next: strings.Replace(hint, `"`, `"--`, 1) + fmt.Sprintf(" See %s --help", l.name),
		}
	}
	*into = append(*into, word)
	if _, yesNo := found.(*cli.BoolFlag); yesNo || hasValue {
		return rest, nil
	}
	if len(rest) == 0 {
		return nil, &failure{
			Exit: 2, Message: fmt.Sprintf("flag %q needs a value", word), Next: fmt.Sprintf("see %s --help", l.name),
		}
	}
	*into = append(*into, rest[0])
	return rest[1:], nil
}

func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// nearest says which of known was probably meant by word.
func nearest(word string, known []string) string {
	best, near := config.Nearest(word, known)
	if near {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return fmt.Sprintf("the nearest is %q.", best)
}
