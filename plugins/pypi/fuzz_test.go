package pypi

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"chantal"
	"chantal/plugins/formattest"
)

// What Ingest keeps is a page that checks, whose promises obey the laws, and
// that stays as it is when it is ingested again.
func FuzzIngest(f *testing.F) {
	f.Add("text/html", []byte(`<base href="/x/"><a href="foo_bar-1.zip#sha256=`+hexA+`" data-yanked>x</a>`))
	f.Add(jsonType, []byte(fooBar))
	f.Add(jsonType, []byte(`{"meta":{"api-version":"1.0"},"name":"foo-bar","files":[{"filename":"x.zip","url":"../%2e%2e/x.zip"}]}`))
	f.Add(jsonType, []byte(`{"meta":{"api-version":"1.0"},"name":"foo-bar","files":[{"filename":"x","\u0075rl":"//h:80//x","url":"a"}]}`))
	f.Add("", []byte("<title>Links for foo-bar"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		const path = "simple/foo-bar/"
		kept, err := Format{}.Ingest(path, pageURL, contentType, body)
		if err != nil {
			return
		}
		tree := Format{}.Classify(path).Tree
		if _, err := (Format{}).Check(tree, map[string][]byte{path: kept}, nil, time.Time{}); err != nil {
			t.Fatalf("kept, but %v:\n%s", err, kept)
		}
		for p, err := range (Format{}).Parse(path, bytes.NewReader(kept)) {
			if err == nil {
				err = formattest.CheckPromise(Format{}, p)
			}
			if err != nil {
				t.Fatalf("%v in\n%s", err, kept)
			}
		}
		again, err := Format{}.Ingest(path, pageURL, jsonType, kept)
		if err != nil || !bytes.Equal(kept, again) {
			t.Fatalf("ingested again (%v) it is\n%s\nafter\n%s", err, again, kept)
		}
	})
}

// What Render makes is well-formed, whatever the page says, and has the same
// files in JSON as in HTML.
func FuzzRender(f *testing.F) {
	f.Add([]byte(fooBar), true, int64(0))
	f.Add([]byte(fooBar), false, int64(1735689600))
	f.Add([]byte(`{"meta":{"api-version":"1.0"},"name":"foo-bar","files":[],"files":[{"filename":"\"><x","url":"http://h/\"><x"}]}`), false, int64(0))
	f.Add([]byte(`{"name":"foo-bar","files":[{"filename":"x","url":"http://h/%22","\"":{},"_":0,"yanked":""}],"meta":{"api-version":"1.1"},"versions":[0]}`), true, int64(0))
	f.Fuzz(func(t *testing.T, root []byte, local bool, before int64) {
		o := chantal.Rendering{Local: local}
		if before != 0 {
			o.Before = time.Unix(before, 0)
		}
		asJSON, errJSON := Format{}.Render("simple/foo-bar/", root, jsonType, o)
		asHTML, errHTML := Format{}.Render("simple/foo-bar/", root, plainType, o)
		if (errJSON == nil) != (errHTML == nil) {
			t.Fatalf("JSON: %v, HTML: %v", errJSON, errHTML)
		}
		if errJSON != nil {
			return
		}
		var page struct {
			Files []map[string]json.RawMessage
		}
		if err := json.Unmarshal(asJSON, &page); err != nil {
			t.Fatalf("%v in\n%s", err, asJSON)
		}
		var want []string
		for _, file := range page.Files {
			var name string
			if err := json.Unmarshal(file["filename"], &name); err != nil {
				t.Fatal(err)
			}
			want = append(want, name)
		}
		if diff := cmp.Diff(want, anchorTexts(t, asHTML)); diff != "" {
			t.Errorf("files (-JSON +HTML):\n%s", diff)
		}
	})
}

// anchorTexts returns the texts of a page's links, which are all the elements
// that our pages have beside those of the frame and the line breaks.
func anchorTexts(t *testing.T, page []byte) (texts []string) {
	z := html.NewTokenizer(bytes.NewReader(page))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return texts
		case html.StartTagToken, html.SelfClosingTagToken:
			name, _ := z.TagName()
			switch string(name) {
			case "html", "head", "meta", "title", "body", "h1", "br":
			case "a":
				if z.Next() != html.TextToken {
					t.Fatalf("a link without text in\n%s", page)
				}
				texts = append(texts, z.Token().Data)
			default:
				t.Fatalf("the element %s in\n%s", name, page)
			}
		}
	}
}

// A path's class is that of its canonical path, but for the digest, which only
// links have, and nothing leads out of the repository.
func FuzzClassify(f *testing.F) {
	for _, path := range formattest.HostilePaths() {
		if len(path) < 1000 {
			f.Add(path)
		}
	}
	for _, path := range []string{
		"simple/Foo_Bar", "+files/-/h/x.whl", "+files/sha256/" + hexA + "/h:1/a/x-1.whl.metadata",
		"+files/sha256/" + hexA + "/-/x", "+files/sha256/" + hexA + "/h/x-1.tar.gz.asc", "a-b-c-1.zip", "+files/H:443:80//x",
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		c := Format{}.Classify(path)
		if c.Path != path && !formattest.ValidPath(c.Path) {
			t.Fatalf("the class is %+v", c)
		}
		canonical := Format{}.Classify(c.Path)
		if strings.HasPrefix(path, files+"sha256/") {
			canonical.Digest = c.Digest
		}
		if diff := cmp.Diff(c, canonical); diff != "" {
			t.Errorf("class of %q (-given +canonical):\n%s", path, diff)
		}
	})
}
