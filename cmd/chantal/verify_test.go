package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVerifySaysWhatIsWrongAndWhatToDo(t *testing.T) {
	for line, want := range map[string]struct {
		code           int
		stdout, stderr string
	}{
		"verify": {0, "2 blobs read, 3.0 KiB: everything is in order\n", ""},
		"verify corrupt": {1, "corrupt   debian pool/hello.deb  sha256:ab  (live, day1)\n2 blobs read, 3.0 KiB\n",
			"chantal: not everything is in order: 1 corrupt; chantal verify --repair fetches it again from upstream\n"},
		"verify corrupt --repair": {0, "corrupt   debian pool/hello.deb  sha256:ab  (live, day1)\nrepaired  debian pool/hello.deb  sha256:ab  (live, day1)\n" +
			"2 blobs read, 3.0 KiB: everything is in order\n", ""},
		"verify gone --repair": {1, "missing   debian pool/hello.deb  sha256:ab  (live, day1): no upstream has it\nmissing   sha256:cd  (nothing needs it)\n2 blobs read, 3.0 KiB\n",
			"chantal: not everything is in order: 2 missing; what could not be fetched again has its reason beside it\n"},
		"verify catalog": {1, "problem   the catalog differs from the records\n2 blobs read, 3.0 KiB\n",
			"chantal: not everything is in order: 1 problem; chantal verify --rebuild makes the catalog anew from the records\n"},
		"verify --rebuild": {0, "the catalog has been made anew from the records\n2 blobs read, 3.0 KiB: everything is in order\n", ""},
		"verify nope":      {1, "", "chantal: no ref nope; see chantal snapshot list\n"},
	} {
		code, stdout, stderr := newShell(t).run(t.Context(), strings.Fields(line)...)
		if diff := cmp.Diff([]any{want.code, want.stdout, want.stderr}, []any{code, stdout, stderr}); diff != "" {
			t.Errorf("%s: -want +got\n%s", line, diff)
		}
	}
}
