package pypi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/plugins/formattest"
)

var (
	_ chantal.Format   = Format{}
	_ chantal.Locator  = Format{}
	_ chantal.Ingester = Format{}
	_ chantal.Renderer = Format{}
)

// Digests of no file in particular.
var (
	hexA = strings.Repeat("a", 64)
	hexB = strings.Repeat("b", 64)
	hexM = strings.Repeat("c", 64)
)

// fooBar is a page in the kept form with one of everything.
var fooBar = `{"meta":{"api-version":"1.4","_last-serial":7,"_internal":1,"x-meta":[1]},
 "name":"Foo.Bar","x-top":{"a":"}]\"{["},"_secret":2,
 "project-status":{"status":"archived","reason":"use <b> & co"},
 "files":[
  {"filename":"foo_bar-1.0-py3-none-any.whl","url":"https://files.example.org/p/a/foo_bar-1.0-py3-none-any.whl",
   "hashes":{"md5":"` + strings.Repeat("1", 32) + `","sha256":"` + hexA + `","blake2b_256":"` + hexB + `","sha9":"zz"},
   "requires-python":">=3.8,<4","size":1234,"upload-time":"2024-01-02T03:04:05.123456Z","yanked":"broken \"build\"",
   "data-dist-info-metadata":{"sha256":"` + hexB + `"},"core-metadata":{"sha256":"` + hexM + `"},
   "provenance":"https://index.example.org/integrity/foo-bar/1.0/x/provenance","x-file":null,"_own":1},
  {"filename":"foo-bar-2.0+local.1.tar.gz","url":"http://files.example.org:8080/p//b/foo-bar-2.0%2Blocal.1.tar.gz",
   "hashes":{},"size":99,"upload-time":"2025-06-01T00:00:00Z","yanked":false,"core-metadata":false,"gpg-sig":true},
  {"filename":"foo_bar-2.0-py3-none-any.whl","url":"https://Files.Example.org:443/q/foo_bar-2.0-py3-none-any.whl?sig=1",
   "hashes":{"sha256":"` + hexB + `"},"size":5,"upload-time":"2025-06-01T00:00:01Z","yanked":true,"core-metadata":true},
  {"filename":"foo_bar-3.0-py3-none-any.whl","url":"https://files.example.org/p/foo_bar-3.0-py3-none-any.whl",
   "hashes":{"sha512":"` + strings.Repeat("5", 128) + `"},"size":6,"dist-info-metadata":true}
 ],"versions":["1","2.0","2.0+local.1","3.0"]}`

