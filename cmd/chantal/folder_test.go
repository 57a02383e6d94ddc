package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPublishWritesAFolderOrSaysWhyNot(t *testing.T) {
	s := newShell(t)
	dir := s.vars["HOME"]
	for _, step := range []struct {
		line           string
		code           int
		stdout, stderr string
	}{
		{"publish day1 www", 0, dir + "/www is day1: 3 files, 3 B; 3 added, 0 replaced, 0 removed, 0 unchanged\n", ""},
		{"publish day1 www", 0, dir + "/www is day1: 3 files, 3 B; 0 added, 0 replaced, 0 removed, 3 unchanged\n", ""},
		{"publish gone www", 1, "", "chantal: debian: pool/a.deb: no upstream has it\n" +
			"chantal: 2 files cannot be had; " + dir + "/www is as it was; try again when upstream answers, or publish another ref\n"},
		{"publish nope www", 1, "", "chantal: no ref nope; see chantal snapshot list\n"},
		{"publish evil www", 1, "", "chantal: \"../a\" is no path in a folder; " + dir + "/www is as it was\n"},
		{"publish day1", 2, "", "chantal: a ref, or the folder for it, is missing; see chantal publish --help\n"},
		{"publish day1 www --link soft", 2, "", "chantal: --link \"soft\" is none of hard, sym, copy, reflink; see chantal publish --help\n"},
	} {
		code, stdout, stderr := s.run(t.Context(), strings.Fields(step.line)...)
		if diff := cmp.Diff([]any{step.code, step.stdout, step.stderr}, []any{code, stdout, stderr}); diff != "" {
			t.Errorf("%s: -want +got\n%s", step.line, diff)
		}
	}
	for path, want := range map[string]string{"a": "a", "b": "b", "by-hash/b": "b"} {
		if got, err := os.ReadFile(dir + "/www/debian/" + path); string(got) != want {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
}
