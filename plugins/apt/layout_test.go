package apt

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

func TestIndexesLieUnderTheirHashesToo(t *testing.T) {
	long, short := strings.Repeat("ab", 64), strings.Repeat("cd", 32)
	digests := []chantal.Digest{chantal.Digest("sha512:" + long), chantal.Digest("sha256:" + short)}
	got := (&Format{}).Places([]chantal.Promise{
		{Path: "dists/a/main/binary-amd64/Packages.xz", Alt: "dists/a/main/binary-amd64/by-hash/SHA512/" + long, Digests: digests},
		{Path: "dists/b/main/binary-amd64/Packages.xz", Digests: digests}, // does not announce it
	})
	want := [][]string{
		{"dists/a/main/binary-amd64/Packages.xz", "dists/a/main/binary-amd64/by-hash/SHA512/" + long, "dists/a/main/binary-amd64/by-hash/SHA256/" + short},
		{"dists/b/main/binary-amd64/Packages.xz"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if path, page := (&Format{}).List([]string{"dists/a/InRelease"}); path != "" || page != nil {
		t.Errorf("a list: %s, %q", path, page)
	}
}
