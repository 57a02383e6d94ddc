package rpm

import (
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

func listFile(t testing.TB, name string) []byte {
	t.Helper()
	body, err := os.ReadFile("testdata/lists/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

var (
	ones   = chantal.Digest("sha256:" + strings.Repeat("1", 64))
	threes = chantal.Digest("sha256:" + strings.Repeat("3", 64))
)

func TestParseLists(t *testing.T) {
	for name, want := range map[string]chantal.MirrorList{
		"mirrormanager.xml": {
			Form: "metalink",
			Bases: []string{
				"https://a.mirror.example.org/pub/el/9/x86_64/",
				"http://b.mirror.example.org/el/9/x86_64/",
				"http://c.mirror.example.org:8080/x%20y/",
			},
			Roots: []chantal.ListedRoot{
				{
					Digests: []chantal.Digest{
						chantal.Digest("sha512:" + strings.Repeat("2", 128)), ones,
						"sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "md5:d41d8cd98f00b204e9800998ecf8427e",
					},
					Size: 3141, Date: time.Unix(1795433037, 0).UTC(),
				},
				{Digests: []chantal.Digest{threes}, Size: 3140, Date: time.Unix(1795346637, 0).UTC()},
			},
		},
		"rfc5854.xml": {
			Form:  "metalink",
			Bases: []string{"http://a.mirror.example.org/el/9/", "http://b.mirror.example.org/el/9/"},
			Roots: []chantal.ListedRoot{{Digests: []chantal.Digest{ones}, Size: 3141}},
		},
		"mirrorlist.txt": {
			Form:  "mirrorlist",
			Bases: []string{"http://a.mirror.example.org/el/9/x86_64/", "https://b.mirror.example.org/el/9/x86_64/"},
		},
	} {
		got, err := Format{}.ParseList(listFile(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// What leads nowhere, or to another place than it seems, is no list.
func TestListsThatAreNone(t *testing.T) {
	whole := string(listFile(t, "mirrormanager.xml"))
	change := func(old, to string) string {
		if !strings.Contains(whole, old) {
			t.Fatalf("%q is not in the metalink", old)
		}
		return strings.ReplaceAll(whole, old, to)
	}
	urls := whole[strings.Index(whole, "<url"):strings.LastIndex(whole, "</url>")]
	for title, body := range map[string]string{
		"nothing":             "",
		"comments":            "# nothing\n\n",
		"a page":              "<html><body>http://mirror.example.org/</body></html>",
		"prose":               "Please sign in at http://login.example.org/ first.\n",
		"a line that is none": "http://a.mirror.example.org/\n/srv/mirror\n",
		"bytes":               "http://a.mirror.example.org/\xff\n",
		"rsync alone":         "rsync://a.mirror.example.org/el/\n",
		"a password":          "http://me:secret@a.mirror.example.org/el/\n",
		"a way out":           "http://a.mirror.example.org/el/../../etc/\n",
		"a coded way out":     "http://a.mirror.example.org/el/%2e%2e/etc/\n",
		"a query":             "http://a.mirror.example.org/el/?x=\n",
		"no host":             "http:///el/\n",
		"local":               "file:///srv/el/\n",
		"not XML":             "<metalink",
		"another file":        change(`name="repomd.xml"`, `name="other.xml"`),
		"no checksum":         strings.NewReplacer("<hash", "<sum", "</hash>", "</sum>").Replace(whole),
		"a damaged checksum":  change(`<hash type="sha1">da`, `<hash type="sha1">zz`),
		"a damaged size":      change("<size>3141", "<size>-1"),
		"no URL":              strings.Replace(whole, urls, "<url>", 1),
		"other URLs":          change("/repodata/repomd.xml<", "/repodata/primary.xml.gz<"),
		"relative URLs":       strings.NewReplacer("http://", "/", "https://", "/").Replace(whole),
		"an entity":           change(">3141<", ">&bomb;<"),
		"declared entities": change("<metalink ", `<!DOCTYPE m [<!ENTITY a "0123456789"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>`+
			"<metalink x='&b;' "),
		"elements in text":       change("3141", "<b>3141</b>"),
		"another encoding":       change(`encoding="utf-8"`, `encoding="utf-16"`),
		"more after it":          whole + "<metalink/>",
		"a second root":          "<other/>" + whole,
		"endlessly many URLs":    change("<resources maxconnections=\"1\">", "<resources>"+strings.Repeat("<url/>", maxListedURLs)),
		"no end":                 whole[:len(whole)-12],
		"an end in the middle":   whole[:len(whole)/2],
		"an end in an alternate": whole[:strings.Index(whole, "</mm0:alternate>")],
	} {
		if got, err := (Format{}).ParseList([]byte(body)); err == nil {
			t.Errorf("%s: no error, but %+v", title, got)
		}
	}
}

// Depth and number are no way to make the reader work or grow.
func TestListsThatAreTooMuch(t *testing.T) {
	whole := string(listFile(t, "mirrormanager.xml"))
	deep := strings.Replace(whole, "<verification>", "<verification>"+strings.Repeat("<verification>", 50_000), 1)
	if got, err := (Format{}).ParseList([]byte(deep)); err == nil {
		t.Errorf("unclosed elements: no error, but %+v", got)
	}
	var many strings.Builder
	for i := range 3 * maxMirrors {
		fmt.Fprintf(&many, "http://m%d.mirror.example.org/el/\n", i)
	}
	got, err := (Format{}).ParseList([]byte(many.String()))
	if err != nil || len(got.Bases) != maxMirrors || got.Bases[0] != "http://m0.mirror.example.org/el/" {
		t.Errorf("%d mirrors: %v, %d kept", 3*maxMirrors, err, len(got.Bases))
	}
	alternate := whole[strings.Index(whole, "<mm0:alternate>"):strings.Index(whole, "</mm0:alternates>")]
	crowd := strings.Replace(whole, alternate, strings.Repeat(alternate, 3*maxAlternates), 1)
	if got, err = (Format{}).ParseList([]byte(crowd)); err != nil || len(got.Roots) != 1+maxAlternates {
		t.Errorf("%d alternates: %v, %d roots", 3*maxAlternates, err, len(got.Roots))
	}
}

func TestRenderedListsAreReadBack(t *testing.T) {
	for _, want := range []chantal.MirrorList{
		{Form: "mirrorlist", Bases: []string{"http://127.0.0.1:8180/epel@prod/"}},
		{
			Form: "metalink", Bases: []string{"http://127.0.0.1:8180/epel@prod/+root/x&y/"},
			Roots: []chantal.ListedRoot{
				{Digests: []chantal.Digest{ones}, Size: 3141, Date: time.Unix(1795433037, 0).UTC()},
				{Digests: []chantal.Digest{threes}, Size: -1},
				{Digests: []chantal.Digest{threes}, Size: 5, Date: time.Unix(1795433030, 0).UTC()},
			},
		},
		{Form: "metalink", Bases: []string{"https://mirror.example.org/a/", "http://mirror.example.org/b/"},
			Roots: []chantal.ListedRoot{{Digests: []chantal.Digest{ones}, Size: 1}}},
	} {
		body, mediaType := Format{}.RenderList(want)
		got, err := Format{}.ParseList(body)
		if err != nil {
			t.Fatalf("%v in\n%s", err, body)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s\n%s", diff, body)
		}
		if metalink := strings.HasPrefix(mediaType, "application/metalink+xml"); metalink != (want.Form == "metalink") {
			t.Errorf("a %s is of type %s", want.Form, mediaType)
		}
	}
}

func TestListURL(t *testing.T) {
	for raw, want := range map[string]struct {
		canonical string
		likely    bool
	}{
		"https://mirrors.example.org/metalink?repo=el-9&arch=x86_64": {"https://mirrors.example.org/metalink?arch=x86_64&repo=el-9", true},
		"https://Mirrors.example.org/metalink?arch=x86_64&countme=3&repo=el-9&protocol=https&country=DE,FR&location=x#y": {
			"https://mirrors.example.org/metalink?arch=x86_64&repo=el-9", true},
		"http://mirrorlist.example.org/?release=7&arch=x86_64": {"http://mirrorlist.example.org/?arch=x86_64&release=7", true},
		"http://rpms.example.org/9/x86_64/mirror":              {"http://rpms.example.org/9/x86_64/mirror", true},
		"http://rpms.example.org/mirrors-el9":                  {"http://rpms.example.org/mirrors-el9", true},
		"http://mirror.example.org/el9/repodata/repomd.xml":    {"http://mirror.example.org/el9/repodata/repomd.xml", false},
		"http://mirror.example.org/debian/ls-lR.gz":            {"http://mirror.example.org/debian/ls-lR.gz", false},
		"http://mirror.example.org/mirrorlist-1-1.noarch.rpm":  {"http://mirror.example.org/mirrorlist-1-1.noarch.rpm", false},
		"ftp://mirror.example.org/metalink":                    {"ftp://mirror.example.org/metalink", false},
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		canonical, likely := Format{}.ListURL(u)
		if canonical.String() != want.canonical || likely != want.likely {
			t.Errorf("%s: got %s, %v, want %s, %v", raw, canonical, likely, want.canonical, want.likely)
		}
		if again, _ := (Format{}).ListURL(canonical); again.String() != canonical.String() {
			t.Errorf("%s is not canonical: it becomes %s", canonical, again)
		}
	}
}

// Whatever a list says, what is made of it can be fetched and leads nowhere
// else, and writing it changes nothing.
func FuzzParseList(f *testing.F) {
	for _, name := range []string{"mirrormanager.xml", "rfc5854.xml", "mirrorlist.txt"} {
		f.Add(listFile(f, name))
	}
	f.Add([]byte("\xef\xbb\xbfhttp://a.example.org/%zz\r\nhttps://[::1]:443/x\n"))
	f.Add([]byte(`<metalink><file name="repomd.xml"><hash type="sha-256"/><url priority="-1">http://a/repodata/repomd.xml</url></file></metalink>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		l, err := Format{}.ParseList(body)
		if err != nil {
			return
		}
		if len(l.Bases) == 0 || len(l.Bases) > maxMirrors || len(l.Roots) > maxAlternates+1 {
			t.Fatalf("%d mirrors, %d roots", len(l.Bases), len(l.Roots))
		}
		for _, base := range l.Bases {
			u, err := url.Parse(base)
			if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || !strings.HasSuffix(u.Path, "/") ||
				u.Scheme != "http" && u.Scheme != "https" {
				t.Fatalf("a base %q: %v", base, err)
			}
		}
		again, _ := Format{}.RenderList(l)
		got, err := Format{}.ParseList(again)
		if err != nil {
			t.Fatalf("%v in\n%s", err, again)
		}
		if diff := cmp.Diff(l.Roots, got.Roots); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}
