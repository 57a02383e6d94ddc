package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/internal/testenv"

	"github.com/google/go-cmp/cmp"
)

func TestADryRunFetchesMetadataOnly(t *testing.T) {
	w, s, paths := poolOf(t, 7)
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64, DryRun: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, p := range paths {
		size += len(s.content(p))
	}
	if report.Files != 7 || report.Lacking != 7 || report.LackingBytes != int64(size) || !report.DryRun {
		t.Errorf("got %+v", report)
	}
	if n := len(w.up.requests("pool/")); n != 0 {
		t.Errorf("%d artifacts were asked for", n)
	}
	w.clock.advance(20 * time.Minute)
	if report := w.mustSync(amd64); report.Lacking != 7 {
		t.Errorf("the sync after that: got %+v", report)
	}
	w.holds(s, paths...)
}

func TestMetadataOnly(t *testing.T) {
	w, s, _ := poolOf(t, 3)
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64, MetadataOnly: true}, nil)
	if err != nil || report.Failed != 0 {
		t.Fatalf("got %v, %+v", err, report)
	}
	w.holds(s, packagesXZ)
	if n := len(w.up.requests("pool/")); n != 0 || report.Files != 0 {
		t.Errorf("%d artifacts were asked for, %+v", n, report)
	}
	w.clock.advance(20 * time.Minute)
	if report := w.mustSync(amd64); report.Unchanged != 0 || report.Lacking != 3 {
		t.Errorf("a full sync after that: got %+v", report)
	}
}

// What a sync has selected is there with each new head, before any client or
// sync asks for it.
func TestSelectedIndexesAreWanted(t *testing.T) {
	w, s, _ := poolOf(t, 3)
	w.mustSync(amd64)
	s.pool(5, 100)
	s.SetDate(time.Now())
	s.publish(w.up, baseA)
	w.clock.advance(20 * time.Minute)
	r := w.m.Repo("debian")
	wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
	w.holds(s, packagesXZ)
}

func TestTheNextCompressionIsTakenWhereOneIsMissing(t *testing.T) {
	w, s, paths := poolOf(t, 3)
	w.up.fail(missing, packagesXZ, -1)
	w.mustSync(amd64)
	w.holds(s, append(paths, packagesGZ)...)
	s.wantUnchanged(w)
}

func TestUpstreamsAreUsedSideBySide(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	paths := s.pool(60, 2000)
	s.publish(w.up, baseA, baseB)
	w.debian(baseA, baseB)
	w.mustSync(amd64)
	w.holds(s, paths...)
	a, b := len(w.up.requests(baseA+"pool/")), len(w.up.requests(baseB+"pool/"))
	if a+b != 60 || a == 0 || b == 0 {
		t.Errorf("%d files from the one and %d from the other", a, b)
	}
}

func TestAnUpstreamThatFailsIsLeftOut(t *testing.T) {
	for _, kind := range []trouble{down, missing, corrupt} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t)
			s := newSuite(t)
			paths := s.pool(60, 2000)
			s.publish(w.up, baseA, baseB)
			w.up.fail(kind, baseB+"pool/", -1)
			w.debian(baseA, baseB)
			w.mustSync(amd64)
			w.holds(s, paths...)
			if n := len(w.up.requests(baseB + "pool/")); n > 2*w.m.Parallel {
				t.Errorf("it was asked %d times all the same", n)
			}
		})
	}
}

// big publishes one large package.
func big(t *testing.T, w *world) (s *suite, path string, content []byte) {
	t.Helper()
	s = newSuite(t)
	path = s.add(testenv.Package{Name: "big", Version: "1", Size: 6 << 20})
	s.publish(w.up, baseA)
	w.debian(baseA)
	return s, path, s.content(path)
}

