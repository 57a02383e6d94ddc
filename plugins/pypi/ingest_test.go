package pypi

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

const pageURL = "https://index.example.org/a/simple/foo-bar/"

func ingest(t *testing.T, path, contentType, body string) string {
	t.Helper()
	got, err := Format{}.Ingest(path, pageURL, contentType, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestJSONIsKeptByteForByte(t *testing.T) {
	for _, contentType := range []string{jsonType, jsonLatest, jsonType + "; charset=utf-8", "application/json", "", "application/octet-stream"} {
		if got := ingest(t, "simple/foo-bar/", contentType, fooBar); got != fooBar {
			t.Errorf("%q: kept is\n%s", contentType, got)
		}
	}
	list := ` {"meta":{"api-version":"1.0"},"projects":[{"name":"six"}]}`
	if got := ingest(t, "simple/", jsonType, list); got != list {
		t.Errorf("kept is\n%s", got)
	}
}

func TestOnlyURLsThatMayNotStayAreReplaced(t *testing.T) {
	const frame = `{ "files": [
 {"filename":"foo_bar-1.zip", "url" : "%s","x":[ 1 ]},{"url":"%s","filename":"foo_bar-2.zip"} ],
 "name":"foo-bar", "meta":{"api-version":"1.0"}, "x": {"url":"y"} }`
	const stays = "https://files.example.org/foo_bar-2.zip"
	for given, want := range map[string]string{
		"foo_bar-1.zip":                                "https://index.example.org/a/simple/foo-bar/foo_bar-1.zip",
		"../../f/foo_bar-1.zip":                        "https://index.example.org/a/f/foo_bar-1.zip",
		"/f/foo%2Bbar-1.zip":                           "https://index.example.org/f/foo%2Bbar-1.zip",
		`\/f\/foo_bar-1.zip`:                           "https://index.example.org/f/foo_bar-1.zip",
		"//cdn.example.org/foo_bar-1.zip":              "https://cdn.example.org/foo_bar-1.zip",
		"https://u:p@cdn.example.org/foo_bar-1.zip":    "https://cdn.example.org/foo_bar-1.zip",
		"https://cdn.example.org/a/../foo_bar-1.zip":   "https://cdn.example.org/foo_bar-1.zip",
		"https://cdn.example.org/foo_bar-1.zip#sha1=x": "https://cdn.example.org/foo_bar-1.zip",
		"../../../../../../f/foo_bar-1.zip":            "https://index.example.org/f/foo_bar-1.zip",
	} {
		got := ingest(t, "simple/foo-bar/", jsonType, fmt.Sprintf(frame, given, stays))
		if diff := cmp.Diff(fmt.Sprintf(frame, want, stays), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", given, diff)
		}
		got = ingest(t, "simple/foo-bar/", jsonType, fmt.Sprintf(frame, stays, given))
		if diff := cmp.Diff(fmt.Sprintf(frame, stays, want), got); diff != "" {
			t.Errorf("%s as the last (-want +got):\n%s", given, diff)
		}
	}
}

func TestIngestRefuses(t *testing.T) {
	file := func(u string) string {
		return `{"meta":{"api-version":"1.0"},"name":"foo-bar","files":[{"filename":"x.zip","url":` + string(appendString(nil, u)) + `}]}`
	}
	portal := `<!DOCTYPE html><html><head><title>Welcome to the hotel</title></head><body><h1>Log in</h1>
		<a href="/login">Log in</a> <a href="terms.html">Terms</a> <a href="/app/setup-1.0.exe">Our app</a></body></html>`
	for name, test := range map[string]struct{ path, pageURL, contentType, body string }{
		"a captive portal":            {"simple/foo-bar/", pageURL, "text/html", portal},
		"a portal as the list":        {"simple/", pageURL, "text/html", portal},
		"a portal that says JSON":     {"simple/foo-bar/", pageURL, jsonType, portal},
		"an empty HTML page":          {"simple/foo-bar/", pageURL, "text/html", ""},
		"a title with many links":     {"simple/foo-bar/", pageURL, "text/html", "<h1>Links for you</h1>" + strings.Repeat("<a href=x>x</a>", 3)},
		"another type":                {"simple/foo-bar/", pageURL, "image/png", fooBar},
		"no type and other bytes":     {"simple/foo-bar/", pageURL, "", "\x89PNG"},
		"another path":                {"simple/Foo_Bar/", pageURL, jsonType, fooBar},
		"no page at all":              {"x.whl", pageURL, jsonType, fooBar},
		"a page without address":      {"simple/foo-bar/", "simple/foo-bar/", jsonType, fooBar},
		"another project":             {"simple/six/", pageURL, jsonType, fooBar},
		"JSON cut short":              {"simple/foo-bar/", pageURL, jsonType, fooBar[:500]},
		"another major version":       {"simple/foo-bar/", pageURL, htmlType, `<meta name="pypi:repository-version" content="2.0">`},
		"file URL":                    {"simple/foo-bar/", pageURL, jsonType, file("file:///etc/passwd")},
		"ftp URL":                     {"simple/foo-bar/", pageURL, jsonType, file("ftp://files.example.org/x.zip")},
		"javascript URL":              {"simple/foo-bar/", pageURL, jsonType, file("javascript:x.zip")},
		"control character":           {"simple/foo-bar/", pageURL, jsonType, file("https://files.example.org/a\x01/x.zip")},
		"escaped control character":   {"simple/foo-bar/", pageURL, jsonType, file("https://files.example.org/a%00/x.zip")},
		"escaped way out":             {"simple/foo-bar/", pageURL, jsonType, file("https://files.example.org/%2E%2e/x.zip")},
		"folder":                      {"simple/foo-bar/", pageURL, jsonType, file("https://files.example.org/x/")},
		"no path":                     {"simple/foo-bar/", pageURL, jsonType, file("https://files.example.org")},
		"URL without a host":          {"simple/foo-bar/", pageURL, jsonType, file("https:///x.zip")},
		"host with a space":           {"simple/foo-bar/", pageURL, jsonType, file("https://a%20b/x.zip")},
		"HTML, control character":     {"simple/foo-bar/", pageURL, htmlType, `<a href="https://files.example.org/%01/foo_bar-1.zip">x</a>`},
		"HTML, a bad hash":            {"simple/foo-bar/", pageURL, htmlType, `<a href="foo_bar-1.zip#sha256=12">x</a>`},
		"HTML, a bad metadata hash":   {"simple/foo-bar/", pageURL, htmlType, `<a href="foo_bar-1.whl" data-core-metadata="sha256=12">x</a>`},
		"HTML, files of others alone": {"simple/foo-bar/", pageURL, htmlType, `<a href="six-1.0.tar.gz">x</a>`},
	} {
		if got, err := (Format{}).Ingest(test.path, test.pageURL, test.contentType, []byte(test.body)); err == nil {
			t.Errorf("%s: no error, but\n%s", name, got)
		}
	}
}

func TestIngestHTML(t *testing.T) {
	body := `<!DOCTYPE html><html><head><!-- a comment <a href="no_bar-1.zip"> -->
 <meta name="pypi:repository-version" content="1.3"><meta name="pypi:project-status" content="archived">
 <meta name="pypi:project-status-reason" content="no &quot;time&quot;">
 <base href="../../files/"><title>Links for Foo.Bar</title></head><body><h1>Links for Foo.Bar</h1>
 <script>document.write('<a href="no_bar-2.zip">')</script>
 <a href="../">up</a> <a name="top">top</a> <a href="mailto:x@example.org">mail</a> <a href="foo_bar-1.zip.asc">sig</a>
 <A HREF="foo_bar-1-py3-none-any.whl#sha256=` + strings.ToUpper(hexA) + `" data-requires-python="&gt;=3.8" data-yanked
   data-dist-info-metadata="sha256=` + hexB + `" data-core-metadata="sha256=` + hexM + `" data-upload-time="2024-01-02T03:04:05Z"
   data-size="17" data-provenance="https://index.example.org/prov?a=1&amp;b=2">foo_bar-1-py3-none-any.whl</A><br/>
 <a href="/abs/foo-bar-1.tar.gz?a=1&amp;b=2#egg=foo&amp;md5=` + hexA[:32] + `" data-gpg-sig="true" data-yanked="bad &amp; sad">foo-bar-1.tar.gz</a>
 <a href="https://u:p@cdn.example.org:8443/foo_bar-2+l-py3-none-any.whl" data-dist-info-metadata="true" data-gpg-sig=false>x
 <a href=http://cdn.example.org/foo-bar-2.ZIP data-core-metadata=false data-size=many>x</a></body></html>`
	want := `{"meta":{"api-version":"1.3"},"name":"Foo.Bar","project-status":{"status":"archived","reason":"no \"time\""},"files":[
 {"filename":"foo_bar-1-py3-none-any.whl","url":"https://index.example.org/a/files/foo_bar-1-py3-none-any.whl",
  "hashes":{"sha256":"` + hexA + `"},"requires-python":">=3.8","yanked":true,"core-metadata":{"sha256":"` + hexM + `"},
  "upload-time":"2024-01-02T03:04:05Z","size":17,"provenance":"https://index.example.org/prov?a=1&b=2"},
 {"filename":"foo-bar-1.tar.gz","url":"https://index.example.org/abs/foo-bar-1.tar.gz?a=1&b=2","hashes":{"md5":"` + hexA[:32] + `"},
  "gpg-sig":true,"yanked":"bad & sad"},
 {"filename":"foo_bar-2+l-py3-none-any.whl","url":"https://cdn.example.org:8443/foo_bar-2+l-py3-none-any.whl","hashes":{},
  "core-metadata":true,"gpg-sig":false},
 {"filename":"foo-bar-2.ZIP","url":"http://cdn.example.org/foo-bar-2.ZIP","hashes":{}}]}`
	for _, contentType := range []string{"text/html", "text/html; charset=utf-8", htmlType, htmlLatest, ""} {
		got := ingest(t, "simple/foo-bar/", contentType, body)
		if diff := cmp.Diff(decode(t, want), decode(t, got)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", contentType, diff)
		}
	}
}

func TestHTMLThatIsASimpleIndex(t *testing.T) {
	for name, test := range map[string]struct{ path, body, want string }{
		"the marker and nothing else": {"simple/six/", `<meta name="pypi:repository-version" content="1.0">`,
			`{"meta":{"api-version":"1.0"},"name":"six","files":[]}`},
		"a file listing": {"simple/six/", `<title>Index of /six</title><a href="../">../</a><a href="six-1.0.tar.gz">six-1.0..&gt;</a>`,
			`{"meta":{"api-version":"1.0"},"name":"six","files":[{"filename":"six-1.0.tar.gz","url":"https://index.example.org/a/simple/foo-bar/six-1.0.tar.gz","hashes":{}}]}`},
		"an empty project": {"simple/six/", `<h1>Links for Six</h1>`,
			`{"meta":{"api-version":"1.0"},"name":"Six","files":[]}`},
		"a list": {"simple/", `<title>Simple index</title><a href="/simple/foo-bar/">Foo.Bar</a><a href="six/">six</a>`,
			`{"meta":{"api-version":"1.0"},"projects":[{"name":"Foo.Bar"},{"name":"six"}]}`},
		"a folder listing": {"simple/", `<h1>Index of /simple/</h1><a href="../">../</a><a href="six/">six/</a>`,
			`{"meta":{"api-version":"1.0"},"projects":[{"name":"six"}]}`},
		"an empty list": {"simple/", `<title>Simple Index</title>`,
			`{"meta":{"api-version":"1.0"},"projects":[]}`},
	} {
		got := ingest(t, test.path, "text/html", test.body)
		if diff := cmp.Diff(decode(t, test.want), decode(t, got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// What our own HTML says is understood as what it was made of, so Chantal can
// stand in front of another one that answers in HTML only.
func TestHTMLRoundTrip(t *testing.T) {
	first := ingest(t, "simple/foo-bar/", htmlType, render(t, fooBar, htmlType, chantal.Rendering{}))
	promises := collect(t, "simple/foo-bar/", fooBar)
	again := collect(t, "simple/foo-bar/", first)
	for _, list := range [][]chantal.Promise{promises, again} {
		for i := range list {
			// HTML has room for one hash.
			list[i].Digests = list[i].Digests[:min(1, len(list[i].Digests))]
		}
	}
	if diff := cmp.Diff(promises, again); diff != "" {
		t.Errorf("promises (-want +got):\n%s", diff)
	}
	second := ingest(t, "simple/foo-bar/", htmlType, render(t, first, htmlType, chantal.Rendering{}))
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("the second time (-first +second):\n%s", diff)
	}
}

func TestLimitsOfHTML(t *testing.T) {
	body := bytes.Repeat([]byte(`<a href=a.egg>`), maxFiles+1)
	if _, err := (Format{}).Ingest("simple/a/", pageURL, "text/html", body); err == nil {
		t.Error("too many links: no error")
	}
	deep := []byte(`<a href="a-1.zip">` + strings.Repeat("<b>", 1<<20) + strings.Repeat("x<i>", 1<<20))
	if _, err := (Format{}).Ingest("simple/a/", pageURL, "text/html", deep); err != nil {
		t.Error(err)
	}
	nested := `{"meta":{"api-version":"1.0"},"name":"a","files":[],"x":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20) + "}"
	if _, err := (Format{}).Ingest("simple/a/", pageURL, jsonType, []byte(nested)); err == nil {
		t.Error("a million nested arrays: no error")
	}
	if project, all := (Format{}).Limit("simple/six/"), (Format{}).Limit("simple/"); project != 64<<20 || all != 256<<20 {
		t.Errorf("limits are %d and %d", project, all)
	}
}
