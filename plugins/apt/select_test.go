package apt

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"chantal"
	"chantal/plugins/formattest"

	"github.com/google/go-cmp/cmp"
)

// suite is a small Debian suite: what its Release lists, and the contents of
// those of its indexes that are stored.
type suite struct {
	dir     string
	head    string // fields of the Release
	listed  string // names, each on a line
	indexes map[string]string
}

func (s suite) contents(t *testing.T) chantal.Contents {
	t.Helper()
	m := &formattest.Memory{Format: new(Format), Of: tree(s.dir), Files: map[string][]byte{}}
	release := "Origin: Example\n" + s.head + "SHA256:\n"
	for _, name := range strings.Fields(s.listed) {
		hex, size := hexes("a", 64), 10
		if content, ok := s.indexes[name]; ok {
			stored, err := formattest.Pack(path.Ext(name), []byte(content))
			if err != nil {
				t.Fatal(err)
			}
			hex, size = formattest.Digest("sha256", stored).Hex(), len(stored)
			m.Files[path.Join(s.dir, name)] = stored
		}
		release += fmt.Sprintf(" %s %d %s\n", hex, size, name)
	}
	m.Files[m.Of.Roots[1]] = []byte(release)
	return m
}

const debian = `
	main/binary-amd64/Packages main/binary-amd64/Packages.gz main/binary-amd64/Packages.xz main/binary-amd64/Release
	main/binary-amd64/Packages.diff/Index main/binary-arm64/Packages.xz main/binary-all/Packages.xz
	main/source/Sources.xz main/source/Sources.gz main/source/Release
	main/i18n/Translation-en.xz main/i18n/Translation-de.xz main/i18n/Translation-de.bz2
	main/debian-installer/binary-amd64/Packages.gz main/debian-installer/binary-amd64/Release
	main/installer-amd64/current/images/SHA256SUMS main/installer-amd64/current/images/MD5SUMS
	main/installer-amd64/20260101/images/SHA256SUMS main/installer-arm64/current/images/SHA256SUMS
	main/Contents-amd64.gz main/Contents-all.gz main/Contents-udeb-amd64.gz main/Contents-source.gz Contents-amd64.gz
	main/dep11/Components-amd64.yml.xz main/dep11/Components-arm64.yml.xz main/dep11/icons-64x64.tar.gz main/dep11/by-hash
	main/dep11/CID-Index-amd64.json.gz main/cnf/Commands-amd64.xz
	contrib/debug/binary-amd64/Packages.lzma contrib/debug/binary-amd64/Packages.lz4 contrib/debug/binary-amd64/Packages.zst
	README`

