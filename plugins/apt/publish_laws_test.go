package apt

import (
	"testing"
	"time"

	"chantal/internal/testenv"
	"chantal/plugins/formattest"
)

// archive returns a generation of an archive with these packages.
func archive(t *testing.T, a *testenv.APT, suite string, packages ...testenv.Package) *formattest.Memory {
	t.Helper()
	for _, p := range packages {
		if err := a.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	published, err := a.Publish()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for path, f := range published {
		files[path] = f.Content
	}
	return &formattest.Memory{Format: new(Format), Of: new(Format).Classify(suite + "InRelease").Tree, Files: files}
}

func TestPublishKeepsTheLaws(t *testing.T) {
	packages := []testenv.Package{
		{Name: "hello", Version: "1.0"}, {Name: "world", Version: "1:2.0-1", Depends: "hello"}, {Name: "other", Version: "1.0", Arch: "amd64"},
	}
	key, err := testenv.NewKey("archive", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	plain := testenv.NewAPT(key, time.Now(), "bookworm")
	hashed := testenv.NewAPT(key, time.Now(), "stable/updates")
	hashed.ByHash, hashed.SHA512, hashed.Components = true, true, []string{"main", "contrib"}
	formattest.TestPublisher(t, new(Format),
		archive(t, plain, "dists/bookworm/", packages...),
		archive(t, hashed, "dists/stable/updates/", packages...),
		archive(t, testenv.NewAPT(key, time.Now()), "", packages...))
}
