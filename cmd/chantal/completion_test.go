package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// complete returns the words that the last one of line may become.
func (s *shell) complete(line ...string) (words []string) {
	s.t.Helper()
	code, stdout, stderr := s.run(s.t.Context(), append([]string{completeCommand, "--"}, line...)...)
	if code != 0 || stderr != "" {
		s.t.Errorf("%q: exit %d, %q", line, code, stderr)
	}
	for line := range strings.Lines(stdout) {
		word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		words = append(words, word)
	}
	return words
}

func TestCompletion(t *testing.T) {
	s := newShell(t)
	s.run(t.Context(), "snapshot", "create", "day1")
	serveShelf(t, s, s.vars["CHANTAL_DATA"])
	for line, want := range map[string]string{
		"sy":                       "sync",
		"conf":                     "config",
		"snapshot s":               "show",
		"snapshot create d":        "",
		"snapshot show ":           "day1",
		"snapshot delete day1 d":   "day1",
		"sync e":                   "epel",
		"sync --dry-run debian p":  "pypi",
		"status --json ne":         "new",
		"sync --dr":                "--dry-run",
		"sync --":                  "--dry-run --metadata-only --config --data --server --json --quiet --no-color --log-level --log-format --help",
		"snapshot create --repo ":  "debian tools new epel pypi inner",
		"snapshot create --repo d": "debian",
		"snapshot create --repo=d": "--repo=debian",
		"client dnf ":              "epel",
		"client pip i":             "inner",
		"client apt debian@":       "debian@live debian@day1",
		"client apt debian x":      "",
		"list s":                   "snapshots",
		"verify l":                 "live",
		"verify debian@d":          "debian@day1",
		"diff live ":               "live day1 debian tools new epel pypi inner",
		"diff debian@live debian@": "debian@live debian@day1",
		"publish --link re":        "reflink",
		"publish day1 ":            ":folders",
		"--log-level w":            "warn",
		"--log-level=w":            "--log-level=warn",
		"config check ":            ":files",
		"publish live ":            ":folders",
		"--data ":                  ":folders",
		"init -o ":                 ":files",
		"completion ":              "bash zsh fish",
		"completion bash ":         "",
		"nonsense ":                "",
		"sync -- --d":              "",
	} {
		if got := strings.Join(s.complete(strings.Split(line, " ")...), " "); got != strings.TrimSpace(want) {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
	if got := s.complete(); len(got) < 10 || strings.Contains(strings.Join(got, " "), completeCommand) {
		t.Errorf("nothing becomes %q", got)
	}
}

// Without a server the names of the configuration do; what is wrong with it is
// no message in the middle of a command line, and nothing is made.
func TestCompletionIsSilent(t *testing.T) {
	s := newShell(t)
	write(t, "good.yaml", "repos: [{name: files, type: generic, upstream: 'http://mirror.example.org/'}]\n")
	write(t, "bad.yaml", "repos: nonsense\n")
	for line, want := range map[string][]string{
		"--config good.yaml sync ":          {"files"},
		"sync --config=good.yaml ":          {"files"},
		"--config bad.yaml sync ":           nil,
		"--config none.yaml sync ":          nil,
		"--server /no/such/socket status ":  nil,
		"snapshot show ":                    nil,
		"--config good.yaml client apt fil": nil,
	} {
		if diff := cmp.Diff(want, s.complete(strings.Split(line, " ")...)); diff != "" {
			t.Errorf("%q: -want +got\n%s", line, diff)
		}
	}
}

// Every kind of argument that a command's help names is completed, or is of a
// kind that nobody can know.
func TestEveryArgumentHasItsKind(t *testing.T) {
	unknowable := []string{"NAME", "URL", "DIGEST", "VALUE", "K=V", "TEXT", "EXPR", "ADDRESS", "INSTANT"}
	known := []string{"REPO", "REF", "SRC", "A", "B", "FILE", "DIR", "URL|SOCKET"}
	tree := commands(app{})
	for _, c := range tree.Commands {
		for _, sub := range append(c.Subcommands, c) {
			for _, f := range slices.Concat(sub.Flags, tree.Flags) {
				kind := placeholder(f)
				l := completing{env: &environment{getenv: func(string) string { return "" }, dataFlag: t.TempDir()}, ctx: t.Context(), tree: tree}
				if kind != "" && !slices.Contains(unknowable, kind) && !slices.Contains(known, kind) && l.flagValues(f) == nil {
					t.Errorf("%s --%s: nothing completes %s", sub.Name, f.Names()[0], kind)
				}
			}
			for _, kind := range strings.FieldsFunc(sub.ArgsUsage, func(r rune) bool { return strings.ContainsRune("[]| @…", r) }) {
				if kind != strings.ToLower(kind) && !slices.Contains(unknowable, kind) && !slices.Contains(known, kind) {
					t.Errorf("%s: nothing completes %s", sub.Name, kind)
				}
			}
		}
	}
	l := completing{env: &environment{}, ctx: t.Context(), tree: tree}
	if l.values("FILE") == nil || l.values("DIR") == nil || l.values("URL|SOCKET") == nil {
		t.Error("files are not completed")
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
