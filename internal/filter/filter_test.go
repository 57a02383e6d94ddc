package filter

import (
	"errors"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/plugins/apt"
)

func pkg() *chantal.Promise {
	return &chantal.Promise{
		Path: "pool/main/n/nginx/nginx_1.22-3_amd64.deb", Size: 4096, Kind: chantal.Artifact,
		Package: &chantal.Package{
			Name: "nginx", Version: "1:1.22-3", Arch: "amd64", Section: "httpd",
			Uploaded: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
		},
	}
}

func said(name string) string {
	return map[string]string{"maintainer": "A <a@example.org>", "source": "nginx-src", "component": "main"}[name]
}

func TestWhatAFilterAccepts(t *testing.T) {
	for text, want := range map[string]bool{
		`true`:                true,
		`pkg.name == "nginx"`: true,
		`pkg.name != "nginx"`: false,
		`pkg.arch in ["amd64", "all"] && pkg.section == "httpd"`: true,
		`glob(pkg.name, "ng*")`:                                  true,
		`glob(pkg.path, "pool/*")`:                               true,
		`glob(pkg.name, "x*")`:                                   false,
		`pkg.name.matches("^n.*x$")`:                             true,
		`pkg.size < 5000 && pkg.size >= 4096`:                    true,
		`version(pkg.version) >= version("1:1.22")`:              true,
		`version(pkg.version) > version("1:1.22-3")`:             false,
		`version(pkg.version) < version("2.0")`:                  false, // it has no epoch
		`version(pkg.version) <= version("1:1.22-10")`:           true,
		`version("1.0") == version("0:1.0")`:                     true,
		`version("1.0") != version("1.0~rc1")`:                   true,
		`pkg.fields["maintainer"].contains("example.org")`:       true,
		`pkg.fields["Maintainer"] == pkg.fields["maintainer"]`:   true,
		`pkg.fields.homepage == ""`:                              true,
		`"homepage" in pkg.fields || "maintainer" in pkg.fields`: true,
		`"homepage" in pkg.fields`:                               false,
		`has(pkg.fields.maintainer)`:                             true,
		`pkg.source == "nginx-src" && pkg.component == "main"`:   true,
		`pkg.repo == "debian" && pkg.type == "apt"`:              true,
		`pkg.uploaded < timestamp("2026-11-24T00:00:00Z")`:       true,
		`pkg.uploaded > timestamp("2026-11-24T00:00:00Z")`:       false,
	} {
		f, err := Compile(text, "apt", &apt.Format{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := f.Keeps("debian", pkg(), said); err != nil || got != want {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
}

func TestWhatMetadataDoesNotSayIsEmpty(t *testing.T) {
	f, err := Compile(`pkg.name == "" && pkg.version == "" && pkg.uploaded == timestamp("1970-01-01T00:00:00Z")`, "pypi", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Keeps("pypi", &chantal.Promise{Path: "x"}, func(string) string { return "" }); err != nil || !got {
		t.Error(got, err)
	}
}

func TestFiltersThatAreNone(t *testing.T) {
	for text, want := range map[string]struct {
		column int
		say    string
	}{
		`pkg.nme == "x"`:               {4, "pkg.name, pkg.path"},
		`true && pkg.bame == "x"`:      {12, "pkg.name"},
		`pkg.name = "x"`:               {10, "Syntax error"},
		`pkg.name`:                     {0, "gives a string"},
		`pkg.size > "x"`:               {10, "no matching overload"},
		`name == "x"`:                  {1, "undeclared reference"},
		``:                             {0, "Syntax error"},
		`version(pkg.version) > "1.2"`: {22, "no matching overload"},
		`pkg.name.matches("(")`:        {0, "cannot be used"},
	} {
		_, err := Compile(text, "apt", &apt.Format{})
		var e *Error
		if !errors.As(err, &e) || e.Column != want.column || !strings.Contains(e.Message, want.say) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{`glob(pkg.name, "[")`, `version(pkg.name) > version("1")`, `pkg.size / 0 > 1`} {
		f, err := Compile(text, "generic", nil)
		if err != nil {
			t.Fatal(text, err)
		}
		if _, err := f.Keeps("files", pkg(), said); err == nil || !strings.Contains(err.Error(), pkg().Path) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func BenchmarkKeeps(b *testing.B) {
	f, err := Compile(`glob(pkg.name, "lib*") || version(pkg.version) >= version("1:1.20") && pkg.section != "debug"`, "apt", &apt.Format{})
	if err != nil {
		b.Fatal(err)
	}
	p := pkg()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Keeps("debian", p, said); err != nil {
			b.Fatal(err)
		}
	}
}
