package rpm

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/plugins/formattest"
)

// when is what published repositories say of their age.
var when = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// index is one record of a repository made for a test.
type index struct {
	kind, name string // "primary", "primary.xml.gz"
	content    string
}

// repository returns a generation of the tree 9/repodata with these records.
// algo is the type of their checksums; unique says whether that is in names.
func repository(t *testing.T, algo string, unique bool, indexes ...index) *formattest.Memory {
	t.Helper()
	files := map[string][]byte{}
	var b strings.Builder
	b.WriteString(xmlDeclaration + `<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">` + "\n")
	b.WriteString("  <revision>55</revision>\n  <tags>\n    <content>binary</content>\n  </tags>\n")
	for _, i := range indexes {
		suffix := path.Ext(i.name)
		if !slices.Contains([]string{".gz", ".xz", ".zst"}, suffix) {
			suffix = ""
		}
		stored, err := formattest.Pack(suffix, []byte(i.content))
		if err != nil {
			t.Fatal(err)
		}
		digest := strings.Replace(algo, "sha", "sha1", 1)
		if algo != "sha" {
			digest = algo
		}
		sum := formattest.Digest(digest, stored).Hex()
		name := i.name
		if unique {
			name = sum + "-" + name
		}
		files["9/repodata/"+name] = stored
		fmt.Fprintf(&b, "  <data type=%q><checksum type=%q>%s</checksum><location href=\"repodata/%s\"/><size>%d</size></data>\n",
			i.kind, algo, sum, name, len(stored))
	}
	b.WriteString("</repomd>\n")
	files["9/repodata/repomd.xml"] = []byte(b.String())
	return &formattest.Memory{Format: Format{}, Of: tree("9/repodata"), Files: files}
}

// rpmOf is a package of the repositories in these tests: NAME-[EPOCH:]VERSION-RELEASE.ARCH.
type rpmOf string

func (p rpmOf) parts() (name, epoch, version, release, arch string) {
	parts := strings.Split(parseNEVRA(string(p)), "\x00")
	name, version, arch = parts[0], parts[1], parts[2]
	version, release, _ = cutLast(version, "-")
	if e, v, ok := strings.Cut(version, ":"); ok {
		return name, e, v, release, arch
	}
	return name, "0", version, release, arch
}

func (p rpmOf) pkgid() string { return formattest.Digest("sha256", []byte(p)).Hex() }

func (p rpmOf) path() string {
	name, _, version, release, arch := p.parts()
	return fmt.Sprintf("Packages/%s-%s-%s.%s.rpm", name, version, release, arch)
}

// lists returns primary, filelists and other with these packages.
func lists(suffix string, packages ...rpmOf) []index {
	var primary, filelists, other strings.Builder
	for _, p := range packages {
		name, epoch, version, release, arch := p.parts()
		evr := fmt.Sprintf(`<version epoch=%q ver=%q rel=%q/>`, epoch, version, release)
		fmt.Fprintf(&primary, "<package type=\"rpm\">\n  <name>%s</name>\n  <arch>%s</arch>\n  %s\n", name, arch, evr)
		fmt.Fprintf(&primary, "  <checksum type=\"sha256\" pkgid=\"YES\">%s</checksum>\n  <summary>About %s &amp; more</summary>\n", p.pkgid(), name)
		fmt.Fprintf(&primary, "  <x:new kind='&lt;package>'/>\n  <size package=\"%d\" installed=\"9\"/>\n  <location href=%q/>\n", len(p), p.path())
		fmt.Fprintf(&primary, "  <format><rpm:license>MIT</rpm:license><rpm:vendor/><rpm:sourcerpm>%s-s-1-1.src.rpm</rpm:sourcerpm>\n", name)
		fmt.Fprintf(&primary, "  <rpm:provides><rpm:entry name=\"%s\"/><rpm:entry name=\"lib(x)\"/></rpm:provides></format>\n</package>\n", name)
		fmt.Fprintf(&filelists, "<package pkgid=%q name=%q arch=%q>\n  %s\n  <file>/usr/%s</file>\n</package>\n", p.pkgid(), name, arch, evr, name)
		fmt.Fprintf(&other, "<package pkgid=%q name=%q arch=%q>%s<changelog>%s</changelog></package>\n", p.pkgid(), name, arch, evr, name)
	}
	root := func(name, more, content string) string {
		return fmt.Sprintf("%s<%s xmlns=\"http://linux.duke.edu/metadata/%s\" %spackages=\"%d\">\n%s</%s>\n",
			xmlDeclaration, name, name, more, len(packages), content, name)
	}
	return []index{
		{"primary", "primary.xml" + suffix, root("metadata", `xmlns:rpm="http://linux.duke.edu/metadata/rpm" xmlns:x="urn:x" `, primary.String())},
		{"filelists", "filelists.xml" + suffix, root("filelists", "", filelists.String())},
		{"other", "other.xml" + suffix, root("otherdata", "", other.String())},
	}
}

