package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// python finds pip or uv: in $CHANTAL_VENV/bin, then on the PATH.
func python(name string) (string, error) {
	if venv := os.Getenv("CHANTAL_VENV"); venv != "" {
		p, err := exec.LookPath(filepath.Join(venv, "bin", name))
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return exec.LookPath(name)
}

func mkdirs(ts *testscript.TestScript, under string, dirs ...string) {
	for _, d := range dirs {
		ts.Check(os.MkdirAll(filepath.Join(under, d), 0o755))
	}
}

// aptSystem makes apt a system of its own below base: nothing installed, no
// lists, nothing downloaded. Sources and proxy stay. Packages are installed
// below base/root; $APT_CONFIG is to be base/apt.conf.
func aptSystem(base string) error {
	for _, d := range []string{"root", "state", "cache"} {
		if err := os.RemoveAll(filepath.Join(base, d)); err != nil {
			return err
		}
	}
	for _, d := range []string{"root/var/lib/dpkg/info", "root/var/lib/dpkg/updates", "root/var/log/apt", "state/lists/partial",
		"cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d", "log"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			return err
		}
	}
	conf := fmt.Sprintf(`Dir "%[1]s";
Dir::State "%[1]s/state";
Dir::State::status "%[1]s/root/var/lib/dpkg/status";
Dir::Cache "%[1]s/cache";
Dir::Etc "%[1]s/etc";
Dir::Log "%[1]s/log";
APT::Sandbox::User "root";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Install-Recommends "false";
Acquire::Check-Valid-Until "true";
Acquire::Retries "0";
Acquire::http::Timeout "60";
DPkg::Options { "--root=%[1]s/root"; "--force-not-root"; "--log=%[1]s/log/dpkg.log"; };
`, base)
	return errors.Join(os.WriteFile(base+"/root/var/lib/dpkg/status", nil, 0o644), os.WriteFile(base+"/apt.conf", []byte(conf), 0o644))
}

// aptReset makes apt a system of its own in $WORK/apt.
func aptReset(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(aptSystem(ts.Getenv("WORK") + "/apt"))
}

// aptSource writes the one source and resets apt:
//
//	apt-source URL SUITE [COMPONENT…]
func aptSource(ts *testscript.TestScript, neg bool, args []string) {
	aptReset(ts, false, nil)
	line := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s\n", ts.Getenv("KEY"), strings.Join(args, " "))
	ts.Check(os.WriteFile(ts.Getenv("WORK")+"/apt/etc/sources.list", []byte(line), 0o644))
}

// aptProxy sets the proxy; "DIRECT" for none.
func aptProxy(ts *testscript.TestScript, neg bool, args []string) {
	mkdirs(ts, ts.Getenv("WORK")+"/apt", "etc/apt.conf.d")
	conf := fmt.Sprintf("Acquire::http::Proxy %q;\n", args[0])
	ts.Check(os.WriteFile(ts.Getenv("WORK")+"/apt/etc/apt.conf.d/proxy.conf", []byte(conf), 0o644))
}

func apt(ts *testscript.TestScript, neg bool, args []string) {
	if args[0] == "update" { // or it would count what it could not fetch as done
		args = append(args, "--error-on=any")
	}
	run(ts, neg, "apt-get", append([]string{"-q", "-y"}, args...)...)
}

// dnfReset removes dnf's cache, state and root.
func dnfReset(ts *testscript.TestScript, neg bool, args []string) {
	for _, d := range []string{"root", "cache", "state"} {
		ts.Check(os.RemoveAll(filepath.Join(ts.Getenv("WORK"), "dnf", d)))
	}
}

// dnfRepo writes the one repository, with signed metadata, and resets dnf:
//
//	dnf-repo URL|metalink=URL|mirrorlist=URL [KEY=VALUE…]
func dnfRepo(ts *testscript.TestScript, neg bool, args []string) {
	dnfReset(ts, false, nil)
	base := ts.Getenv("WORK") + "/dnf"
	mkdirs(ts, base, "log")
	ts.Check(dnfSource(base, ts.Getenv("KEY"), args[0], args[1:]...))
}

// dnfSource makes the repository at url, with signed metadata, the one that
// the dnf below base knows; lines are further settings of it.
func dnfSource(base, key, url string, lines ...string) error {
	if !strings.HasPrefix(url, "metalink=") && !strings.HasPrefix(url, "mirrorlist=") {
		url = "baseurl=" + url
	}
	repo := fmt.Sprintf("[test]\nname=test\n%s\nenabled=1\ngpgcheck=0\nrepo_gpgcheck=1\ngpgkey=file://%s\n%s\n",
		url, key, strings.Join(lines, "\n"))
	if err := os.MkdirAll(base+"/repos", 0o755); err != nil {
		return err
	}
	return os.WriteFile(base+"/repos/test.repo", []byte(repo), 0o644)
}

func dnf(ts *testscript.TestScript, neg bool, args []string) {
	base := ts.Getenv("WORK") + "/dnf"
	mkdirs(ts, base, "log")
	run(ts, neg, "dnf", append(dnfOptions(base), args...)...)
}

// dnfOptions makes dnf a system of its own below base.
func dnfOptions(base string) []string {
	return []string{
		"-y", "--installroot=" + base + "/root", "--releasever=9", "--setopt=reposdir=" + base + "/repos",
		"--setopt=cachedir=" + base + "/cache", "--setopt=persistdir=" + base + "/state", "--setopt=logdir=" + base + "/log",
		"--setopt=skip_if_unavailable=0", "--setopt=retries=1", "--disableplugin=local",
	}
}

// pip runs pip without its cache and configuration. "pip download X" and
// "pip install --target D X" are what scripts need.
func pip(ts *testscript.TestScript, neg bool, args []string) {
	p, err := python("pip")
	ts.Check(err)
	run(ts, neg, p, append([]string{args[0]}, append(pipOptions, args[1:]...)...)...)
}

var pipOptions = []string{"--isolated", "--no-cache-dir", "--disable-pip-version-check", "--retries", "0", "--trusted-host", "127.0.0.1"}

// uv runs "uv pip …" without its cache and configuration.
func uv(ts *testscript.TestScript, neg bool, args []string) {
	p, err := python("uv")
	ts.Check(err)
	run(ts, neg, p, append([]string{"--no-cache", "--no-config", "pip"}, args...)...)
}
