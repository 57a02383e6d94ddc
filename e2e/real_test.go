package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rig is a chantal in front of the package servers that this machine's own
// clients are configured for. It asks them for very little.
type rig struct {
	dir, listen string
	proxy       *process
}

func (r *rig) path(elem ...string) string { return filepath.Join(append([]string{r.dir}, elem...)...) }

// start runs serve with a configuration, in place of the one that runs.
func (r *rig) start(t *testing.T, config string, args ...string) {
	t.Helper()
	r.stop(t)
	if err := os.WriteFile(r.path("chantal.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--data", r.path("data"), "--config", r.path("chantal.yaml")}, args...)
	var err error
	if r.proxy, err = startServe(r.listen, r.path("serve.log"), os.Environ(), args...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.proxy.kill)
}

func (r *rig) stop(t *testing.T) {
	t.Helper()
	if r.proxy == nil {
		return
	}
	if err := r.proxy.stop(); err != nil {
		t.Fatal(err)
	}
	r.proxy = nil
}

// run executes a client and returns its output.
func (r *rig) run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s\n%s", filepath.Base(name), strings.Join(args, " "), err, out, r.proxy.tail())
	}
	return string(out)
}

// apt runs a client of the apt family in a state of its own, through the proxy
// under ref.
func (r *rig) apt(t *testing.T, state, ref, dir, program string, args ...string) string {
	t.Helper()
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "etc"} {
		if err := os.MkdirAll(r.path(state, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := []string{
		"-o", "Dir::State=" + r.path(state, "state"), "-o", "Dir::Cache=" + r.path(state, "cache"),
		"-o", "Dir::Etc::sourcelist=" + r.path("sources.list"), "-o", "Dir::Etc::sourceparts=/nonexistent",
		"-o", "Dir::State::status=" + r.path("status"), "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none",
		"-o", "Acquire::http::Proxy=http://" + ref + ":x@" + r.listen,
	}
	return r.run(t, dir, nil, program, append(options, args...)...)
}

// pip downloads flask and what it depends on.
func (r *rig) pip(t *testing.T, dir string, env []string, args ...string) {
	t.Helper()
	pip, err := python("pip")
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"download", "--quiet", "--no-cache-dir", "--disable-pip-version-check", "--dest", dir}, args...)
	r.run(t, dir, append([]string{"PIP_FIND_LINKS=", "PIP_NO_INDEX="}, env...), pip, append(args, "flask")...)
}

// sums returns the digests of the files in dir.
func sums(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][32]byte{}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[f.Name()] = sha256.Sum256(b)
	}
	return all
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	then, now := sums(t, a), sums(t, b)
	if len(then) == 0 || len(then) != len(now) {
		t.Errorf("%d files in %s, %d in %s", len(then), filepath.Base(a), len(now), filepath.Base(b))
	}
	for name, sum := range then {
		if now[name] != sum {
			t.Errorf("%s is not the same in %s and %s", name, filepath.Base(a), filepath.Base(b))
		}
	}
}

// aptSourceOfThisMachine returns a line for sources.list: the first http source
// that apt is configured for, reduced to one suite and component.
func aptSourceOfThisMachine(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		t.Fatal("apt-get indextargets: ", err)
	}
	keyrings, err := filepath.Glob("/usr/share/keyrings/*-archive-keyring.gpg")
	if err != nil {
		t.Fatal(err)
	}
	signed := ""
	if len(keyrings) > 0 {
		signed = "[signed-by=" + strings.Join(keyrings, ",") + "] "
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) == 3 && strings.HasPrefix(f[0], "http://") {
			return fmt.Sprintf("deb %s%s %s %s\n", signed, f[0], f[1], f[2])
		}
	}
	t.Fatal("apt on this machine has no http source")
	return ""
}

// pipIndexOfThisMachine returns the index that pip asks by itself.
func pipIndexOfThisMachine(t *testing.T) string {
	t.Helper()
	pip, err := python("pip")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(pip, "config", "get", "global.index-url").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	if index := os.Getenv("PIP_INDEX_URL"); index != "" {
		return index
	}
	out, err := exec.Command(filepath.Join(filepath.Dir(pip), "python3"), "-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)").Output()
	if err != nil {
		t.Fatal("asking pip for its default index: ", err)
	}
	return strings.TrimSpace(string(out))
}

// smallPackages returns the names of n small packages that apt knows of.
func smallPackages(t *testing.T, dump string, n int) []string {
	t.Helper()
	var names []string
	name := ""
	for line := range strings.Lines(dump) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Package":
			name = value
		case "Size":
			if size, err := strconv.Atoi(value); err == nil && size < 30_000 && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		if len(names) == n {
			return names
		}
	}
	t.Fatalf("apt knows of only %d small packages", len(names))
	return nil
}

