package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWrongUsageIsExitCodeTwoAndOneLine(t *testing.T) {
	s := newShell(t)
	for line, want := range map[string]string{
		"snapshto create":                    `did you mean "snapshot"?`,
		"snapshot crate":                     `did you mean "create"?`,
		"snapshot":                           "chantal snapshot --help",
		"snyc":                               `did you mean "sync"?`,
		"sync --dry-rnu":                     `did you mean "--dry-run"?`,
		"list repositoris":                   `"repos"`,
		"list repos more":                    "too many",
		"list --jsn":                         `did you mean "--json"?`,
		"snapshot create --lable a=b x":      `did you mean "--label"?`,
		"snapshot create x --label novalue":  "K=V",
		"snapshot create x --label":          "needs a value",
		"snapshot show":                      "NAME is missing",
		"snapshot delete":                    "NAME is missing",
		"snapshot publish live":              "SRC or NAME is missing",
		"snapshot publish live a b":          "too many",
		"snapshot publish live a --label b":  "K=V",
		"snapshot merge a live":              "second SRC is missing",
		"explain":                            "URL is missing",
		"client yum":                         `the nearest is "uv"`,
		"client apt debian@a/b":              "no ref",
		"client apt --proxy --snapshots":     "do not go together",
		"client dnf --snapshots":             "unknown flag",
		"serve --listen nowhere":             "--listen",
		"init --root /srv":                   "without --from-system",
		"init --from-system --root /no/such": "no folder",
		"list --log-level loud":              "debug, info",
		"list --log-format xml":              "neither text nor json",
		"list --json=perhaps":                "perhaps",
		"list --config missing.yaml":         "missing.yaml",
		"list --server ftp://x.example.org/": "is no server",
		"config check missing.yaml":          "missing.yaml",
		"version extra":                      "too many",
		"init -o - --json":                   "do not go together",
		"client apt debian --proxy --proxxy": "unknown flag",
	} {
		code, stdout, stderr := s.run(t.Context(), strings.Fields(line)...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "chantal: ") || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q, want %q in it", line, code, stdout, stderr, want)
		}
	}
}

func TestFailureIsExitCodeOneWithTheNextStep(t *testing.T) {
	s := newShell(t)
	for line, want := range map[string]string{
		"snapshot show nope":         "chantal: no snapshot \"nope\"; see chantal snapshot list\n",
		"snapshot create taken":      "chantal: the name is taken; choose another\n",
		"ca show":                    "chantal: no certificate authority yet; set forward.intercept: configured\n",
		"client apt debain":          "chantal: no repository \"debain\"; did you mean \"debian\"? See chantal list\n",
		"client dnf debian":          "chantal: repository \"debian\" is of type apt, not rpm; use the client for that type\n",
		"list --server /nosuch/sock": "chantal: /nosuch/sock does not answer: dial unix /nosuch/sock: connect: no such file or directory; start chantal serve there, or correct --server\n",
	} {
		code, stdout, stderr := s.run(t.Context(), strings.Fields(line)...)
		if code != 1 || stdout != "" || stderr != want {
			t.Errorf("%s: exit %d, stdout %q, stderr %q, want %q", line, code, stdout, stderr, want)
		}
	}
}

