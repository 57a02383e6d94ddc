package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// blob does to the stored blob with the content of FILE what disks and people
// do, behind the back of whoever works on the data folder:
//
//	blob flip FILE     changes one bit of it
//	blob cut FILE      cuts it in half
//	blob remove FILE   removes it
//	blob there FILE    waits until it is stored with just these bytes; !: it is not
//	blob aside FILE    waits until a damaged copy was set aside; !: none was
//	blob name FILE     sets $BLOB to its digest
func blob(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: blob flip|cut|remove|there|aside|name FILE")
	}
	content, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	sum := sha256.Sum256(content)
	name := hex.EncodeToString(sum[:])
	data := worldOf(ts).vars["DATA"]
	path := filepath.Join(data, "blobs", name[:2], name)
	has := func(path string) bool {
		have, err := os.ReadFile(path)
		return err == nil && (args[0] == "aside" || sha256.Sum256(have) == sum)
	}
	if args[0] == "aside" {
		path = filepath.Join(data, "damaged", name)
	}
	// A file gets its final name a moment after the client has it.
	for deadline := time.Now().Add(5 * time.Second); !neg && args[0] != "name" && !has(path); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("blob %s: there is no such file as %s (%s)", args[0], path, args[1])
		}
	}
	write := func(b []byte) {
		ts.Check(os.Chmod(path, 0o644))
		ts.Check(os.WriteFile(path, b, 0o644))
		ts.Check(os.Chmod(path, 0o444))
	}
	switch args[0] {
	case "flip":
		other := append([]byte(nil), content...)
		other[len(other)/2] ^= 0x10
		write(other)
	case "cut":
		write(content[:len(content)/2])
	case "remove":
		ts.Check(os.Remove(path))
	case "there", "aside":
		if neg && has(path) {
			ts.Fatalf("blob %s: there is %s (%s)", args[0], path, args[1])
		}
	case "name":
		worldOf(ts).set(ts, "BLOB", name)
	default:
		ts.Fatalf("blob cannot %q", args[0])
	}
}
