package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tool returns the path of a program that the test needs. Without it the test
// is skipped, or fails where CI=true.
func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	switch {
	case err == nil:
		return p
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is missing: %v", name, err)
	default:
		t.Skipf("%s is missing: %v", name, err)
	}
	return ""
}

func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C"}, env...)
	c.Dir = t.TempDir()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func start(t *testing.T) *Server {
	t.Helper()
	s, err := NewServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Down)
	return s
}

func newKey(t *testing.T, name string) *Key {
	t.Helper()
	k, err := NewKey(name, time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// must returns v, or ends the test.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var hello = Package{Name: "hello", Version: "1.0", Size: 4000}

func TestAptInstallsFromTheTree(t *testing.T) {
	apt := tool(t, "apt-get")
	key := newKey(t, "archive")
	for name, change := range map[string]func(*APT){
		"by-hash":                 func(a *APT) { a.ByHash, a.SHA512, a.MD5 = true, true, true },
		"plain names":             func(a *APT) {},
		"suite with a slash":      func(a *APT) { a.Suites = []string{"stable/updates"} },
		"two components":          func(a *APT) { a.Components = []string{"main", "contrib"} },
		"Release and Release.gpg": func(a *APT) { a.NoInline = true },
		"flat":                    func(a *APT) { a.Suites = nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			a := NewAPT(key, time.Now(), "bookworm")
			change(a)
			if err := a.Add(hello); err != nil {
				t.Fatal(err)
			}
			if err := a.Add(Package{Name: "world", Version: "2:1.0~rc1", Depends: "hello (>= 1.0)"}); err != nil {
				t.Fatal(err)
			}
			s.Publish("debian", must(a.Publish())(t))
			root := t.TempDir()
			suite := "./"
			if len(a.Suites) > 0 {
				suite = a.Suites[0] + " " + strings.Join(a.components(), " ")
			}
			env := aptConf(t, root, key, s.URL()+"/debian "+suite)
			run(t, env, apt, "update", "--error-on=any")
			run(t, env, apt, "install", "-y", "world")
			got, err := os.ReadFile(filepath.Join(root, hello.payloadPath()))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hello.payload(), got); diff != "" {
				t.Errorf("installed payload (-want +got):\n%s", diff)
			}
		})
	}
}

