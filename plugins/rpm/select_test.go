package rpm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/plugins/formattest"
)

// holding is a repository of the packages, each NAME-[EPOCH:]VERSION-RELEASE.ARCH,
// with documents about modules, each "NAME:STREAM:VERSION:CONTEXT PACKAGE…".
func holding(t *testing.T, packages string, streams ...string) chantal.Contents {
	t.Helper()
	var elements []string
	for _, s := range strings.Fields(packages) {
		rest, arch, _ := cutLast(s, ".")
		rest, release, _ := cutLast(rest, "-")
		name, version, _ := cutLast(rest, "-")
		epoch, ver, ok := strings.Cut(version, ":")
		if !ok {
			epoch, ver = "0", version
		}
		elements = append(elements, fmt.Sprintf(`<package type="rpm"><name>%s</name><arch>%s</arch><version epoch="%s" ver="%s" rel="%s"/>`+
			`<location href="%s"/></package>`, name, arch, epoch, ver, release, s+".rpm"))
	}
	yaml := ""
	for _, s := range streams {
		list := strings.Fields(s)
		nsvc := strings.Split(list[0], ":")
		yaml += fmt.Sprintf("---\ndocument: modulemd\nversion: 2\ndata:\n  name: %s\n  stream: \"%s\"\n  version: %s\n  context: %s\n  arch: x86_64\n  artifacts:\n    rpms:\n",
			nsvc[0], nsvc[1], nsvc[2], nsvc[3])
		for _, p := range list[1:] {
			yaml += "    - " + p + "\n"
		}
		yaml += "...\n"
	}
	m := &formattest.Memory{Format: Format{}, Of: tree("repodata"), Files: map[string][]byte{
		"repodata/repomd.xml": []byte(repomdOf(
			`<data type="primary"><location href="repodata/primary.xml"/></data>`,
			`<data type="primary_db"><location href="repodata/primary.sqlite.bz2"/></data>`,
			`<data type="productid"><location href="repodata/productid"/></data>`,
			`<data type="modules"><location href="repodata/modules.yaml"/></data>`)),
		"repodata/primary.xml": []byte(primaryOf(elements...)),
	}}
	if yaml != "" {
		m.Files["repodata/modules.yaml"] = []byte(yaml)
	}
	return m
}

// held returns what of c is held, without the suffix.
func held(t *testing.T, c chantal.Contents, sel chantal.Selection) []string {
	t.Helper()
	got, err := formattest.Select(Format{}, &sel, c)
	if err != nil {
		t.Fatalf("%+v: %v", sel, err)
	}
	var names []string
	for _, p := range got.Artifacts {
		names = append(names, strings.TrimSuffix(p.Path, ".rpm"))
	}
	return names
}

func TestEveryRecordIsHeld(t *testing.T) {
	groups, err := Format{}.Indexes(&chantal.Selection{Packages: []string{"nothing"}}, holding(t, ""))
	if err != nil || len(groups) != 4 {
		t.Errorf("got %v, %v", groups, err)
	}
}

func TestPackagesAreToldByName(t *testing.T) {
	c := holding(t, "bash-5.1.8-6.el9.x86_64 bash-doc-5.1.8-6.el9.noarch openssl-1:3.0.7-1.el9.x86_64 openssl-1:3.0.7-1.el9.i686 "+
		"java-11-openjdk-11.0.1-1.x86_64 gcc-c++-11-1.x86_64 htop-3-1.src htop-debuginfo-3-1.x86_64")
	for _, test := range []struct {
		packages, exclude, architectures string
		want                             string
	}{
		{"", "", "", "bash-5.1.8-6.el9.x86_64 bash-doc-5.1.8-6.el9.noarch openssl-1:3.0.7-1.el9.x86_64 openssl-1:3.0.7-1.el9.i686 " +
			"java-11-openjdk-11.0.1-1.x86_64 gcc-c++-11-1.x86_64 htop-3-1.src htop-debuginfo-3-1.x86_64"},
		{"", "*-debuginfo java*", "x86_64", "bash-5.1.8-6.el9.x86_64 bash-doc-5.1.8-6.el9.noarch openssl-1:3.0.7-1.el9.x86_64 gcc-c++-11-1.x86_64"},
		{"htop", "", "x86_64 src", "htop-3-1.src"},
		{"bash*", "", "", "bash-5.1.8-6.el9.x86_64 bash-doc-5.1.8-6.el9.noarch"},
		{"bash-*", "", "", "bash-doc-5.1.8-6.el9.noarch"},
		{"gcc-c++", "", "", "gcc-c++-11-1.x86_64"},
		// as rpm -qa writes them, with and without an architecture
		{"bash-5.1.8-6.el9.x86_64 gcc-c++-11-1", "", "", "bash-5.1.8-6.el9.x86_64 gcc-c++-11-1.x86_64"},
		{"openssl-3.0.7-1.el9.i686", "", "", "openssl-1:3.0.7-1.el9.i686"},
		{"openssl-1:3.0.7-1.el9.i686 1:openssl-3.0.7-1.el9.x86_64", "", "", "openssl-1:3.0.7-1.el9.x86_64 openssl-1:3.0.7-1.el9.i686"},
		{"openssl-0:3.0.7-1.el9 bash-0:5.1.8", "", "", "bash-5.1.8-6.el9.x86_64"},
		{"openssl-3.0.8 bash-5.1.8-7.el9 bash-5.1", "", "", ""},
		{"openssl.i686 *.noarch", "", "", "bash-doc-5.1.8-6.el9.noarch openssl-1:3.0.7-1.el9.i686"},
		{"openssl-3.0.*", "*.i686", "", "openssl-1:3.0.7-1.el9.x86_64"},
		{"java-11-openjdk", "", "", "java-11-openjdk-11.0.1-1.x86_64"},
		{"java-11-openjdk-11*", "", "", "java-11-openjdk-11.0.1-1.x86_64"},
		{"openssl", "openssl-1:3.0.7-1.el9.x86_64", "", "openssl-1:3.0.7-1.el9.i686"},
	} {
		got := held(t, c, chantal.Selection{Packages: strings.Fields(test.packages), Exclude: strings.Fields(test.exclude),
			Architectures: strings.Fields(test.architectures)})
		if diff := cmp.Diff(strings.Fields(test.want), got, cmp.Transformer("list", func(l []string) string { return strings.Join(l, " ") })); diff != "" {
			t.Errorf("%q without %q for %q (-want +got):\n%s", test.packages, test.exclude, test.architectures, diff)
		}
	}
	for _, sel := range []chantal.Selection{{Packages: []string{"["}}, {Exclude: []string{""}}, {Modules: []string{"a["}}, {Newest: -1}} {
		if _, err := (Format{}).Trees(&sel, nil); err == nil {
			t.Errorf("%+v is no error", sel)
		}
	}
}

