package rpm

import (
	"testing"

	"chantal/plugins/formattest"
)

// The order is what rpm.vercmp said; the e2e tests compare with the rpm that
// is installed.
func TestVersionsHaveRPMsOrder(t *testing.T) {
	err := formattest.CheckVersions(Format{},
		[]string{""}, []string{"-1"}, []string{"0:"}, []string{"1:-1"}, // so far no versions
		[]string{"~"}, []string{"~a"}, []string{"~1"}, []string{".", "_", "é"}, []string{".-1"}, []string{"^"}, []string{"a"}, []string{"a.b"},
		[]string{"a1"}, []string{"ab"}, []string{"b"}, []string{"0"}, []string{"1~~"}, []string{"1~rc1"}, []string{"1~rc1^git1"}, []string{"1~rc2"},
		[]string{"1", "01", "1.", "1_", "0:1", ":1"}, []string{"1-0"}, []string{"1-1.el9~pre"}, []string{"1-1.el9", "1-1_el9", "0:1-01.el09"},
		[]string{"1-1.el9.1"}, []string{"1-1.el9_3"}, []string{"1-1.el10"}, []string{"1-1.1"}, []string{"1-2"},
		[]string{"1^"}, []string{"1^20220101git"}, []string{"1a"}, []string{"1.0", "1.0.", "1.00"}, []string{"1.0^git1"}, []string{"1.0a"},
		[]string{"1.0.1"}, []string{"1.1"}, []string{"1.10"}, []string{"5.14.0-362.8.1.el9_3"}, []string{"5.14.0-427.13.1.el9_4"},
		[]string{"99999999999999999999999"}, []string{"100000000000000000000000"},
		[]string{"1:0.1"}, []string{"1:1.1.1k-12.el8_9"}, []string{"1:1.1.1k-14.el8_6"}, []string{"2:0"},
	)
	if err != nil {
		t.Error(err)
	}
}

func FuzzVersionsAreOrdered(f *testing.F) {
	f.Add("1:1.0~rc1-1", "1.0^git-1", "1.0.a")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if err := formattest.CheckOrder(Format{}, a, b, c); err != nil {
			t.Error(err)
		}
	})
}