// aptConf makes a system of its own for apt under root.
func aptConf(t *testing.T, root string, key *Key, source string) []string {
	t.Helper()
	pub := write(t, filepath.Join(root, "key.asc"), must(key.Public())(t))
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial", "etc", "etc/apt.conf.d",
		"etc/preferences.d", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log/apt"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), nil)
	write(t, filepath.Join(root, "etc/sources.list"), fmt.Appendf(nil, "deb [arch=amd64 signed-by=%s] %s\n", pub, source))
	conf := fmt.Sprintf("Dir %q;\nDir::State %q;\nDir::State::status %q;\nDir::Cache %q;\nDir::Etc %q;\n",
		root, root+"/state", root+"/var/lib/dpkg/status", root+"/cache", root+"/etc") +
		"APT::Sandbox::User \"root\";\nAPT::Architecture \"amd64\";\nAcquire::Check-Valid-Until \"true\";\n" +
		fmt.Sprintf("DPkg::Options { \"--root=%s\"; \"--force-not-root\"; \"--log=%s/dpkg.log\"; };\n", root, root)
	return []string{"APT_CONFIG=" + write(t, filepath.Join(root, "apt.conf"), []byte(conf)), "PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
}

func TestAptRefusesTheWrongKey(t *testing.T) {
	apt := tool(t, "apt-get")
	s := start(t)
	a := NewAPT(newKey(t, "stranger"), time.Now(), "bookworm")
	s.Publish("debian", must(a.Publish())(t))
	env := aptConf(t, t.TempDir(), newKey(t, "archive"), s.URL()+"/debian bookworm main")
	c := exec.Command(apt, "update", "--error-on=any")
	c.Env = env
	if out, err := c.CombinedOutput(); err == nil {
		t.Errorf("apt accepted a root that another key signed:\n%s", out)
	}
}

func TestDnfInstallsFromTheTree(t *testing.T) {
	dnf := tool(t, "dnf")
	key := newKey(t, "archive")
	for _, simple := range []bool{true, false} {
		t.Run(fmt.Sprintf("simple names %v", simple), func(t *testing.T) {
			s := start(t)
			r := NewRPM(key, time.Now())
			r.Simple = simple
			if err := r.Add(hello); err != nil {
				t.Fatal(err)
			}
			if err := r.Add(Package{Name: "world", Version: "2.0", Depends: "hello"}); err != nil {
				t.Fatal(err)
			}
			s.Publish("rpm", must(r.Publish())(t))
			root := t.TempDir()
			if err := os.Mkdir(root+"/log", 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, root+"/repos/test.repo", fmt.Appendf(nil,
				"[test]\nname=test\nbaseurl=%s/rpm\nenabled=1\ngpgcheck=0\nrepo_gpgcheck=1\ngpgkey=%s/rpm/repodata/repomd.xml.key\n", s.URL(), s.URL()))
			args := []string{"--installroot=" + root + "/root", "--releasever=9", "-y", "--setopt=reposdir=" + root + "/repos",
				"--setopt=cachedir=" + root + "/cache", "--setopt=persistdir=" + root + "/state", "--setopt=logdir=" + root + "/log",
				"--setopt=skip_if_unavailable=0", "--disableplugin=local"}
			run(t, nil, dnf, append(args, "install", "world")...)
			got, err := os.ReadFile(filepath.Join(root, "root", hello.payloadPath()))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hello.payload(), got); diff != "" {
				t.Errorf("installed payload (-want +got):\n%s", diff)
			}
			out := run(t, nil, dnf, append(args, "repoquery", "-q", "-l", "hello")...)
			if want := "/" + hello.payloadPath(); !strings.Contains(out, want) {
				t.Errorf("repoquery -l = %q, want %q in it", out, want)
			}
		})
	}
}

func TestRpmAcceptsTheDigests(t *testing.T) {
	rpm := tool(t, "rpm")
	file, _, _, err := RPMFile(hello)
	if err != nil {
		t.Fatal(err)
	}
	at := write(t, filepath.Join(t.TempDir(), "hello.rpm"), file)
	out := run(t, nil, rpm, "--dbpath", t.TempDir(), "-Kv", "--nosignature", at)
	if !strings.Contains(out, "Header SHA256 digest: OK") || !strings.Contains(out, "Payload SHA256 digest: OK") {
		t.Errorf("rpm -Kv says:\n%s", out)
	}
}

func TestPipInstallsFromTheIndex(t *testing.T) {
	pip := tool(t, "pip")
	for _, htmlOnly := range []bool{true, false} {
		for _, form := range []string{"wheel", "sdist"} {
			t.Run(fmt.Sprintf("%s, HTML only %v", form, htmlOnly), func(t *testing.T) {
				s, files := start(t), start(t)
				i := NewPyPI(time.Now())
				i.HTMLOnly = htmlOnly
				if htmlOnly {
					i.Host = files.URL() + "/files"
				}
				if err := i.Add(Package{Name: "Hello.World", Version: "1.0", Depends: "six>=1"}, packed); err != nil {
					t.Fatal(err)
				}
				if err := i.Add(Package{Name: "six", Version: "1.17"}, packed); err != nil {
					t.Fatal(err)
				}
				tree := must(i.Publish())(t)
				s.Publish("pypi", tree)
				files.Publish("", tree)
				args := []string{"install", "--isolated", "--no-cache-dir", "--disable-pip-version-check", "--target", t.TempDir(),
					"--index-url", s.URL() + "/pypi/simple/", "--trusted-host", "127.0.0.1", "hello-world"}
				if form == "sdist" {
					args = append(args, "--no-binary=:all:")
				}
				out := run(t, nil, pip, args...)
				if !strings.Contains(out, "Successfully installed Hello.World-1.0 six-1.17") &&
					!strings.Contains(out, "Successfully installed hello-world-1.0 six-1.17") {
					t.Errorf("pip says:\n%s", out)
				}
			})
		}
	}
}
