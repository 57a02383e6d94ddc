package apt

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/plugins/formattest"
)

var published = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// stanzaOf is a package in Packages; more are further lines.
func stanzaOf(name, version, arch string, more ...string) string {
	file := fmt.Sprintf("pool/%s_%s_%s.deb", name, version, arch)
	return fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nSection: misc\nMaintainer: A <a@example.org>\n%sFilename: %s\nSize: 10\nSHA256: %s\n\n",
		name, version, arch, strings.Join(more, ""), file, formattest.Digest("sha256", []byte(file)).Hex())
}

// sourceOf is a package in Sources.
func sourceOf(name, version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Package: %s\nVersion: %s\nDirectory: pool/%s\nChecksums-Sha256:\n", name, version, name)
	for _, ext := range []string{"dsc", "tar.xz"} {
		file := fmt.Sprintf("%s_%s.%s", name, version, ext)
		fmt.Fprintf(&b, " %s 10 %s\n", formattest.Digest("sha256", []byte(file)).Hex(), file)
	}
	return b.String() + "\n"
}

const bookworm = `Origin: Example
Label: Example
Suite: stable
Codename: bookworm
Version: 12.4
Date: Mon, 02 Nov 2026 10:00:00 UTC
Valid-Until: Mon, 09 Nov 2026 10:00:00 UTC
NotAutomatic: yes
ButAutomaticUpgrades: yes
Acquire-By-Hash: no
Signed-By: 0123456789ABCDEF
Snapshots: https://snapshot.example.org/@SNAPSHOTID@
Changelogs: https://changes.example.org/@CHANGEPATH@
No-Support-for-Architecture-all: Packages
Architectures: all amd64 arm64 riscv64
Components: main contrib updates/extra
Description: An example
 in two lines
`

// stored makes a generation of indexes, by name without a compression; all are
// listed plain and as .gz, and stored as .gz. Of those in listed nothing is
// stored.
func stored(t *testing.T, dir, head string, indexes map[string]string, listed ...string) *formattest.Memory {
	t.Helper()
	m := &formattest.Memory{Format: new(Format), Of: tree(dir), Files: map[string][]byte{}}
	var text strings.Builder
	text.WriteString(head + "SHA256:\n")
	list := func(name string, body []byte) {
		fmt.Fprintf(&text, " %s %d %s\n", formattest.Digest("sha256", body).Hex(), len(body), name)
	}
	for _, name := range slices.Sorted(maps.Keys(indexes)) {
		packed, err := formattest.Pack(".gz", []byte(indexes[name]))
		if err != nil {
			t.Fatal(err)
		}
		list(name, []byte(indexes[name]))
		list(name+".gz", packed)
		m.Files[path.Join(dir, name+".gz")] = packed
	}
	for _, name := range listed {
		list(name, []byte("what nobody fetched"))
	}
	m.Files[path.Join(dir, release)] = []byte(text.String())
	return m
}

// full is what most tests publish.
func full(t *testing.T) *formattest.Memory {
	t.Helper()
	return stored(t, "dists/stable", bookworm, map[string]string{
		"main/binary-amd64/Packages": stanzaOf("hello", "1", "amd64", "Description-md5: aa\n", "Source: greetings (1.0)\n") +
			stanzaOf("world", "2", "all", "Description-md5: bb\n") + stanzaOf("plain", "3", "amd64"),
		"main/binary-amd64/Release":                   "Archive: stable\n",
		"main/debian-installer/binary-amd64/Packages": "",
		"main/debian-installer/binary-arm64/Packages": "",
		// A component that nobody has fetched is not there for what is empty of it.
		"contrib/debian-installer/binary-amd64/Packages": "",
		// One of which all is empty is.
		"updates/extra/binary-amd64/Packages": "",
		"main/source/Sources":                 sourceOf("greetings", "1.0") + sourceOf("plain", "3"),
		"main/source/Release":                 "Archive: stable\n",
		"main/i18n/Translation-de": "Package: hello\nDescription-md5: aa\nDescription-de: hallo\n .\n mehr\n\n" +
			"Package: world\nDescription-md5: bb\nDescription-de: Welt\n\nPackage: plain\nDescription-md5: cc\nDescription-de: schlicht\n\n",
		"main/Contents-amd64":               "bin/hello misc/hello\n",
		"main/dep11/Components-amd64.yml":   "Package: hello\n",
		"main/cnf/Commands-amd64":           "name: hello\n",
		"main/binary-amd64/Packages.diff/x": "",
	}, "main/binary-arm64/Packages.xz", "main/binary-arm64/Release", "contrib/binary-amd64/Packages.xz", "contrib/i18n/Translation-de.xz")
}

