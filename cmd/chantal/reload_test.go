package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chantal/internal/config"
)

// What SIGHUP reads is when repositories are synced from then on.
func TestReadingTheConfigurationAgainChangesWhenSyncsBegin(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "chantal.yaml")
	configure := func(sync string) {
		t.Helper()
		text := "download: {retries: 0, timeout: 1s}\nrepos: [{name: debian, type: apt, upstream: 'http://127.0.0.1:1/', sync: {suites: [bookworm]" + sync + "}}]\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	configure("")
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	n, err := openNode(&environment{config: cfg, data: filepath.Join(dir, "data"), log: slog.New(slog.DiscardHandler)}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	s := &server{node: n}
	end := s.startSyncs(t.Context())
	defer end()
	eventually := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	if n.syncStatus("debian") != nil {
		t.Fatal("there is a sync that nobody wanted")
	}
	configure(", every: 1h")
	s.reload()
	eventually("a first sync", func() bool { _, done := n.syncs.last("debian"); return done })
	eventually("a time for the next", func() bool { return !n.rhythm.Load().due("debian").IsZero() })
	if status := n.syncStatus("debian"); status.Last == nil || status.Last.good() || !status.Success.IsZero() {
		t.Errorf("of an upstream that is not there: %+v", status.Last)
	}
	configure(", every: nonsense")
	s.reload()
	if n.rhythm.Load().due("debian").IsZero() {
		t.Error("a configuration with mistakes changed something")
	}
	configure("")
	s.reload()
	eventually("no next", func() bool { return n.rhythm.Load().due("debian").IsZero() })
}
