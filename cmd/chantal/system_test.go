package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/config"
)

const armored = `-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr
=u6Cs
-----END PGP PUBLIC KEY BLOCK-----
`

// tree makes the files of a system: path → text.
func tree(files map[string]string) fstest.MapFS {
	t := fstest.MapFS{}
	for name, text := range files {
		t[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text)}
	}
	return t
}

// everything is a system with all that init knows to read.
func everything() map[string]string {
	return map[string]string{
		"/var/lib/dpkg/arch": "amd64\ni386\n",
		"/etc/apt/sources.list": `# the system
deb http://mirror.example.org/debian bookworm main contrib # with a comment
deb-src http://mirror.example.org/debian/ bookworm main
deb [ arch=amd64,arm64 signed-by=/usr/share/keyrings/tools.asc ] https://me:s3cret@packages.example.org/tools/apt stable main
deb [trusted=yes] http://flat.example.org/ ./
deb cdrom:[Debian 12]/ bookworm main
deb mirror+file:/etc/apt/mirrors.txt bookworm main
deb [arch=amd64 http://mirror.example.org/broken bookworm
nonsense
`,
		"/etc/apt/sources.list.d/more.list": "deb http://mirror.example.org/debian bookworm-updates main\n",
		"/etc/apt/sources.list.d/stanzas.sources": `# modern
Types: deb deb-src
URIs: http://a.example.org/ubuntu http://b.example.org/ubuntu/
Suites: noble noble-updates
# a comment within
Components: main
 universe
Signed-By: /usr/share/keyrings/ubuntu.gpg
Architectures: amd64

Enabled: no
Types: deb
URIs: http://me:s3cret@off.example.org/debian
Suites: bookworm

Types: deb
URIs: https://keyed.example.org/apt/stable
Suites: ./
Signed-By:
 ` + strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(armored, "\n\n", "\n.\n")), "\n", "\n ") + `

Types: deb
Suites: bookworm
`,
		"/etc/apt/auth.conf.d/tools.conf": "machine packages.example.org login me password s3cret\n",
		"/etc/os-release":                 "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n",
		"/etc/dnf/vars/contentdir":        "pub/rocky\n",
		"/etc/yum.repos.d/base.repo": `[baseos]
name=Base
mirrorlist=https://mirrors.example.org/mirrorlist?arch=$basearch&repo=BaseOS-$releasever
#baseurl=http://mirror.example.org/$contentdir/$releasever/BaseOS/$basearch/os/
gpgcheck=1
enabled=1
gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-Rocky-$releasever

[AppStream]
baseurl=http://mirror.example.org/$contentdir/$releasever/AppStream/$basearch/os/
    http://other.example.org/${contentdir}/$releasever_major/AppStream/$basearch/os
repo_gpgcheck=1
gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-Rocky-9

[epel]
metalink=https://mirrors.example.org/metalink?repo=epel-$releasever&arch=$basearch&infra=$infra
[epel-next]
mirrorlist=https://mirrors.example.org/metalink?repo=epel-next-$releasever&arch=$basearch
[vendor]
baseurl=https://rpm.example.org/el9/
username=me
password=s3cret
[debug]
baseurl=http://mirror.example.org/debug/
enabled=0
[local]
baseurl=file:///srv/rpms
`,
		"/etc/pip.conf": "[global]\nindex-url = https://index.example.org/simple\nextra-index-url =\n    https://me:s3cret@wheels.example.org/team/simple/\n    http://index.example.org/other/\n",
		"/home/me/.config/uv/uv.toml": `index-url = "https://uv.example.org/root/pypi/+simple/"
[[index]]
name = "x"
url = "https://index.example.org/simple"
`,
	}
}

func someSystem(files map[string]string, vars map[string]string) *system {
	return &system{files: tree(files), machine: "x86_64", getenv: func(name string) string { return vars[name] }}
}

