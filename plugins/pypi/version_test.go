package pypi

import (
	"testing"

	"chantal/plugins/formattest"
)

// The order is what packaging.version said; the e2e tests compare with the
// one that is installed.
func TestVersionsHaveTheOrderOfPEP440(t *testing.T) {
	err := formattest.CheckVersions(Format{},
		[]string{""}, []string{"1.0-final"}, []string{"1.0.post1.0"}, []string{"2004d-1"}, []string{"latest"}, // so far no versions
		[]string{"0.dev0"}, []string{"0", "0.0", "v0"}, []string{"0.0.1"}, []string{"1.dev0", "1.0-dev", "1.0.DEV0"}, []string{"1.dev1"},
		[]string{"1a0.dev1"}, []string{"1a0", "1.0a", "1.0-alpha", "1.0_ALPHA.0"}, []string{"1a0.post0"}, []string{"1a1"}, []string{"1a2.dev456"}, []string{"1a2"},
		[]string{"1a10"}, []string{"1b1.dev1"}, []string{"1b1", "1.beta-1"}, []string{"1rc1.dev1"}, []string{"1rc1", "1.0c1", "1.0-pre1", "1.preview1"}, []string{"1rc1.post1"}, []string{"1rc2"},
		[]string{"1", "1.0", "1.0.0", "01.00", "v1.0", " 1.0\n", "0!1"}, []string{"1+a"}, []string{"1+abc.5", "1.0+ABC-05", "1+abc_5"}, []string{"1+abc.7"}, []string{"1+ubuntu"}, []string{"1+5"}, []string{"1+5.a"}, []string{"1+10"},
		[]string{"1.post0.dev0"}, []string{"1.post0", "1.post", "1.0-r", "1-0", "1_0"}, []string{"1.post1.dev2"}, []string{"1.post1", "1.0-1", "1.rev1"}, []string{"1.post1+local"}, []string{"1.post2"},
		[]string{"1.0.1"}, []string{"1.1.dev1"}, []string{"1.1"}, []string{"1.2.3"}, []string{"1.10"}, []string{"2022.1"}, []string{"99999999999999999999999"}, []string{"100000000000000000000000"},
		[]string{"1!0.1"}, []string{"1!1"}, []string{"2!0.dev1", "002!0.dev1"},
	)
	if err != nil {
		t.Error(err)
	}
}

func FuzzVersionsAreOrdered(f *testing.F) {
	f.Add("1!1.0rc1.dev2", "1.0.post1+a.1", "1.0-final")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if err := formattest.CheckOrder(Format{}, a, b, c); err != nil {
			t.Error(err)
		}
		v, ok := parseVersion(a)
		if again, still := parseVersion(v.String()); ok && (!still || v.compare(again) != 0) {
			t.Errorf("%q is written as %q, which is another version", a, v.String())
		}
	})
}
