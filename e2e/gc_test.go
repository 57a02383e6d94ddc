package e2e

import (
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// collected is what "chantal gc --json" says.
type collected struct {
	Blobs int   `json:"blobs_freed"`
	Bytes int64 `json:"bytes_freed"`
	Kept  int   `json:"blobs_kept"`
}

// frees runs "chantal gc", first with --dry-run. It has to free so many blobs,
// and as many bytes as du finds missing afterwards:
//
//	frees N
func frees(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: frees N")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	before := used(ts)
	would := collect(ts, "--dry-run")
	if after := used(ts); after != before {
		ts.Fatalf("gc --dry-run frees %d bytes", before-after)
	}
	did := collect(ts)
	if did != would {
		ts.Fatalf("gc --dry-run says %+v, and gc %+v", would, did)
	}
	if did.Blobs != want {
		ts.Fatalf("gc frees %d blobs, not %d", did.Blobs, want)
	}
	if freed := before - used(ts); freed != did.Bytes {
		ts.Fatalf("gc says that it has freed %d bytes, and du that it was %d", did.Bytes, freed)
	}
}

func collect(ts *testscript.TestScript, args ...string) (c collected) {
	cmd := exec.Command(binary(), append([]string{"gc", "--json"}, args...)...)
	cmd.Env, cmd.Dir = worldOf(ts).environ(), worldOf(ts).vars["WORK"]
	out, err := cmd.Output()
	if err != nil {
		ts.Fatalf("chantal gc %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	ts.Check(json.Unmarshal(out, &c))
	return c
}

// used is what du says of the data directory, without the database: that has
// pages that are free, and more of them after something was forgotten; and
// without what is written now and then: counters, and that all is well.
func used(ts *testscript.TestScript) int64 {
	out, err := exec.Command("du", "-sb", "--exclude=catalog.db", "--exclude=state", worldOf(ts).vars["DATA"]).Output()
	ts.Check(err)
	n, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	ts.Check(err)
	return n
}