func TestInterruptIsExitCode130(t *testing.T) {
	s := newShell(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code, _, stderr := s.run(ctx, "snapshot", "create", "never"); code != 130 || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
}

func TestJSONIsOneDocumentAndNothingElse(t *testing.T) {
	s := newShell(t)
	for _, line := range []string{
		"list --json", "--json list repos", "list repos --json", "list snapshots --json", "list generations --json",
		"list channels --json", "list recordings --json", "status --json", "snapshot create day1 --json", "snapshot show day1 --json",
		"snapshot list --json", "explain http://mirror.example.org/debian/ --json", "client apt --json", "client dnf --proxy --json",
		"version --json", "config show --json", "config check --json", "init --json", "snapshot delete day1 --json",
	} {
		code, stdout, stderr := s.run(t.Context(), strings.Fields(line)...)
		decoder := json.NewDecoder(strings.NewReader(stdout))
		var value any
		if err := decoder.Decode(&value); code != 0 || err != nil || decoder.More() {
			t.Errorf("%s: exit %d, %v, stdout %q, stderr %q", line, code, err, stdout, stderr)
		}
	}
}

func TestJSONShapes(t *testing.T) {
	s := newShell(t)
	s.shelf.repos = s.shelf.repos[3:4]
	for line, want := range map[string]string{
		"snapshot create day1":  `{"name":"day1","created":"2026-11-23T12:00:00Z","sealed":false,"repos":[{"repo":"debian","trees":2,"artifacts_known":5,"artifacts_present":2}],"labels":{}}`,
		"list repos":            `[{"name":"epel","type":"rpm","upstream":["https://mirror.example.org/epel/"],"trees":0,"generations":0,"artifacts":0,"bytes":0,"configured":false,"keyring":"/etc/pki/epel.asc"}]`,
		"list generations":      `[{"repo":"debian","tree":"dists/bookworm","generation":1,"observed":"2026-11-23T12:00:00Z","root_sha256":"0123456789abcdef"}]`,
		"list channels":         `[]`,
		"snapshot delete day1 ": `{"deleted":["day1"]}`,
		"verify":                `{"blobs_checked":2,"bytes_checked":3072,"corrupt":[],"missing":[],"repaired":[],"problems":[],"ok":true}`,
		"verify corrupt":        `{"blobs_checked":2,"bytes_checked":3072,"corrupt":[{"digest":"sha256:ab","repo":"debian","path":"pool/hello.deb","refs":["live","day1"]}],"missing":[],"repaired":[],"problems":[],"ok":false}`,
	} {
		if strings.HasPrefix(line, "snapshot delete") {
			s.run(t.Context(), "snapshot", "create", "day1")
		}
		_, stdout, stderr := s.run(t.Context(), append(strings.Fields(line), "--json")...)
		var got, expected any
		if err := json.Unmarshal([]byte(stdout), &got); err != nil {
			t.Errorf("%s: %v: %s%s", line, err, stdout, stderr)
		}
		if err := json.Unmarshal([]byte(want), &expected); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(expected, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", line, diff)
		}
	}
}

func TestFlagsStandAnywhere(t *testing.T) {
	want := createRequest{Name: "day1", Repos: []string{"a", "b"}, Labels: map[string]string{"k": "v,w", "l": "="}, Note: "-x", Brief: true}
	for _, line := range []string{
		"snapshot create day1 --repo a --repo b --label k=v,w --label l== --note -x --quiet",
		"--quiet snapshot create --repo a --label=k=v,w --note -x day1 --repo=b --label l==",
		"snapshot --quiet create --note=-x --label k=v,w --repo a --repo b --label l== -- day1",
	} {
		s := newShell(t)
		code, stdout, stderr := s.run(t.Context(), strings.Fields(line)...)
		if code != 0 || stdout != "day1\n" || stderr != "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
		if diff := cmp.Diff(want, s.shelf.created); diff != "" {
			t.Errorf("%s: -want +got\n%s", line, diff)
		}
	}
}

func TestSnapshotNameDefaultsAndProgressGoesToStderr(t *testing.T) {
	s := newShell(t)
	code, stdout, stderr := s.run(t.Context(), "snapshot", "create")
	if code != 0 || stdout != "20261123T120000Z\n" || stderr != "waiting for 2 files\nwaiting for 1 file\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestHelp(t *testing.T) {
	s := newShell(t)
	for line, want := range map[string]string{
		"": "COMMANDS", "--help": "snapshot", "help": "snapshot", "snapshot create --help": "--label",
		"snapshot create day1 -h": "--label", "help snapshot": "create",
	} {
		code, stdout, stderr := s.run(t.Context(), strings.Fields(line)...)
		if code != 0 || !strings.Contains(stdout, want) || stderr != "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
	}
}

func TestEmptyListNamesTheDataDirectory(t *testing.T) {
	s := newShell(t)
	s.shelf.repos = nil
	for _, what := range []string{"repos", "snapshots", "channels", "recordings"} {
		code, stdout, _ := s.run(t.Context(), "list", what)
		if code != 0 || !strings.Contains(stdout, "in /data yet") {
			t.Errorf("%s: exit %d, %q", what, code, stdout)
		}
	}
	if code, stdout, _ := s.run(t.Context(), "list", "repos", "--json"); code != 0 || stdout != "[]\n" {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

func TestTables(t *testing.T) {
	s := newShell(t)
	s.shelf.repos = s.shelf.repos[:2]
	_, got, _ := s.run(t.Context(), "list")
	want := `NAME    TYPE  TREES  GENERATIONS  ARTIFACTS     SIZE  UPSTREAM
debian  apt       2            3          5  3.0 MiB  http://mirror.example.org/debian (+1)
tools   apt       2            0          0      0 B  http://apt.example.org:8080/
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	_, got, _ = s.run(t.Context(), "status", "debian", "epel")
	if diff := cmp.Diff([]string{"debian", "epel"}, s.shelf.asked); diff != "" {
		t.Errorf("asked for -want +got\n%s", diff)
	}
	if !strings.Contains(got, "not asked") || !strings.Contains(got, "2/5") || strings.Contains(got, "\x1b") {
		t.Errorf("status prints %q", got)
	}
}

func TestInitWritesAConfigurationThatChecks(t *testing.T) {
	s := newShell(t)
	if code, _, stderr := s.run(t.Context(), "init", "-o", "my.yaml"); code != 0 {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	code, stdout, stderr := s.run(t.Context(), "config", "check", "--config", "my.yaml")
	if code != 0 || stdout != "my.yaml: no mistakes, 0 repositories\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	_, defaults, _ := s.run(t.Context(), "config", "show", "--json")
	_, written, _ := s.run(t.Context(), "config", "show", "--json", "--config", "my.yaml")
	if diff := cmp.Diff(defaults, written); diff != "" {
		t.Errorf("what init writes are not the defaults: -default +written\n%s", diff)
	}
	if err := os.WriteFile("my.yaml", []byte("# mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := s.run(t.Context(), "init", "-o", "my.yaml"); code != 1 || !strings.Contains(stderr, "already there; name another") {
		t.Errorf("over a file: exit %d, %q", code, stderr)
	}
	if text, err := os.ReadFile("my.yaml"); err != nil || string(text) != "# mine\n" {
		t.Errorf("the file holds %q, %v", text, err)
	}
}

func TestInitUncommentedChecksToo(t *testing.T) {
	var lines []string
	for line := range strings.Lines(commented) {
		if text, ok := strings.CutPrefix(line, "# "); ok && (strings.Contains(text, ": ") || strings.HasSuffix(text, ":\n") || strings.Contains(text, "- http")) && strings.ToLower(text[:1]) == text[:1] {
			line = text
		}
		lines = append(lines, line)
	}
	s := newShell(t)
	if err := os.WriteFile("chantal.yaml", []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := s.run(t.Context(), "config", "check"); code != 0 || stdout != "chantal.yaml: no mistakes, 3 repositories\n" {
		t.Errorf("exit %d, %q, %q in\n%s", code, stdout, stderr, strings.Join(lines, ""))
	}
}

func TestConfigurationMistakesAreAllToldWithTheirPlaces(t *testing.T) {
	s := newShell(t)
	if err := os.WriteFile("chantal.yaml", []byte("listn: x\nrepos:\n  - nam: a\n    type: apt\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"config check", "list", "config check --json"} {
		code, stdout, stderr := s.run(t.Context(), strings.Fields(line)...)
		if code != 2 || !strings.Contains(stderr, "chantal.yaml:1:1: unknown key \"listn\"; did you mean \"listen\"?\n") ||
			!strings.Contains(stderr, "chantal.yaml:3:5: unknown key \"nam\" in repos[0]; did you mean \"name\"?\n") {
			t.Errorf("%s: exit %d, %q", line, code, stderr)
		}
		if strings.HasSuffix(line, "--json") {
			var answer checked
			if err := json.Unmarshal([]byte(stdout), &answer); err != nil || answer.OK || len(answer.Errors) != 4 || answer.Errors[0].Line != 1 {
				t.Errorf("%s: %v, %s", line, err, stdout)
			}
		}
	}
}

func TestServeGetsItsFlags(t *testing.T) {
	s := newShell(t)
	var got serveOptions
	var data string
	s.serve = func(_ context.Context, env *environment, o serveOptions) error {
		got, data = o, env.data
		return nil
	}
	if code, _, stderr := s.run(t.Context(), "serve", "--listen", ":0", "--offline"); code != 0 || data != s.vars["CHANTAL_DATA"] {
		t.Errorf("exit %d, %q, data %q", code, stderr, data)
	}
	if diff := cmp.Diff(serveOptions{Listen: ":0", Offline: true}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
