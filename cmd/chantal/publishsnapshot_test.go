package main

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/catalog"
	"chantal/mirror"
	"chantal/snapshot"
)

func TestPublishSendsWhatTheFlagsSay(t *testing.T) {
	s := newShell(t)
	data := filepath.Join(t.TempDir(), "data")
	serveShelf(t, s, data)
	for line, want := range map[string]publishRequest{
		"snapshot publish live web": {Name: "web", Sources: []string{"live"}, Brief: true},
		"snapshot publish prod web --filter true --repo debian --repo epel --label a=b --note n --force --json": {
			Name: "web", Sources: []string{"prod"}, Filter: "true", Repos: []string{"debian", "epel"}, Labels: map[string]string{"a": "b"}, Note: "n", Force: true,
		},
		"snapshot publish prod web --resign":          {Name: "web", Sources: []string{"prod"}, Resign: true, Brief: true},
		"snapshot merge all a b --all-versions":       {Name: "all", Sources: []string{"a", "b"}, All: true, Brief: true},
		"snapshot merge all a b c --repo debian":      {Name: "all", Sources: []string{"a", "b", "c"}, Repos: []string{"debian"}, Brief: true},
		"--json snapshot merge all live 2026-11-23":   {Name: "all", Sources: []string{"live", "2026-11-23"}},
		"snapshot publish 2026-11-23T08:15:00Z early": {Name: "early", Sources: []string{"2026-11-23T08:15:00Z"}, Brief: true},
	} {
		code, stdout, stderr := s.run(t.Context(), append([]string{"--data", data}, strings.Fields(line)...)...)
		if code != 0 || !strings.Contains(stdout, want.Name) || !strings.Contains(stderr, "waiting for 1 file") {
			t.Errorf("%s: exit %d, %q, %q", line, code, stdout, stderr)
		}
		if d := cmp.Diff(want, s.shelf.published); d != "" {
			t.Errorf("%s: %s", line, d)
		}
	}
	if code, _, stderr := s.run(t.Context(), "--data", data, "snapshot", "publish", "live", "taken"); code != 1 || !strings.Contains(stderr, "the name is taken") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestFiltersAreOfTheRepositorysType(t *testing.T) {
	// A letter makes a version newer for dpkg and rpm, and is a pre-release for PEP 440.
	keeps, err := filters(`version(pkg.version) > version("1.0") && pkg.repo == "x" && pkg.type != ""`)
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]bool{"apt": true, "rpm": true, "pypi": false} {
		keep := keeps(&mirror.Repo{Settings: mirror.Settings{Name: "x", Type: kind}})
		got, err := keep(0, &chantal.Promise{Package: &chantal.Package{Version: "1.0a1"}}, func(string) string { return "" })
		if err != nil || got != want {
			t.Errorf("%s: %v %v", kind, got, err)
		}
	}
	if keeps(&mirror.Repo{Settings: mirror.Settings{Type: "generic"}}) != nil {
		t.Error("a repository without packages has a filter")
	}
	all, err := filters("")
	if err != nil || all(nil) != nil {
		t.Error("without an expression something is filtered", err)
	}
	var f *failure
	if _, err := filters("pkg.nope"); !errors.As(err, &f) || f.Exit != 2 || !strings.Contains(f.Message, "column 4") {
		t.Error(err)
	}
}

func TestFailuresOfPublishing(t *testing.T) {
	for _, c := range []struct {
		err  error
		exit int
		http int
	}{
		{&mirror.UnpublishableError{Repo: "files", Type: "generic"}, 1, http.StatusNotImplemented},
		{&mirror.ConflictError{Repo: "debian", Path: "x"}, 1, http.StatusConflict},
		{&snapshot.UnsupportedError{Ref: "a+signed", Part: "it"}, 1, http.StatusNotImplemented},
		{catalog.ErrExists, 1, http.StatusConflict},
		{&snapshot.BadRefError{Ref: "x", Why: "y"}, 2, http.StatusBadRequest},
		{errors.New("other"), 1, http.StatusInternalServerError},
	} {
		if f := asFailure(publishFailure(c.err)); f.Exit != c.exit || f.Status != c.http || !strings.Contains(f.Message, c.err.Error()) {
			t.Errorf("%v: %+v", c.err, f)
		}
	}
}