// fileHost returns the scheme and host of the files that the index links to,
// out of a page that chantal rendered with links to itself.
func (r *rig) fileHost(t *testing.T) string {
	t.Helper()
	header := http.Header{"Accept": {"application/vnd.pypi.simple.v1+json"}}
	var answer bytes.Buffer
	body, err := request(&answer, http.MethodGet, "http://"+r.listen+"/pypi/simple/flask/", "", header)
	if err != nil {
		t.Fatal(err)
	}
	var page struct{ Files []struct{ URL string } }
	if err := json.Unmarshal(body, &page); err != nil || len(page.Files) == 0 {
		t.Fatalf("page of flask: %v\n%s", err, answer.String())
	}
	_, rest, _ := strings.Cut(page.Files[0].URL, "+files/sha256/")
	parts := strings.SplitN(rest, "/", 3)
	if len(parts) != 3 {
		t.Fatalf("link %q has no host", page.Files[0].URL)
	}
	return "https://" + parts[1]
}

// TestRealRepositoriesInstallAgainFromASnapshot is the whole promise on real
// input: this machine's own apt source and pip's own index, through every door,
// and again from a snapshot without any upstream.
func TestRealRepositoriesInstallAgainFromASnapshot(t *testing.T) {
	if os.Getenv("CI") != "true" && os.Getenv("CHANTAL_REAL") == "" {
		t.Skip("asks real package servers: set CHANTAL_REAL=1")
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{dir: t.TempDir(), listen: "127.0.0.1:" + strconv.Itoa(port)}
	source, index := aptSourceOfThisMachine(t), pipIndexOfThisMachine(t)
	for name, content := range map[string]string{"sources.list": source, "status": ""} {
		if err := os.WriteFile(r.path(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	repo := fmt.Sprintf("repos:\n  - name: pypi\n    type: pypi\n    upstream: [%q]\n", strings.TrimSuffix(index, "/")+"/")
	r.start(t, repo)
	mirrored := []string{"--index-url", "http://" + r.listen + "/pypi/simple/", "--trusted-host", "127.0.0.1"}
	r.pip(t, r.path("pip-mirror"), nil, mirrored...)

	// The files' host has to be configured for its traffic to be intercepted.
	repo += fmt.Sprintf("    files: [%q]\nforward: {intercept: configured}\n", r.fileHost(t))
	r.start(t, repo)
	r.apt(t, "apt", "live", r.dir, "apt-get", "update")
	names := smallPackages(t, r.apt(t, "apt", "live", r.dir, "apt-cache", "dumpavail"), 20)
	r.apt(t, "apt", "live", r.path("debs"), "apt-get", append([]string{"download"}, names...)...)
	trust := r.trust(t)
	r.pip(t, r.path("pip-connect"), append(trust, "https_proxy=http://live:x@"+r.listen), "--index-url", index)
	sameFiles(t, r.path("pip-mirror"), r.path("pip-connect"))
	r.run(t, r.dir, nil, binary(), "--data", r.path("data"), "--config", r.path("chantal.yaml"), "snapshot", "create", "real")

	r.start(t, repo, "--offline")
	r.apt(t, "apt-frozen", "real", r.dir, "apt-get", "update")
	r.apt(t, "apt-frozen", "real", r.path("debs-frozen"), "apt-get", append([]string{"download"}, names...)...)
	sameFiles(t, r.path("debs"), r.path("debs-frozen"))
	mirrored[1] = "http://" + r.listen + "/pypi@real/simple/"
	r.pip(t, r.path("pip-frozen"), nil, mirrored...)
	sameFiles(t, r.path("pip-mirror"), r.path("pip-frozen"))
	r.pip(t, r.path("pip-connect-frozen"), append(trust, "https_proxy=http://real:x@"+r.listen), "--index-url", index)
	sameFiles(t, r.path("pip-mirror"), r.path("pip-connect-frozen"))
	r.stop(t)
}

// trust returns the variables by which pip trusts the CA beside the others.
func (r *rig) trust(t *testing.T) []string {
	t.Helper()
	own, err := request(io.Discard, http.MethodGet, (&url.URL{Scheme: "http", Host: r.listen, Path: "/-/ca.pem"}).String(), "", http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	system, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		t.Fatal(err)
	}
	bundle := r.path("bundle.pem")
	if err := os.WriteFile(bundle, slices.Concat(system, own), 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"SSL_CERT_FILE=" + bundle, "REQUESTS_CA_BUNDLE=" + bundle, "PIP_CERT=" + bundle}
}
