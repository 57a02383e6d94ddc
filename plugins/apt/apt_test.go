package apt

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"chantal"
	"chantal/plugins/formattest"

	"github.com/google/go-cmp/cmp"
)

// hexes returns a digest's worth of the digit c.
func hexes(c string, n int) string { return strings.Repeat(c, n) }

const releaseHead = `Origin: Example
Suite: stable
Date: Sat, 11 Jul 2026 10:16:37 UTC
Acquire-By-Hash: yes
Components: main
`

// releaseText lists three files, one of them by MD5 alone, and itself.
func releaseText() string {
	return releaseHead + "MD5Sum:\n" +
		" " + hexes("1", 32) + " 10 main/binary-amd64/Packages\n" +
		" " + hexes("2", 32) + "\t 20 ./main/i18n/Translation-en.bz2\n" +
		" " + hexes("3", 32) + " 30 Release\n" +
		"SHA256:\n" +
		" " + hexes("A", 64) + "       10 main/binary-amd64/Packages\n" +
		" " + hexes("a", 64) + "       10 main/binary-amd64/Packages\n" +
		" " + hexes("b", 64) + "       40 main/binary-amd64/Packages.diff/Index\n" +
		" " + hexes("c", 64) + "       50 InRelease\n"
}

func packagesText() string {
	return "Package: hello\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: A <a@example.org>\n" +
		"Description: greets\n very: politely\n .\n Filename: not this one\nSection: misc\n" +
		"Filename: pool/main/h/hello_1.0-1_amd64.deb\nSize: 1234\nMD5sum: " + hexes("1", 32) +
		"\nSHA256: " + hexes("A", 64) + "\n\n" +
		"Package: no-file\nVersion: 1\n\n\n" +
		"package: world\nVERSION: 2:1~rc1\nArchitecture: all\nFilename: ./pool//w/world.deb\r\nSize: 5\nSHA512: " + hexes("b", 128) + "\n"
}

func sourcesText() string {
	return "Package: hello\nBinary: hello\nVersion: 1.0-1\nSection: misc\nDirectory: pool/main/h\n" +
		"Package-List:\n hello deb misc optional arch=any\nFiles:\n " +
		hexes("1", 32) + " 10 hello.dsc\n " + hexes("2", 32) + " 20 hello.tar.xz\n" +
		"Checksums-Sha256:\n " + hexes("a", 64) + " 10 hello.dsc\n " + hexes("b", 64) + " 20 hello.tar.xz\n\n"
}

func diffText() string {
	return "SHA256-Current: " + hexes("0", 64) + " 99\nSHA256-History:\n " + hexes("1", 64) + " 98 T-1\n" +
		"SHA256-Patches:\n " + hexes("2", 64) + " 7 T-1\nSHA256-Download:\n " + hexes("3", 64) + " 5 T-1.gz\n"
}

func TestFormat(t *testing.T) {
	signed := clearsigned(t, newKey(t), releaseText())
	files := []formattest.File{
		{Path: "dists/stable/InRelease", Content: signed, Want: 3, Cuts: formattest.Cuts(signed, 40)},
		{Path: "dists/stable/Release", Content: []byte(releaseText()), Want: 3, Cuts: []int{3, 28, len(releaseText()) - 1}},
		{Path: "dists/stable/Release.gpg", Content: []byte("whatever")},
		{Path: "InRelease", Content: signed, Want: 3},
		{Path: "dists/stable/main/binary-amd64/Packages.xz", Content: []byte(packagesText()), Want: 2,
			Cuts: []int{5, 30, 60, 200, len(packagesText()) - 1}},
		{Path: "dists/stable/main/binary-amd64/Packages", Content: nil},
		{Path: "dists/stable/main/source/Sources.gz", Content: []byte(sourcesText()), Want: 2, Cuts: []int{5, 30, 100, len(sourcesText()) - 3}},
		{Path: "flat/Packages.gz", Content: []byte(packagesText()), Want: 4},
		{Path: "dists/stable/main/binary-amd64/Packages.diff/Index", Content: []byte(diffText()), Want: 1, Cuts: []int{5, len(diffText()) - 1}},
		{Path: "dists/stable/main/i18n/Translation-en.bz2", Content: []byte("Package: x\n")},
		{Path: "dists/stable/main/binary-amd64/Release", Content: []byte(releaseText())},
	}
	formattest.Test(t, new(Format), formattest.Fixtures{
		Files: files,
		Paths: []string{
			"dists/stable/by-hash/SHA256/" + hexes("a", 64), "dists/s/main/source/by-hash/MD5Sum/" + hexes("a", 32),
			"pool/main/h/hello_1.0.orig.tar.xz.asc", "a/b/./c//Release", "debian/dists/stable/updates/InRelease",
		},
		Hostile: func(name string) (string, []byte) {
			return "dists/stable/main/binary-amd64/Packages", fmt.Appendf(nil, "Package: x\nFilename: %s\nSize: 1\n\n", name)
		},
	})
}

