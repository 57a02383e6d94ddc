package mirror

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

// TestVersionsOfOneName has the files of one package on either side as
// "VERSION:BYTES" or "VERSION:BYTES:FILE", and what is said of them.
func TestVersionsOfOneName(t *testing.T) {
	for _, test := range []struct{ name, a, b, both, want string }{
		{"new", "", "1:x", "", "added 1"},
		{"gone", "1:x", "", "", "removed 1"},
		{"newer", "1:x", "2:y", "", "upgrade 1→2"},
		{"older", "2:x", "1:y", "", "downgrade 2→1"},
		{"other bytes", "1:x", "1:y", "", "rebuild 1→1"},
		{"other bytes under another name", "1:x:a", "1:y:b", "", "rebuild 1→1"},
		{"moved", "1:x:a", "1:x:b", "", ""},
		{"listed twice on one side", "1:x 1:x", "1:x", "", ""},
		{"one more place", "", "1:x:b", "1:x:a", ""},
		{"a newer one beside it", "", "2:y", "1:x", "upgrade 1→2"},
		{"the newer one gone", "2:y", "", "1:x", "downgrade 2→1"},
		{"a window that moves", "1:x", "3:z", "2:y", "upgrade 2→3, removed 1"},
		{"an older one beside it", "", "1:x", "2:y", "added 1"},
		{"the older one gone", "1:x", "", "2:y", "removed 1"},
		{"two new ones", "1:x", "2:y 3:z", "", "upgrade 1→3, added 2"},
		{"newer, and the old one rebuilt", "1:x", "1:y 2:z", "", "upgrade 1→2, rebuild 1→1"},
		{"a file more of a version", "", "1:y:b", "1:x:a", "added 1 b"},
		{"a file less of a version", "1:y:b", "", "1:x:a", "removed 1 b"},
		{"one of two files replaced", "1:x:a", "1:y:a", "1:z:b", "rebuild 1→1"},
		{"a file replaced and one added", "1:x:a", "1:y:a 1:z:b", "", "rebuild 1→1, added 1 b"},
		{"all files of a version others", "1:x:a 1:y:b", "1:z:c", "", "added 1 c, removed 1 a, removed 1 b"},
		{"another spelling", "1:x", "01:y", "", "rebuild 1→01"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := versions{only: [2][]file{files(test.a), files(test.b)}, both: files(test.both)}
			var got []string
			for _, c := range v.changes(func(a, b string) int { return strings.Compare(strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")) }) {
				got = append(got, describe(c))
			}
			if diff := cmp.Diff(test.want, strings.Join(got, ", ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func files(text string) (all []file) {
	for word := range strings.FieldsSeq(text) {
		parts := append(strings.Split(word, ":"), "file")
		all = append(all, file{version: parts[0], digests: "sha256:" + parts[1], name: parts[2], size: "1"})
	}
	return all
}

func describe(c Change) string {
	text := string(c.Direction) + " "
	if c.From != "" && c.To != "" {
		text += c.From + "→" + c.To
	} else {
		text += c.From + c.To
	}
	return strings.TrimSpace(text + " " + c.File)
}

func TestFilesAreTheSameAsFarAsDigestsTell(t *testing.T) {
	one := file{version: "1", name: "a", digests: "sha512:1 sha256:2", size: "5"}
	for _, test := range []struct {
		name  string
		other file
		want  bool
	}{
		{"one digest of several", file{"1", "b", "sha256:2", "5", ""}, true},
		{"another digest", file{"1", "a", "sha256:3", "5", ""}, false},
		{"another version", file{"2", "a", "sha256:2", "5", ""}, false},
		{"digests that cannot be compared", file{"1", "a", "md5:9", "5", ""}, true},
		{"the same with another size", file{"1", "a", "md5:9", "6", ""}, false},
		{"no digest", file{"1", "a", "", "5", ""}, true},
	} {
		if got := one.same(test.other); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestLinesOfPackagesAlone(t *testing.T) {
	p := chantal.Promise{Path: "pool/a_1.deb", Kind: chantal.Artifact, Size: 5, Digests: []chantal.Digest{"sha256:aa", "md5:bb"}, Package: &chantal.Package{Name: "a", Version: "1", Arch: "all"}}
	fields, ok := cutLine(appendLine(nil, &p))
	if diff := cmp.Diff(file{"1", "a_1.deb", "sha256:aa md5:bb", "5", "dists/x"}, fileOf("dists/x", &fields), cmp.AllowUnexported(file{})); diff != "" || !ok {
		t.Errorf("%v (-want +got):\n%s", ok, diff)
	}
	p.Kind = chantal.Meta
	if _, ok := cutLine(appendLine(nil, &p)); ok {
		t.Error("metadata of a package is taken for a package")
	}
	p.Kind, p.Package = chantal.Artifact, nil
	if _, ok := cutLine(appendLine(nil, &p)); ok {
		t.Error("a file that is no package is taken for one")
	}
}