// interrupt ends a sync when half of the file has arrived, and starts the
// mirror again. It returns where the beginning of the file is.
func (w *world) interrupt(path string, content []byte) string {
	w.t.Helper()
	w.up.fail(stalled, path, 1)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if _, err := w.m.Sync(ctx, SyncRequest{Repo: "debian", Selection: amd64}, func(e SyncEvent) {
		if e.Kind == SyncProgress && e.Done >= int64(len(content)/2) {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		w.t.Fatalf("got %v, want to be interrupted", err)
	}
	// Not stop, which lets upstream go on.
	closing, end := context.WithTimeout(w.t.Context(), time.Minute)
	defer end()
	if err := w.m.Close(closing); err != nil {
		w.t.Fatal(err)
	}
	w.restart(false)
	w.debian(baseA)
	w.up.forget()
	hex := sha256Of(content).Hex()
	begun := filepath.Join(w.dir, "blobs", hex[:2], ".p-"+hex)
	if fi, err := os.Stat(begun); err != nil || fi.Size() != int64(len(content)/2) {
		w.t.Fatalf("the beginning of the file: %v, %v", fi, err)
	}
	return begun
}

func TestALargeFileIsGoneOnWith(t *testing.T) {
	w := newWorld(t)
	s, path, content := big(t, w)
	begun := w.interrupt(path, content)
	w.clock.advance(20 * time.Minute)
	w.mustSync(amd64)
	w.holds(s, path)
	asked := w.up.requests(path)
	if len(asked) != 1 || asked[0].Offset != int64(len(content)/2) {
		t.Errorf("got %d requests, the first from %d on", len(asked), asked[0].Offset)
	}
	if _, err := os.Stat(begun); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the beginning of the file is still there: %v", err)
	}
	if fi, err := os.Stat(w.blobFile(content)); err != nil || fi.Mode().Perm() != 0o444 {
		t.Errorf("the blob: %v, %v", fi.Mode(), err)
	}
}

// Whatever is in the place of the beginning, the file comes right, and upstream
// is not blamed.
func TestABeginningThatIsNoneDoesNoHarm(t *testing.T) {
	for name, change := range map[string]func(b []byte) []byte{
		"other bytes": func(b []byte) []byte { b[len(b)/3] ^= 1; return b },
		"zeros":       func(b []byte) []byte { return make([]byte, len(b)) },
		"too short":   func(b []byte) []byte { return b[:1000] },
		"too long":    func(b []byte) []byte { return append(b, make([]byte, 8<<20)...) },
		"whole":       func(b []byte) []byte { return nil },
		"whole, and wrong": func(b []byte) []byte {
			return make([]byte, 2*len(b))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s, path, content := big(t, w)
			begun := w.interrupt(path, content)
			b := change(slices.Clone(content[:len(content)/2]))
			if name == "whole" {
				b = content
			}
			if name == "whole, and wrong" {
				b = make([]byte, len(content))
			}
			if err := os.WriteFile(begun, b, 0o644); err != nil {
				t.Fatal(err)
			}
			w.clock.advance(20 * time.Minute)
			report := w.mustSync(amd64)
			w.holds(s, path)
			if n := len(w.up.requests(path)); name == "whole" && n != 0 || n > 2 {
				t.Errorf("%d requests", n)
			}
			if report.Failed != 0 {
				t.Errorf("got %+v", report)
			}
		})
	}
}

// An upstream that does not go on where the beginning ends is asked for all.
func TestAnUpstreamThatGivesOutNoParts(t *testing.T) {
	for _, kind := range []trouble{elsewhere, norange, unavailable, missing} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t)
			s, path, content := big(t, w)
			w.interrupt(path, content)
			w.up.fail(kind, path, 1)
			w.clock.advance(20 * time.Minute)
			w.mustSync(amd64)
			w.holds(s, path)
			asked := w.up.requests(path)
			if again := kind == unavailable || kind == missing; len(asked) != 2 || (asked[1].Offset != 0) != again {
				t.Errorf("got %d requests, the last from %d on", len(asked), asked[len(asked)-1].Offset)
			}
		})
	}
}

// A client that takes up what a sync began gets the file, too.
func TestAClientGoesOnWithWhatASyncBegan(t *testing.T) {
	w := newWorld(t)
	s, path, content := big(t, w)
	w.interrupt(path, content)
	live := w.m.Repo("debian").Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, path, content)
	if asked := w.up.requests(path); len(asked) != 1 || asked[0].Offset == 0 {
		t.Errorf("got %d requests, from %d on", len(asked), asked[0].Offset)
	}
}