// edited publishes sources and returns the plain indexes by name, and the text
// of the Release.
func edited(t *testing.T, keep chantal.Keep, sources ...*formattest.Memory) (map[string]string, string) {
	t.Helper()
	var all []chantal.Contents
	for _, s := range sources {
		all = append(all, s)
	}
	out := &formattest.Publication{When: published}
	dir := sources[0].Of.Name
	roots, err := new(Format).Publish(all, keep, out)
	if err != nil {
		t.Fatal(err)
	}
	if len(roots) != 3 {
		t.Fatalf("%d roots", len(roots))
	}
	m, err := out.Of(new(Format), tree(dir), roots)
	if err != nil {
		t.Fatal(err)
	}
	indexes := map[string]string{}
	for name, body := range m.Files {
		rel := strings.TrimPrefix(name, dir+"/")
		if plain, ok := strings.CutSuffix(rel, ".gz"); ok {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(body, m.Files[path.Join(dir, plain)]) {
				t.Errorf("%s is another file than %s", rel, plain)
			}
			continue
		}
		if new(Format).Classify(name).Kind != chantal.Root {
			indexes[rel] = string(body)
		}
	}
	for _, p := range m.Listed() {
		if p.Alt == "" || len(p.Digests) != 2 || p.Digests[0].Algo() != "sha512" {
			t.Errorf("%s: %+v", p.Path, p)
		}
	}
	return indexes, string(roots[path.Join(dir, release)])
}

func named(names ...string) chantal.Keep {
	return func(_ int, p *chantal.Promise, _ func(string) string) (bool, error) {
		return slices.Contains(names, p.Package.Name), nil
	}
}

