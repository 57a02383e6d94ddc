package apt

import (
	"testing"

	"chantal/plugins/formattest"
)

// The order is what dpkg --compare-versions said; the e2e tests compare with
// the dpkg that is installed.
func TestVersionsHaveDpkgsOrder(t *testing.T) {
	err := formattest.CheckVersions(new(Format),
		[]string{""}, []string{"-1"}, []string{"1-"}, []string{"1.0 1"}, []string{"1.18.36:5.4"}, []string{"2147483648:1"},
		[]string{":1"}, []string{"a:1"}, // so far no versions
		[]string{"~~"}, []string{"~~a"}, []string{"~", "0:~"}, []string{"0", "00", "0-0", "0:0"}, []string{"0.0"},
		[]string{"1~~", "1~~-0"}, []string{"1~"}, []string{"1~1"}, []string{"1~beta1~svn1245"}, []string{"1~beta1"},
		[]string{"1", "01", "1-0", "1-00", " 1"}, []string{"1-0ubuntu1"}, []string{"1-1~bpo12+1"}, []string{"1-1"},
		[]string{"1-1ubuntu0.1"}, []string{"1-1+b1"}, []string{"1-1.1"}, []string{"1-2"}, []string{"1a"}, []string{"1aa"},
		[]string{"1b"}, []string{"1z"}, []string{"1+dfsg-1"}, []string{"1+dfsg1-1"}, []string{"1-1-1"}, []string{"1.0", "1.00"},
		[]string{"1.0^git"}, []string{"1.2.3-1"}, []string{"2.30-4+deb11u1"}, []string{"2.36-9"}, []string{"2.36-9+deb12u1"},
		[]string{"2.36-9+deb12u10"}, []string{"99999999999999999999999"}, []string{"100000000000000000000000"}, []string{"v1"},
		[]string{"1:0"}, []string{"1:1.2-3"}, []string{"2:1~rc1"}, []string{"2147483647:1"},
	)
	if err != nil {
		t.Error(err)
	}
}

func FuzzVersionsAreOrdered(f *testing.F) {
	f.Add("1:1.0~rc1-1", "1.0-1+b1", "1.0^a")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if err := formattest.CheckOrder(new(Format), a, b, c); err != nil {
			t.Error(err)
		}
	})
}
