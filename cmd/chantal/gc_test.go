package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/keep"
)

func TestGCTellsWhatItDid(t *testing.T) {
	s := newShell(t)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"gc"}, []string{"2 blobs and 3.0 KiB (3072 bytes) freed; 1 blob kept, 5 B", "1 observation older than history: says"}},
		{[]string{"gc", "--dry-run"}, []string{"2 blobs and 3.0 KiB (3072 bytes) would be freed"}},
		{[]string{"explain", "--why", strings.Repeat("cd", 32)}, []string{
			"kept by     live: debian dists/bookworm, generation 2, artifact pool/hello.deb", "kept by     snapshot day1: debian dists/bookworm, generation 1",
			"freed       no",
		}},
	} {
		code, out, stderr := s.run(t.Context(), c.args...)
		if code != 0 {
			t.Errorf("%v: exit %d, %s", c.args, code, stderr)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v: no %q in\n%s", c.args, want, out)
			}
		}
	}
	code, out, _ := s.run(t.Context(), "gc", "--json")
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s", code, err, out)
	}
	want := map[string]any{"blobs_freed": 2.0, "bytes_freed": 3072.0, "blobs_kept": 1.0}
	for name, value := range want {
		if d := cmp.Diff(value, got[name]); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
	}
	if code, _, stderr := s.run(t.Context(), "explain", "--why", "ab"); code != 1 || !strings.Contains(stderr, "no blob ab") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestStatsAreShown(t *testing.T) {
	s := newShell(t)
	code, out, stderr := s.run(t.Context(), "stats", "debian")
	if code != 0 || len(s.shelf.asked) != 1 {
		t.Errorf("exit %d, %s; asked for %v", code, stderr, s.shelf.asked)
	}
	for _, want := range []string{"debian      3  2.0 MiB  5.0 MiB   2.50     9       1", "saved since 2026-11-01T00:00:00Z: 7.0 MiB", "2026-11-23     2.0 MiB  -1.0 MiB"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	code, out, _ = s.run(t.Context(), "stats", "--json")
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s", code, err, out)
	}
	for _, name := range []string{"blobs", "stored_bytes", "logical_bytes", "dedup_ratio", "hits", "misses", "bytes_from_cache", "bytes_from_upstream"} {
		if _, ok := got[name].(float64); !ok {
			t.Errorf("%s is %v", name, got[name])
		}
	}
}

func TestWhyIsToldForPeople(t *testing.T) {
	env := &environment{}
	for want, w := range map[string]keep.Why{
		"kept by     the answer to http://example.org/x, kept by HTTP's rules": {Stored: true, Kept: []keep.Reason{{By: "cache", Path: "http://example.org/x"}}},
		"kept by     work that is under way":                                   {Stored: true, Kept: []keep.Reason{{By: "work"}}},
		"freed       by the next chantal gc":                                   {Stored: true, Freed: true},
		"stored      no":                                                       {},
		"freed       when cache.max_size is exceeded":                          {Stored: true, Evict: true},
		"(until chantal gc: of older states only metadata is kept)":            {Stored: true, Kept: []keep.Reason{{By: "history", Weak: true}}},
	} {
		if text := env.whyText(w); !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
