package pypi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

func render(t *testing.T, page, mediaType string, o chantal.Rendering) string {
	t.Helper()
	got, err := Format{}.Render("simple/foo-bar/", []byte(page), mediaType, o)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// decode reads JSON for comparison.
func decode(t *testing.T, s string) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v in\n%s", err, s)
	}
	return v
}

func TestRenderJSON(t *testing.T) {
	want := `{"name":"Foo.Bar","x-top":{"a":"}]\"{["},"project-status":{"status":"archived","reason":"use <b> & co"},
 "files":[
  {"filename":"foo_bar-1.0-py3-none-any.whl","url":"../../+files/sha256/` + hexA + `/files.example.org/p/a/foo_bar-1.0-py3-none-any.whl",
   "hashes":{"md5":"` + strings.Repeat("1", 32) + `","sha256":"` + hexA + `","blake2b_256":"` + hexB + `","sha9":"zz"},
   "requires-python":">=3.8,<4","size":1234,"upload-time":"2024-01-02T03:04:05.123456Z","yanked":"broken \"build\"",
   "core-metadata":{"sha256":"` + hexM + `"},
   "provenance":"https://index.example.org/integrity/foo-bar/1.0/x/provenance","x-file":null},
  {"filename":"foo-bar-2.0+local.1.tar.gz","url":"../../+files/-/files.example.org:8080/p/b/foo-bar-2.0%2Blocal.1.tar.gz",
   "hashes":{},"size":99,"upload-time":"2025-06-01T00:00:00Z","yanked":false,"core-metadata":false,"gpg-sig":true},
  {"filename":"foo_bar-2.0-py3-none-any.whl","url":"../../+files/sha256/` + hexB + `/files.example.org/q/foo_bar-2.0-py3-none-any.whl",
   "hashes":{"sha256":"` + hexB + `"},"size":5,"upload-time":"2025-06-01T00:00:01Z","yanked":true,"core-metadata":false},
  {"filename":"foo_bar-3.0-py3-none-any.whl","url":"../../+files/-/files.example.org/p/foo_bar-3.0-py3-none-any.whl",
   "hashes":{"sha512":"` + strings.Repeat("5", 128) + `"},"size":6,"core-metadata":true}
 ],"versions":["1","2.0","2.0+local.1","3.0"],"meta":{"api-version":"1.4","_last-serial":7,"x-meta":[1]}}`
	got := render(t, fooBar, jsonType, chantal.Rendering{Local: true})
	if diff := cmp.Diff(decode(t, want), decode(t, got)); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	// With upstream's links nothing but the links differs.
	want = strings.NewReplacer(
		"../../+files/sha256/"+hexA+"/files", "https://files",
		"../../+files/-/files.example.org:8080/p/", "http://files.example.org:8080/p//",
		"../../+files/sha256/"+hexB+"/files.example.org/q/foo_bar-2.0-py3-none-any.whl", "https://Files.Example.org:443/q/foo_bar-2.0-py3-none-any.whl?sig=1",
		"../../+files/-/files.example.org/p/", "https://files.example.org/p/",
	).Replace(want)
	got = render(t, fooBar, jsonType, chantal.Rendering{})
	if diff := cmp.Diff(decode(t, want), decode(t, got)); diff != "" {
		t.Errorf("page with upstream's links (-want +got):\n%s", diff)
	}
}

func TestRenderHTML(t *testing.T) {
	want := `<!DOCTYPE html>
<html>
<head>
<meta name="pypi:repository-version" content="1.4">
<meta name="pypi:project-status" content="archived">
<meta name="pypi:project-status-reason" content="use &lt;b&gt; &amp; co">
<title>Links for Foo.Bar</title>
</head>
<body>
<h1>Links for Foo.Bar</h1>
<a href="../../+files/sha256/` + hexA + `/files.example.org/p/a/foo_bar-1.0-py3-none-any.whl#sha256=` + hexA + `"` +
		` data-requires-python="&gt;=3.8,&lt;4" data-yanked="broken &#34;build&#34;"` +
		` data-core-metadata="sha256=` + hexM + `" data-dist-info-metadata="sha256=` + hexM + `"` +
		` data-provenance="https://index.example.org/integrity/foo-bar/1.0/x/provenance"` +
		` data-upload-time="2024-01-02T03:04:05.123456Z" data-size="1234">foo_bar-1.0-py3-none-any.whl</a><br>
<a href="../../+files/-/files.example.org:8080/p/b/foo-bar-2.0%2Blocal.1.tar.gz" data-gpg-sig="true"` +
		` data-upload-time="2025-06-01T00:00:00Z" data-size="99">foo-bar-2.0+local.1.tar.gz</a><br>
<a href="../../+files/sha256/` + hexB + `/files.example.org/q/foo_bar-2.0-py3-none-any.whl#sha256=` + hexB + `"` +
		` data-yanked="" data-upload-time="2025-06-01T00:00:01Z" data-size="5">foo_bar-2.0-py3-none-any.whl</a><br>
<a href="../../+files/-/files.example.org/p/foo_bar-3.0-py3-none-any.whl#sha512=` + strings.Repeat("5", 128) + `"` +
		` data-core-metadata="true" data-dist-info-metadata="true" data-size="6">foo_bar-3.0-py3-none-any.whl</a><br>
</body>
</html>
<!--SERIAL 7-->
`
	for _, mediaType := range []string{htmlType, plainType} {
		got := render(t, fooBar, mediaType, chantal.Rendering{Local: true})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", mediaType, diff)
		}
	}
}

