package rpm

import (
	"bytes"
	"encoding/xml"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/plugins/formattest"
)

const deltas = `<?xml version="1.0" encoding="UTF-8"?>
<prestodelta>
  <newpackage name="htop" epoch="0" version="3" release="1" arch="x86_64">
    <delta oldepoch="0" oldversion="1" oldrelease="1">
      <filename>drpms/htop-1-1_3-1.x86_64.drpm</filename>
      <sequence>htop-1-1-00ff</sequence>
      <size>1234</size>
      <checksum type="sha256">` + hexA + `</checksum>
    </delta>
    <delta oldepoch="0" oldversion="2" oldrelease="1">
      <filename xml:base="http://other.example.org/">drpms/htop-2-1_3-1.x86_64.drpm</filename>
    </delta>
  </newpackage>
  <newpackage name="none"/>
  <newpackage name="mc"><delta><filename>drpms/mc.drpm</filename><checksum type="md5">` + "d41d8cd98f00b204e9800998ecf8427e" + `</checksum></delta></newpackage>
</prestodelta>
`

func TestParseDeltas(t *testing.T) {
	want := []chantal.Promise{
		{Path: "9/drpms/htop-1-1_3-1.x86_64.drpm", Kind: chantal.Artifact, Size: 1234, Digests: []chantal.Digest{"sha256:" + hexA}},
		{Path: "9/drpms/htop-2-1_3-1.x86_64.drpm", URL: "http://other.example.org/drpms/htop-2-1_3-1.x86_64.drpm", Kind: chantal.Artifact, Size: -1},
		{Path: "9/drpms/mc.drpm", Kind: chantal.Artifact, Size: -1, Digests: []chantal.Digest{"md5:d41d8cd98f00b204e9800998ecf8427e"}},
	}
	for name, body := range map[string]string{
		"9/repodata/" + hexB + "-prestodelta.xml.gz": deltas,
		"9/repodata/deltainfo.xml.gz":                strings.ReplaceAll(deltas, "prestodelta", "deltainfo"),
	} {
		got, err := collect(t, name, body)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for title, body := range map[string]string{
		"no file name": strings.Replace(deltas, "drpms/mc.drpm", "", 1),
		"leaves":       strings.Replace(deltas, "drpms/mc.drpm", "../../mc.drpm", 1),
		"wrong size":   strings.Replace(deltas, ">1234<", ">many<", 1),
		"wrong digest": strings.Replace(deltas, hexA, "00", 1),
		"primary":      primaryOf(),
	} {
		if got, err := collect(t, "9/repodata/prestodelta.xml.gz", body); err == nil {
			t.Errorf("%s: no error, but %+v", title, got)
		}
	}
}

func escaped(t testing.TB, s string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestSuite(t *testing.T) {
	var files []formattest.File
	for name, count := range map[string]int{"repomd.xml": 6, "primary.xml": 3} {
		body, err := os.ReadFile("testdata/createrepo/" + name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, formattest.File{Path: "9/repodata/" + name, Content: body, Want: count, Cuts: formattest.Cuts(body, 50)})
	}
	files = append(files,
		formattest.File{Path: "repodata/prestodelta.xml", Content: []byte(deltas), Want: 3, Cuts: formattest.Cuts([]byte(deltas), 50)},
		formattest.File{Path: "repodata/filelists.xml", Content: []byte("<filelists/>")},
		formattest.File{Path: "9/os/.treeinfo", Content: []byte(treeinfo), Want: 4},
	)
	paths := []string{
		"repodata/repomd.xml", "9/os/repodata/repomd.xml.asc", "repodata/repomd.xml.key", "repodata/" + hexA + "-primary.xml.gz",
		"a/repodata/b/repodata/c", "Packages/h/htop.rpm", "drpms/htop.drpm", "media.1/media", ".treeinfo", "9/treeinfo", "repodata/.treeinfo", "x/../.treeinfo",
	}
	formattest.Test(t, Format{}, formattest.Fixtures{Files: files, Paths: paths})
	for title, hostile := range map[string]func(name string) (string, []byte){
		"repomd": func(name string) (string, []byte) {
			return "repodata/repomd.xml", []byte(repomdOf(`<data><location href="` + escaped(t, name) + `"/></data>`))
		},
		"repomd, based elsewhere": func(name string) (string, []byte) {
			return "repodata/repomd.xml", []byte(repomdOf(`<data><location xml:base="http://mirror.example.org/" href="` + escaped(t, name) + `"/></data>`))
		},
		"primary": func(name string) (string, []byte) {
			return primary, []byte(primaryOf(`<package><name>a</name><location href="` + escaped(t, name) + `"/></package>`))
		},
		"primary, based elsewhere": func(name string) (string, []byte) {
			return primary, []byte(primaryOf(`<package><name>a</name><location xml:base="http://mirror.example.org/" href="` + escaped(t, name) + `"/></package>`))
		},
		"treeinfo": func(name string) (string, []byte) {
			return ".treeinfo", []byte("[header]\n[checksums]\n" + name + " = sha256:" + hexA + "\n[stage2]\nmainimage = " + name + "\n")
		},
		"deltas": func(name string) (string, []byte) {
			return "repodata/prestodelta.xml", []byte(strings.Replace(deltas, "drpms/mc.drpm", escaped(t, name), 1))
		},
	} {
		t.Run(title, func(t *testing.T) {
			formattest.Test(t, Format{}, formattest.Fixtures{Hostile: hostile})
		})
	}
}

// fuzzParse tries Parse under name with bytes that begin as the seeds do, and
// holds what it yields against the laws.
func fuzzParse(f *testing.F, name string, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		failed := false
		for p, err := range (Format{}).Parse(name, bytes.NewReader(body)) {
			if failed {
				t.Fatal("the sequence goes on after its error")
			}
			if failed = err != nil; failed {
				continue
			}
			if err := formattest.CheckPromise(Format{}, p); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzRepomd(f *testing.F) {
	fuzzParse(f, "9/repodata/repomd.xml",
		repomdOf(`<data type="primary"><checksum type="sha">`+sha1+`</checksum><location xml:base="http://mirror.example.org/" href="repodata/x?y"/><size>1</size><timestamp>1.5</timestamp></data>`),
		"<repomd/>", `<r:repomd xmlns:r="r"><r:data><r:location href="../x%2e"/></r:data></r:repomd>`)
}

func FuzzPrimary(f *testing.F) {
	fuzzParse(f, primary, string(largePrimary(3000)), primaryOf(), "<metadata/>",
		primaryOf(`<!-- <package> --><x/><package><name><![CDATA[a]]></name><checksum type='md5'>d41d8cd98f00b204e9800998ecf8427e</checksum><size package='1'/><location href='a&amp;b' xml:base='http://mirror.example.org'/></package >`))
}

func FuzzDeltas(f *testing.F) { fuzzParse(f, "repodata/prestodelta.xml.gz", deltas) }

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"repodata/repomd.xml", "a/repodata/" + hexA + "-primary.xml.gz", "a/../repodata/b/repodata/x", "x.rpm", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if err := formattest.CheckClassify(Format{}, name); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkPrimary(b *testing.B) {
	body := largePrimary(50 << 20)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range (Format{}).Parse(primary, bytes.NewReader(body)) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		b.ReportMetric(float64(n), "packages/op")
	}
}