func collect(t *testing.T, path, content string) []chantal.Promise {
	t.Helper()
	var all []chantal.Promise
	for p, err := range (Format{}).Parse(path, strings.NewReader(content)) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestSuite(t *testing.T) {
	empty := []byte(`{"meta":{"api-version":"1.0"},"name":"six","files":[]}`)
	formattest.Test(t, Format{}, formattest.Fixtures{
		Files: []formattest.File{
			{Path: "simple/foo-bar/", Content: []byte(fooBar), Want: 8, Cuts: formattest.Cuts([]byte(fooBar), 200)},
			{Path: "simple/six/", Content: empty, Want: 0, Cuts: formattest.Cuts(empty, 100)},
			{Path: "simple/", Content: []byte(`{"meta":{"api-version":"1.0"},"projects":[]}`), Want: 0},
		},
		Paths: []string{
			"simple/Foo_Bar", "six/", "simple/six/six-1.0.tar.gz", "packages/six-1.0-py3-none-any.whl",
			"+files/files.example.org:8443/p/six-1.0.tar.gz", "+files/-/[::1]:8443/six-1.0.tar.gz",
			"+files/sha256/" + hexA + "/files.example.org/p/six-1.0.tar.gz",
		},
		Hostile: func(name string) (string, []byte) {
			return "simple/six/", []byte(fmt.Sprintf(
				`{"meta":{"api-version":"1.0"},"name":"six","files":[{"filename":%s,"url":%s,"hashes":{},"core-metadata":true}]}`,
				appendString(nil, name), appendString(nil, "https://files.example.org/"+name)))
		},
	})
}

func TestClassify(t *testing.T) {
	root := func(path, tree string) chantal.Class {
		return chantal.Class{Kind: chantal.Root, Path: path, Trees: []string{tree},
			Tree: chantal.Tree{Name: tree, Roots: []string{path}}}
	}
	fooBar := root("simple/foo-bar/", "simple/foo-bar")
	opaque := func(path string) chantal.Class { return chantal.Class{Path: path} }
	sha := chantal.Digest("sha256:" + hexA)
	for path, want := range map[string]chantal.Class{
		"":                   root("simple/", "simple"),
		"simple":             root("simple/", "simple"),
		"simple/":            root("simple/", "simple"),
		"simple/foo-bar/":    fooBar,
		"simple/foo-bar":     fooBar,
		"simple/Foo_.Bar":    fooBar,
		"Foo.Bar/":           fooBar,
		"simple/simple/":     root("simple/simple/", "simple/simple"),
		"foo-bar":            opaque("foo-bar"),
		"simple/-x/":         opaque("simple/-x/"),
		"simple/é/":          opaque("simple/é/"),
		"simple/a b/":        opaque("simple/a b/"),
		"simple/six/x/":      opaque("simple/six/x/"),
		"simple/../six/":     opaque("simple/../six/"),
		"+files/":            opaque("+files/"),
		"+files/h":           opaque("+files/h"),
		"+files/h/":          opaque("+files/h/"),
		"+files/-/h/../x":    opaque("+files/-/h/../x"),
		"+files/../etc/x":    opaque("+files/../etc/x"),
		"+files/sha256/ab/h": opaque("+files/sha256/ab/h"),
		"+files/sha256/" + hexA + "/sha256/" + hexA + "/h/x.whl": opaque("+files/sha256/" + hexA + "/sha256/" + hexA + "/h/x.whl"),
		"+files/H.Example.org:443//a//six-1.0.tar.gz": {
			Kind: chantal.Artifact, Path: "+files/h.example.org/a/six-1.0.tar.gz", Trees: []string{"simple/six"}},
		"+files/-/h.example.org:8443/a/my-pkg-1.0+l.tar.gz": {
			Kind: chantal.Artifact, Path: "+files/h.example.org:8443/a/my-pkg-1.0+l.tar.gz",
			Trees: []string{"simple/my", "simple/my-pkg"}},
		"+files/sha256/" + strings.ToUpper(hexA) + "/h.example.org/a/My_Pkg-1.0-py3-none-any.whl": {
			Kind: chantal.Artifact, Path: "+files/h.example.org/a/My_Pkg-1.0-py3-none-any.whl", Digest: sha,
			Trees: []string{"simple/my-pkg"}},
		"+files/sha256/" + hexA + "/h.example.org/a/six-1.0-py3-none-any.whl.metadata": {
			Kind: chantal.Meta, Path: "+files/sha256/" + hexA + "/h.example.org/a/six-1.0-py3-none-any.whl.metadata",
			Trees: []string{"simple/six"}},
		"+files/-/h.example.org/a/six-1.0-py3-none-any.whl.metadata": {
			Kind: chantal.Meta, Path: "+files/h.example.org/a/six-1.0-py3-none-any.whl.metadata",
			Trees: []string{"simple/six"}},
		"+files/sha256/" + hexA + "/h.example.org/six-1.0.tar.gz.asc": {
			Kind: chantal.Meta, Path: "+files/h.example.org/six-1.0.tar.gz.asc", Trees: []string{"simple/six"}},
		"packages/source/s/six/six-1.0.tar.gz": {
			Kind: chantal.Artifact, Path: "packages/source/s/six/six-1.0.tar.gz", Trees: []string{"simple/six"}},
		"simple/six-1.0.tar.gz": {Kind: chantal.Artifact, Path: "simple/six-1.0.tar.gz", Trees: []string{"simple/six"}},
		"static/logo.png":       opaque("static/logo.png"),
	} {
		got := Format{}.Classify(path)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Classify(%q) (-want +got):\n%s", path, diff)
		}
	}
}

