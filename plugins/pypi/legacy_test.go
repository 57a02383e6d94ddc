package pypi

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"chantal"

	"github.com/google/go-cmp/cmp"
)

// released is a page with two releases and a candidate for a third.
var released = `{"meta":{"api-version":"1.4","_last-serial":77},"name":"Foo.Bar","versions":["0.9","1.0","2.0rc1"],"files":[
 {"filename":"foo_bar-1.0-py3-none-any.whl","url":"https://files.example.org/a/foo_bar-1.0-py3-none-any.whl","hashes":{"sha256":"` + hexA + `"},
  "requires-python":">=3.8","size":10,"upload-time":"2024-01-02T03:04:05.123456Z","yanked":false,"core-metadata":{"sha256":"` + hexM + `"},
  "provenance":"https://index.example.org/integrity/foo-bar/1.0/foo_bar-1.0-py3-none-any.whl/provenance"},
 {"filename":"foo_bar-1.0.tar.gz","url":"https://files.example.org/b/foo_bar-1.0.tar.gz","hashes":{"sha256":"` + hexB + `","md5":"` + strings.Repeat("1", 32) + `"},
  "size":20,"upload-time":"2024-01-02T03:05:00Z","yanked":false},
 {"filename":"foo-bar-0.9.0.zip","url":"https://files.example.org/c/foo-bar-0.9.0.zip","hashes":{},"upload-time":"2023-01-01T00:00:00Z","yanked":"broken"},
 {"filename":"foo_bar-2.0rc1-cp311-cp311-win32.whl","url":"https://files.example.org/d/foo_bar-2.0rc1-cp311-cp311-win32.whl","hashes":{"sha256":"` + hexB + `"},
  "size":30,"upload-time":"2025-01-01T00:00:00Z","yanked":false}]}`

const coreMetadata = "Metadata-Version: 2.4\nName: Foo.Bar\nVersion: 1.0\nSummary: Does <things> & more\nHome-page: UNKNOWN\n" +
	"Author: A. Author\nKeywords: a,b\nRequires-Python: >=3.8\nRequires-Dist: six>=1.16\nRequires-Dist: idna ; extra == 'x'\nProvides-Extra: x\n" +
	"Project-URL: Source, https://src.example.org/foo\nClassifier: Topic :: Utilities\nLicense: MIT\n        with a\n       |second line\nLicense-File: LICENSE\n" +
	"Description-Content-Type: text/markdown\n\n# Foo\n\nName: not a field\n"

// derive returns the JSON at path as clients read it.
func derive(t *testing.T, path, metadata string, o chantal.Rendering) map[string]any {
	t.Helper()
	var needed []byte
	if metadata != "" {
		needed = []byte(metadata)
	}
	body, mediaType, err := (Format{}).Derive(path, []byte(released), needed, o)
	if err != nil || mediaType != "application/json" {
		t.Fatalf("%s: %q, %v", path, mediaType, err)
	}
	var doc map[string]any
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return doc
}

