package pypi

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

func TestRepresent(t *testing.T) {
	const (
		j     = "application/vnd.pypi.simple.v1+json"
		h     = "application/vnd.pypi.simple.v1+html"
		plain = "text/html; charset=utf-8"
	)
	for _, test := range []struct{ accept, format, want string }{
		{"", "", plain},
		{"*/*", "", plain},
		{"text/html", "", plain},
		{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "", plain},
		{j + ", " + h + "; q=0.1, text/html; q=0.01", "", j},           // pip
		{j + ", " + h + ";q=0.2, text/html;q=0.01", "", j},             // uv
		{j + ", */*;q=0.1", "", j},                                     // poetry
		{j + ";q=0.1, " + h, "", h},                                    //
		{j + ";q=0.1, text/html;q=0.2", "", plain},                     //
		{"text/html, " + h + ", " + j, "", j},                          // equals: the server's choice
		{"text/html, " + h, "", h},                                     //
		{"*/*, " + h, "", h},                                           // what is named goes before what a wildcard allows
		{"application/*", "", j},                                       //
		{"application/*;q=0.5, text/*", "", plain},                     //
		{j + ";q=0, */*", "", plain},                                   //
		{"text/html;q=0, " + h + ";q=0, */*", "", j},                   //
		{"application/vnd.pypi.simple.latest+json", "", j},             //
		{"application/vnd.pypi.simple.latest+html", "", h},             //
		{"APPLICATION/vnd.PyPI.simple.v1+JSON", "", j},                 //
		{"application/vnd.pypi.simple.v2+json", "", plain},             // nothing acceptable
		{"image/png", "", plain},                                       //
		{j + ";q=2, text/html;q=0.1", "", plain},                       // a malformed element does not count
		{j + ";q=nan, " + h + ";q=0.1", "", h},                         //
		{j + ";q=0", "", plain},                                        //
		{"text/html", j, j},                                            // the parameter wins
		{"text/html", "application/vnd.pypi.simple.v1 json", j},        // its plus sign unescaped
		{j, "text/html", plain},                                        //
		{"", "application/vnd.pypi.simple.latest+html", h},             //
		{j, "no/such", j},                                              //
		{",;q=,;;,=,*/*;q", "", plain},                                 //
		{"  " + j + " ; charset=utf-8 ; Q=0.5 ,text/html;q=.4", "", j}, //
	} {
		got, err := Format{}.Represent(test.accept, test.format)
		if err != nil || got != test.want {
			t.Errorf("Represent(%q, %q) = %q, %v, want %q", test.accept, test.format, got, err, test.want)
		}
	}
}

func TestLocate(t *testing.T) {
	const asks = "application/vnd.pypi.simple.v1+json, text/html;q=0.01"
	at := func(base, root, path string) chantal.Location {
		return chantal.Location{Base: base, Root: root, Path: path}
	}
	for _, test := range []struct {
		url, accept string
		want        []chantal.Location
	}{
		{"https://index.example.org/simple/six/", "*/*", []chantal.Location{
			at("https://index.example.org/simple/", "simple/six/", "simple/six/")}},
		{"http://index.example.org:8080/a/b/simple/Foo_Bar/?format=x", "", []chantal.Location{
			at("http://index.example.org:8080/a/b/simple/", "simple/foo-bar/", "simple/Foo_Bar/")}},
		{"https://u:p@index.example.org/whl/cpu/torch/", asks, []chantal.Location{
			at("https://index.example.org/whl/cpu/", "simple/torch/", "simple/torch/")}},
		{"https://index.example.org/simple/", asks, []chantal.Location{
			at("https://index.example.org/simple/", "simple/", "simple/"),
			at("https://index.example.org/", "simple/simple/", "simple/simple/")}},
		{"https://index.example.org/x/simple", "", []chantal.Location{
			at("https://index.example.org/x/simple/", "simple/", "simple/")}},
		{"https://index.example.org/simple/six", asks, []chantal.Location{
			at("https://index.example.org/simple/", "simple/six/", "simple/six")}},
		{"https://index.example.org/a%2Fb/simple/six/", "", []chantal.Location{
			at("https://index.example.org/a%2Fb/simple/", "simple/six/", "simple/six/")}},
		{"https://index.example.org/simple/six", "*/*", nil},
		{"https://index.example.org/whl/torch/", "*/*", nil},
		{"https://index.example.org/simple/six-1.0.tar.gz", asks, nil},
		{"https://index.example.org/six-1.0-py3-none-any.whl", asks, nil},
		{"https://index.example.org/simple/../six/", asks, nil},
		{"https://index.example.org/", asks, nil},
		{"https://index.example.org", asks, nil},
		{"https://index.example.org/simple/-x/", asks, nil},
		{"ftp://index.example.org/simple/six/", asks, nil},
		{"/simple/six/", asks, nil},
	} {
		u, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, Format{}.Locate(u, test.accept)); diff != "" {
			t.Errorf("Locate(%q, %q) (-want +got):\n%s", test.url, test.accept, diff)
		}
	}
}
