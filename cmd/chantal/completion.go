package main

import (
	"context"
	_ "embed"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"chantal/internal/config"
)

// The scripts ask completeCommand what may stand in the place of the last word.
var (
	//go:embed completion/bash.sh
	bashCompletion string
	//go:embed completion/zsh.sh
	zshCompletion string
	//go:embed completion/fish.fish
	fishCompletion string
)

// completeCommand is the command that the scripts of shells call, with the
// words after the program's name up to the one that is to be completed.
const completeCommand = "__complete"

func completionCommands(do func(action) cli.ActionFunc, tree func() *cli.App) []*cli.Command {
	completion := &cli.Command{
		Name:  "completion",
		Usage: "print a script that completes command lines in a shell",
		Description: "bash: source <(chantal completion bash), or write it to /etc/bash_completion.d/chantal\n" +
			"zsh:  chantal completion zsh > \"${fpath[1]}/_chantal\"\n" +
			"fish: chantal completion fish > ~/.config/fish/completions/chantal.fish",
	}
	for _, shell := range []struct{ name, script string }{{"bash", bashCompletion}, {"zsh", zshCompletion}, {"fish", fishCompletion}} {
		completion.Subcommands = append(completion.Subcommands, &cli.Command{
			Name: shell.name, Usage: "print the script for " + shell.name,
			Action: do(noArguments(func(_ *cli.Context, env *environment) error { return env.print(shell.script) })),
		})
	}
	return []*cli.Command{completion, {
		Name: completeCommand, Hidden: true, Usage: "what may stand in the place of the last word",
		Action: do(func(c *cli.Context, env *environment) error {
			return env.complete(c.Context, tree(), c.Args().Slice())
		}),
	}}
}

// candidate is what a word may become.
type candidate struct{ word, says string }

// What the scripts complete themselves.
const (
	completeFiles   = ":files"
	completeFolders = ":folders"
)

// complete prints the candidates for the last of words, one a line, each perhaps
// with a tab and what it is for. What goes wrong is no candidate, and silent.
func (env *environment) complete(ctx context.Context, tree *cli.App, words []string) error {
	if len(words) == 0 {
		words = []string{""}
	}
	line := completing{env: env, ctx: ctx, tree: tree, commands: tree.Commands}
	var b strings.Builder
	for _, c := range line.candidates(words[:len(words)-1], words[len(words)-1]) {
		b.WriteString(printable(c.word))
		if c.says != "" {
			b.WriteString("\t" + printable(c.says))
		}
		b.WriteString("\n")
	}
	return env.print(b.String())
}

// completing is a command line that is being written.
type completing struct {
	env      *environment
	ctx      context.Context
	tree     *cli.App
	path     []string       // the commands so far
	last     *cli.Command   // the last of them
	commands []*cli.Command // what may follow
	own      []cli.Flag
	given    int  // arguments so far
	ended    bool // by "--"
}

// candidates reads the words before the one that is to be completed.
func (l *completing) candidates(before []string, word string) []candidate {
	for len(before) > 0 {
		next := before[0]
		before = before[1:]
		name, _, hasValue := strings.Cut(strings.TrimLeft(next, "-"), "=")
		switch {
		case next == "--" && !l.ended:
			l.ended = true
		case len(next) > 1 && next[0] == '-' && !l.ended:
			if placeholder(l.flag(name)) == "" || hasValue {
				l.global(next)
				continue
			}
			if len(before) == 0 {
				return starting(l.flagValues(l.flag(name)), word, "")
			}
			l.global("--" + name + "=" + before[0])
			before = before[1:]
		case len(l.commands) > 0:
			l.enter(next)
		default:
			l.given++
		}
	}
	switch name, value, hasValue := strings.Cut(word, "="); {
	case strings.HasPrefix(word, "-") && hasValue && !l.ended:
		return starting(l.flagValues(l.flag(strings.TrimLeft(name, "-"))), value, name+"=")
	case strings.HasPrefix(word, "-") && !l.ended:
		return starting(l.flags(), word, "")
	case len(l.commands) > 0:
		return starting(l.subcommands(), word, "")
	case l.last == nil:
		return nil
	}
	return starting(l.arguments(word), word, "")
}

// enter takes a command; what is none ends the completion.
func (l *completing) enter(word string) {
	for _, c := range l.commands {
		if c.HasName(word) {
			l.path, l.last = append(l.path, c.Name), c
			l.commands, l.own = c.Subcommands, append(l.own, c.Flags...)
			return
		}
	}
	l.commands, l.last = nil, nil
}

func (l *completing) flag(name string) cli.Flag {
	if f := findFlag(l.own, name); f != nil {
		return f
	}
	return findFlag(l.tree.Flags, name)
}

// global notes the flags that say where to ask.
func (l *completing) global(word string) {
	name, value, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	switch name {
	case "config":
		l.env.configFlag = value
	case "data":
		l.env.dataFlag = value
	case "server":
		l.env.server = value
	}
}

func (l *completing) subcommands() (list []candidate) {
	for _, c := range l.commands {
		if !c.Hidden {
			list = append(list, candidate{c.Name, c.Usage})
		}
	}
	return list
}

func (l *completing) flags() (list []candidate) {
	for _, f := range slices.Concat(l.own, l.tree.Flags) {
		for _, name := range f.Names() {
			if len(name) > 1 {
				list = append(list, candidate{"--" + name, strings.ReplaceAll(f.(cli.DocGenerationFlag).GetUsage(), "`", "")})
			}
		}
	}
	return list
}

var inBackquotes = regexp.MustCompile("`([^`]*)`")