// edited publishes what keep accepts of the names of packages, and returns the
// content of each record by its type.
func edited(t *testing.T, keep func(source int, nevra string) bool, sources ...*formattest.Memory) (map[string]string, *formattest.Memory) {
	t.Helper()
	out := &formattest.Publication{When: when}
	var contents []chantal.Contents
	for _, s := range sources {
		contents = append(contents, s)
	}
	roots, err := Format{}.Publish(contents, func(source int, p *chantal.Promise, _ func(string) string) (bool, error) {
		return keep(source, p.Package.Name+"-"+p.Package.Version+"."+p.Package.Arch), nil
	}, out)
	if err != nil {
		t.Fatal(err)
	}
	m, err := out.Of(Format{}, sources[0].Of, roots, contents...)
	if err != nil {
		t.Fatal(err)
	}
	return records(t, m), m
}

// records returns the content of each record by its type.
func records(t *testing.T, m *formattest.Memory) map[string]string {
	t.Helper()
	s, err := newSource(m, 0, "9")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range s.records {
		content, err := m.Open(r.at)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := got[r.Type]; twice {
			t.Errorf("there are two records %q", r.Type)
		}
		got[r.Type] = string(body)
	}
	return got
}

func everything(int, string) bool { return true }

// only accepts these packages, of whatever source.
func only(nevras ...string) func(int, string) bool {
	return func(_ int, nevra string) bool { return slices.Contains(nevras, nevra) }
}

var three = []rpmOf{"a-0:1-1.noarch", "b-2:1.0-3.x86_64", "c-0:3-1.x86_64"}

func TestPublishKeepsTheLaws(t *testing.T) {
	more := append(lists(".gz", append(three, "d-0:1-1.noarch", "e-0:1-1.noarch")...), index{"updateinfo", "updateinfo.xml.gz", advisories}, index{"modules", "modules.yaml.gz", streamsOf})
	formattest.TestPublisher(t, Format{}, repository(t, "sha256", true, more...))
	formattest.TestPublisher(t, Format{}, repository(t, "sha", false, lists("", three...)...))
	formattest.TestPublisher(t, Format{}, repository(t, "sha512", true, lists(".zst", three...)...))
	formattest.TestPublisher(t, Format{}, repository(t, "md5", false, lists(".xz", three...)...))
}

