package rpm

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

func TestClassify(t *testing.T) {
	sha256, sha512 := strings.Repeat("0123456789abcdef", 4), strings.Repeat("0123456789abcdef", 8)
	top := chantal.Tree{Name: "repodata", Roots: []string{"repodata/repomd.xml", "repodata/repomd.xml.asc", "repodata/repomd.xml.key"}}
	deep := chantal.Tree{Name: "9/os/repodata", Roots: []string{"9/os/repodata/repomd.xml", "9/os/repodata/repomd.xml.asc", "9/os/repodata/repomd.xml.key"}}
	tests := map[string]chantal.Class{
		"repodata/repomd.xml":              {Kind: chantal.Root, Tree: top, Trees: []string{"repodata"}},
		"repodata/repomd.xml.asc":          {Kind: chantal.Root, Tree: top, Trees: []string{"repodata"}},
		"9/os/repodata/repomd.xml.key":     {Kind: chantal.Root, Tree: deep, Trees: []string{"9/os/repodata"}},
		"repodata/primary.xml.gz":          {Kind: chantal.Meta, Trees: []string{"repodata"}},
		"repodata/repomd.xml.old":          {Kind: chantal.Meta, Trees: []string{"repodata"}},
		"repodata/sub/repomd.xml":          {Kind: chantal.Meta, Trees: []string{"repodata"}},
		"repodata/" + sha256 + "-p.xml.gz": {Kind: chantal.Meta, Trees: []string{"repodata"}, Digest: chantal.Digest("sha256:" + sha256)},
		"repodata/" + sha512 + "-p.xml.gz": {Kind: chantal.Meta, Trees: []string{"repodata"}, Digest: chantal.Digest("sha512:" + sha512)},
		"repodata/" + sha256[:40] + "-a-b": {Kind: chantal.Meta, Trees: []string{"repodata"}, Digest: chantal.Digest("sha1:" + sha256[:40])},
		"repodata/" + sha256[:32] + "-a":   {Kind: chantal.Meta, Trees: []string{"repodata"}, Digest: chantal.Digest("md5:" + sha256[:32])},
		"repodata/" + sha256[:63] + "-a":   {Kind: chantal.Meta, Trees: []string{"repodata"}},
		"repodata/" + sha256[:63] + "g-a":  {Kind: chantal.Meta, Trees: []string{"repodata"}},
		"repodata/" + sha256 + ".xml":      {Kind: chantal.Meta, Trees: []string{"repodata"}},
		"a/repodata/b/repodata/x":          {Kind: chantal.Meta, Trees: []string{"a/repodata/b/repodata", "a/repodata"}},
		"Packages/h/htop-3-1.x86_64.rpm":   {Kind: chantal.Artifact},
		"drpms/htop-1_2.x86_64.drpm":       {Kind: chantal.Artifact},
		"repodata/htop-3-1.x86_64.rpm":     {Kind: chantal.Artifact},
		"media.1/media":                    {Kind: chantal.Opaque},
		"repomd.xml":                       {Kind: chantal.Opaque},
		"repodata":                         {Kind: chantal.Opaque},
		"myrepodata/repomd.xml":            {Kind: chantal.Opaque},
		"":                                 {Kind: chantal.Opaque},
	}
	for name, want := range tests {
		want.Path = name
		if diff := cmp.Diff(want, Format{}.Classify(name)); diff != "" {
			t.Errorf("Classify(%q) (-want +got):\n%s", name, diff)
		}
	}
}

func TestLocate(t *testing.T) {
	at := func(base, path string) chantal.Location {
		return chantal.Location{Base: base, Root: "repodata/repomd.xml", Path: path}
	}
	tests := map[string][]chantal.Location{
		"http://mirror.example.org/epel/9/repodata/repomd.xml":          {at("http://mirror.example.org/epel/9/", "repodata/repomd.xml")},
		"https://mirror.example.org:8443/repodata/x.gz?token=1":         {at("https://mirror.example.org:8443/", "repodata/x.gz")},
		"http://mirror.example.org/a%20b//repodata/x%2by":               {at("http://mirror.example.org/a%20b//", "repodata/x+y")},
		"http://mirror.example.org/repodata/repodata/x":                 {at("http://mirror.example.org/repodata/", "repodata/x"), at("http://mirror.example.org/", "repodata/repodata/x")},
		"http://mirror.example.org/epel/repodata/../../secret":          nil,
		"http://mirror.example.org/epel/repodata/%2e%2e/%2e%2e/secret":  nil,
		"http://mirror.example.org/epel/9/Packages/h/htop-3.x86_64.rpm": nil,
		"http://mirror.example.org/epel/repodata/htop-3.x86_64.rpm":     nil,
		"http://mirror.example.org/epel/repodata/":                      nil,
		"http://mirror.example.org/epel/repodata":                       nil,
		"ftp://mirror.example.org/epel/repodata/repomd.xml":             nil,
		"/epel/repodata/repomd.xml":                                     nil,
	}
	for in, want := range tests {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, Format{}.Locate(u, "")); diff != "" {
			t.Errorf("Locate(%q) (-want +got):\n%s", in, diff)
		}
	}
	if got := (Format{}).Prefix(); got != "" {
		t.Errorf("Prefix() = %q, want none", got)
	}
}

func TestRequiredIsPrimaryAndClosureIsEverything(t *testing.T) {
	var listed []chantal.Promise
	for _, name := range []string{
		"repodata/aa-primary.xml.gz", "repodata/aa-primary.xml.zck", "repodata/aa-primary.sqlite.bz2",
		"repodata/primary.xml", "repodata/primary.xml.zst", "repodata/primary.xml.gz.asc", "repodata/aa-filelists.xml.gz", "repodata/aa-primary.xmlx",
	} {
		listed = append(listed, chantal.Promise{Path: name})
	}
	var got []string
	for _, p := range (Format{}).Required(listed) {
		got = append(got, p.Path)
	}
	if diff := cmp.Diff([]string{"repodata/aa-primary.xml.gz", "repodata/primary.xml", "repodata/primary.xml.zst"}, got); diff != "" {
		t.Errorf("required (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(listed, Format{}.Closure(listed)); diff != "" {
		t.Errorf("closure (-want +got):\n%s", diff)
	}
}
