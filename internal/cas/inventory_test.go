package cas

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

func TestWhatWasStoredOnceIsKnown(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	never := chantal.Digest(fmt.Sprintf("sha256:%064x", 7))
	if once, err := s.OnceStored([]chantal.Digest{never}); err != nil || len(once) != 0 {
		t.Fatal(once, err)
	}
	var ds []chantal.Digest
	for i := range 3 {
		b, err := s.Put(Want{Path: "x", Size: -1}, []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, b.Digest)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.blobPath(ds[0])); err != nil {
		t.Fatal(err)
	}
	asked := []chantal.Digest{ds[0], ds[2], never, "sha512:ab"}
	want := map[chantal.Digest]bool{ds[0]: true, ds[2]: true}
	once, err := s.OnceStored(asked)
	if d := cmp.Diff(want, once); d != "" || err != nil {
		t.Error(d, err)
	}
	// A crash has torn the last line.
	list := filepath.Join(dir, inventoryName)
	fi, err := os.Stat(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(list, fi.Size()-3); err != nil {
		t.Fatal(err)
	}
	if once, err = s.OnceStored(asked); err != nil || len(once) == 0 || len(once) > 2 {
		t.Error(once, err)
	}
}