func TestTheNewestAreOfEachNameAndArchitecture(t *testing.T) {
	c := holding(t, "a-1-9.x86_64 a-1-10.x86_64 a-1~rc1-1.x86_64 a-1-9.i686 a-0:1-1.i686 a-1:0-1.i686 b-1-1.noarch b-1-1.noarch")
	for n, want := range map[int]string{
		1: "a-1-10.x86_64 a-1:0-1.i686 b-1-1.noarch b-1-1.noarch",
		2: "a-1-9.x86_64 a-1-10.x86_64 a-1-9.i686 a-1:0-1.i686 b-1-1.noarch b-1-1.noarch",
		9: "a-1-9.x86_64 a-1-10.x86_64 a-1~rc1-1.x86_64 a-1-9.i686 a-0:1-1.i686 a-1:0-1.i686 b-1-1.noarch b-1-1.noarch",
	} {
		if diff := cmp.Diff(strings.Fields(want), held(t, c, chantal.Selection{Newest: n})); diff != "" {
			t.Errorf("%d (-want +got):\n%s", n, diff)
		}
	}
	got := held(t, c, chantal.Selection{Newest: 1, Exclude: []string{"a-1-10.x86_64"}})
	if want := "a-1-9.x86_64"; !slices.Contains(got, want) {
		t.Errorf("what is excluded counts: %s is not among %v", want, got)
	}
}

// Two streams of node, of one of which the newest build was made from an older
// version by mistake; and packages in no module, one of them newer than all.
const streamPackages = "node-18.1-1.x86_64 npm-8-1.x86_64 node-18.3-1.x86_64 npm-9-1.x86_64 node-18.2-1.x86_64 npm-9-2.x86_64 " +
	"node-20.1-1.x86_64 node-20.2-1.x86_64 node-22-1.x86_64 tool-1-1.x86_64 tool-2-1.x86_64"

var nodeStreams = []string{
	"node:18:1001:aa node-0:18.1-1.x86_64 npm-0:8-1.x86_64",
	"node:18:1002:aa node-0:18.3-1.x86_64 npm-0:9-1.x86_64 npm-debuginfo-0:9-1.x86_64",
	"node:18:1003:aa node-0:18.2-1.x86_64 npm-0:9-2.x86_64",
	"node:20:7:bb node-0:20.1-1.x86_64 tool-0:1-1.x86_64",
	"node:20:10:bb node-0:20.2-1.x86_64 tool-0:1-1.x86_64",
}

