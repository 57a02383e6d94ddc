package apt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"chantal"
	"chantal/plugins/formattest"

	"github.com/google/go-cmp/cmp"
)

func parse(path, content string) ([]chantal.Promise, error) {
	var promises []chantal.Promise
	for p, err := range new(Format).Parse(path, strings.NewReader(content)) {
		if err != nil {
			return promises, err
		}
		promises = append(promises, p)
	}
	return promises, nil
}

func digest(algo, c string, n int) chantal.Digest { return chantal.Digest(algo + ":" + hexes(c, n)) }

func TestParseYieldsWhatIsListed(t *testing.T) {
	const suite = "debian/dists/stable"
	hello := &chantal.Package{Name: "hello", Version: "1.0-1", Arch: "amd64", Section: "misc"}
	world := &chantal.Package{Name: "world", Version: "2:1~rc1", Arch: "all"}
	source := &chantal.Package{Name: "hello", Version: "1.0-1", Arch: "source", Section: "misc"}
	for _, test := range []struct {
		path, content string
		want          []chantal.Promise
	}{
		{suite + "/Release", releaseText(), []chantal.Promise{
			{Path: suite + "/main/binary-amd64/Packages", Kind: chantal.Meta, Size: 10,
				Alt:     suite + "/main/binary-amd64/by-hash/SHA256/" + hexes("a", 64),
				Digests: []chantal.Digest{digest("sha256", "a", 64), digest("md5", "1", 32)}},
			{Path: suite + "/main/i18n/Translation-en.bz2", Kind: chantal.Meta, Size: 20,
				Alt:     suite + "/main/i18n/by-hash/MD5Sum/" + hexes("2", 32),
				Digests: []chantal.Digest{digest("md5", "2", 32)}},
			{Path: suite + "/main/binary-amd64/Packages.diff/Index", Kind: chantal.Meta, Size: 40,
				Alt:     suite + "/main/binary-amd64/Packages.diff/by-hash/SHA256/" + hexes("b", 64),
				Digests: []chantal.Digest{digest("sha256", "b", 64)}},
		}},
		{"Release", "Suite: x\nSHA256:\n " + hexes("a", 64) + " 1 Packages\n", []chantal.Promise{
			{Path: "Packages", Kind: chantal.Meta, Size: 1, Digests: []chantal.Digest{digest("sha256", "a", 64)}}}},
		{suite + "/main/binary-amd64/Packages.zst", packagesText(), []chantal.Promise{
			{Path: "debian/pool/main/h/hello_1.0-1_amd64.deb", Kind: chantal.Artifact, Size: 1234, Package: hello,
				Digests: []chantal.Digest{digest("sha256", "a", 64), digest("md5", "1", 32)}},
			{Path: "debian/pool/w/world.deb", Kind: chantal.Artifact, Size: 5, Package: world,
				Digests: []chantal.Digest{digest("sha512", "b", 128)}},
		}},
		{suite + "/main/source/Sources.xz", sourcesText(), []chantal.Promise{
			{Path: "debian/pool/main/h/hello.dsc", Kind: chantal.Artifact, Size: 10, Package: source,
				Digests: []chantal.Digest{digest("sha256", "a", 64), digest("md5", "1", 32)}},
			{Path: "debian/pool/main/h/hello.tar.xz", Kind: chantal.Artifact, Size: 20, Package: source,
				Digests: []chantal.Digest{digest("sha256", "b", 64), digest("md5", "2", 32)}},
		}},
		{suite + "/main/binary-amd64/Packages.diff/Index", diffText(), []chantal.Promise{
			{Path: suite + "/main/binary-amd64/Packages.diff/T-1.gz", Kind: chantal.Meta, Size: 5,
				Digests: []chantal.Digest{digest("sha256", "3", 64)}}}},
	} {
		got, err := parse(test.path, test.content)
		if err != nil {
			t.Errorf("%s: %v", test.path, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.path, diff)
		}
	}
}