func TestIndexesAreWhatAptAsksFor(t *testing.T) {
	main := &chantal.Selection{Components: []string{"main"}, Architectures: []string{"amd64"}}
	with := func(change func(*chantal.Selection)) *chantal.Selection {
		sel := *main
		change(&sel)
		return &sel
	}
	always := []string{
		"main/binary-amd64/Packages.xz Packages.gz Packages", "main/binary-amd64/Release", "main/binary-all/Packages.xz",
		"main/i18n/Translation-en.xz", "main/dep11/Components-amd64.yml.xz", "main/dep11/icons-64x64.tar.gz",
		"main/cnf/Commands-amd64.xz",
	}
	for _, test := range []struct {
		what string
		head string
		sel  *chantal.Selection
		also []string // beside always
		less []string // of always
	}{
		{what: "nothing special", sel: main},
		{what: "no use of binary-all", head: "No-Support-for-Architecture-all: Packages\n", sel: main,
			less: []string{"main/binary-all/Packages.xz"}},
		{what: "sources", sel: with(func(s *chantal.Selection) { s.Sources = true }),
			also: []string{"main/source/Sources.xz Sources.gz", "main/source/Release"}},
		{what: "German", sel: with(func(s *chantal.Selection) { s.Languages = []string{"de"} }),
			also: []string{"main/i18n/Translation-de.xz Translation-de.bz2"}, less: []string{"main/i18n/Translation-en.xz"}},
		{what: "all languages", sel: with(func(s *chantal.Selection) { s.Languages = []string{"all"} }),
			also: []string{"main/i18n/Translation-de.xz Translation-de.bz2"}},
		{what: "no language", sel: with(func(s *chantal.Selection) { s.Languages = []string{"none"} }),
			less: []string{"main/i18n/Translation-en.xz"}},
		{what: "the installer's packages", sel: with(func(s *chantal.Selection) { s.Udebs = true }),
			also: []string{"main/debian-installer/binary-amd64/Packages.gz", "main/debian-installer/binary-amd64/Release"}},
		{what: "the installer's images", sel: with(func(s *chantal.Selection) { s.Installer = true }),
			also: []string{"main/installer-amd64/current/images/SHA256SUMS"}},
		{what: "contents", sel: with(func(s *chantal.Selection) { s.Contents = true }),
			also: []string{"main/Contents-amd64.gz", "main/Contents-all.gz", "Contents-amd64.gz"}},
		{what: "contents of everything", sel: with(func(s *chantal.Selection) { s.Contents, s.Sources, s.Udebs = true, true, true }),
			also: []string{"main/source/Sources.xz Sources.gz", "main/source/Release",
				"main/debian-installer/binary-amd64/Packages.gz", "main/debian-installer/binary-amd64/Release",
				"main/Contents-amd64.gz", "main/Contents-all.gz", "main/Contents-udeb-amd64.gz", "main/Contents-source.gz", "Contents-amd64.gz"}},
		{what: "another architecture", sel: with(func(s *chantal.Selection) { s.Architectures = []string{"amd64", "arm64"} }),
			also: []string{"main/binary-arm64/Packages.xz", "main/dep11/Components-arm64.yml.xz"}},
		{what: "every architecture and component", sel: &chantal.Selection{},
			also: []string{"main/binary-arm64/Packages.xz", "main/dep11/Components-arm64.yml.xz",
				"contrib/debug/binary-amd64/Packages.lzma Packages.zst Packages.lz4"}},
		{what: "a component with a slash", sel: with(func(s *chantal.Selection) { s.Components = []string{"contrib/debug"} }),
			also: []string{"contrib/debug/binary-amd64/Packages.lzma Packages.zst Packages.lz4"}, less: always},
	} {
		for _, dir := range []string{"dists/stable/updates", "debian/dists/stable"} {
			c := suite{dir: dir, head: test.head, listed: debian}.contents(t)
			groups, err := new(Format).Indexes(test.sel, c)
			if err != nil {
				t.Errorf("%s: %v", test.what, err)
				continue
			}
			want := make(map[string]bool)
			for _, name := range always {
				want[name] = true
			}
			for _, name := range test.also {
				want[name] = true
			}
			for _, name := range test.less {
				delete(want, name)
			}
			got := make(map[string]bool)
			for _, group := range groups {
				name := strings.TrimPrefix(group[0].Path, dir+"/")
				for _, p := range group[1:] {
					name += p.Path[strings.LastIndexByte(p.Path, '/'):]
				}
				got[name] = true
			}
			if diff := cmp.Diff(spaced(want), got); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", dir, test.what, diff)
			}
			if _, err := formattest.Select(new(Format), test.sel, c); err != nil {
				t.Errorf("%s: %v", test.what, err)
			}
		}
	}
}

// spaced writes the further files of a group as they are got.
func spaced(groups map[string]bool) map[string]bool {
	got := make(map[string]bool)
	for name := range groups {
		got[strings.ReplaceAll(name, " ", "/")] = true
	}
	return got
}