func TestTheJSONOfAProjectIsThatOfItsPage(t *testing.T) {
	doc := derive(t, "pypi/Foo_Bar/json", coreMetadata, chantal.Rendering{})
	info := doc["info"].(map[string]any)
	want := map[string]any{
		"name": "Foo.Bar", "version": "1.0", "summary": "Does <things> & more", "home_page": "", "author": "A. Author", "keywords": "a,b",
		"requires_python": ">=3.8", "requires_dist": []any{"six>=1.16", "idna ; extra == 'x'"}, "provides_extra": []any{"x"},
		"project_urls": map[string]any{"Source": "https://src.example.org/foo"}, "classifiers": []any{"Topic :: Utilities"},
		"license": "MIT\n with a\nsecond line", "license_files": []any{"LICENSE"}, "description": "# Foo\n\nName: not a field\n",
		"description_content_type": "text/markdown", "yanked": false, "yanked_reason": nil, "bugtrack_url": nil, "maintainer": nil,
	}
	for key := range want {
		if diff := cmp.Diff(want[key], info[key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	wheel := map[string]any{
		"comment_text": "", "digests": map[string]any{"sha256": hexA}, "downloads": -1.0, "filename": "foo_bar-1.0-py3-none-any.whl", "has_sig": false,
		"md5_digest": nil, "packagetype": "bdist_wheel", "python_version": "py3", "requires_python": ">=3.8", "size": 10.0,
		"upload_time": "2024-01-02T03:04:05", "upload_time_iso_8601": "2024-01-02T03:04:05.123456Z",
		"url": "https://files.example.org/a/foo_bar-1.0-py3-none-any.whl", "yanked": false, "yanked_reason": nil,
	}
	if diff := cmp.Diff(wheel, doc["urls"].([]any)[0]); diff != "" {
		t.Errorf("urls (-want +got):\n%s", diff)
	}
	releases := doc["releases"].(map[string]any)
	old := releases["0.9"].([]any)[0].(map[string]any)
	if len(releases) != 3 || old["yanked"] != true || old["yanked_reason"] != "broken" || old["size"] != nil || old["packagetype"] != "sdist" {
		t.Errorf("releases: %v", releases)
	}
	if doc["last_serial"] != 77.0 {
		t.Errorf("last_serial: %v", doc["last_serial"])
	}
	for _, live := range []string{"vulnerabilities", "ownership"} {
		if _, ok := doc[live]; ok {
			t.Errorf("%s is true of today alone", live)
		}
	}
}

func TestTheJSONOfAReleaseHasItsFiles(t *testing.T) {
	for _, test := range []struct{ path, version, url string }{
		{"pypi/foo-bar/1.0.0/json", "1.0", "../../../+files/sha256/" + hexA + "/files.example.org/a/foo_bar-1.0-py3-none-any.whl"},
		{"pypi/foo-bar/0.9/json", "0.9", "../../../+files/-/files.example.org/c/foo-bar-0.9.0.zip"},
		{"pypi/foo-bar/json", "1.0", "../../+files/sha256/" + hexA + "/files.example.org/a/foo_bar-1.0-py3-none-any.whl"},
	} {
		doc := derive(t, test.path, "", chantal.Rendering{Local: true})
		info := doc["info"].(map[string]any)
		if info["version"] != test.version || doc["urls"].([]any)[0].(map[string]any)["url"] != test.url {
			t.Errorf("%s: %v", test.path, doc)
		}
		if info["requires_dist"] != nil {
			t.Errorf("%s: without metadata it is not known what is required, and not nothing: %v", test.path, info["requires_dist"])
		}
		if _, ok := doc["releases"]; ok != (test.path == "pypi/foo-bar/json") {
			t.Errorf("%s: has releases: %t", test.path, ok)
		}
	}
	early := chantal.Rendering{Before: time.Date(2023, 6, 1, 0, 0, 0, 0, time.UTC)}
	doc := derive(t, "pypi/foo-bar/json", "", early)
	if info := doc["info"].(map[string]any); info["version"] != "0.9" || info["yanked_reason"] != "broken" || len(doc["releases"].(map[string]any)) != 1 || doc["last_serial"] != nil {
		t.Errorf("in June 2023: %v", doc)
	}
	early.Before = early.Before.AddDate(-3, 0, 0)
	for path, o := range map[string]chantal.Rendering{"pypi/foo-bar/json": early, "pypi/foo-bar/3.0/json": {},
		"integrity/foo-bar/1.0/foo_bar-1.0.tar.gz/provenance": {}} {
		if _, err := (Format{}).Needs(path, []byte(released), o.Before); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s needs something: %v", path, err)
		}
		if _, _, err := (Format{}).Derive(path, []byte(released), nil, o); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
}

func TestWhatFilesBesideAPageAreMadeOf(t *testing.T) {
	const attested = "files.example.org/a/foo_bar-1.0-py3-none-any.whl"
	for path, want := range map[string]struct{ page, needs string }{
		"pypi/Foo_Bar/json":        {"simple/foo-bar/", "+files/" + attested + ".metadata"},
		"pypi/foo.bar/1.0/json":    {"simple/foo-bar/", "+files/" + attested + ".metadata"},
		"pypi/foo.bar/2.0rc1/json": {"simple/foo-bar/", ""},
		"integrity/foo-bar/1.0/foo_bar-1.0-py3-none-any.whl/provenance": {"simple/foo-bar/",
			"+files/index.example.org/integrity/foo-bar/1.0/foo_bar-1.0-py3-none-any.whl/provenance"},
		"pypi/-x/json":                        {},
		"pypi/x":                              {},
		"pypi/x/json/":                        {},
		"pypi/x/1/2/json":                     {},
		"integrity/x/1/x.txt/provenance":      {},
		"integrity/x/1/x-1.tar.gz/provenance": {page: "simple/x/"},
		"simple/x/":                           {},
		"":                                    {},
	} {
		page := (Format{}).Derived(path)
		if page != want.page {
			t.Errorf("%s is made of %q, want %q", path, page, want.page)
		}
		if page != "simple/foo-bar/" {
			continue
		}
		p, err := Format{}.Needs(path, []byte(released), time.Time{})
		if err != nil || p.Path != want.needs {
			t.Errorf("%s needs %q, %v, want %q", path, p.Path, err, want.needs)
		}
		if p.Path != "" && (Format{}).Classify(p.Path).Path != p.Path {
			t.Errorf("%s needs %s, which is looked up otherwise", path, p.Path)
		}
	}
}

func TestProvenanceIsPromisedBesideItsFile(t *testing.T) {
	all := collect(t, "simple/foo-bar/", released)
	var found []string
	for i := range all {
		if all[i].Kind != chantal.Artifact {
			continue
		}
		for _, p := range (Format{}).Attestations(&all[i], all) {
			found = append(found, all[i].Path+" "+p.URL)
			if c := (Format{}).Classify(p.Path); c.Kind != chantal.Meta || !cmp.Equal(c.Trees, []string{"simple/foo-bar"}) || len(p.Digests) > 0 || p.Size != -1 {
				t.Errorf("%+v is %+v", p, c)
			}
		}
	}
	want := []string{"+files/files.example.org/a/foo_bar-1.0-py3-none-any.whl " +
		"https://index.example.org/integrity/foo-bar/1.0/foo_bar-1.0-py3-none-any.whl/provenance"}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	body, mediaType, err := (Format{}).Derive("integrity/foo-bar/1.0/foo_bar-1.0-py3-none-any.whl/provenance", []byte(released), []byte("{}"), chantal.Rendering{})
	if err != nil || string(body) != "{}" || mediaType != "application/vnd.pypi.integrity.v1+json" {
		t.Errorf("%s, %s, %v", body, mediaType, err)
	}
	insecure := strings.Replace(released, "https://index", "http://index", 1)
	for _, p := range collect(t, "simple/foo-bar/", insecure) {
		if strings.HasSuffix(p.Path, provenance) {
			t.Errorf("%s is fetched without TLS", p.URL)
		}
	}
}

func FuzzDerive(f *testing.F) {
	f.Add("pypi/foo-bar/json", released, coreMetadata)
	f.Add("pypi/foo-bar/1.0/json", released, "Name: x\r\n y\r\n\r\n")
	f.Fuzz(func(t *testing.T, path, root, metadata string) {
		page := (Format{}).Derived(path)
		if page == "" {
			return
		}
		if c := (Format{}).Classify(page); c.Kind != chantal.Root || c.Path != page {
			t.Fatalf("%s is made of %s, which is %+v", path, page, c)
		}
		body, mediaType, err := (Format{}).Derive(path, []byte(root), []byte(metadata), chantal.Rendering{Local: true})
		if err == nil && mediaType == "application/json" && !json.Valid(body) {
			t.Errorf("%s", body)
		}
	})
}