func TestWhatASystemIsConfiguredFor(t *testing.T) {
	s := someSystem(everything(), map[string]string{"HOME": "/home/me", "UV_INDEX": "x=https://index.example.org/named/"})
	all, left, err := s.found()
	if err != nil {
		t.Fatal(err)
	}
	text := reposOf(all, left)
	golden := filepath.Join("testdata", "from-system.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if strings.Contains(text, "s3cret") {
		t.Error("a password was copied")
	}
	// Both as it is written and with the comments of sync taken away it is a
	// configuration.
	whole := strings.Replace(commented, exampleRepos(), text, 1)
	var active []string
	for line := range strings.Lines(whole) {
		if rest, ok := strings.CutPrefix(line, "    # "); ok && (strings.HasPrefix(rest, "sync:") || strings.HasPrefix(rest, "  ")) {
			line = "    " + rest
		}
		active = append(active, line)
	}
	for _, text := range []string{whole, strings.Join(active, "")} {
		c, err := config.Parse("chantal.yaml", []byte(text), func(string) string { return "" })
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if len(c.Repos) != len(all) || len(all) < 14 {
			t.Errorf("%d repositories of %d", len(c.Repos), len(all))
		}
	}
}

func TestKeysInSourcesAreWrittenBesideTheConfiguration(t *testing.T) {
	s := newShell(t)
	for name, text := range everything() {
		if err := os.MkdirAll(filepath.Join("root", filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("root", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("etc", 0o755); err != nil {
		t.Fatal(err)
	}
	line := []string{"init", "--from-system", "--root", "root", "-o", "etc/chantal.yaml"}
	code, stdout, stderr := s.run(t.Context(), line...)
	if code != 0 || stdout != "" || !strings.HasPrefix(stderr, "wrote etc/chantal.yaml with ") {
		t.Fatalf("exit %d, %q, %q", code, stdout, stderr)
	}
	key, err := filepath.Abs("etc/keyed.example.org-apt-stable.asc")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(key)
	if diff := cmp.Diff(armored, string(text)); err != nil || diff != "" {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	written, err := os.ReadFile("etc/chantal.yaml")
	if err != nil || !strings.Contains(string(written), "keyring: "+quoted(key)+"\n") {
		t.Errorf("%v, no key in\n%s", err, written)
	}
	if code, _, stderr := s.run(t.Context(), "config", "check", "etc/chantal.yaml"); code != 0 {
		t.Errorf("exit %d, %s", code, stderr)
	}
	// Nothing that is there is written over, neither of the two.
	if code, _, stderr := s.run(t.Context(), line...); code != 1 || !strings.Contains(stderr, "etc/chantal.yaml is already there") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if err := os.Remove("etc/chantal.yaml"); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := s.run(t.Context(), line...); code != 1 || !strings.Contains(stderr, ".asc is already there") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if _, err := os.Stat("etc/chantal.yaml"); err == nil {
		t.Error("one of the files was written")
	}
	if code, stdout, _ := s.run(t.Context(), "init", "--from-system", "--root", "root", "-o", "-"); code != 0 || !strings.Contains(stdout, "its key stands in the source") {
		t.Errorf("exit %d, %s", code, stdout)
	}
}

func TestASystemWithoutSourcesIsTold(t *testing.T) {
	s := newShell(t)
	if err := os.Mkdir("empty", 0o755); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := s.run(t.Context(), "init", "--from-system", "--root", "empty")
	if _, err := os.Stat("chantal.yaml"); code != 1 || !strings.Contains(stderr, "nothing is configured here") || err == nil {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestReleasesThatDnfNames(t *testing.T) {
	for release, want := range map[string]string{
		"ID=fedora\nVERSION_ID=42\n":                "42",
		"ID=rhel\nVERSION_ID=\"9.4\"\n":             "9",
		"ID=centos\nVERSION_ID=\"10\"\n":            "10",
		"ID=amzn\nID_LIKE=x\nVERSION_ID=\"2023\"\n": "2023",
		"": "",
	} {
		s := someSystem(map[string]string{"/usr/lib/os-release": release}, nil)
		if got := s.dnfVariables()["releasever"]; got != want {
			t.Errorf("%q: got %q, want %q", release, got, want)
		}
	}
	s := someSystem(map[string]string{"/etc/os-release": "ID=fedora\nVERSION_ID=42\n", "/etc/dnf/vars/releasever": "43\n"}, nil)
	if got := expandDNF("$releasever ${basearch} $releasever_major$x", s.dnfVariables()); got != "43 x86_64 43$x" {
		t.Errorf("got %q", got)
	}
}