func TestBuildsOfModulesAreHeldWhole(t *testing.T) {
	c := holding(t, streamPackages, nodeStreams...)
	for _, test := range []struct {
		sel  chantal.Selection
		want string
	}{
		{chantal.Selection{Newest: 1}, // 18.3 and npm-9-2 are the newest of their stream: both builds
			"node-18.3-1.x86_64 npm-9-1.x86_64 node-18.2-1.x86_64 npm-9-2.x86_64 node-20.2-1.x86_64 node-22-1.x86_64 tool-1-1.x86_64 tool-2-1.x86_64"},
		{chantal.Selection{Newest: 1, Modules: []string{"node:20"}},
			"node-20.2-1.x86_64 node-22-1.x86_64 tool-1-1.x86_64 tool-2-1.x86_64"},
		{chantal.Selection{Newest: 2, Modules: []string{"node:18", "other"}},
			"node-18.3-1.x86_64 npm-9-1.x86_64 node-18.2-1.x86_64 npm-9-2.x86_64 node-22-1.x86_64 tool-2-1.x86_64"},
		{chantal.Selection{Modules: []string{"no*:18"}, Packages: []string{"node"}},
			"node-18.1-1.x86_64 node-18.3-1.x86_64 node-18.2-1.x86_64 node-22-1.x86_64"},
		{chantal.Selection{Modules: []string{"node"}, Packages: []string{"npm"}}, "npm-8-1.x86_64 npm-9-1.x86_64 npm-9-2.x86_64"},
		{chantal.Selection{Modules: []string{"none"}}, "node-22-1.x86_64 tool-2-1.x86_64"},
	} {
		if diff := cmp.Diff(strings.Fields(test.want), held(t, c, test.sel)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.sel, diff)
		}
	}
	damaged := holding(t, streamPackages, "node:18:1:aa &")
	if _, err := (Format{}).Artifacts(&chantal.Selection{Newest: 1}, damaged); err == nil {
		t.Error("modules that cannot be read are no error, and what belongs to one is not known")
	}
}

const treeinfo = `[header]
type = productmd.treeinfo
version = 1.2

[checksums]
images/boot.iso = sha256:` + hexA + `
images/pxeboot/vmlinuz = sha256:` + hexB + `
repodata/repomd.xml = sha256:` + hexB + `
../../AppStream/os/repodata/repomd.xml = sha256:` + hexB + `

[general]
; WARNING: this section is not supported
family = Example
timestamp = 1699000000
repository = .
variants = AppStream,BaseOS

[images-x86_64]
boot.iso = images/boot.iso
initrd = images/pxeboot/initrd.img

[stage2]
mainimage = images/install.img

[tree]
arch = x86_64
build_timestamp = 1699000000
variants = AppStream,BaseOS

[variant-AppStream]
packages = ../../../AppStream/x86_64/os/Packages
repository = ../../../AppStream/x86_64/os/

`

func TestATreeinfoIsARootWithImages(t *testing.T) {
	for dir, want := range map[string]chantal.Tree{
		"":      {Name: ".", Roots: []string{".treeinfo", "treeinfo"}},
		"9/os/": {Name: "9/os", Roots: []string{"9/os/.treeinfo", "9/os/treeinfo"}},
	} {
		for _, name := range []string{".treeinfo", "treeinfo"} {
			files := map[string][]byte{dir + name: []byte(treeinfo)}
			v, err := (Format{}).Check(want, files, nil, time.Now())
			if err != nil || v.Date.Unix() != 1699000000 || !slices.Equal(v.Roots, []string{dir + name}) {
				t.Errorf("%s%s: %+v, %v", dir, name, v, err)
			}
			c := &formattest.Memory{Format: Format{}, Of: want, Files: files}
			image := func(name string, digests ...chantal.Digest) chantal.Promise {
				return chantal.Promise{Path: dir + "images/" + name, Kind: chantal.Artifact, Digests: digests, Size: -1}
			}
			images := []chantal.Promise{image("boot.iso", "sha256:"+hexA), image("pxeboot/vmlinuz", "sha256:"+hexB),
				image("pxeboot/initrd.img"), image("install.img")}
			if diff := cmp.Diff(images, c.Listed()); diff != "" {
				t.Errorf("%s%s (-want +got):\n%s", dir, name, diff)
			}
			if got := held(t, c, chantal.Selection{Tree: true, Packages: []string{"htop"}}); len(got) != len(images) {
				t.Errorf("held are %v", got)
			}
			if got := held(t, c, chantal.Selection{}); got != nil {
				t.Errorf("held without being selected are %v", got)
			}
			if got := (Format{}).Closure(c.Listed()); got != nil {
				t.Errorf("freezing fetches images: %v", got)
			}
		}
	}
	for title, body := range map[string]string{"a page": "<html>", "nothing": "", "leaves": "[header]\n[stage2]\nmainimage = ../../x\n"} {
		files := map[string][]byte{".treeinfo": []byte(body)}
		if _, err := (Format{}).Check(installTree("."), files, nil, time.Now()); err == nil {
			t.Errorf("%s is a treeinfo", title)
		}
	}
}

func TestTreesAreTheRepositoryAndWhatItInstalls(t *testing.T) {
	for _, sel := range []chantal.Selection{{}, {Tree: true}} {
		trees, err := (Format{}).Trees(&sel, nil)
		if err != nil || trees[0].Name != "repodata" || (len(trees) == 2) != sel.Tree {
			t.Errorf("%+v: %v, %v", sel, trees, err)
		}
		if err := formattest.CheckSelection(Format{}, &sel, nil); err != nil {
			t.Error(err)
		}
	}
}

func FuzzTreeinfo(f *testing.F) {
	fuzzParse(f, ".treeinfo", treeinfo, "[checksums]\na = sha256:\n[general]\n")
}
