// Package e2e drives the real binary: against upstreams made by
// internal/testenv, and with the clients that people use.
//
// The scripts in testdata/script are the spine: each is named after the
// behaviour it protects and reads like its documentation. Beside the commands
// of testscript they have
//
//	chantal ARG…            the binary, on this script's own data folder ($DATA)
//	exits CODE ARG…         the same, and checks its exit code
//	serve [ARG…]            chantal serve in the background, until ready; sets $CHANTAL, $PROXY
//	serve-stop, serve-kill  ends it (SIGTERM, and it must end well; SIGKILL)
//	upstream …              the archives; see upstream_test.go
//	get …                   one HTTP request; see get_test.go
//	apt, dnf, pip, uv …     real clients with state of their own; see clients_test.go
//	same A B                both files have the same bytes
//	blob …                  what disks and people do to stored files; see blob_test.go
//	web [nginx] DIR         serves a folder as plain files; sets $WEB; see web_test.go
//	flip FILE               changes one bit of a file, and of none of its other names
//	mode DIR                prints which permissions occur below DIR
//	tamper PART             changes what clients get; see tamper_test.go
//	port NAME               sets NAME to a free port
//	tick NAME               waits for the next whole second and sets NAME to it
//	eventually COMMAND…     runs it until it succeeds, at most 10 s: chantal, upstream count; log TEXT and
//	                        stdout PATTERN chantal ARG… look for words
//
// and the conditions [apt], [dnf], [pip], [uv], [gpgv]. A missing client is a
// failure where CI=true; elsewhere the condition is false and the script says
// what was skipped.
//
// The configuration of serve is chantal.yaml of the script, when it has one.
// It may use ${UPSTREAM}, ${KEYRING}, ${KEY} and whatever else is set.
package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"chantal/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

// testMain builds the binary once and runs the tests.
func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "chantal-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := dependOnSources(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "chantal"), "chantal/cmd/chantal")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build chantal:", err)
		return 1
	}
	os.Setenv("CHANTAL_E2E_BINARY", filepath.Join(dir, "chantal"))
	return m.Run()
}

// dependOnSources looks at every source file of the module: the go command
// keeps results of tests, and would not know that these depend on the binary.
func dependOnSources() error {
	return filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case filepath.Ext(path) == ".go" || filepath.Ext(path) == ".txtar":
			_, err = os.Stat(path)
		}
		return err
	})
}

func binary() string { return os.Getenv("CHANTAL_E2E_BINARY") }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		Setup:              setup,
		Condition:          condition,
		RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"chantal":    func(ts *testscript.TestScript, neg bool, args []string) { run(ts, neg, binary(), args...) },
			"exits":      exits,
			"serve":      serveStart,
			"serve-stop": serveStop,
			"serve-kill": serveKill,
			"upstream":   upstream,
			"get":        get,
			"apt-source": aptSource,
			"apt-proxy":  aptProxy,
			"apt-reset":  aptReset,
			"apt":        apt,
			"dnf-repo":   dnfRepo,
			"dnf-reset":  dnfReset,
			"dnf":        dnf,
			"pip":        pip,
			"uv":         uv,
			"same":       same,
			"blob":       blob,
			"tamper":     tamper,
			"web":        web,
			"flip":       flip,
			"mode":       mode,
			"port":       port,
			"tick":       tick,
			"eventually": eventually,
			"frees":      frees,
		},
	})
}

