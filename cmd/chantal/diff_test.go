package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiffShowsWhatChangedAndTheTotals(t *testing.T) {
	const changed = "CHANGE    PACKAGE  ARCH   day1  day2\n" +
		"rebuilt   bytes    all    1     1\n" +
		"removed   gone     all    2     -\n" +
		"upgraded  hello    amd64  1.9   1.10\n" +
		"added     new�     all    -     3\n" +
		"yanked    six             1     1     six-1.whl: broken\n" +
		"\nADVISORY  TYPE      SEVERITY  CVES        TITLE\n" +
		"E-1       security  -         CVE-2026-1  About hello\n" +
		"1 added, 1 removed, 1 upgraded, 1 rebuilt, 1 yanked, 1 advisory\n"
	for line, want := range map[string]struct {
		code           int
		stdout, stderr string
	}{
		"diff day1 day2":             {0, changed, ""},
		"diff day1 day2 --exit-code": {1, changed, ""},
		"diff day1 live --exit-code": {0, "no differences between day1 and live\n", ""},
		"diff day1 apart": {0, "no differences between day1 and apart\n", "chantal: epel was not compared: it is not in apart\n" +
			"chantal: not compared in debian dists/x, never fetched for either ref: main/Packages\n"},
		"diff day1 apart --quiet": {0, "no differences between day1 and apart\n", ""},
		"diff day1 nope":          {1, "", "chantal: no ref nope; see chantal snapshot list\n"},
		"diff day1":               {2, "", "chantal: a ref to compare is missing; see chantal diff --help\n"},
	} {
		code, stdout, stderr := newShell(t).run(t.Context(), strings.Fields(line)...)
		if diff := cmp.Diff([]any{want.code, want.stdout, want.stderr}, []any{code, stdout, stderr}); diff != "" {
			t.Errorf("%s: -want +got\n%s", line, diff)
		}
	}
}
