package rpm

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

const primary = "9/repodata/primary.xml.gz"

func primaryOf(packages ...string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="7">
` + strings.Join(packages, "\n") + "\n</metadata>\n"
}

func TestParsePrimary(t *testing.T) {
	sum := func(s string) []chantal.Digest { return []chantal.Digest{chantal.Digest("sha256:" + s)} }
	htop := chantal.Promise{Path: "9/h/htop.rpm", Kind: chantal.Artifact, Size: 5529, Digests: sum(hexA),
		Package: &chantal.Package{Name: "htop", Version: "2:3.0-1.el9", Arch: "x86_64", Section: "Text & Tools"}}
	with := func(change func(*chantal.Promise)) []chantal.Promise {
		p, pkg := htop, *htop.Package
		p.Package = &pkg
		change(&p)
		return []chantal.Promise{p}
	}
	element := func(edits ...string) string {
		return strings.NewReplacer(edits...).Replace(`<package type="rpm"><name>htop</name><arch>x86_64</arch><version epoch="2" ver="3.0" rel="1.el9"/>` +
			`<checksum type="sha256" pkgid="YES">` + hexA + `</checksum><summary>x</summary><size package="5529" installed="0" archive="124"/>` +
			`<location href="h/htop.rpm"/><format><rpm:group>Text &amp; Tools</rpm:group><rpm:provides><rpm:entry name="x"/></rpm:provides><file>/usr/bin/htop</file></format></package>`)
	}
	tests := map[string]struct {
		body string
		want []chantal.Promise
	}{
		"plain":        {element(), with(func(*chantal.Promise) {})},
		"none":         {"", nil},
		"single quote": {element(`"`, `'`), with(func(*chantal.Promise) {})},
		"attributes in another order, with blanks": {element(`epoch="2" ver="3.0" rel="1.el9"`, "\n rel = '1.el9'\n\tver=\"3.0\" other='/>' epoch =\"2\" "), with(func(*chantal.Promise) {})},
		"no epoch":               {element(`epoch="2"`, `epoch="0"`), with(func(p *chantal.Promise) { p.Package.Version = "3.0-1.el9" })},
		"epoch left out":         {element(`epoch="2" `, ``), with(func(p *chantal.Promise) { p.Package.Version = "3.0-1.el9" })},
		"no release":             {element(` rel="1.el9"`, ``), with(func(p *chantal.Promise) { p.Package.Version = "2:3.0" })},
		"no group":               {element(`<rpm:group>Text &amp; Tools</rpm:group>`, ``), with(func(p *chantal.Promise) { p.Package.Section = "" })},
		"no size":                {element(`package="5529" `, ``), with(func(p *chantal.Promise) { p.Size = -1 })},
		"no checksum":            {element(`type="sha256"`, `type="crc"`), with(func(p *chantal.Promise) { p.Digests = nil })},
		"two checksums":          {element(`<summary>`, `<checksum type="sha">`+sha1+`</checksum><checksum type="sha256">`+hexA+`</checksum><summary>`), with(func(p *chantal.Promise) { p.Digests = append(sum(hexA), "sha1:"+sha1) })},
		"entities in the path":   {element("h/htop.rpm", "h/a&amp;b&lt;&gt;&quot;&apos;&#43;&#x2B;.rpm"), with(func(p *chantal.Promise) { p.Path = `9/h/a&b<>"'++.rpm` })},
		"escapes are characters": {element("h/htop.rpm", "h/a%41?b+c#d.rpm"), with(func(p *chantal.Promise) { p.Path = "9/h/a%41?b+c#d.rpm" })},
		"elsewhere": {element(`<location `, `<location xml:base="https://other.example.org/r/" `, "htop.rpm", "a+b %.rpm"), with(func(p *chantal.Promise) {
			p.Path, p.URL = "9/h/a+b %.rpm", "https://other.example.org/r/h/a+b%20%25.rpm"
		})},
		"elsewhere, and up":      {element(`<location `, `<location xml:base="https://other.example.org/r" `, "h/htop.rpm", "../../../a.rpm"), with(func(p *chantal.Promise) { p.Path, p.URL = "9/a.rpm", "https://other.example.org/r/../../../a.rpm" })},
		"on no network":          {element(`<location `, `<location xml:base="media:1" `), with(func(*chantal.Promise) {})},
		"all elsewhere":          {element("h/htop.rpm", "http://other.example.org/q/htop.rpm?t=1"), with(func(p *chantal.Promise) { p.Path, p.URL = "9/htop.rpm", "http://other.example.org/q/htop.rpm?t=1" })},
		"beside the folder":      {element("h/htop.rpm", "../8/htop.rpm"), with(func(p *chantal.Promise) { p.Path = "8/htop.rpm" })},
		"from the top":           {element("h/htop.rpm", "/h/htop.rpm"), with(func(*chantal.Promise) {})},
		"not self-closing":       {element(`<location href="h/htop.rpm"/>`, `<location href="h/htop.rpm"></location>`), with(func(*chantal.Promise) {})},
		"CDATA":                  {element(`<name>htop</name>`, `<name><![CDATA[ht]]>o<!-- <name> -->p</name>`), with(func(*chantal.Promise) {})},
		"end tag in CDATA":       {element(`<summary>x`, `<summary><![CDATA[</package><package>]]>`), with(func(*chantal.Promise) {})},
		"end tag in a comment":   {element(`<summary>`, `<!-- </package> - -- > <name>no</name> --><summary>`), with(func(*chantal.Promise) {})},
		"package in a comment":   {"<!-- " + element() + " -->", nil},
		"instruction":            {"<?x <package> ?>" + element(), with(func(*chantal.Promise) {})},
		"blank in the end tag":   {element(`</package>`, "</package\n >"), with(func(*chantal.Promise) {})},
		"longer name":            {element(`<summary>x`, "<summary><packages></packages>"), with(func(*chantal.Promise) {})},
		"namesakes further down": {element(`<format>`, `<format><name>no</name><arch>no</arch><checksum type="md5">no</checksum><location href="no"/><version ver="no"/>`), with(func(*chantal.Promise) {})},
		"groups elsewhere":       {element(`<summary>x`, `<summary><group>no</group>`), with(func(*chantal.Promise) {})},
		"unknown neighbours":     {"<extra a='>'><name>no</name></extra><extra/>" + element(), with(func(*chantal.Promise) {})},
		"lines in a name":        {element(`>htop<`, ">\n htop \n<", "x86_64", "x86&#10;64"), with(func(p *chantal.Promise) { p.Package.Arch = "x86 64" })},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			got, err := collect(t, primary, primaryOf(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOnePathTwoDigestsAreTwoPromises(t *testing.T) {
	one := func(hex string) string {
		return `<package><name>a</name><checksum type="sha256">` + hex + `</checksum><location href="a.rpm"/></package>`
	}
	got, err := collect(t, primary, primaryOf(one(hexA), one(hexB)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Path != got[1].Path || got[0].SHA256() == got[1].SHA256() {
		t.Errorf("got %+v, want one path with two digests", got)
	}
}

func TestBadPrimary(t *testing.T) {
	good := `<package><name>a</name><location href="a.rpm"/></package>`
	tests := map[string]string{
		"empty":               "",
		"text":                "Not found",
		"a portal":            "<!DOCTYPE html><html></html>",
		"another document":    "<filelists></filelists>",
		"an end first":        "</metadata>",
		"with a DTD":          `<!DOCTYPE metadata [<!ENTITY a "b">]>` + primaryOf(good),
		"leaves":              primaryOf(strings.ReplaceAll(good, "a.rpm", "../../a.rpm")),
		"leaves by entity":    primaryOf(strings.ReplaceAll(good, "a.rpm", "../&#46;./a.rpm")),
		"no location":         primaryOf(`<package><name>a</name></package>`),
		"nothing in it":       primaryOf(`<package/>`),
		"no name":             primaryOf(`<package><location href="a.rpm"/></package>`),
		"unknown entity":      primaryOf(strings.ReplaceAll(good, "a.rpm", "&nbsp;")),
		"entity without end":  primaryOf(strings.ReplaceAll(good, "a.rpm", "a&amp")),
		"entity beyond":       primaryOf(strings.ReplaceAll(good, "a.rpm", "&#x110000;")),
		"newline in the path": primaryOf(strings.ReplaceAll(good, "a.rpm", "a&#10;b")),
		"NUL in the path":     primaryOf(strings.ReplaceAll(good, "a.rpm", "a\x00b")),
		"not UTF-8":           primaryOf(strings.ReplaceAll(good, "a.rpm", "a\xff")),
		"no quotes":           primaryOf(strings.ReplaceAll(good, `"a.rpm"`, "a.rpm")),
		"quote left open":     primaryOf(strings.ReplaceAll(good, `"a.rpm"`, `"a.rpm`)),
		"wrong checksum":      primaryOf(strings.ReplaceAll(good, "<location", `<checksum type="md5">zz</checksum><location`)),
		"wrong size":          primaryOf(strings.ReplaceAll(good, "<location", `<size package="1k"/><location`)),
		"package in package":  primaryOf(strings.ReplaceAll(good, "<location", good+"<location")),
		"wrong end":           strings.ReplaceAll(primaryOf(good), "</metadata>", "</metadat>"),
		"too long":            primaryOf(strings.ReplaceAll(good, "<location", strings.Repeat("<file>/x</file>", maxElement/15+1)+"<location")),
		"comment too long":    primaryOf("<!--" + strings.Repeat(" ", maxElement) + "-->" + good),
	}
	for title, body := range tests {
		if got, err := collect(t, primary, body); err == nil {
			t.Errorf("%s: no error, but %+v", title, got)
		}
	}
}

func TestTruncatedPrimaryIsAnError(t *testing.T) {
	body, err := os.ReadFile("testdata/createrepo/primary.xml")
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(body) - 1 { // the last byte is a newline
		if _, err := collect(t, primary, string(body[:n])); err == nil {
			t.Fatalf("%d of %d bytes, ending in %q: no error", n, len(body), body[max(0, n-20):n])
		}
	}
}

func TestDamageBehindTheRootElementIsFound(t *testing.T) {
	broken := errors.New("gzip: invalid checksum")
	r := io.MultiReader(strings.NewReader(primaryOf()), iotest.ErrReader(broken))
	var got error
	for _, err := range (Format{}).Parse(primary, r) {
		got = err
	}
	if !errors.Is(got, broken) {
		t.Errorf("got %v, want the reader's error", got)
	}
}

func TestOtherMetadataPromisesNothing(t *testing.T) {
	for _, name := range []string{
		"repodata/filelists.xml.gz", "repodata/x-comps.xml", "repodata/modules.yaml", "repodata/primary.xml.zck",
		"repodata/primary.sqlite.bz2", "repodata/repomd.xml.asc", "a.rpm", "primary.xml", "repomd.xml", "",
	} {
		if (Format{}).Parse(name, strings.NewReader("")) != nil {
			t.Errorf("Parse(%q) is not nil", name)
		}
	}
}

// reference reads primary.xml with the standard library's decoder.
func reference(t *testing.T, dir string, body []byte) []chantal.Promise {
	t.Helper()
	var doc struct {
		Packages []struct {
			Name    string `xml:"name"`
			Arch    string `xml:"arch"`
			Version struct {
				Epoch string `xml:"epoch,attr"`
				Ver   string `xml:"ver,attr"`
				Rel   string `xml:"rel,attr"`
			} `xml:"version"`
			Checksum checksum `xml:"checksum"`
			Size     struct {
				Package int64 `xml:"package,attr"`
			} `xml:"size"`
			Location location `xml:"location"`
			Group    string   `xml:"format>group"`
		} `xml:"package"`
	}
	if err := xml.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	var want []chantal.Promise
	for _, p := range doc.Packages {
		want = append(want, chantal.Promise{
			Path: path.Join(dir, p.Location.Href), Kind: chantal.Artifact, Size: p.Size.Package,
			Digests: []chantal.Digest{chantal.Digest(p.Checksum.Type + ":" + p.Checksum.Value)},
			Package: &chantal.Package{Name: p.Name, Arch: p.Arch, Section: p.Group,
				Version: strings.TrimPrefix(fmt.Sprintf("%s:%s-%s", p.Version.Epoch, p.Version.Ver, p.Version.Rel), "0:")},
		})
	}
	return want
}

func TestPrimaryAgreesWithAFullDecoder(t *testing.T) {
	real, err := os.ReadFile("testdata/createrepo/primary.xml")
	if err != nil {
		t.Fatal(err)
	}
	for title, body := range map[string][]byte{"createrepo": real, "large": largePrimary(3 * chunk)} {
		want := reference(t, "9", body)
		for how, r := range map[string]io.Reader{
			"at once":      strings.NewReader(string(body)),
			"byte by byte": iotest.OneByteReader(strings.NewReader(string(body))),
			"by halves":    iotest.HalfReader(strings.NewReader(string(body))),
			"EOF early":    iotest.DataErrReader(strings.NewReader(string(body))),
		} {
			var got []chantal.Promise
			for p, err := range (Format{}).Parse(primary, r) {
				if err != nil {
					t.Fatalf("%s, %s: %v", title, how, err)
				}
				got = append(got, p)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", title, how, diff)
			}
		}
	}
}

// largePrimary makes a primary.xml of about n bytes, shaped like those of big
// distributions: what packages provide and require is most of it.
func largePrimary(n int) []byte {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"0\">\n")
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "<package type=\"rpm\">\n  <name>pkg%d</name>\n  <arch>x86_64</arch>\n  <version epoch=\"%d\" ver=\"1.%d\" rel=\"1.el9\"/>\n", i, i%3, i)
		fmt.Fprintf(&b, "  <checksum type=\"sha256\" pkgid=\"YES\">%064x</checksum>\n  <summary>The &lt;%d&gt;th</summary>\n  <description>%s</description>\n", i, i, strings.Repeat("Lorem &amp; ipsum. ", i%40))
		fmt.Fprintf(&b, "  <packager/>\n  <url>https://mirror.example.org/</url>\n  <time file=\"1\" build=\"1\"/>\n  <size package=\"%d\" installed=\"0\" archive=\"0\"/>\n  <location href=\"Packages/p/pkg%d&amp;c.rpm\"/>\n  <format>\n    <rpm:license>MIT</rpm:license>\n    <rpm:group>Unspecified</rpm:group>\n    <rpm:provides>\n", i+1, i)
		for j := range i % 30 {
			fmt.Fprintf(&b, "      <rpm:entry name=\"lib%d.so.%d()(64bit)\" flags=\"EQ\" epoch=\"0\" ver=\"1\" rel=\"1\"/>\n", i, j)
		}
		fmt.Fprintf(&b, "    </rpm:provides>\n    <file>/usr/bin/pkg%d</file>\n  </format>\n</package>\n", i)
	}
	b.WriteString("</metadata>\n")
	return []byte(b.String())
}