func TestParseYieldsFilesAndTheirSiblings(t *testing.T) {
	day := func(s string) time.Time {
		d, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	wheel := &chantal.Package{Name: "foo-bar", Version: "1.0", Uploaded: day("2024-01-02T03:04:05.123456Z")}
	sdist := &chantal.Package{Name: "foo-bar", Version: "2.0+local.1", Uploaded: day("2025-06-01T00:00:00Z")}
	last := &chantal.Package{Name: "foo-bar", Version: "3.0"}
	const (
		u1 = "https://files.example.org/p/a/foo_bar-1.0-py3-none-any.whl"
		u2 = "http://files.example.org:8080/p//b/foo-bar-2.0%2Blocal.1.tar.gz"
		p1 = "files.example.org/p/a/foo_bar-1.0-py3-none-any.whl"
		p2 = "+files/files.example.org:8080/p/b/foo-bar-2.0+local.1.tar.gz"
		u4 = "https://files.example.org/p/foo_bar-3.0-py3-none-any.whl"
		p4 = "+files/files.example.org/p/foo_bar-3.0-py3-none-any.whl"
	)
	digests := func(d ...string) (all []chantal.Digest) {
		for _, s := range d {
			all = append(all, chantal.Digest(s))
		}
		return all
	}
	want := []chantal.Promise{
		{Path: "+files/" + p1, URL: u1, Kind: chantal.Artifact, Size: 1234, Package: wheel,
			Digests: digests("sha256:"+hexA, "blake2b-256:"+hexB, "md5:"+strings.Repeat("1", 32))},
		{Path: "+files/" + p1 + ".metadata", URL: u1 + ".metadata", Kind: chantal.Meta, Size: -1, Package: wheel, Digests: digests("sha256:" + hexM)},
		{Path: "+files/sha256/" + hexA + "/" + p1 + ".metadata", URL: u1 + ".metadata", Kind: chantal.Meta, Size: -1, Package: wheel, Digests: digests("sha256:" + hexM)},
		{Path: p2, URL: u2, Kind: chantal.Artifact, Size: 99, Package: sdist},
		{Path: p2 + ".asc", URL: u2 + ".asc", Kind: chantal.Meta, Size: -1, Package: sdist},
		{Path: "+files/files.example.org/q/foo_bar-2.0-py3-none-any.whl", Kind: chantal.Artifact, Size: 5,
			URL:     "https://Files.Example.org:443/q/foo_bar-2.0-py3-none-any.whl?sig=1",
			Digests: digests("sha256:" + hexB),
			Package: &chantal.Package{Name: "foo-bar", Version: "2.0", Uploaded: day("2025-06-01T00:00:01Z")}},
		{Path: p4, URL: u4, Kind: chantal.Artifact, Size: 6, Package: last, Digests: digests("sha512:" + strings.Repeat("5", 128))},
		{Path: p4 + ".metadata", URL: u4 + ".metadata", Kind: chantal.Meta, Size: -1, Package: last},
	}
	if diff := cmp.Diff(want, collect(t, "simple/foo-bar/", fooBar)); diff != "" {
		t.Errorf("promises (-want +got):\n%s", diff)
	}
	for _, path := range []string{"simple/", "simple/Foo-Bar/", "simple/foo-bar", "x"} {
		if (Format{}).Parse(path, strings.NewReader(fooBar)) != nil {
			t.Errorf("Parse(%q) is not nil", path)
		}
	}
}

func TestAQuarantinedProjectOffersNoFiles(t *testing.T) {
	page := strings.Replace(fooBar, `"archived"`, `"quarantined"`, 1)
	if got := collect(t, "simple/foo-bar/", page); got != nil {
		t.Errorf("it promises %v", got)
	}
	for _, mediaType := range []string{jsonType, plainType} {
		got := render(t, page, mediaType, chantal.Rendering{Local: true})
		if strings.Contains(got, ".whl") || !strings.Contains(got, "quarantined") {
			t.Errorf("it renders as\n%s", got)
		}
	}
}

func TestCheck(t *testing.T) {
	tree := chantal.Tree{Name: "simple/foo-bar", Roots: []string{"simple/foo-bar/"}}
	v, err := Format{}.Check(tree, map[string][]byte{"simple/foo-bar/": []byte(fooBar), "x": nil}, nil, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	want := chantal.Verdict{Roots: tree.Roots, Rejected: map[string]string{"x": "not a root of this tree"}}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Errorf("verdict (-want +got):\n%s", diff)
	}
	all := chantal.Tree{Name: "simple", Roots: []string{"simple/"}}
	if _, err := (Format{}).Check(all, map[string][]byte{"simple/": []byte(`{"meta":{"api-version":"1.0"},"projects":[{"name":"six"}]}`)}, nil, time.Time{}); err != nil {
		t.Error(err)
	}
	file := func(f string) string {
		return `{"meta":{"api-version":"1.0"},"name":"foo-bar","files":[` + f + `]}`
	}
	for name, page := range map[string]string{
		"nothing":            "",
		"html":               "<html>",
		"an array":           "[]",
		"cut short":          fooBar[:len(fooBar)-1],
		"not UTF-8":          strings.Replace(fooBar, "archived", "\xff", 1),
		"no meta":            `{"name":"foo-bar","files":[]}`,
		"another major":      strings.Replace(fooBar, `"1.4"`, `"2.0"`, 1),
		"no version":         strings.Replace(fooBar, `"1.4"`, `1.4`, 1),
		"another project":    strings.Replace(fooBar, `"Foo.Bar"`, `"foobar"`, 1),
		"no files":           `{"meta":{"api-version":"1.0"},"name":"foo-bar"}`,
		"a list":             `{"meta":{"api-version":"1.0"},"projects":[]}`,
		"a file as a string": file(`"x"`),
		"no URL":             file(`{"filename":"foo_bar-1.tar.gz"}`),
		"a relative URL":     file(`{"filename":"foo_bar-1.tar.gz","url":"foo_bar-1.tar.gz"}`),
		"a file URL":         file(`{"filename":"foo_bar-1.tar.gz","url":"file:///etc/passwd"}`),
		"a way out":          file(`{"filename":"foo_bar-1.tar.gz","url":"https://files.example.org/../x"}`),
		"an escaped way out": file(`{"filename":"foo_bar-1.tar.gz","url":"https://files.example.org/%2e%2e/x"}`),
		"a name with a path": file(`{"filename":"../x.tar.gz","url":"https://files.example.org/x.tar.gz"}`),
		"a bad sha256":       file(`{"filename":"x.tar.gz","url":"https://files.example.org/x.tar.gz","hashes":{"sha256":"abc"}}`),
		"a reserved host":    file(`{"filename":"x.tar.gz","url":"https://sha256/` + hexA + `/x.tar.gz"}`),
		"too many keys":      file(`{` + strings.TrimSuffix(manyKeys(maxMembers+1), ",") + `}`),
	} {
		if _, err := (Format{}).Check(tree, map[string][]byte{"simple/foo-bar/": []byte(page)}, nil, time.Time{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := (Format{}).Check(tree, nil, nil, time.Time{}); err == nil {
		t.Error("no root at all: no error")
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d":0,`, i)
	}
	return b.String()
}
