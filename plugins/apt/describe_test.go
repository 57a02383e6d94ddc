package apt

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDescribeReadsTheIdentity(t *testing.T) {
	got := Describe([]byte("Origin: Example\nLabel: My Org\nSuite: stable\nComponents: main contrib\nSHA256:\n aa 1 main/x\n"))
	want := Identity{Origin: "Example", Label: "My Org", Components: []string{"main", "contrib"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
