package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chantal/internal/testenv"
)

// many is how many packages the suite has that is synced and killed: enough for
// the store to have made some of them durable before.
const many = 3000

// synced is what `chantal sync --json` says in the end, as far as it is of
// interest here.
type synced struct {
	OK      bool `json:"ok"`
	Files   int  `json:"files"`
	Lacking int  `json:"lacking"`
	Repos   []struct {
		Unchanged int `json:"unchanged"`
	} `json:"repos"`
}

// fullMirror is an upstream, and a configuration that selects all it has.
type fullMirror struct {
	server *testenv.Server
	dir    string
	files  testenv.Files
}

func newFullMirror(t *testing.T, fill func(*testenv.APT) error) *fullMirror {
	t.Helper()
	m := &fullMirror{dir: t.TempDir()}
	key, err := testenv.NewKey("archive", time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	suite := testenv.NewAPT(key, time.Now(), "bookworm")
	if err := fill(suite); err != nil {
		t.Fatal(err)
	}
	if m.files, err = suite.Publish(); err != nil {
		t.Fatal(err)
	}
	if m.server, err = testenv.NewServer(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.server.Heal(); m.server.Down() })
	m.server.Publish("debian", m.files)
	config := fmt.Sprintf("data: %s\nrepos:\n  - name: debian\n    type: apt\n    upstream: %s/debian\n    sync: {suites: [bookworm], architectures: [amd64]}\n",
		filepath.Join(m.dir, "data"), m.server.URL())
	if err := os.WriteFile(filepath.Join(m.dir, "chantal.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return m
}

// command is a sync that is ended when the test takes too long.
func (m *fullMirror) command(t *testing.T) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, binary(), "--config", filepath.Join(m.dir, "chantal.yaml"), "--json", "sync")
}

// sync runs a whole sync and returns what it says, and the paths that it asked
// for.
func (m *fullMirror) sync(t *testing.T) (result synced, asked []string) {
	t.Helper()
	before := len(m.server.Requests())
	cmd := m.command(t)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// What the kernel says at the end counts what this process had before.
	most, err := int64(0), error(nil)
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-time.After(10 * time.Millisecond):
			if n, err := peakMemory(cmd.Process.Pid); err == nil {
				most = n
			}
		}
	}
	if err != nil {
		t.Fatalf("sync: %v\n%s%s", err, &out, &log)
	}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		t.Fatalf("sync says %q: %v", &out, err)
	}
	if most > 120<<20 {
		t.Errorf("it took %d MiB of memory", most>>20)
	}
	for _, r := range m.server.Requests()[before:] {
		asked = append(asked, strings.TrimPrefix(r.Path, "/debian/"))
	}
	return result, asked
}

// packagesIn returns those of paths that are packages, each once.
func packagesIn(paths []string) []string {
	paths = slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return !strings.HasPrefix(p, "pool/") })
	slices.Sort(paths)
	return slices.Compact(paths)
}

// lacking returns the paths of packages that are not in the store.
func (m *fullMirror) lacking() []string {
	var paths []string
	for at, f := range m.files {
		hex := fmt.Sprintf("%x", sha256.Sum256(f.Content))
		if _, err := os.Stat(filepath.Join(m.dir, "data", "blobs", hex[:2], hex)); err != nil {
			paths = append(paths, at)
		}
	}
	return packagesIn(paths)
}

// killWhen starts a sync and kills it when it is that far.
func (m *fullMirror) killWhen(t *testing.T, far func() bool) {
	t.Helper()
	cmd := m.command(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); !far(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the sync does not get on")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func TestASyncThatWasKilledGoesOn(t *testing.T) {
	m := newFullMirror(t, func(s *testenv.APT) error { s.Bulk(many, 1); return nil })
	// When a good part is durable, and more is on its way.
	m.killWhen(t, func() bool { return len(m.lacking()) <= many*3/4 })
	gaps := m.lacking()
	result, asked := m.sync(t)
	if diff := cmp.Diff(gaps, packagesIn(asked), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	if !result.OK || result.Files != many || result.Lacking != len(gaps) {
		t.Errorf("got %+v with %d gaps", result, len(gaps))
	}
	if left := m.lacking(); len(left) != 0 {
		t.Errorf("%d packages are not there", len(left))
	}
	result, asked = m.sync(t)
	if got := slices.DeleteFunc(asked, testenv.IsRoot); len(got) != 0 || !result.OK || result.Repos[0].Unchanged != 1 {
		t.Errorf("nothing has changed, and %v was asked for; %+v", got, result)
	}
}

func TestALargeFileGoesOnAfterAKill(t *testing.T) {
	big := testenv.Package{Name: "big", Version: "1", Size: 8 << 20}
	var path string
	m := newFullMirror(t, func(s *testenv.APT) error { path = s.PoolPath(big); return s.Add(big) })
	content := m.files[path].Content
	hex := fmt.Sprintf("%x", sha256.Sum256(content))
	begun := filepath.Join(m.dir, "data", "blobs", hex[:2], ".p-"+hex)
	var there int64
	m.server.Fail("stall", "debian/"+path, 1)
	m.killWhen(t, func() bool {
		if fi, err := os.Stat(begun); err == nil {
			there = fi.Size()
		}
		return there >= int64(len(content)/2)
	})
	m.server.Heal()
	before := len(m.server.Requests())
	if result, _ := m.sync(t); !result.OK || result.Lacking != 1 {
		t.Errorf("got %+v", result)
	}
	var ranges []string
	for _, r := range m.server.Requests()[before:] {
		if r.Path == "/debian/"+path {
			ranges = append(ranges, r.Header.Get("Range"))
		}
	}
	if diff := cmp.Diff([]string{fmt.Sprintf("bytes=%d-", there)}, ranges); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	if left := m.lacking(); len(left) != 0 {
		t.Errorf("%v is not there", left)
	}
}