func TestFilesOfAFlatRepositoryAreFoundFromEveryBase(t *testing.T) {
	for _, test := range []struct {
		index, filename string
		want            []string
	}{
		{"Packages", "./x.deb", []string{"x.deb"}},                    // deb URI ./
		{"Packages", "amd64/x.deb", []string{"amd64/x.deb", "x.deb"}}, // deb URI amd64/, found by its root
		{"Packages", "a/b/x.deb", []string{"a/b/x.deb", "b/x.deb", "x.deb"}},
		{"d/e/Packages", "d/e/x.deb", []string{"d/e/x.deb"}},          // deb URI d/e/
		{"d/e/Packages", "e/x.deb", []string{"e/x.deb", "d/e/x.deb"}}, // the URI ends in d
		{"d/e/Packages", "./x.deb", []string{"x.deb", "d/e/x.deb"}},   // the URI ends in d/e
		{"d/e/Packages", "d/x.deb", []string{"d/x.deb", "d/e/d/x.deb"}},
		{"dists/s/Packages", "x.deb", []string{"x.deb"}}, // no flat one
	} {
		promises, err := parse(test.index, "Package: x\nFilename: "+test.filename+"\nSize: 1\n")
		if err != nil {
			t.Error(err)
		}
		var got []string
		for _, p := range promises {
			got = append(got, p.Path)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s, Filename: %s (-want +got):\n%s", test.index, test.filename, diff)
		}
	}
}

func TestFoldersThatNotAllFilesShareAreKept(t *testing.T) {
	names := func(files ...string) (got []string) {
		var content strings.Builder
		for _, f := range files {
			fmt.Fprintf(&content, "Package: x\nFilename: %s\nSize: 1\n\n", f)
		}
		promises, err := parse("Packages", content.String())
		if err != nil {
			t.Error(err)
		}
		for _, p := range promises {
			got = append(got, p.Path)
		}
		return got
	}
	if diff := cmp.Diff([]string{"amd64/x.deb", "all/y.deb"}, names("amd64/x.deb", "all/y.deb")); diff != "" {
		t.Errorf("two folders (-want +got):\n%s", diff)
	}
	want := []string{"d/a/x.deb", "d/y.deb", "d/ab/z.deb", "a/x.deb", "y.deb", "ab/z.deb"}
	if diff := cmp.Diff(want, names("d/a/x.deb", "./d/y.deb", "d/ab/z.deb")); diff != "" {
		t.Errorf("one folder with more in it (-want +got):\n%s", diff)
	}
}

func TestHostileIndexesAreErrors(t *testing.T) {
	const packages, sources = "dists/s/main/binary-amd64/Packages", "dists/s/main/source/Sources"
	hash := hexes("a", 64)
	for path, contents := range map[string][]string{
		packages: {
			"Package: x\nFilename: ../x\nSize: 1\n\n", "Package: x\nFilename: /x\nSize: 1\n\n", "Package: x\nFilename: pool/\x00\nSize: 1\n\n",
			"Package: x\nFilename: x\nSize: -1\n\n", "Package: x\nFilename: x\nSize: 99999999999999999999\n\n", "Package: x\nFilename: x\nSHA256: abc\n\n",
			"<html>\n", "Package: x\nFilename: " + strings.Repeat("x", maxValue+1) + "\n\n", "Filename: " + strings.Repeat("x", 2*bufferSize) + "\n\n",
			strings.Repeat("x", 1000) + ": y\n",
		},
		sources: {
			"Package: x\nDirectory: ..\nFiles:\n " + hexes("a", 32) + " 1 x\n\n", "Package: x\nDirectory: /etc\nFiles:\n " + hexes("a", 32) + " 1 x\n\n",
			"Package: x\nDirectory: pool\nFiles:\n " + hexes("a", 32) + " 1 ../x\n\n", "Package: x\nFiles:\n " + hexes("a", 32) + " 1 /x\n\n",
			"Package: x\nFiles:\n " + hexes("a", 32) + " x\n\n", "Package: x\nChecksums-Sha256:\n abc 1 x\n\n",
		},
		"dists/s/Release":                        {"Suite: s\nSHA256:\n " + hash + " 1 /x\n", "Suite: s\nSHA256:\n " + hash + " 1\n", "Suite: s\nSHA256:\n " + hash + " x y\n"},
		"dists/s/main/source/Sources.diff/Index": {"SHA256-Download:\n " + hash + " 1 ../../x.gz\n"},
		"dists/s/InRelease":                      {releaseText(), "<html>\n", ""},
	} {
		for _, content := range contents {
			if got, err := parse(path, content); err == nil {
				t.Errorf("%s with %.100q: got %v, want an error", path, content, got)
			}
		}
	}
}