func TestASuiteWithoutAnythingSelectedIsAnError(t *testing.T) {
	c := suite{dir: "dists/stable", listed: debian}.contents(t)
	_, err := new(Format).Indexes(&chantal.Selection{Components: []string{"mian"}}, c)
	const want = "dists/stable has nothing of what is selected; it has the components main, contrib/debug and the architectures amd64, arm64, all"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestSuitesAreWhatSourcesListHas(t *testing.T) {
	for suite, want := range map[string]string{
		"bookworm":              "dists/bookworm",
		"stable/updates":        "dists/stable/updates",
		"./":                    ".",
		"/":                     ".",
		"amd64/":                "amd64",
		"./a/b/":                "a/b",
		"dists/bookworm":        "dists/bookworm",
		"debian/dists/bookworm": "debian/dists/bookworm",
		"../x":                  "",
		"../":                   "",
		"":                      "",
		"/etc":                  "",
	} {
		got := ""
		trees, err := new(Format).Trees(&chantal.Selection{Suites: []string{suite, suite}}, nil)
		if err == nil && len(trees) == 1 {
			got = trees[0].Name
		}
		if got != want {
			t.Errorf("the suite %q is %q (%v), want %q", suite, got, err, want)
		}
		if err := formattest.CheckSelection(new(Format), &chantal.Selection{Suites: []string{suite}}, nil); err != nil {
			t.Error(err)
		}
	}
	if _, err := new(Format).Trees(&chantal.Selection{}, nil); err == nil {
		t.Error("without a suite there is nothing to hold, and no error")
	}
	if _, err := new(Format).Trees(&chantal.Selection{Suites: []string{"x"}, Exclude: []string{"[a"}}, nil); err == nil {
		t.Error("a glob that is none is no error")
	}
}

// deb is a stanza of Packages.
func deb(name, arch, source string) string {
	if source != "" {
		source = "Source: " + source + "\n"
	}
	return fmt.Sprintf("Package: %s\n%sArchitecture: %s\nVersion: 1\nFilename: pool/%s_%s.deb\nSize: 1\n\n", name, source, arch, name, arch)
}

func dsc(name string) string {
	return fmt.Sprintf("Package: %s\nVersion: 1\nDirectory: pool\nChecksums-Sha256:\n %s 1 %s.dsc\n\n", name, hexes("a", 64), name)
}

func TestPackagesAreToldByNameAndArchitecture(t *testing.T) {
	small := suite{
		dir: "dists/stable",
		listed: `main/binary-amd64/Packages.gz main/binary-i386/Packages.gz main/binary-amd64/Packages.xz main/source/Sources.gz
			main/installer-amd64/current/images/SHA256SUMS`,
		indexes: map[string]string{
			"main/binary-amd64/Packages.gz": deb("nginx", "amd64", "") + deb("nginx-doc", "all", "nginx") + deb("libc6", "amd64", "glibc (2.36-9)") +
				deb("zlib1g", "amd64", "zlib"),
			"main/binary-i386/Packages.gz":                   deb("nginx", "i386", "") + deb("libc6", "i386", "glibc (2.36-9)") + deb("nginx-doc", "all", "nginx"),
			"main/source/Sources.gz":                         dsc("nginx") + dsc("glibc") + dsc("zlib") + dsc("nginx-extra-src"),
			"main/installer-amd64/current/images/SHA256SUMS": hexes("b", 64) + "  ./netboot/mini.iso\n" + hexes("c", 64) + " *cdrom/vmlinuz\n",
		},
	}.contents(t)
	amd64 := []string{"amd64"}
	for _, test := range []struct {
		sel  chantal.Selection
		want string
	}{
		{chantal.Selection{Architectures: amd64}, "nginx_amd64.deb nginx-doc_all.deb libc6_amd64.deb zlib1g_amd64.deb"},
		{chantal.Selection{Packages: []string{"nginx*"}}, "nginx_amd64.deb nginx-doc_all.deb nginx_i386.deb nginx-doc_all.deb"},
		{chantal.Selection{Packages: []string{"nginx*", "libc6:i386"}, Exclude: []string{"*-doc"}}, "nginx_amd64.deb nginx_i386.deb libc6_i386.deb"},
		{chantal.Selection{Packages: []string{"libc6:any"}, Exclude: []string{"*:i386"}}, "libc6_amd64.deb"},
		{chantal.Selection{Packages: []string{"nginx-doc:arm64"}, Architectures: amd64}, "nginx-doc_all.deb"},
		{chantal.Selection{Architectures: amd64, Packages: []string{"libc6", "nginx-extra-src"}, Sources: true},
			"libc6_amd64.deb glibc.dsc nginx-extra-src.dsc"},
		{chantal.Selection{Architectures: amd64, Packages: []string{"libc6:amd64"}, Sources: true, Exclude: []string{"glibc"}}, "libc6_amd64.deb"},
		{chantal.Selection{Architectures: amd64, Exclude: []string{"[!n]*", "nginx:amd64"}, Sources: true}, "nginx-doc_all.deb nginx.dsc nginx-extra-src.dsc"},
		{chantal.Selection{Architectures: amd64, Packages: []string{"zlib1g"}, Installer: true},
			"zlib1g_amd64.deb netboot/mini.iso cdrom/vmlinuz"},
	} {
		selected, err := formattest.Select(new(Format), &test.sel, small)
		if err != nil {
			t.Errorf("%+v: %v", test.sel, err)
			continue
		}
		var got []string
		for _, p := range selected.Artifacts {
			name := strings.TrimPrefix(p.Path, "pool/")
			got = append(got, strings.TrimPrefix(name, "dists/stable/main/installer-amd64/current/images/"))
		}
		if diff := cmp.Diff(strings.Fields(test.want), got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.sel, diff)
		}
	}
}

func TestAFlatRepositoryIsSelectedByArchitecture(t *testing.T) {
	c := suite{dir: ".", listed: "Packages.gz Packages Sources.gz Contents-amd64.gz en.gz de.gz Release key.asc",
		indexes: map[string]string{"Packages": deb("a", "amd64", "") + deb("b", "i386", "") + deb("c", "all", "")}}.contents(t)
	got, err := formattest.Select(new(Format), &chantal.Selection{Architectures: []string{"amd64"}, Components: []string{"main"}}, c)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, p := range append(got.Indexes, got.Artifacts...) {
		if !strings.HasPrefix(p.Path, "pool/") || p.Package == nil { // found again below the folder that all share
			paths = append(paths, p.Path)
		}
	}
	want := []string{"Packages", "en.gz", "a_amd64.deb", "c_all.deb"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Error(diff)
	}
}