func TestClassify(t *testing.T) {
	for p, want := range map[string]chantal.Kind{
		"dists/stable/Release.gpg":                           chantal.Root,
		"dists/stable/updates/InRelease":                     chantal.Root,
		"debian/dists/stable/Release":                        chantal.Root,
		"InRelease":                                          chantal.Root,
		"a/flat/Release":                                     chantal.Root,
		"dists/Release":                                      chantal.Root,
		"dists/stable/main/binary-amd64/Release":             chantal.Meta,
		"dists/stable/main/source/Release":                   chantal.Meta,
		"dists/stable/main/installer-amd64/x/Release":        chantal.Meta,
		"dists/s/main/debian-installer/binary-amd64/Release": chantal.Meta,
		"dists/stable/main/dep11/icons-64x64.tar.gz":         chantal.Meta,
		"dists/stable/main/Contents-amd64.gz":                chantal.Meta,
		"Packages.gz":                                        chantal.Meta,
		"flat/Sources":                                       chantal.Meta,
		"flat/Packages.diff/T-1.gz":                          chantal.Meta,
		"flat/Packages.txt":                                  chantal.Opaque,
		"flat/by-hash/SHA256/" + hexes("a", 64):              chantal.Meta,
		"flat/by-hash/SHA256/" + hexes("a", 63):              chantal.Opaque,
		"dists/stable/main/binary-amd64/old_1_all.deb":       chantal.Artifact,
		"pool/main/h/hello_1~rc+1_amd64.deb":                 chantal.Artifact,
		"pool/main/h/hello.ddeb":                             chantal.Artifact,
		"pool/main/h/hello.udeb":                             chantal.Artifact,
		"pool/main/h/hello.dsc":                              chantal.Artifact,
		"pool/main/h/hello.orig.tar.zst":                     chantal.Artifact,
		"pool/main/h/hello.orig.tar.gz.asc":                  chantal.Artifact,
		"pool/main/h/hello.diff.gz":                          chantal.Artifact,
		"project/trace/mirror.example.org":                   chantal.Opaque,
		"key.asc":                                            chantal.Opaque,
		"/etc/InRelease":                                     chantal.Opaque,
		"../InRelease":                                       chantal.Opaque,
		"a/InRelease/":                                       chantal.Opaque,
	} {
		if got := new(Format).Classify(p).Kind; got != want {
			t.Errorf("Classify(%q) is %v, want %v", p, got, want)
		}
	}
}

func TestClassifyNamesTheTree(t *testing.T) {
	for p, want := range map[string]chantal.Class{
		"dists/stable/updates//Release.gpg": {Kind: chantal.Root, Path: "dists/stable/updates/Release.gpg", Tree: chantal.Tree{
			Name: "dists/stable/updates", Roots: []string{"dists/stable/updates/InRelease", "dists/stable/updates/Release", "dists/stable/updates/Release.gpg"}}},
		"./Release": {Kind: chantal.Root, Path: "Release", Tree: chantal.Tree{Name: ".", Roots: []string{"InRelease", "Release", "Release.gpg"}}},
		"dists/s/by-hash/SHA1/" + hexes("a", 40): {Kind: chantal.Meta, Path: "dists/s/by-hash/SHA1/" + hexes("a", 40),
			Digest: chantal.Digest("sha1:" + hexes("a", 40))},
	} {
		if diff := cmp.Diff(want, new(Format).Classify(p)); diff != "" {
			t.Errorf("Classify(%q) (-want +got):\n%s", p, diff)
		}
	}
}

func TestLocate(t *testing.T) {
	const host = "http://mirror.example.org:8080"
	for target, want := range map[string][]chantal.Location{
		"/debian/dists/stable/updates/Release.gpg?x=1": {
			{Base: host + "/debian/", Root: "dists/stable/updates/InRelease", Path: "dists/stable/updates/Release.gpg"}},
		"/dists/stable/main/binary-amd64/Packages.xz": {
			{Base: host + "/", Root: "dists/stable/InRelease", Path: "dists/stable/main/binary-amd64/Packages.xz"},
			{Base: host + "/", Root: "dists/stable/main/InRelease", Path: "dists/stable/main/binary-amd64/Packages.xz"}},
		"/d//dists/./stable/main/source/Release": {
			{Base: host + "/d//", Root: "dists/stable/InRelease", Path: "dists/stable/main/source/Release"},
			{Base: host + "/d//", Root: "dists/stable/main/InRelease", Path: "dists/stable/main/source/Release"}},
		"/dists/stable/by-hash/SHA256/" + hexes("a", 64): {
			{Base: host + "/", Root: "dists/stable/InRelease", Path: "dists/stable/by-hash/SHA256/" + hexes("a", 64)}},
		"/a%2bb/flat/./Release":              {{Base: host + "/a%2bb/flat/./", Root: "InRelease", Path: "Release"}},
		"/InRelease":                         {{Base: host + "/", Root: "InRelease", Path: "InRelease"}},
		"/dists/InRelease":                   {{Base: host + "/dists/", Root: "InRelease", Path: "InRelease"}},
		"/debian/pool/main/h/hello.deb":      nil,
		"/dists/stable/":                     nil,
		"/debian/dists/../stable/InRelease":  nil,
		"/debian/dists/a%2f..%2fb/InRelease": nil,
		"/debian/dists/a%00/InRelease":       {},
	} {
		u, err := url.Parse("http://me:secret@mirror.example.org:8080" + target)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, new(Format).Locate(u, "")); diff != "" {
			t.Errorf("Locate(%q) (-want +got):\n%s", target, diff)
		}
	}
}