// placeholder is how its help calls the value of a flag; "" for one without.
func placeholder(f cli.Flag) string {
	documented, ok := f.(cli.DocGenerationFlag)
	if !ok || !documented.TakesValue() {
		return ""
	}
	if m := inBackquotes.FindStringSubmatch(documented.GetUsage()); m != nil {
		return m[1]
	}
	return "VALUE"
}

// arguments are what may stand in the place of the next argument, as the help
// of the command calls it: "[REPO…]", "SRC NAME".
func (l *completing) arguments(word string) []candidate {
	places := strings.Fields(l.last.ArgsUsage)
	if len(places) == 0 {
		return nil
	}
	place := places[min(l.given, len(places)-1)]
	if l.given >= len(places) && !strings.Contains(place, "…") {
		return nil
	}
	var list []candidate
	for _, kind := range strings.Split(strings.Trim(place, "[]…"), "|") {
		kind = strings.Trim(kind, "[]…")
		if repo, _, at := strings.Cut(word, "@"); at && strings.HasPrefix(kind, "REPO") && strings.Contains(kind, "@") {
			for _, c := range l.values("REF") {
				list = append(list, candidate{repo + "@" + c.word, c.says})
			}
			continue
		}
		if kind == strings.ToLower(kind) {
			list = append(list, candidate{word: kind})
			continue
		}
		kind, _, _ = strings.Cut(kind, "@")
		kind, _, _ = strings.Cut(kind, "[")
		list = append(list, l.values(kind)...)
	}
	return list
}

// values are those of a kind, as help texts call it.
func (l *completing) values(kind string) []candidate {
	switch kind {
	case "FILE", "URL|SOCKET":
		return []candidate{{word: completeFiles}}
	case "DIR":
		return []candidate{{word: completeFolders}}
	case "REPO":
		return l.repos()
	case "REF", "SRC", "A", "B", "SNAPSHOT":
		return append([]candidate{{"live", "the newest state"}}, l.snapshots()...)
	case "NAME":
		// Where a snapshot is made its name is a new one.
		if l.last != nil && slices.Contains([]string{"show", "delete", "seal"}, l.last.Name) {
			return l.snapshots()
		}
	}
	return nil
}

var listed = regexp.MustCompile("`[^`]*`[^:;]*: (.*)$")

// flagValues are what a flag takes: the words that its help lists behind a
// colon, "`LEVEL` on: debug, info", or what the name of its value stands for.
func (l *completing) flagValues(f cli.Flag) (all []candidate) {
	kind := placeholder(f)
	if kind == "" {
		return nil
	}
	if m := listed.FindStringSubmatch(f.(cli.DocGenerationFlag).GetUsage()); m != nil {
		for _, word := range strings.Split(m[1], ", ") {
			word, _, _ = strings.Cut(word, " ")
			all = append(all, candidate{word: word})
		}
		return all
	}
	return l.values(kind)
}

// starting are those of list that begin with word, each with prefix before it.
// What scripts complete themselves has no beginning.
func starting(list []candidate, word, prefix string) (fit []candidate) {
	for _, c := range list {
		switch {
		case strings.HasPrefix(c.word, ":"):
			fit = append(fit, c)
		case strings.HasPrefix(c.word, word):
			fit = append(fit, candidate{prefix + c.word, c.says})
		}
	}
	return fit
}

// patience is how long somebody who has pressed a key is kept waiting.
const patience = 5 * time.Second

// repos are the names of repositories: those that are known, else those of the
// configuration; of a client's own type where there is one.
func (l *completing) repos() (list []candidate) {
	typ := ""
	if n := len(l.path); n > 1 && l.path[0] == "client" {
		for _, kind := range clientKinds {
			if kind.name == l.path[1] {
				typ = kind.repoType
			}
		}
	}
	rows, ok := asked(l, func(ctx context.Context, b backend) ([]repoRow, error) { return b.Repos(ctx) })
	if !ok && l.env.config != nil {
		for _, c := range l.env.config.Repos {
			rows = append(rows, repoRow{Name: c.Name, Type: c.Type})
		}
	}
	for _, r := range rows {
		if typ == "" || r.Type == typ {
			list = append(list, candidate{r.Name, r.Type})
		}
	}
	return list
}

func (l *completing) snapshots() (list []candidate) {
	all, _ := asked(l, func(ctx context.Context, b backend) ([]snapshotReport, error) { return b.Snapshots(ctx) })
	for _, s := range all {
		list = append(list, candidate{s.Name, "snapshot, " + instant(s.Created)})
	}
	return list
}

// asked asks the server that runs, else the data directory where there is one.
func asked[T any](l *completing, ask func(context.Context, backend) ([]T, error)) (rows []T, ok bool) {
	env := l.env
	env.log = slog.New(slog.DiscardHandler)
	env.stderr = io.Discard
	if err := env.load(); err != nil {
		// The default has no repositories, and is good enough to find others.
		env.config = config.Default()
		if env.data, err = config.DataDir(env.dataFlag, env.getenv, os.Getuid(), ""); err != nil {
			return nil, false
		}
	}
	ctx, cancel := context.WithTimeout(l.ctx, patience)
	defer cancel()
	var b backend
	var closer io.Closer
	running, err := connectRunning(ctx, env)
	if err != nil {
		return nil, false
	}
	if running != nil {
		b, closer = running, running
	} else {
		// Nothing is made only because somebody has pressed a key.
		if _, err := os.Stat(filepath.Join(env.data, "catalog.db")); err != nil {
			return nil, false
		}
		if b, closer, err = env.open(ctx, env); err != nil {
			return nil, false
		}
	}
	rows, err = ask(ctx, b)
	return rows, closer.Close() == nil && err == nil
}