func TestEveryLocalLinkLeadsToItsPromise(t *testing.T) {
	promised := map[string]chantal.Promise{}
	for _, p := range collect(t, "simple/foo-bar/", fooBar) {
		promised[p.Path] = p
	}
	page := decode(t, render(t, fooBar, jsonType, chantal.Rendering{Local: true}))
	for _, f := range page["files"].([]any) {
		u := f.(map[string]any)["url"].(string)
		path := strings.ReplaceAll(strings.TrimPrefix(u, "../../"), "%2B", "+")
		c := Format{}.Classify(path)
		p, ok := promised[c.Path]
		if !ok || c.Digest != p.SHA256() {
			t.Errorf("the link %s is classified as %+v, and that promises %+v", u, c, p)
		}
		if f.(map[string]any)["core-metadata"] == false {
			continue
		}
		if c = (Format{}).Classify(path + ".metadata"); promised[c.Path].URL != p.URL+".metadata" {
			t.Errorf("the sibling of %s is classified as %+v, which is not promised", u, c)
		}
	}
}

// A wheel that was replaced under its name has another sibling, and clients
// with the old link must not get the new one.
func TestAMetadataSiblingBelongsToOneWheel(t *testing.T) {
	at := func(hex string) string {
		return (Format{}).Classify("+files/sha256/" + hex + "/h.example.org/x-1-py3-none-any.whl.metadata").Path
	}
	if at(hexA) == at(hexB) {
		t.Errorf("the siblings of two wheels are both at %s", at(hexA))
	}
}

func TestABackDatedPageHasTheFilesUploadedBefore(t *testing.T) {
	for _, test := range []struct {
		before   string
		files    []any
		versions []any
	}{
		{"2025-06-01T00:00:01Z", // strictly before
			[]any{"foo_bar-1.0-py3-none-any.whl", "foo-bar-2.0+local.1.tar.gz"}, []any{"1", "2.0+local.1"}},
		{"2025-06-01T00:00:00Z", []any{"foo_bar-1.0-py3-none-any.whl"}, []any{"1"}},
		{"2030-01-01T00:00:00Z", // what has no upload time never appears
			[]any{"foo_bar-1.0-py3-none-any.whl", "foo-bar-2.0+local.1.tar.gz", "foo_bar-2.0-py3-none-any.whl"},
			[]any{"1", "2.0", "2.0+local.1"}},
	} {
		before, err := time.Parse(time.RFC3339, test.before)
		if err != nil {
			t.Fatal(err)
		}
		o := chantal.Rendering{Local: true, Before: before}
		page := decode(t, render(t, fooBar, jsonType, o))
		var files []any
		for _, f := range page["files"].([]any) {
			files = append(files, f.(map[string]any)["filename"])
		}
		if diff := cmp.Diff(test.files, files); diff != "" {
			t.Errorf("before %s: files (-want +got):\n%s", test.before, diff)
		}
		if diff := cmp.Diff(test.versions, page["versions"].([]any)); diff != "" {
			t.Errorf("before %s: versions (-want +got):\n%s", test.before, diff)
		}
		text := render(t, fooBar, plainType, o)
		if got := strings.Count(text, "<a "); got != len(files) {
			t.Errorf("before %s: HTML has %d files, JSON %d", test.before, got, len(files))
		}
		if strings.Contains(text, "SERIAL") || strings.Contains(fmt.Sprint(page["meta"]), "serial") {
			t.Errorf("before %s: today's serial is on the page", test.before)
		}
	}
	for _, mediaType := range []string{jsonType, htmlType, plainType} {
		o := chantal.Rendering{Before: time.Date(2024, 1, 2, 3, 4, 5, 123456000, time.UTC)}
		if _, err := (Format{}).Render("simple/foo-bar/", []byte(fooBar), mediaType, o); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s with no file left: got %v", mediaType, err)
		}
		if _, err := (Format{}).Render("simple/", []byte(`{"meta":{"api-version":"1.0"},"projects":[]}`), mediaType, o); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s, the list of the past: got %v", mediaType, err)
		}
	}
}

