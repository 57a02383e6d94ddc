package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsFoundInTheOrderPromised(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	vars := map[string]string{"XDG_CONFIG_HOME": dir + "/xdg"}
	steps := []struct{ make, flag, env, want string }{
		{"", "", "", ""},
		{dir + "/xdg/chantal/chantal.yaml", "", "", dir + "/xdg/chantal/chantal.yaml"},
		{dir + "/chantal.yaml", "", "", "chantal.yaml"},
		{dir + "/env.yaml", "", dir + "/env.yaml", dir + "/env.yaml"},
		{dir + "/flag.yaml", dir + "/flag.yaml", dir + "/env.yaml", dir + "/flag.yaml"},
	}
	for _, step := range steps {
		if step.make != "" {
			touch(t, step.make)
		}
		vars["CHANTAL_CONFIG"] = step.env
		got, err := Find(step.flag, environment(vars))
		if err != nil || (got != step.want && !(step.want == "" && got == "/etc/chantal/chantal.yaml")) {
			t.Errorf("after %q: got %q, %v, want %q", step.make, got, err, step.want)
		}
	}
	if _, err := Find(dir+"/missing.yaml", environment(nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is named but missing: %v", err)
	}
}

func TestDataDirIsFoundInTheOrderPromised(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, test := range []struct {
		flag string
		vars map[string]string
		uid  int
		file string
		want string
	}{
		{"/flag", map[string]string{"CHANTAL_DATA": "/env"}, 0, "/file", "/flag"},
		{"", map[string]string{"CHANTAL_DATA": "/env"}, 0, "/file", "/env"},
		{"", nil, 0, "/file", "/file"},
		{"", nil, 0, "rel", dir + "/rel"},
		{"", map[string]string{"HOME": "/h"}, 0, "", "/var/lib/chantal"},
		{"", map[string]string{"HOME": "/h"}, 7, "", "/h/.local/share/chantal"},
		{"", map[string]string{"HOME": "/h", "XDG_DATA_HOME": "/x"}, 7, "", "/x/chantal"},
		{"", map[string]string{"HOME": "/h", "XDG_DATA_HOME": "relative"}, 7, "", "/h/.local/share/chantal"},
	} {
		got, err := DataDir(test.flag, environment(test.vars), test.uid, test.file)
		if err != nil || got != test.want {
			t.Errorf("%+v: got %q, %v", test, got, err)
		}
	}
	if got, err := DataDir("", environment(nil), 7, ""); err == nil {
		t.Errorf("without any hint: got %q", got)
	}
}

func TestLoadWithoutAFileGivesTheDefaults(t *testing.T) {
	c, err := Load("")
	if err != nil || c.Listen != "127.0.0.1:8180" || c.File != "" {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "missing.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}
