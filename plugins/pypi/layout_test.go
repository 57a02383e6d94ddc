package pypi

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

// TestLinksOfAPageLeadToTheirFiles goes the way of a client: the links of a
// rendered page, taken from its folder, are the places of what it promises.
func TestLinksOfAPageLeadToTheirFiles(t *testing.T) {
	page := []byte(`{"meta":{"api-version":"1.0"},"name":"foo","files":[
		{"filename":"foo-1-py3-none-any.whl","url":"https://files.example.org:8443/a b/foo-1-py3-none-any.whl","hashes":{"sha256":"` + hexA + `"},"core-metadata":{"sha256":"` + hexM + `"}},
		{"filename":"foo-1.tar.gz","url":"https://files.example.org/foo-1.tar.gz","hashes":{"md5":"` + hexA[:32] + `"},"gpg-sig":true}]}`)
	var listed []chantal.Promise
	for p, err := range (Format{}).Parse("simple/foo/", bytes.NewReader(page)) {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, p)
	}
	got := map[string]bool{}
	for _, places := range (Format{}).Places(listed) {
		for _, place := range places {
			got[place] = true
		}
	}
	wheel := "+files/sha256/" + hexA + "/files.example.org:8443/a b/foo-1-py3-none-any.whl"
	want := map[string]bool{
		wheel: true, wheel + ".metadata": true,
		"+files/-/files.example.org/foo-1.tar.gz": true, "+files/-/files.example.org/foo-1.tar.gz.asc": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
	html, err := (Format{}).Render("simple/foo/", page, "text/html", chantal.Rendering{Local: true})
	if err != nil {
		t.Fatal(err)
	}
	for place := range want {
		link := "../../" + strings.ReplaceAll(strings.ReplaceAll(strings.TrimSuffix(strings.TrimSuffix(place, ".metadata"), ".asc"), " ", "%20"), ":", ":")
		if !bytes.Contains(html, []byte(`"`+link+`#`)) {
			t.Errorf("no link leads to %s:\n%s", place, html)
		}
	}
}

func TestWhatIsNoFileOfAPageStaysWhereItIs(t *testing.T) {
	for _, path := range []string{"simple/x", "packages/foo.whl"} {
		if got := (Format{}).Places([]chantal.Promise{{Path: path, Kind: chantal.Artifact}}); len(got[0]) != 1 || got[0][0] != path {
			t.Errorf("%s: at %v", path, got)
		}
	}
}

func TestTheListOfWhatIsThere(t *testing.T) {
	path, page := (Format{}).List([]string{"simple/six/", "simple/foo-bar/", "simple/"})
	if path != "simple/" || strings.Count(string(page), "<a ") != 2 || !strings.Contains(string(page), `<a href="foo-bar/">foo-bar</a>`) {
		t.Errorf("%s:\n%s", path, page)
	}
}