func TestAPIVersionIsNeverAboveWhatIsServed(t *testing.T) {
	const frame = `{"meta":{"api-version":"%s"},"name":"foo-bar","files":[{"filename":"foo_bar-1.tar.gz","url":"https://files.example.org/foo_bar-1.tar.gz","hashes":{}%s}]%s}`
	for _, test := range []struct{ version, file, top, json, html string }{
		{"1.9", `,"size":1`, `,"versions":["1"]`, "1.4", "1.4"},
		{"1.1", `,"size":1`, `,"versions":["1"]`, "1.1", "1.1"},
		{"1.1", ``, `,"versions":["1"]`, "1.0", "1.1"},
		{"1.4", `,"size":1`, ``, "1.0", "1.4"},
		{"1.0", ``, ``, "1.0", "1.0"},
	} {
		page := fmt.Sprintf(frame, test.version, test.file, test.top)
		meta := decode(t, render(t, page, jsonType, chantal.Rendering{}))["meta"].(map[string]any)
		if got := meta["api-version"]; got != test.json {
			t.Errorf("JSON of %s claims %v, want %s", page, got, test.json)
		}
		if got := render(t, page, plainType, chantal.Rendering{}); !strings.Contains(got, `"pypi:repository-version" content="`+test.html+`"`) {
			t.Errorf("HTML of %s does not claim %s:\n%s", page, test.html, got)
		}
	}
}

func TestRenderTheList(t *testing.T) {
	root := []byte(`{"meta":{"api-version":"1.1","_last-serial":9},"projects":[{"name":"Foo.Bar","_last-serial":3},{"name":"<x>"},{"name":"six"}]}`)
	got, err := Format{}.Render("simple/", root, jsonType, chantal.Rendering{Local: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(decode(t, string(root)), decode(t, string(got))); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	if got, err = (Format{}).Render("simple/", root, plainType, chantal.Rendering{Local: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`<a href="foo-bar/">Foo.Bar</a>`, `<a href="six/">six</a>`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "<x>") {
		t.Errorf("a name that is none is in\n%s", got)
	}
}

func TestRenderRefusesOtherMediaTypes(t *testing.T) {
	for _, mediaType := range []string{"", "application/json", "text/plain"} {
		if _, err := (Format{}).Render("simple/foo-bar/", []byte(fooBar), mediaType, chantal.Rendering{}); err == nil {
			t.Errorf("%q: no error", mediaType)
		}
	}
}

// bigPage has about 10 MB and 18,000 files.
func bigPage() []byte {
	var b strings.Builder
	b.WriteString(`{"meta":{"_last-serial":25000000,"api-version":"1.4"},"name":"big","files":[`)
	for i := range 18000 {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, `{"core-metadata":{"sha256":"%064x"},"data-dist-info-metadata":{"sha256":"%064x"},`+
			`"filename":"big-%d.%d-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl","hashes":{"sha256":"%064x"},`+
			`"provenance":null,"requires-python":">=3.8","size":%d,"upload-time":"2024-03-01T10:%02d:00.123456Z",`+
			`"url":"https://files.example.org/packages/ab/cd/%060x/big-%d.%d-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl","yanked":false}`,
			i, i, i/10, i%10, i, i, i%60, i, i/10, i%10)
	}
	b.WriteString(`],"versions":["1.0"]}`)
	return []byte(b.String())
}

func BenchmarkRender(b *testing.B) {
	root := bigPage()
	for name, mediaType := range map[string]string{"json": jsonType, "html": plainType} {
		for _, o := range []chantal.Rendering{{Local: true}, {Before: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}} {
			b.Run(fmt.Sprintf("%s/before=%v", name, !o.Before.IsZero()), func(b *testing.B) {
				b.SetBytes(int64(len(root)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := (Format{}).Render("simple/big/", root, mediaType, o); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkParse(b *testing.B) {
	root := string(bigPage())
	b.SetBytes(int64(len(root)))
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range (Format{}).Parse("simple/big/", strings.NewReader(root)) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