func TestHeldElementsStayAsTheyAre(t *testing.T) {
	got, _ := edited(t, only("b-2:1.0-3.x86_64"), repository(t, "sha256", true, lists(".gz", three...)...))
	want := map[string]string{}
	for _, i := range lists(".gz", "b-2:1.0-3.x86_64") {
		want[i.kind] = i.content
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Names, checksums and compression are upstream's; what nobody writes becomes
// gzip.
func TestPublishWritesInTheFormOfUpstream(t *testing.T) {
	for _, tc := range []struct {
		algo   string
		unique bool
		suffix string
		want   string // pattern of primary
	}{
		{"sha256", true, ".gz", "9/repodata/" + strings.Repeat("?", 64) + "-primary.xml.gz"},
		{"sha", true, ".gz", "9/repodata/" + strings.Repeat("?", 40) + "-primary.xml.gz"},
		{"sha512", true, ".zst", "9/repodata/" + strings.Repeat("?", 128) + "-primary.xml.zst"},
		{"sha256", false, ".xz", "9/repodata/primary.xml.xz"},
		{"sha1", false, "", "9/repodata/primary.xml"},
	} {
		source := repository(t, tc.algo, tc.unique, lists(tc.suffix, three...)...)
		_, m := edited(t, everything, source)
		at := m.Listed()[0]
		if ok, err := path.Match(tc.want, at.Path); !ok || err != nil {
			t.Errorf("got %s, want %s", at.Path, tc.want)
		}
		if got, want := at.Digests[0].Algo(), source.Listed()[0].Digests[0].Algo(); got != want {
			t.Errorf("%s is promised with %s, not %s", at.Path, got, want)
		}
		if want := fmt.Sprintf(`<checksum type=%q>`, tc.algo); !bytes.Contains(m.Files["9/repodata/repomd.xml"], []byte(want)) {
			t.Errorf("no %s in\n%s", want, m.Files["9/repodata/repomd.xml"])
		}
	}
	for base, want := range map[string]string{
		"primary.xml.bz2": "primary.xml.gz", "primary.xml.zck": "primary.xml.gz", "modules.yaml": "modules.yaml",
		"updateinfo.xml.xz": "updateinfo.xml.xz", "other": "other.gz", "x.lzma": "x.gz",
	} {
		name, suffix := compression(base)
		if base == "x.lzma" {
			want = "x.lzma.gz" // of which nothing says that it was compressed
		}
		if got := name + suffix; got != want {
			t.Errorf("%s becomes %s, want %s", base, got, want)
		}
	}
}

func TestWhatRepomdSaysOfItselfIsKept(t *testing.T) {
	_, m := edited(t, everything, repository(t, "sha256", true, lists(".gz", three...)...))
	body := string(m.Files["9/repodata/repomd.xml"])
	for _, want := range []string{
		"<revision>55</revision>", "<content>binary</content>", fmt.Sprintf("<timestamp>%d</timestamp>", when.Unix()),
		`<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	if m.Files["9/repodata/repomd.xml.asc"] == nil || m.Files["9/repodata/repomd.xml.key"] == nil {
		t.Errorf("there are the roots %q", slices.Collect(maps.Keys(m.Files)))
	}
	v, err := Format{}.Check(m.Of, map[string][]byte{"9/repodata/repomd.xml": []byte(body)}, nil, when)
	if err != nil || !v.Date.Equal(when) {
		t.Errorf("it says that it is of %v (%v)", v.Date, err)
	}
}

func TestRecordsThatNobodyKnows(t *testing.T) {
	a, b := three[0], three[1]
	source := repository(t, "sha256", true, append(lists(".gz", three...),
		index{"primary_db", "primary.sqlite", "all of them"}, index{"filelists_zck", "filelists.xml.zck", "all"},
		index{"prestodelta", "prestodelta.xml.gz", deltas}, index{"deltainfo", "deltainfo.xml", deltas},
		index{"group", "comps.xml", "<comps><group><id>g</id></group></comps>"}, index{"group_gz", "comps.xml.gz", "<comps/>"},
		index{"productid", "productid.txt", "nothing about packages"},
		index{"names-a", "by-name.txt", "see Packages/" + path.Base(a.path()) + " for more"},
		index{"names-b", "by-file.txt", "see\n\"" + path.Base(b.path()) + "\""},
		index{"ids-a", "by-id.txt.gz", "sha256:" + strings.ToUpper(a.pkgid())}, index{"ids-b", "ids.txt.xz", b.pkgid()},
	)...)
	got, _ := edited(t, only("a-1-1.noarch"), source)
	want := []string{"filelists", "group", "group_gz", "ids-a", "names-a", "other", "primary", "productid"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, _ = edited(t, everything, source)
	if got["ids-b"] == "" || got["names-b"] == "" || got["primary_db"] != "" {
		t.Errorf("with everything held there are %q", slices.Sorted(maps.Keys(got)))
	}
}

// A package that goes from one source and is held from another is not gone.
func TestRecordsAboutWhatAnotherSourceHas(t *testing.T) {
	a := three[0]
	first := repository(t, "sha256", true, append(lists(".gz", three...),
		index{"names", "names.txt", path.Base(a.path())}, index{"ids", "ids.txt", a.pkgid()})...)
	second := repository(t, "sha256", true, lists(".gz", three...)...)
	for _, sources := range [][]*formattest.Memory{{first, second}, {second, first}} {
		for held := range 2 {
			got, _ := edited(t, func(source int, _ string) bool { return source == held }, sources...)
			if got["names"] == "" || got["ids"] == "" {
				t.Errorf("held from source %d, there are %q", held, slices.Sorted(maps.Keys(got)))
			}
		}
	}
}

// An index that disagrees with primary says how many elements it has itself.
func TestTheCountIsTrue(t *testing.T) {
	all := lists(".gz", three...)
	all[1] = lists(".gz", three[:2]...)[1]
	got, _ := edited(t, everything, repository(t, "sha256", true, all...))
	if !strings.Contains(got["filelists"], `packages="2"`) || !strings.Contains(got["primary"], `packages="3"`) {
		t.Errorf("%.200s\n%.200s", got["filelists"], got["primary"])
	}
}

func TestSourcesArePutTogether(t *testing.T) {
	first := repository(t, "sha256", true, append(lists(".gz", "a-0:1-1.noarch", "b-0:1-1.noarch", "gone-0:1-1.noarch"), index{"mine", "mine.txt", "x"})...)
	last := repository(t, "sha512", true, lists(".xz", "b-0:1-1.noarch", "c-0:1-1.noarch")...)
	got, m := edited(t, func(source int, nevra string) bool { return source == 1 || nevra != "gone-1-1.noarch" }, first, last)
	for kind, want := range map[string]string{"primary": "metadata", "filelists": "filelists", "other": "otherdata"} {
		if n := strings.Count(got[kind], "<package "); n != 3 || !strings.Contains(got[kind], `packages="3"`) || strings.Contains(got[kind], "gone") {
			t.Errorf("%s has %d packages:\n%s", want, n, got[kind])
		}
	}
	if got["mine"] != "x" {
		t.Error("a record that only the first source has is lost")
	}
	if algo := m.Listed()[0].Digests[0].Algo(); algo != "sha512" {
		t.Errorf("checksums are %s, not those of the last source", algo)
	}
}

func TestFields(t *testing.T) {
	all := append(lists(".gz", three...), index{"modules", "modules.yaml", streamsOf})
	got := map[string]string{}
	_, err := Format{}.Publish([]chantal.Contents{repository(t, "sha256", true, all...)}, func(_ int, p *chantal.Promise, field func(string) string) (bool, error) {
		if p.Package.Name == "b" {
			for _, name := range []string{
				"summary", "license", "vendor", "sourcerpm", "source", "epoch", "version", "release", "size", "installed-size", "provides", "requires", "module", "buildtime",
			} {
				got[name] = field(name)
			}
		}
		return true, nil
	}, &formattest.Publication{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"summary": "About b & more", "license": "MIT", "vendor": "", "sourcerpm": "b-s-1-1.src.rpm", "source": "b-s", "epoch": "2", "version": "1.0", "release": "3",
		"size": "16", "installed-size": "9", "provides": "b, lib(x)", "requires": "", "module": "tools:1.10", "buildtime": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTreeinfoLosesTheChecksumsOfRepositories(t *testing.T) {
	const treeinfo = "[general]\nname = x\nrepository = repodata/repomd.xml\n[checksums]\nimages/boot.iso = sha256:00\n" +
		"AppStream/repodata/repomd.xml = sha256:11\nrepodata/repomd.xml = sha256:22\n[stage2]\nmainimage = images/install.img\n"
	m := &formattest.Memory{Format: Format{}, Of: installTree("."), Files: map[string][]byte{".treeinfo": []byte(treeinfo)}}
	got, err := Format{}.Publish([]chantal.Contents{m}, formattest.KeepAll, &formattest.Publication{})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(strings.Replace(treeinfo, "AppStream/repodata/repomd.xml = sha256:11\n", "", 1), "repodata/repomd.xml = sha256:22\n", "", 1)
	if diff := cmp.Diff(want, string(got[".treeinfo"])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
