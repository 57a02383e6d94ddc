package pypi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNormalize(t *testing.T) {
	for name, want := range map[string]string{
		"six": "six", "Foo_Bar": "foo-bar", "a.-_b": "a-b", "A": "a", "zope.interface": "zope-interface", "a--b": "a-b",
	} {
		if got := Normalize(name); got != want {
			t.Errorf("Normalize(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestProjectOf(t *testing.T) {
	for filename, want := range map[string][]string{
		"six-1.16.0-py2.py3-none-any.whl":             {"six"},
		"Zope.Interface-5.0-cp39-cp39-linux_i686.whl": {"zope-interface"},
		"my_pkg-1.0.tar.gz":                           {"my-pkg"},
		"my-pkg-1.0.tar.gz":                           {"my", "my-pkg"},
		"a-b-1.0-beta.zip":                            {"a", "a-b", "a-b-1-0"},
		"a--b-1.tgz":                                  {"a", "a-b"},
		"pkg-1.0-py2.7.egg":                           {"pkg", "pkg-1-0"},
		"lonely.zip":                                  {"lonely"},
		"-.whl":                                       nil,
		"é-1.0.tar.gz":                                nil,
	} {
		if diff := cmp.Diff(want, ProjectOf(filename)); diff != "" {
			t.Errorf("ProjectOf(%q) (-want +got):\n%s", filename, diff)
		}
	}
}

func TestVersionOf(t *testing.T) {
	for _, test := range []struct{ filename, project, want string }{
		{"six-1.16.0-py2.py3-none-any.whl", "six", "1.16.0"},
		{"torch-2.0.0+cpu-cp311-cp311-linux_x86_64.whl", "torch", "2.0.0+cpu"},
		{"My.Pkg-1.0rc1.tar.gz", "my-pkg", "1.0rc1"},
		{"my-pkg-1.0-1.tar.gz", "my-pkg", "1.0-1"},
		{"pkg-1.0-py2.7.egg", "pkg", "1.0"},
		{"pkg-1.0.win32-py2.7.exe", "pkg", "1.0"},
		{"pkg-1.0.linux-x86_64.tar.gz", "pkg", "1.0"},
		{"other-1.0.tar.gz", "pkg", ""},
		{"pkg.zip", "pkg", ""},
		{"pkg-1.0.txt", "pkg", ""},
	} {
		if got := versionOf(test.filename, test.project); got != test.want {
			t.Errorf("versionOf(%q, %q) = %q, want %q", test.filename, test.project, got, test.want)
		}
	}
}

// Each row holds spellings of one version, and no two rows the same.
func TestSpellingsOfAVersionAreOneVersion(t *testing.T) {
	seen := map[string]int{}
	for i, spellings := range [][]string{
		{"1.0", "1", "v1.0.0", "01.0", "0!1"},
		{"1.0a1", "1.0.alpha-1", "1A1", "1.0_alpha_1"},
		{"1.0b0", "1.0b", "1.0-beta"},
		{"1.0rc2", "1.0c2", "1.0-preview.2"},
		{"1.0.post1", "1.0-1", "1.0r1", "1.0_1"},
		{"1.0.dev3", "1.0dev3", "1.0-dev03"},
		{"1.0+ubuntu.1", "1.0+ubuntu-1", "1.0+Ubuntu_1"},
		{"1!1.0"},
		{"1.0.1"},
		{"nonsense-9", "Nonsense-9"},
	} {
		for _, s := range spellings {
			if got, want := canonicalVersion(s), canonicalVersion(spellings[0]); got != want {
				t.Errorf("canonicalVersion(%q) = %q, want %q", s, got, want)
			}
		}
		c := canonicalVersion(spellings[0])
		if j, ok := seen[c]; ok {
			t.Errorf("rows %d and %d have the same canonical form %q", j, i, c)
		}
		seen[c] = i
	}
}
