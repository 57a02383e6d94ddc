package mirror

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
	"chantal/internal/disk/disktest"
	"chantal/internal/sign"
	"chantal/internal/testenv"
	"chantal/plugins/apt"
	"chantal/plugins/pypi"
	"chantal/plugins/rpm"
)

// The upstreams of most tests.
const (
	baseA = "http://a.mirror.example.org/debian/"
	baseB = "http://b.mirror.example.org/debian/"
)

// world is a mirror in a folder of its own, with its upstream and its clock.
type world struct {
	t       *testing.T
	dir     string
	up      *upstream
	clock   *clock
	store   *cas.Store
	catalog *catalog.Catalog
	m       *Mirror
	faults  disktest.Faults // of the disk
}

// newWorld lets the test, of which it is the only one, run beside others: most
// of its time is spent waiting for the disk.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), up: newUpstream(), clock: &clock{at: time.Now()}}
	w.start(w.clock.now, false)
	t.Cleanup(w.stop)
	return w
}

func (w *world) start(now func() time.Time, offline bool) {
	w.t.Helper()
	var err error
	if w.store, err = cas.Open(w.dir, cas.Options{SyncEvery: 5 * time.Millisecond, Disk: w.faults.Disk()}); err != nil {
		w.t.Fatal(err)
	}
	if w.catalog, err = catalog.Open(filepath.Join(w.dir, "catalog.db"), w.store, catalog.Options{Now: now, Disk: w.faults.Disk()}); err != nil {
		w.t.Fatal(err)
	}
	w.m = New(Options{
		Store: w.store, Catalog: w.catalog, Source: w.up, Now: now, Offline: offline, Log: slog.New(slog.DiscardHandler),
		Formats: map[string]chantal.Format{"apt": &apt.Format{Belongs: sign.Belongs}, "rpm": rpm.Format{Belongs: sign.Belongs}, "pypi": pypi.Format{}},
	})
}

func (w *world) stop() {
	w.t.Helper()
	w.up.heal()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := w.m.Close(ctx); err != nil {
		w.t.Error(err)
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
	if err := w.catalog.Close(); err != nil {
		w.t.Error(err)
	}
}

// restart ends the mirror and starts another one on the same folder.
func (w *world) restart(offline bool) {
	w.t.Helper()
	w.stop()
	w.start(w.clock.now, offline)
}

func (w *world) add(s Settings) *Repo {
	w.t.Helper()
	if s.Format == nil {
		s.Format = w.m.Formats[s.Type]
	}
	r, err := w.m.Add(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// debian adds the repository that most tests use.
func (w *world) debian(bases ...string) *Repo {
	w.t.Helper()
	return w.add(Settings{Name: "debian", Type: "apt", Upstream: bases})
}

// get returns the content of a path in a view.
func get(t *testing.T, v chantal.View, path string) ([]byte, *chantal.File, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	f, err := v.Open(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(f.Content)
	return body, f, err
}

// mustGet is get where an error ends the test.
func mustGet(t *testing.T, v chantal.View, path string) ([]byte, *chantal.File) {
	t.Helper()
	body, f, err := get(t, v, path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return body, f
}

// wantGet ends the test where a path does not have that content.
func wantGet(t *testing.T, v chantal.View, path string, want []byte) *chantal.File {
	t.Helper()
	got, f := mustGet(t, v, path)
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: got %d bytes that are not the %d wanted", path, len(got), len(want))
	}
	return f
}

// suite is an apt repository and what it published last.
type suite struct {
	*testenv.APT
	t     *testing.T
	files testenv.Files
}

const (
	inRelease   = "dists/bookworm/InRelease"
	packagesXZ  = "dists/bookworm/main/binary-amd64/Packages.xz"
	packagesGZ  = "dists/bookworm/main/binary-amd64/Packages.gz"
	contentsGZ  = "dists/bookworm/main/Contents-amd64.gz"
	releasePath = "dists/bookworm/Release"
)

func newSuite(t *testing.T) *suite {
	t.Helper()
	key, err := testenv.NewKey("archive", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &suite{APT: testenv.NewAPT(key, time.Now(), "bookworm"), t: t}
}

func (s *suite) keyring() chantal.Keyring {
	s.t.Helper()
	public, err := s.Key.Public()
	if err != nil {
		s.t.Fatal(err)
	}
	ring, err := sign.NewKeyring(bytes.NewReader(public))
	if err != nil {
		s.t.Fatal(err)
	}
	return ring
}

func (s *suite) add(p testenv.Package) string {
	s.t.Helper()
	if err := s.Add(p); err != nil {
		s.t.Fatal(err)
	}
	return s.PoolPath(p)
}

// publish puts the repository as it is now below each of bases.
func (s *suite) publish(u *upstream, bases ...string) testenv.Files {
	s.t.Helper()
	files, err := s.Publish()
	if err != nil {
		s.t.Fatal(err)
	}
	s.files = files
	for _, base := range bases {
		u.publish(base, files)
	}
	return files
}

func (s *suite) content(path string) []byte {
	s.t.Helper()
	f, ok := s.files[path]
	if !ok {
		s.t.Fatalf("%s was not published", path)
	}
	return f.Content
}

// byHash returns the by-hash path of the index at path.
func (s *suite) byHash(path string) string {
	s.t.Helper()
	i := strings.LastIndexByte(path, '/')
	return path[:i] + "/by-hash/SHA256/" + sha256Of(s.content(path)).Hex()
}