func TestAnEditionHasWhatIsKeptAndNothingElse(t *testing.T) {
	got, text := edited(t, named("hello", "plain"), full(t))
	want := map[string]string{
		"main/binary-amd64/Packages": stanzaOf("hello", "1", "amd64", "Description-md5: aa\n", "Source: greetings (1.0)\n") + stanzaOf("plain", "3", "amd64"),
		"main/binary-amd64/Release": "Origin: Example\nLabel: Example\nArchive: stable\nCodename: bookworm\nVersion: 12.4\nNotAutomatic: yes\n" +
			"ButAutomaticUpgrades: yes\nAcquire-By-Hash: yes\nComponent: main\nArchitecture: amd64\n",
		"main/debian-installer/binary-amd64/Packages": "",
		"updates/extra/binary-amd64/Packages":         "",
		"main/source/Sources":                         sourceOf("plain", "3"),
		"main/source/Release": "Origin: Example\nLabel: Example\nArchive: stable\nCodename: bookworm\nVersion: 12.4\nNotAutomatic: yes\n" +
			"ButAutomaticUpgrades: yes\nAcquire-By-Hash: yes\nComponent: main\nArchitecture: source\n",
		"main/i18n/Translation-de": "Package: hello\nDescription-md5: aa\nDescription-de: hallo\n .\n mehr\n\n" +
			"Package: plain\nDescription-md5: cc\nDescription-de: schlicht\n\n", // its stanza has no sum
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	head, lists, _ := strings.Cut(text, "SHA256:\n")
	wantHead := `Origin: Example
Label: Example
Suite: stable
Codename: bookworm
Version: 12.4
NotAutomatic: yes
ButAutomaticUpgrades: yes
Changelogs: https://changes.example.org/@CHANGEPATH@
No-Support-for-Architecture-all: Packages
Architectures: all amd64
Components: main updates/extra
Description: An example
 in two lines
Date: Mon, 23 Nov 2026 12:00:00 UTC
Acquire-By-Hash: yes
`
	if d := gocmp.Diff(wantHead, head); d != "" {
		t.Error(d)
	}
	if n := strings.Count(lists, "main/binary-amd64/Packages.gz\n"); n != 2 {
		t.Errorf("listed %d times:\n%s", n, lists)
	}
}

func TestTheSameSourceGivesTheSameIndexes(t *testing.T) {
	first, text := edited(t, formattest.KeepAll, full(t))
	for range 5 {
		again, other := edited(t, formattest.KeepAll, full(t))
		if d := gocmp.Diff(first, again); d != "" || text != other {
			t.Fatal(d, gocmp.Diff(text, other))
		}
	}
	if n := strings.Count(first["main/binary-amd64/Packages"], "Package:"); n != 3 {
		t.Errorf("%d packages", n)
	}
}

func TestFieldsThatAFilterCanAskFor(t *testing.T) {
	var mu sync.Mutex
	got := map[string][]string{}
	_, _ = edited(t, func(_ int, p *chantal.Promise, field func(string) string) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		if p.Package.Name != "world" {
			got[p.Path] = []string{p.Package.Arch, field("source"), field("component"), field("maintainer"), field("none"), field("package")}
		}
		return true, nil
	}, full(t))
	want := map[string][]string{
		"pool/hello_1_amd64.deb":              {"amd64", "greetings", "main", "A <a@example.org>", "", "hello"},
		"pool/plain_3_amd64.deb":              {"amd64", "plain", "main", "A <a@example.org>", "", "plain"},
		"pool/greetings/greetings_1.0.dsc":    {"source", "greetings", "main", "", "", "greetings"},
		"pool/greetings/greetings_1.0.tar.xz": {"source", "greetings", "main", "", "", "greetings"},
		"pool/plain/plain_3.dsc":              {"source", "plain", "main", "", "", "plain"},
		"pool/plain/plain_3.tar.xz":           {"source", "plain", "main", "", "", "plain"},
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestValueOfAField(t *testing.T) {
	raw := []byte("Package: x\nDEPENDS: a,\n b\n\tc\nDescription: d\nDescription-md5:  e \nEmpty:\n")
	for name, want := range map[string]string{
		"package": "x", "depends": "a,\n b\n\tc", "description": "d", "description-md5": "e", "empty": "", "dep": "", "b": "", "c": "",
	} {
		if got := value(raw, name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestSourcesOfASuiteArePutTogether(t *testing.T) {
	const index = "main/binary-amd64/Packages"
	one := stored(t, "dists/stable", bookworm, map[string]string{
		index: stanzaOf("hello", "1", "amd64") + stanzaOf("same", "1", "all"), "main/i18n/Translation-de": "Package: hello\nDescription-md5: aa\nDescription-de: hallo\n\n",
	})
	two := stored(t, "dists/stable", strings.Replace(bookworm, "12.4", "12.5", 1), map[string]string{
		index: stanzaOf("same", "1", "all") + stanzaOf("hello", "2", "amd64"), "main/binary-arm64/Packages": stanzaOf("hello", "2", "arm64"),
	})
	var asked []int
	var mu sync.Mutex
	got, text := edited(t, func(source int, _ *chantal.Promise, _ func(string) string) (bool, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, source)
		return true, nil
	}, one, two)
	want := stanzaOf("hello", "1", "amd64") + stanzaOf("same", "1", "all") + stanzaOf("hello", "2", "amd64")
	if d := gocmp.Diff(want, got[index]); d != "" {
		t.Error(d)
	}
	if got["main/binary-arm64/Packages"] == "" || got["main/i18n/Translation-de"] == "" || !strings.Contains(text, "12.5") {
		t.Errorf("%v\n%s", got, text)
	}
	slices.Sort(asked)
	if d := gocmp.Diff([]int{0, 0, 1, 1, 1}, asked); d != "" {
		t.Error(d)
	}
}

func TestAFlatRepositoryIsPublished(t *testing.T) {
	for _, dir := range []string{".", "some/folder"} {
		m := stored(t, dir, "Origin: Flat\nDate: Mon, 02 Nov 2026 10:00:00 UTC\n", map[string]string{
			"Packages": stanzaOf("hello", "1", "amd64") + stanzaOf("other", "1", "amd64"), "Sources": sourceOf("hello", "1"),
			"en": "Package: hello\nDescription-md5: x\nDescription-en: y\n\n",
		})
		got, text := edited(t, named("hello"), m)
		if d := gocmp.Diff(stanzaOf("hello", "1", "amd64"), got["Packages"]); d != "" || got["Sources"] == "" || got["en"] == "" {
			t.Errorf("%s: %s %v", dir, d, got)
		}
		if strings.Contains(text, "Architectures") || !strings.HasPrefix(text, "Origin: Flat\n") {
			t.Errorf("%s: %s", dir, text)
		}
	}
}

func TestASuiteOfWhichNothingIsStoredIsLeftOut(t *testing.T) {
	m := stored(t, "dists/stable", bookworm, nil, "main/binary-amd64/Packages.xz", "main/binary-arm64/Packages")
	roots, err := new(Format).Publish([]chantal.Contents{m}, formattest.KeepAll, &formattest.Publication{})
	if err != nil || roots != nil {
		t.Errorf("%v %v", roots, err)
	}
}

func TestASuiteWithoutPackagesIsASuite(t *testing.T) {
	m := stored(t, "dists/stable", bookworm, map[string]string{"main/binary-amd64/Packages": "", "main/binary-arm64/Packages": ""})
	got, text := edited(t, formattest.KeepAll, m)
	if len(got) != 2 || !strings.Contains(text, "Architectures: all amd64 arm64\n") {
		t.Errorf("%v\n%s", got, text)
	}
}

func TestOddStanzas(t *testing.T) {
	long := "X: " + strings.Repeat("y", 2*bufferSize) + "\n"
	for what, c := range map[string]struct {
		index, want, say string
	}{
		"no Filename":           {index: "Package: virtual\nVersion: 1\n\n" + stanzaOf("hello", "1", "amd64"), want: stanzaOf("hello", "1", "amd64")},
		"no Architecture":       {index: strings.Replace(stanzaOf("hello", "1", "amd64"), "Architecture: amd64\n", "", 1), want: strings.Replace(stanzaOf("hello", "1", "amd64"), "Architecture: amd64\n", "", 1)},
		"twice":                 {index: stanzaOf("hello", "1", "amd64") + stanzaOf("hello", "1", "amd64"), want: stanzaOf("hello", "1", "amd64") + stanzaOf("hello", "1", "amd64")},
		"blank lines":           {index: "\n \n\n" + stanzaOf("hello", "1", "amd64") + "\n\n \n", want: stanzaOf("hello", "1", "amd64")},
		"no last line":          {index: strings.TrimSuffix(stanzaOf("hello", "1", "amd64"), "\n"), want: stanzaOf("hello", "1", "amd64")},
		"a comment":             {index: "# about\n" + stanzaOf("hello", "1", "amd64"), want: "# about\n" + stanzaOf("hello", "1", "amd64")},
		"carriage returns":      {index: strings.ReplaceAll(stanzaOf("hello", "1", "amd64"), "\n", "\r\n"), want: strings.TrimSuffix(strings.ReplaceAll(stanzaOf("hello", "1", "amd64"), "\n", "\r\n"), "\r\n") + "\n"},
		"a long line":           {index: stanzaOf("hello", "1", "amd64", long), say: "bytes"},
		"a huge stanza":         {index: stanzaOf("hello", "1", "amd64", strings.Repeat("X: "+strings.Repeat("y", 1000)+"\n", maxStanza/1000)), say: "stanza"},
		"a path out of it":      {index: strings.Replace(stanzaOf("hello", "1", "amd64"), "pool/", "../", 1), say: `package "hello"`},
		"an absolute path":      {index: strings.Replace(stanzaOf("hello", "1", "amd64"), "pool/", "/", 1), say: `package "hello"`},
		"a size that is none":   {index: strings.Replace(stanzaOf("hello", "1", "amd64"), "Size: 10", "Size: -1", 1), say: "size"},
		"a digest that is none": {index: strings.Replace(stanzaOf("hello", "1", "amd64"), "SHA256: ", "SHA256: x", 1), say: "digest"},
		"what is no field":      {index: "nothing\n\n", say: "no field"},
		"cut in a line":         {index: "Package: hel", say: "unexpected EOF"},
		"cut in a stanza":       {index: stanzaOf("a", "1", "all") + "Package: hello\n", say: `package "hello", the last one: unexpected EOF`},
	} {
		t.Run(what, func(t *testing.T) {
			m := stored(t, "dists/stable", bookworm, map[string]string{"main/binary-amd64/Packages": c.index})
			if c.say != "" {
				_, err := new(Format).Publish([]chantal.Contents{m}, formattest.KeepAll, &formattest.Publication{})
				if err == nil || !strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), "dists/stable/main/binary-amd64/Packages") {
					t.Errorf("%v", err)
				}
				return
			}
			got, _ := edited(t, formattest.KeepAll, m)
			if d := gocmp.Diff(c.want, got["main/binary-amd64/Packages"]); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestOddSources(t *testing.T) {
	for what, index := range map[string]string{
		"a path out of it": strings.Replace(sourceOf("x", "1"), "pool/x", "../x", 1),
		"a file out of it": strings.Replace(sourceOf("x", "1"), " x_1.dsc", " ../x_1.dsc", 1),
		"too many files":   "Package: x\nFiles:\n" + strings.Repeat(" "+hexes("a", 32)+" 1 f\n", 1) + manyFiles(),
	} {
		m := stored(t, "dists/stable", bookworm, map[string]string{"main/source/Sources": index})
		_, err := new(Format).Publish([]chantal.Contents{m}, formattest.KeepAll, &formattest.Publication{})
		if err == nil || !strings.Contains(err.Error(), "main/source/Sources") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func manyFiles() string {
	var b strings.Builder
	for i := range maxSourceFiles {
		fmt.Fprintf(&b, " %s 1 f%d\n", hexes("a", 32), i)
	}
	return b.String() + "\n"
}

func TestErrorsOfOthersEndAPublication(t *testing.T) {
	broken := errors.New("broken")
	_, err := new(Format).Publish([]chantal.Contents{full(t)}, func(int, *chantal.Promise, func(string) string) (bool, error) { return false, broken }, &formattest.Publication{})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	for allowed := range 6 {
		_, err := new(Format).Publish([]chantal.Contents{full(t)}, formattest.KeepAll, &formattest.Publication{Fails: broken, Allowed: allowed})
		if !errors.Is(err, broken) {
			t.Errorf("after %d writes: %v", allowed, err)
		}
	}
	m := full(t)
	m.Files["dists/stable/main/binary-amd64/Packages.gz"] = []byte("another file")
	if _, err := new(Format).Publish([]chantal.Contents{m}, formattest.KeepAll, &formattest.Publication{}); err == nil || !strings.Contains(err.Error(), "Packages.gz") {
		t.Error(err)
	}
	delete(m.Files, "dists/stable/"+release)
	m.Of.Roots = []string{"dists/stable/" + inRelease}
	if _, err := new(Format).Publish([]chantal.Contents{m}, formattest.KeepAll, &formattest.Publication{}); err == nil {
		t.Error("a tree without a Release was published")
	}
}

func TestAResignedReleaseSaysTheSame(t *testing.T) {
	m := full(t)
	body := m.Files["dists/stable/"+release]
	roots, err := new(Format).Resign(m.Of, map[string][]byte{"dists/stable/" + release: body}, published, &formattest.Publication{})
	if err != nil {
		t.Fatal(err)
	}
	want := string(body)
	for _, gone := range []string{"Valid-Until: Mon, 09 Nov 2026 10:00:00 UTC\n", "Signed-By: 0123456789ABCDEF\n", "Snapshots: https://snapshot.example.org/@SNAPSHOTID@\n"} {
		want = strings.Replace(want, gone, "", 1)
	}
	want = strings.Replace(want, "Mon, 02 Nov 2026 10:00:00 UTC", "Mon, 23 Nov 2026 12:00:00 UTC", 1)
	if d := gocmp.Diff(want, string(roots["dists/stable/"+release])); d != "" {
		t.Error(d)
	}
	// What was signed here can be signed again, and an InRelease alone will do.
	again, err := new(Format).Resign(m.Of, map[string][]byte{"dists/stable/" + inRelease: roots["dists/stable/"+inRelease]}, published, &formattest.Publication{})
	if err != nil || string(again["dists/stable/"+release]) != want {
		t.Error(err, gocmp.Diff(want, string(again["dists/stable/"+release])))
	}
	undated := strings.Replace(string(body), "Date: Mon, 02 Nov 2026 10:00:00 UTC\n", "", 1)
	roots, err = new(Format).Resign(m.Of, map[string][]byte{"dists/stable/" + release: []byte(undated)}, published, &formattest.Publication{})
	if err != nil || !strings.HasPrefix(string(roots["dists/stable/"+release]), "Date: Mon, 23 Nov 2026 12:00:00 UTC\nOrigin") {
		t.Errorf("%v %s", err, roots["dists/stable/"+release])
	}
	weak := "Origin: x\nMD5Sum:\n " + hexes("a", 32) + " 1 main/binary-amd64/Packages\n"
	for what, text := range map[string]string{"weak": weak, "none": "x", "empty": ""} {
		if _, err := new(Format).Resign(m.Of, map[string][]byte{"dists/stable/" + release: []byte(text)}, published, &formattest.Publication{}); err == nil {
			t.Errorf("%s is signed", what)
		}
	}
	if _, err := new(Format).Resign(m.Of, nil, published, &formattest.Publication{}); err == nil {
		t.Error("nothing is signed")
	}
}

func FuzzPublish(f *testing.F) {
	f.Add(stanzaOf("hello", "1", "amd64", "Description-md5: aa\n"), sourceOf("x", "1"), "Package: hello\nDescription-md5: aa\nDescription-de: y\n\n")
	f.Add("Package: a\nFilename: ./x\n\n", "\n", " \n")
	f.Fuzz(func(t *testing.T, packages, sources, words string) {
		m := stored(t, "dists/stable", bookworm, map[string]string{
			"main/binary-amd64/Packages": packages, "main/source/Sources": sources, "main/i18n/Translation-de": words,
		})
		out := &formattest.Publication{When: published}
		roots, err := new(Format).Publish([]chantal.Contents{m}, formattest.KeepAll, out)
		if err != nil || roots == nil {
			return
		}
		made, err := out.Of(new(Format), m.Of, roots)
		if err != nil {
			t.Fatal(err)
		}
		// What was published is no other than what clients were shown before.
		had := artifactsOf(t, m)
		for at, sum := range artifactsOf(t, made) {
			if cmp.Compare(had[at], sum) != 0 {
				t.Errorf("%s: %s, and was %q", at, sum, had[at])
			}
		}
	})
}

func artifactsOf(t *testing.T, m *formattest.Memory) map[string]string {
	all := map[string]string{}
	for _, p := range m.Listed() {
		if strings.HasSuffix(p.Path, ".gz") && m.Files[p.Path] != nil {
			for a, err := range m.Promises(p) {
				if err != nil {
					break // the last stanza may name no file
				}
				all[a.Path] = fmt.Sprint(a.Digests, a.Size)
			}
		}
	}
	return all
}
