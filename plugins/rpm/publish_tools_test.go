package rpm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/testenv"
	"chantal/plugins/formattest"
)

// tool runs a program; without it the test is skipped, or fails where CI=true.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: %v", name, err)
		}
		t.Skipf("%s is missing: %v", name, err)
	}
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "LC_ALL=C", "HOME="+t.TempDir())
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

// made writes rpms and returns the generation that createrepo_c makes of them,
// with advisories and modules.
func made(t *testing.T, options ...string) *formattest.Memory {
	t.Helper()
	dir := t.TempDir()
	for _, p := range []testenv.Package{
		{Name: "plain", Version: "1"}, {Name: "plain", Version: "2"}, {Name: "needs", Version: "1", Depends: "plain"},
		{Name: "tool", Version: "1"}, {Name: "tool", Version: "9"}, {Name: "other", Version: "1"},
	} {
		file, _, _, err := testenv.RPMFile(p)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "Packages", p.Name+"-"+p.Version+"-1.noarch.rpm"), file)
	}
	write(t, filepath.Join(dir, "comps.xml"), []byte(`<comps><group><id>g</id><name>G</name><uservisible>true</uservisible>`+
		`<packagelist><packagereq type="mandatory">plain</packagereq></packagelist></group></comps>`))
	tool(t, "createrepo_c", append([]string{"-q", "-g", "comps.xml", dir}, options...)...)
	algo := "sha256"
	if i := slices.Index(options, "--checksum"); i >= 0 {
		algo = options[i+1]
	}
	naming := "--unique-md-filenames"
	if slices.Contains(options, "--simple-md-filenames") {
		naming = "--simple-md-filenames"
	}
	update := func(id, name, version string) string {
		return fmt.Sprintf(`<update from="x@example.org" status="final" type="security" version="1"><id>%s</id><title>%s</title><severity>Important</severity>`+
			`<issued date="2026-01-01 00:00:00"/><pkglist><collection short="c"><name>c</name><package name="%s" version="%s" release="1" epoch="0" arch="noarch">`+
			`<filename>%s-%s-1.noarch.rpm</filename></package></collection></pkglist></update>`, id, id, name, version, name, version)
	}
	stream := func(name, version string) string {
		return fmt.Sprintf("---\ndocument: modulemd\nversion: 2\ndata:\n  name: %s\n  stream: \"%s\"\n  version: 1\n  context: c0ffee00\n  arch: noarch\n"+
			"  summary: %s\n  description: %s\n  license:\n    module: [MIT]\n  dependencies: []\n  profiles:\n    common:\n      rpms: [%s]\n  artifacts:\n    rpms:\n    - %s-0:%s-1.noarch\n...\n",
			name, version, name, name, name, name, version)
	}
	repodata := filepath.Join(dir, "repodata")
	for name, content := range map[string]string{
		"updateinfo.xml": "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<updates>\n" + update("ADV-PLAIN-2", "plain", "2") + "\n" + update("ADV-OTHER", "other", "1") + "\n</updates>\n",
		"modules.yaml":   stream("tool", "1") + stream("tool", "9") + "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: tool\n  stream: \"9\"\n...\n",
	} {
		kind, _, _ := strings.Cut(name, ".")
		tool(t, "modifyrepo_c", "--mdtype="+kind, "--checksum", algo, naming, write(t, filepath.Join(t.TempDir(), name), []byte(content)), repodata)
	}
	m := &formattest.Memory{Format: Format{}, Of: tree("repodata"), Files: map[string][]byte{}}
	all, err := os.ReadDir(repodata)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if m.Files["repodata/"+f.Name()], err = os.ReadFile(filepath.Join(repodata, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return m
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

// signer signs with a key made for tests.
type signer struct{ *testenv.Key }

func (s signer) ClearSign(text []byte, at time.Time) ([]byte, error)  { return s.Clearsign(text, at) }
func (s signer) DetachSign(body []byte, at time.Time) ([]byte, error) { return s.Detach(body, at) }
func (s signer) PublicKey() []byte {
	public, err := s.Public()
	if err != nil {
		panic(err)
	}
	return public
}

// reader is a dnf that knows one repository in a folder.
type reader struct{ base string }

func newReader(t *testing.T, dir string) reader {
	r := reader{t.TempDir()}
	for _, d := range []string{"root", "cache", "state", "log"} {
		if err := os.MkdirAll(filepath.Join(r.base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, r.base+"/repos/test.repo", fmt.Appendf(nil,
		"[test]\nname=test\nbaseurl=file://%s\nenabled=1\ngpgcheck=0\nrepo_gpgcheck=1\ngpgkey=file://%s/repodata/repomd.xml.key\n", dir, dir))
	return r
}

func (r reader) dnf(t *testing.T, args ...string) []string {
	t.Helper()
	out := tool(t, "dnf", append([]string{
		"-q", "-y", "--installroot=" + r.base + "/root", "--releasever=9", "--setopt=reposdir=" + r.base + "/repos",
		"--setopt=cachedir=" + r.base + "/cache", "--setopt=persistdir=" + r.base + "/state", "--setopt=logdir=" + r.base + "/log",
		"--setopt=skip_if_unavailable=0", "--disableplugin=*", "--setopt=module_platform_id=platform:el9",
	}, args...)...)
	var lines []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	slices.Sort(lines)
	return lines
}

// TestDnfReadsWhatIsPublished publishes a part of repositories that
// createrepo_c made in all its ways, and has dnf read it.
func TestDnfReadsWhatIsPublished(t *testing.T) {
	key, err := testenv.NewKey("Published", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string][]string{
		"as it comes":          nil,
		"simple names":         {"--simple-md-filenames", "--no-database"},
		"sha1 and bzip2":       {"--checksum", "sha1", "--compress-type", "bz2", "--general-compress-type", "bz2", "--database"},
		"sha512 and xz":        {"--checksum", "sha512", "--xz", "--general-compress-type", "xz", "--no-database"},
		"zchunk and the whole": {"--zck", "--unique-md-filenames"},
	} {
		if testing.Short() && name != "sha512 and xz" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := made(t, options...)
			out := &formattest.Publication{Signer: signer{key}, When: time.Now().Truncate(time.Second)}
			roots, err := Format{}.Publish([]chantal.Contents{source}, func(_ int, p *chantal.Promise, _ func(string) string) (bool, error) {
				return p.Package.Name != "other" && p.Package.Version != "1-1" || p.Package.Name == "needs", nil
			}, out)
			if err != nil {
				t.Fatal(err)
			}
			published, err := out.Of(Format{}, source.Of, roots, source)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for path, body := range published.Files {
				write(t, filepath.Join(dir, path), body)
			}
			r := newReader(t, dir)
			got := map[string][]string{
				"packages":   r.dnf(t, "repoquery", "--qf", "%{name}-%{epoch}:%{version}-%{release}.%{arch} %{location} %{files}"),
				"advisories": r.dnf(t, "repoquery", "--security"),
			}
			var streams []string
			for _, line := range r.dnf(t, "module", "list") {
				if strings.HasPrefix(line, "tool ") {
					streams = append(streams, line)
				}
			}
			got["streams"] = streams
			want := map[string][]string{
				"packages": {
					"needs-0:1-1.noarch Packages/needs-1-1.noarch.rpm /usr/share/needs/payload", "plain-0:2-1.noarch Packages/plain-2-1.noarch.rpm /usr/share/plain/payload",
					"tool-0:9-1.noarch Packages/tool-9-1.noarch.rpm /usr/share/tool/payload",
				},
				"advisories": {"plain-0:2-1.noarch"},
				"streams":    {"tool 9 [d] common tool"},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
