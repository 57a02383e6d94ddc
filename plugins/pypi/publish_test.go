package pypi

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/plugins/formattest"
)

// pageOf is a generation of a page with these bytes.
func pageOf(root, body string) *formattest.Memory {
	return &formattest.Memory{Format: Format{}, Of: Format{}.Classify(root).Tree, Files: map[string][]byte{root: []byte(body)}}
}

// edited publishes what keep accepts, and returns the page; "" for none.
func edited(t *testing.T, keep chantal.Keep, sources ...*formattest.Memory) string {
	t.Helper()
	var contents []chantal.Contents
	for _, s := range sources {
		contents = append(contents, s)
	}
	roots, err := Format{}.Publish(contents, keep, &formattest.Publication{})
	if err != nil {
		t.Fatal(err)
	}
	if roots == nil {
		return ""
	}
	if v, err := (Format{}).Check(sources[0].Of, roots, nil, time.Time{}); err != nil || len(v.Roots) != 1 {
		t.Fatalf("what was published does not check: %v (%v)", err, v)
	}
	return string(roots[sources[0].Of.Roots[0]])
}

func TestPublishKeepsTheLaws(t *testing.T) {
	formattest.TestPublisher(t, Format{}, pageOf("simple/foo-bar/", fooBar))
}

func TestAPageHoldsWhatRemains(t *testing.T) {
	got := edited(t, func(_ int, p *chantal.Promise, field func(string) string) (bool, error) {
		return field("yanked") != "" && p.Package.Version != "3.0", nil
	}, pageOf("simple/foo-bar/", fooBar))
	files := `{"filename":"foo_bar-1.0` + between(fooBar, `{"filename":"foo_bar-1.0`, "},\n  {\"filename\":\"foo-bar-2.0+local") + "}," +
		`{"filename":"foo_bar-2.0` + between(fooBar, `{"filename":"foo_bar-2.0`, "},\n  {\"filename\":\"foo_bar-3.0") + "}"
	want := `{"meta":{"api-version":"1.4","_last-serial":7,"_internal":1,"x-meta":[1]},"name":"Foo.Bar","x-top":{"a":"}]\"{["},"_secret":2,` +
		`"project-status":{"status":"archived","reason":"use <b> & co"},"files":[` + files + `],"versions":["1","2.0"]}` + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// between returns what of s is behind from and before to.
func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

func TestAProjectWithoutFilesHasNoPage(t *testing.T) {
	none := func(int, *chantal.Promise, func(string) string) (bool, error) { return false, nil }
	if got := edited(t, none, pageOf("simple/foo-bar/", fooBar)); got != "" {
		t.Errorf("got %s", got)
	}
	quarantined := strings.Replace(fooBar, "archived", "quarantined", 1)
	if got := edited(t, formattest.KeepAll, pageOf("simple/foo-bar/", quarantined)); got != "" {
		t.Errorf("of a quarantined project there is %s", got)
	}
	if got := edited(t, formattest.KeepAll, pageOf("simple/foo-bar/", fooBar), pageOf("simple/foo-bar/", quarantined)); got != "" {
		t.Errorf("of a project that was quarantined since there is %s", got)
	}
}

func TestTheListHasProjectsWithPages(t *testing.T) {
	const list = `{"meta":{"_last-serial":9,"api-version":"1.1"},"projects":[{"name":"Foo.Bar","_last-serial":3},{"name":"six"},{"name":"../x"}, {"name":"six_"} ]}`
	var asked []chantal.Promise
	keep := func(_ int, p *chantal.Promise, _ func(string) string) (bool, error) {
		asked = append(asked, *p)
		return p.Path == "simple/foo-bar/", nil
	}
	got := edited(t, keep, pageOf("simple/", list))
	if want := `{"meta":{"_last-serial":9,"api-version":"1.1"},"projects":[{"name":"Foo.Bar","_last-serial":3}]}` + "\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	want := []chantal.Promise{
		{Path: "simple/foo-bar/", Kind: chantal.Root, Size: -1, Package: &chantal.Package{Name: "foo-bar"}},
		{Path: "simple/six/", Kind: chantal.Root, Size: -1, Package: &chantal.Package{Name: "six"}},
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("Keep was asked for others (-want +got):\n%s", diff)
	}
	got = edited(t, formattest.KeepAll, pageOf("simple/", list), pageOf("simple/", `{"meta":{"api-version":"1.0"},"projects":[{"name":"SIX"}]}`))
	if want := `{"meta":{"api-version":"1.0"},"projects":[{"name":"SIX"},{"name":"Foo.Bar","_last-serial":3}]}` + "\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPagesArePutTogether(t *testing.T) {
	other := `{"meta":{"api-version":"1.1"},"name":"foo-bar","versions":["4.0","1.0"],"files":[
	{"filename":"foo_bar-1.0-py3-none-any.whl","url":"https://elsewhere.example.org/foo_bar-1.0-py3-none-any.whl","hashes":{"sha256":"` + hexA + `"},"size":1234},
	{"filename":"foo-bar-4.0.zip","url":"https://elsewhere.example.org/foo-bar-4.0.zip","hashes":{"sha256":"` + hexM + `"},"size":1}]}`
	got := decode(t, edited(t, formattest.KeepAll, pageOf("simple/foo-bar/", fooBar), pageOf("simple/foo-bar/", other)))
	var urls []string
	for _, f := range got["files"].([]any) {
		urls = append(urls, f.(map[string]any)["url"].(string))
	}
	want := []string{
		"https://elsewhere.example.org/foo_bar-1.0-py3-none-any.whl", "https://elsewhere.example.org/foo-bar-4.0.zip",
		"http://files.example.org:8080/p//b/foo-bar-2.0%2Blocal.1.tar.gz", "https://Files.Example.org:443/q/foo_bar-2.0-py3-none-any.whl?sig=1",
		"https://files.example.org/p/foo_bar-3.0-py3-none-any.whl",
	}
	if diff := cmp.Diff(want, urls); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{"4.0", "1.0", "2.0", "2.0+local.1", "3.0"}, got["versions"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err := Format{}.Publish([]chantal.Contents{pageOf("simple/foo-bar/", fooBar), pageOf("simple/foo-bar/", strings.Replace(other, hexA, hexB, 1))},
		formattest.KeepAll, &formattest.Publication{})
	if err == nil || !strings.Contains(err.Error(), "foo_bar-1.0-py3-none-any.whl") {
		t.Errorf("one name for two files gives %v", err)
	}
}

func TestFields(t *testing.T) {
	names := []string{"filename", "requires-python", "yanked", "size", "upload-time", "packagetype", "python", "abi", "platform", "status"}
	got := map[string][]string{}
	edited(t, func(_ int, p *chantal.Promise, field func(string) string) (bool, error) {
		var values []string
		for _, name := range names[1:] {
			values = append(values, field(name))
		}
		got[field("filename")] = values
		return true, nil
	}, pageOf("simple/foo-bar/", strings.Replace(fooBar, "foo_bar-3.0-py3-none-any.whl\",\"url", "foo_bar-3.0-1-cp311.cp312-abi3-manylinux_2_17_x86_64.whl\",\"url", 1)))
	want := map[string][]string{
		"foo_bar-1.0-py3-none-any.whl":                             {">=3.8,<4", `broken "build"`, "1234", "2024-01-02T03:04:05.123456Z", "wheel", "py3", "none", "any", "archived"},
		"foo-bar-2.0+local.1.tar.gz":                               {"", "", "99", "2025-06-01T00:00:00Z", "sdist", "", "", "", "archived"},
		"foo_bar-2.0-py3-none-any.whl":                             {"", "true", "5", "2025-06-01T00:00:01Z", "wheel", "py3", "none", "any", "archived"},
		"foo_bar-3.0-1-cp311.cp312-abi3-manylinux_2_17_x86_64.whl": {"", "", "6", "", "wheel", "cp311.cp312", "abi3", "manylinux_2_17_x86_64", "archived"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What is published of any page is a page that can be published again.
func FuzzPublish(f *testing.F) {
	f.Add([]byte(fooBar), []byte(`{"meta":{"api-version":"1.0"},"name":"foo-bar","files":[],"versions":[]}`))
	f.Fuzz(func(t *testing.T, first, last []byte) {
		const root = "simple/foo-bar/"
		n := 0
		keep := func(int, *chantal.Promise, func(string) string) (bool, error) { n++; return n%3 > 0, nil }
		for _, bodies := range [][][]byte{{first}, {first, last}, {last, first}} {
			var contents []chantal.Contents
			for _, b := range bodies {
				contents = append(contents, pageOf(root, string(b)))
			}
			roots, err := Format{}.Publish(contents, keep, &formattest.Publication{})
			if err != nil || roots == nil {
				continue
			}
			if _, err := (Format{}).Check(pageOf(root, "").Of, roots, nil, time.Time{}); err != nil {
				t.Fatalf("what was published does not check: %v\n%s", err, roots[root])
			}
			if again := edited(t, formattest.KeepAll, pageOf(root, string(roots[root]))); again != string(roots[root]) {
				t.Fatalf("published again it is\n%s, not\n%s", again, roots[root])
			}
		}
	})
}
