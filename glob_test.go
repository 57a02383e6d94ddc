package chantal

import "testing"

func TestGlobsMatchWholeNamesAsAShellDoes(t *testing.T) {
	for _, test := range []struct {
		globs []string
		name  string
		want  bool
	}{
		{[]string{"nginx"}, "nginx", true},
		{[]string{"nginx"}, "nginx-doc", false},
		{[]string{"a", "nginx*"}, "nginx", true},
		{[]string{"*-doc"}, "nginx-doc", true},
		{[]string{"*-doc"}, "nginx-docs", false},
		{[]string{"lib?"}, "libc", true},
		{[]string{"lib[!c]"}, "libc", false},
		{[]string{"lib[^c]"}, "libd", true},
		{[]string{"lib[a-c][!a-z]"}, "libb6", true},
		{[]string{`g\*`}, "g*", true},
		{[]string{"libstdc++6", "foo.bar"}, "libstdc++6", true},
		{[]string{"foo.bar"}, "fooxbar", false},
		{nil, "", false},
	} {
		g, err := NewGlobs(test.globs)
		if err != nil {
			t.Errorf("%q: %v", test.globs, err)
		}
		if got := g.Match(test.name); got != test.want {
			t.Errorf("%q matches %q: %t, want %t", test.globs, test.name, got, test.want)
		}
	}
	for _, glob := range []string{"", "[", "a[]", "x[a", `y\`} {
		if _, err := NewGlobs([]string{"fine", glob}); err == nil {
			t.Errorf("%q is taken for a glob", glob)
		}
	}
}