func TestLongLinesThatNobodyNeedsAreSkipped(t *testing.T) {
	long := strings.Repeat("dependency, ", 100_000)
	got, err := parse("Packages", "Package: x\nDepends: "+long+"\n "+long+"\nFilename: x.deb\nSize: 1\n"+"Description: "+long+"\n\n")
	if err != nil || len(got) != 1 || got[0].Path != "x.deb" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = parse("Packages", "Package: x\nFilename: x.deb\nSize: 1\nDepends: "+long)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut in a long line: got %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

// manyPackages returns a Packages file of n packages like a distribution has.
func manyPackages(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "Package: package-%d\nSource: package\nVersion: 1:%d.0-1+deb12u3\nInstalled-Size: 1234\nMaintainer: Some Body <somebody@example.org>\n"+
			"Architecture: amd64\nDepends: %s\nDescription: a package\nHomepage: https://www.example.org/\nSection: libs\nPriority: optional\n"+
			"Filename: pool/main/p/package/package-%d_1.0-1+deb12u3_amd64.deb\nSize: %d\nMD5sum: %032x\nSHA256: %064x\n\n",
			i, i, strings.Repeat("libexample1 (>= 2.36), ", 15), i, i, i, i)
	}
	return b.Bytes()
}

func BenchmarkPackages(b *testing.B) {
	content := manyPackages(63_440)
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range new(Format).Parse("dists/stable/main/binary-amd64/Packages", bytes.NewReader(content)) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 63_440 {
			b.Fatalf("got %d promises", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("dists/s/Release", []byte(releaseText()))
	f.Add("dists/s/InRelease", []byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSuite: s\n-----BEGIN PGP SIGNATURE-----\n\n=aaaa\n-----END PGP SIGNATURE-----\n"))
	f.Add("dists/s/main/binary-amd64/Packages.xz", []byte(packagesText()))
	f.Add("d/e/Packages", []byte(packagesText()))
	f.Add("dists/s/main/source/Sources", []byte(sourcesText()))
	f.Add("flat/Sources.gz", []byte("Package: x\nDirectory: .\nFiles:\n "+hexes("a", 32)+" 1 x.dsc\n"))
	f.Add("dists/s/main/binary-amd64/Packages.diff/Index", []byte(diffText()))
	for _, name := range formattest.HostilePaths() {
		f.Add("Packages", []byte("Filename: "+name+"\nSize: 1\n"))
	}
	format := new(Format)
	f.Fuzz(func(t *testing.T, path string, content []byte) {
		if !formattest.ValidPath(path) {
			return // callers give clean paths
		}
		seq := format.Parse(path, bytes.NewReader(content))
		if seq == nil {
			return
		}
		for p, err := range seq {
			if err != nil {
				return
			}
			if err := formattest.CheckPromise(format, p); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzClassify(f *testing.F) {
	for _, p := range formattest.HostilePaths() {
		f.Add(p)
	}
	f.Add("dists/stable/updates/main/binary-amd64/by-hash/SHA256/" + hexes("a", 64))
	f.Add("dists/stable//Release.gpg")
	format := new(Format)
	f.Fuzz(func(t *testing.T, p string) {
		if err := formattest.CheckClassify(format, p); err != nil {
			t.Fatal(err)
		}
	})
}