// python publishes projects with a wheel each.
func python(t *testing.T, w *world, names ...string) *testenv.PyPI {
	t.Helper()
	index := testenv.NewPyPI(time.Now())
	index.Serials = true
	for _, name := range names {
		if err := index.Add(testenv.Package{Name: name, Version: "1.0", Size: 3000}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	w.index(index)
	w.add(Settings{Name: "pypi", Type: "pypi", Upstream: []string{pypiBase}})
	return index
}

const pypiBase = "https://index.example.org/simple/"

// index puts a Python index as it is now in place.
func (w *world) index(i *testenv.PyPI) {
	w.t.Helper()
	files, err := i.Publish()
	if err != nil {
		w.t.Fatal(err)
	}
	w.up.publish("https://index.example.org/", files)
}

func TestSyncOfProjects(t *testing.T) {
	w := newWorld(t)
	index := python(t, w, "alpha", "beta", "gamma")
	req := SyncRequest{Repo: "pypi", Selection: chantal.Selection{Projects: []string{"alpha", "beta"}, Wheels: true, Sdists: true}}
	report, err := w.sync(req, nil)
	if err != nil || report.Failed != 0 {
		t.Fatalf("got %v, %+v", err, report)
	}
	if report.Trees != 2 || report.Files < 2 || report.Lacking != report.Files {
		t.Errorf("got %+v", report)
	}
	if n := len(w.up.requests("gamma")); n != 0 {
		t.Errorf("gamma was asked for %d times", n)
	}
	if err := index.Add(testenv.Package{Name: "alpha", Version: "2.0", Size: 3000}, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.index(index)
	w.up.forget()
	w.clock.advance(20 * time.Minute)
	report, err = w.sync(req, nil)
	if err != nil || report.Failed != 0 {
		t.Fatalf("got %v, %+v", err, report)
	}
	if report.Unchanged != 1 || report.Lacking == 0 {
		t.Errorf("got %+v", report)
	}
	pages := slices.DeleteFunc(w.up.askedFor(pypiBase), func(p string) bool { return strings.Contains(p, ".whl") })
	if diff := cmp.Diff([]string{"alpha/", "beta/"}, pages); diff != "" {
		t.Error(diff)
	}
}

// Where a list says how new each page is, only those are asked for that are
// newer than what is stored.
func TestSerialsTellWhichPagesAreNew(t *testing.T) {
	w := newWorld(t)
	index := python(t, w, "alpha", "beta", "gamma")
	all := SyncRequest{Repo: "pypi", Selection: chantal.Selection{Wheels: true, Sdists: true}}
	good := func() SyncReport {
		t.Helper()
		w.up.forget()
		w.clock.advance(20 * time.Minute)
		report, err := w.sync(all, nil)
		if err != nil || report.Failed != 0 {
			t.Fatalf("got %v, %+v", err, report)
		}
		return report
	}
	pages := func() []string {
		return slices.DeleteFunc(w.up.askedFor(pypiBase), func(p string) bool { return p != "" && !strings.HasSuffix(p, "/") })
	}
	if report := good(); report.Trees != 3 || report.Unchanged != 0 || report.Files != 6 {
		t.Errorf("got %+v", report)
	}
	if report := good(); report.Unchanged != 3 {
		t.Errorf("again: got %+v", report)
	}
	if diff := cmp.Diff([]string{""}, pages()); diff != "" {
		t.Errorf("again: asked for (-want +got):\n%s", diff)
	}
	if err := index.Add(testenv.Package{Name: "beta", Version: "2.0", Size: 3000}, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.index(index)
	if report := good(); report.Unchanged != 2 || report.Lacking != 2 {
		t.Errorf("after a change: got %+v", report)
	}
	if diff := cmp.Diff([]string{"", "beta/"}, pages()); diff != "" {
		t.Errorf("after a change: asked for (-want +got):\n%s", diff)
	}
}

// A page that is older than the list says is reported, and asked for again by
// the next sync.
func TestAPageThatLagsBehindTheListIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	index := python(t, w, "alpha", "beta")
	all := SyncRequest{Repo: "pypi", Selection: chantal.Selection{Wheels: true, Sdists: true}}
	if report, err := w.sync(all, nil); err != nil || report.Failed != 0 {
		t.Fatalf("got %v, %+v", err, report)
	}
	if err := index.Add(testenv.Package{Name: "beta", Version: "2.0", Size: 3000}, time.Now()); err != nil {
		t.Fatal(err)
	}
	files, err := index.Publish()
	if err != nil {
		t.Fatal(err)
	}
	w.up.mu.Lock()
	w.up.files[pypiBase] = files["simple/"] // and nothing else yet
	w.up.mu.Unlock()
	w.clock.advance(20 * time.Minute)
	report, err := w.sync(all, nil)
	if err != nil || report.Failed != 1 || report.Failures[0].Tree != "simple/beta" {
		t.Fatalf("got %v, %+v", err, report)
	}
	w.index(index)
	w.clock.advance(20 * time.Minute)
	if report, err = w.sync(all, nil); err != nil || report.Failed != 0 || report.Lacking != 2 || report.Unchanged != 1 {
		t.Errorf("when it has come: got %v, %+v", err, report)
	}
}

func TestSyncEndsSoonWhenNoPageCanBeHad(t *testing.T) {
	w := newWorld(t)
	var projects []string
	for i := range 100 {
		projects = append(projects, fmt.Sprintf("p%03d", i))
	}
	python(t, w, projects[:1]...)
	w.up.fail(down, pypiBase, -1)
	report, err := w.sync(SyncRequest{Repo: "pypi", Selection: chantal.Selection{Projects: projects, Wheels: true}}, nil)
	if !errors.Is(err, errDown) {
		t.Fatalf("got %v, %+v", err, report)
	}
	if n := len(w.up.requests(pypiBase)); n > silences+2*w.m.Parallel {
		t.Errorf("%d requests, though nobody answers", n)
	}
}