// world is what one script has made so far.
type world struct {
	vars   map[string]string // set for the script and for every process it starts
	server *testenv.Server
	files  *testenv.Server // the other host of a PyPI index; nil if none
	repos  map[string]repository
	keys   map[string]*testenv.Key
	proxy  *process                   // the running serve; nil if none
	made   map[string][]testenv.Files // what each rpm repository published, the last first
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

type worldKey struct{}

func (w *world) set(ts *testscript.TestScript, name, value string) {
	w.vars[name] = value
	ts.Setenv(name, value)
}

// environ is what a background process gets to see.
func (w *world) environ() []string {
	var env []string
	for k, v := range w.vars {
		env = append(env, k+"="+v)
	}
	return env
}

func setup(env *testscript.Env) error {
	w := &world{vars: map[string]string{}, repos: map[string]repository{}, keys: map[string]*testenv.Key{}, made: map[string][]testenv.Files{}}
	env.Values[worldKey{}] = w
	for _, name := range []string{"archive", "stranger"} {
		key, err := testenv.NewKey(name, time.Now().Add(-24*time.Hour))
		if err != nil {
			return err
		}
		public, err := key.Public()
		if err != nil {
			return err
		}
		ring, err := key.Binary()
		if err != nil {
			return err
		}
		w.keys[name] = key
		if err := os.WriteFile(filepath.Join(env.WorkDir, name+".asc"), public, 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(env.WorkDir, name+".gpg"), ring, 0o644); err != nil {
			return err
		}
	}
	free, err := freePort()
	if err != nil {
		return err
	}
	work := env.WorkDir
	for k, v := range map[string]string{
		"WORK": work, "HOME": work + "/home", "DATA": work + "/data", "CHANTAL_DATA": work + "/data",
		"XDG_CONFIG_HOME": work + "/home/.config", "XDG_DATA_HOME": work + "/home/.local/share",
		"KEY": work + "/archive.asc", "KEYRING": work + "/archive.gpg", "STRANGER": work + "/stranger.gpg",
		"LISTEN": "127.0.0.1:" + strconv.Itoa(free), "CHANTAL": "http://127.0.0.1:" + strconv.Itoa(free),
		"PROXY": "http://127.0.0.1:" + strconv.Itoa(free), "PORT": strconv.Itoa(free), "NO_COLOR": "1",
		"ROOT": work + "/apt/root", "DNFROOT": work + "/dnf/root", "APT_CONFIG": work + "/apt/apt.conf",
		"PATH": os.Getenv("PATH") + ":/usr/sbin:/sbin", "LC_ALL": "C", "BINARY": binary(),
	} {
		w.vars[k] = v
		env.Setenv(k, v)
	}
	if err := os.MkdirAll(work+"/home", 0o755); err != nil {
		return err
	}
	env.Defer(func() {
		if w.proxy != nil {
			w.proxy.kill()
		}
		for _, s := range []*testenv.Server{w.server, w.files} {
			if s != nil {
				s.Heal()
				s.Down()
			}
		}
	})
	return nil
}

func condition(cond string) (bool, error) {
	program := map[string]func() (string, error){
		"apt":          func() (string, error) { return exec.LookPath("apt-get") },
		"dnf":          func() (string, error) { return exec.LookPath("dnf") },
		"createrepo_c": func() (string, error) { return exec.LookPath("createrepo_c") },
		"gpgv":         func() (string, error) { return exec.LookPath("gpgv") },
		"pip":          func() (string, error) { return python("pip") },
		"uv":           func() (string, error) { return python("uv") },
	}[cond]
	if program == nil {
		return false, fmt.Errorf("no condition %q", cond)
	}
	_, err := program()
	if err != nil && os.Getenv("CI") == "true" {
		return false, fmt.Errorf("%s is needed where CI=true: %w", cond, err)
	}
	return err == nil, nil
}

// run executes a program for the script and checks that it fails if neg.
func run(ts *testscript.TestScript, neg bool, name string, args ...string) {
	err := ts.Exec(name, args...)
	switch {
	case err == nil && neg:
		ts.Fatalf("%s %s: succeeded, and should not have", filepath.Base(name), strings.Join(args, " "))
	case err != nil && !neg:
		ts.Fatalf("%s %s: %v%s", filepath.Base(name), strings.Join(args, " "), err, worldOf(ts).log())
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(binary(), args[1:]...); err != nil {
		if _, err := fmt.Sscanf(err.Error(), "exit status %d", &got); err != nil {
			ts.Fatalf("chantal ended strangely: %v", err)
		}
	}
	if got != want {
		ts.Fatalf("chantal %s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same A B")
	}
	a, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	if bytes.Equal(a, b) == neg {
		ts.Fatalf("%s (%d bytes) and %s (%d bytes): same is %v", args[0], len(a), args[1], len(b), !neg)
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func port(ts *testscript.TestScript, neg bool, args []string) {
	n, err := freePort()
	ts.Check(err)
	worldOf(ts).set(ts, args[0], strconv.Itoa(n))
}

// tick lets observations made before and after it have different seconds.
func tick(ts *testscript.TestScript, neg bool, args []string) {
	next := time.Now().UTC().Truncate(time.Second).Add(time.Second)
	time.Sleep(time.Until(next) + 20*time.Millisecond)
	worldOf(ts).set(ts, args[0], next.Format(time.RFC3339))
}
