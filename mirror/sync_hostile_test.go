package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chantal"
	"chantal/internal/disk"
	"chantal/internal/disk/disktest"
	"chantal/internal/testenv"

	"github.com/google/go-cmp/cmp"
)

// poolOf publishes n packages at baseA.
func poolOf(t *testing.T, n int) (*world, *suite, []string) {
	t.Helper()
	w := newWorld(t)
	s := newSuite(t)
	paths := s.pool(n, 2000)
	s.publish(w.up, baseA)
	w.debian(baseA)
	return w, s, paths
}

// lostPaths returns the paths of a report's failures.
func lostPaths(r SyncReport) []string {
	var paths []string
	for _, f := range r.Failures {
		paths = append(paths, f.Path)
	}
	return paths
}

func TestSyncBeginsAgainWhenUpstreamPublishesMeanwhile(t *testing.T) {
	w, s, paths := poolOf(t, 20)
	old := s.content(packagesXZ)
	// When the first files have been asked for, upstream has a newer state, in
	// which most of what is still to come is gone.
	w.up.fail(silent, "pool/", -1)
	asked := make(chan struct{})
	published := make(chan struct{})
	go func() {
		defer close(published)
		<-asked
		for i := 5; i < 20; i++ {
			s.Drop(testenv.Package{Name: fmt.Sprintf("p%03d", i), Version: "1", Size: 2000}, true)
		}
		s.add(testenv.Package{Name: "new", Version: "2", Size: 3000})
		s.publish(w.up, baseA)
		w.up.heal()
	}()
	first := sync.OnceFunc(func() { close(asked) })
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64}, func(e SyncEvent) {
		if e.Kind == SyncFile && strings.HasPrefix(e.Path, "pool/") {
			first()
		}
	})
	<-published
	if err != nil || report.Failed != 0 {
		t.Fatalf("got %v, %+v", err, report)
	}
	paths = append(paths[:5:5], s.PoolPath(testenv.Package{Name: "new", Version: "2"}))
	w.holds(s, append(paths, packagesXZ)...)
	if _, err := w.store.Find("debian", sha256Of(old)); err != nil {
		t.Error("the first state was not seen at all")
	}
	if report.Files != len(paths) {
		t.Errorf("got %d files, want those of one state, %d", report.Files, len(paths))
	}
	s.wantUnchanged(w)
}

// wantUnchanged ends the test where another sync would look for anything.
func (s *suite) wantUnchanged(w *world) {
	s.t.Helper()
	w.clock.advance(20 * time.Minute)
	w.up.forget()
	if report := w.mustSync(amd64); report.Unchanged != 1 {
		s.t.Errorf("the next sync: got %+v, want nothing to do", report)
	}
	if diff := cmp.Diff([]string{inRelease}, w.up.askedFor(baseA)); diff != "" {
		s.t.Errorf("the next sync asked for (-want +got):\n%s", diff)
	}
}

func TestSyncGivesUpATreeThatChangesAllTheTime(t *testing.T) {
	w, s, paths := poolOf(t, 3)
	w.up.fail(missing, paths[0], -1)
	n := 0
	var publish func()
	publish = func() {
		n++
		s.add(testenv.Package{Name: fmt.Sprint("n", n), Version: "1", Size: 100})
		s.publish(w.up, baseA)
		w.up.then(paths[0], publish)
	}
	w.up.then(paths[0], publish)
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n != passes || report.Failed == 0 {
		t.Errorf("%d states, want %d; got %+v", n, passes, report)
	}
	if last := report.Failures[0]; last.Path != "" || !strings.Contains(last.Reason, "changed") {
		t.Errorf("got %+v", last)
	}
}

func TestSyncGoesOnceMoreOverWhatFailed(t *testing.T) {
	for _, kind := range []trouble{corrupt, tail, truncated, short, missing, unavailable} {
		t.Run(string(kind), func(t *testing.T) {
			w, s, paths := poolOf(t, 6)
			w.up.fail(kind, paths[3], 1)
			w.mustSync(amd64)
			w.holds(s, paths...)
		})
	}
}

func TestSyncListsWhatCannotBeHad(t *testing.T) {
	w, s, paths := poolOf(t, 8)
	w.up.fail(missing, paths[1], -1)
	w.up.fail(corrupt, paths[4], -1)
	w.up.fail(unavailable, paths[6], -1)
	var failed []string
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64}, func(e SyncEvent) {
		if e.Kind == SyncFileFailed && !slices.Contains(failed, e.Path) {
			failed = append(failed, e.Path)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	bad := []string{paths[1], paths[4], paths[6]}
	if diff := cmp.Diff(bad, lostPaths(report)); diff != "" || report.Failed != 3 {
		t.Errorf("%d failed (-want +got):\n%s", report.Failed, diff)
	}
	for _, f := range report.Failures {
		if f.Repo != "debian" || f.Tree != "dists/bookworm" || f.URL != baseA+f.Path || f.Reason == "" {
			t.Errorf("got %+v", f)
		}
	}
	slices.Sort(failed)
	if diff := cmp.Diff(bad, failed); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	w.holds(s, paths[0], paths[2], paths[3], paths[5], paths[7])
	w.up.heal()
	w.up.forget()
	w.clock.advance(20 * time.Minute)
	w.mustSync(amd64)
	want := append([]string{inRelease}, bad...)
	slices.Sort(want)
	got := slices.DeleteFunc(w.up.askedFor(baseA), func(p string) bool { return strings.Contains(p, "i18n") })
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		t.Errorf("the next sync asked for (-want +got):\n%s", diff)
	}
}

// What a client makes the head while a sync is under way is complete at its
// end, too.
func TestASyncEndsWithTheHead(t *testing.T) {
	w, s, _ := poolOf(t, 20)
	live := w.m.Repo("debian").Live(Client{NoCache: true})
	w.up.fail(silent, "pool/", -1)
	asked := make(chan struct{})
	seen := make(chan error, 1)
	go func() {
		<-asked
		s.add(testenv.Package{Name: "new", Version: "2", Size: 3000})
		s.publish(w.up, baseA)
		w.clock.advance(2 * time.Minute)
		_, _, err := get(t, live, inRelease)
		w.up.heal()
		seen <- err
	}()
	first := sync.OnceFunc(func() { close(asked) })
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64}, func(e SyncEvent) {
		if e.Kind == SyncFile && strings.HasPrefix(e.Path, "pool/") {
			first()
		}
	})
	if err := errors.Join(err, <-seen); err != nil || report.Failed != 0 {
		t.Fatalf("got %v, %+v", err, report)
	}
	w.holds(s, packagesXZ, s.PoolPath(testenv.Package{Name: "new", Version: "2"}))
}

// A dry run that has to go once more over an index stays one.
func TestADryRunFetchesNoArtifactWhateverFails(t *testing.T) {
	w, _, _ := poolOf(t, 3)
	w.up.fail(corrupt, packagesXZ, 1)
	w.up.fail(corrupt, packagesGZ, 1)
	w.up.fail(corrupt, strings.TrimSuffix(packagesGZ, ".gz"), 1)
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64, DryRun: true}, nil)
	if err != nil || report.Failed != 0 || report.Lacking != 3 {
		t.Errorf("got %v, %+v", err, report)
	}
	if n := len(w.up.requests("pool/")); n != 0 {
		t.Errorf("%d artifacts were asked for", n)
	}
}

// What does not fit onto the disk at the very end is no complete mirror.
func TestSyncSaysWhenTheLastFileIsNotKept(t *testing.T) {
	w, _, paths := poolOf(t, 3)
	w.up.then(paths[2], func() {
		w.faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Create, disk.Write}, Path: "/blobs/", Err: syscall.ENOSPC})
	})
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64}, nil)
	var full *chantal.DiskError
	if !errors.As(err, &full) {
		t.Errorf("got %v, %+v, want a full disk", err, report)
	}
	w.faults.Set()
}

func TestSyncEndsSoonWhenUpstreamGoesDown(t *testing.T) {
	w, _, paths := poolOf(t, 300)
	for _, p := range paths[20:] {
		w.up.fail(down, p, -1)
	}
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(w.up.requests("pool/")); n >= 20+(w.m.Parallel+2)*silences {
		t.Errorf("%d requests, though nobody answers", n)
	}
	if report.Failed == 0 || !slices.ContainsFunc(report.Failures, func(f SyncFailure) bool { return f.Path == "" }) {
		t.Errorf("got %+v", report)
	}
	w.up.heal()
	w.clock.advance(time.Minute)
	if report := w.mustSync(amd64); report.Lacking < 100 || report.Lacking > 280 {
		t.Errorf("after that: got %+v", report)
	}
}

func TestSyncStopsWhenTheDiskIsFull(t *testing.T) {
	w, s, paths := poolOf(t, 100)
	w.faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Create}, Path: "/blobs/", Skip: 30, Err: syscall.ENOSPC})
	_, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64}, nil)
	var full *chantal.DiskError
	if !errors.As(err, &full) || !full.Full {
		t.Fatalf("got %v, want a full disk", err)
	}
	if n := len(w.up.requests("pool/")); n > 60 {
		t.Errorf("%d requests, though the disk takes nothing", n)
	}
	w.faults.Set()
	w.restart(false)
	w.debian(baseA)
	w.mustSync(amd64)
	w.holds(s, paths...)
}

func TestSyncEndsWithItsContext(t *testing.T) {
	w, _, paths := poolOf(t, 30)
	w.up.fail(silent, paths[7], -1)
	ctx, cancel := context.WithCancel(t.Context())
	report, err := w.m.Sync(ctx, SyncRequest{Repo: "debian", Selection: amd64}, func(e SyncEvent) {
		if e.Kind == SyncFileDone && e.Path == paths[20] {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if report.Failed != 0 || report.Fetched < 2 {
		t.Errorf("got %+v", report)
	}
}

// A file of which nothing comes keeps nobody else from theirs, and a client
// who asks for it goes first.
func TestASilentFileKeepsNobodyWaiting(t *testing.T) {
	w, s, paths := poolOf(t, 30)
	w.up.fail(silent, paths[3], -1)
	ended := make(chan SyncReport, 1)
	others := make(chan struct{})
	left := 0
	go func() {
		report, _ := w.m.Sync(t.Context(), SyncRequest{Repo: "debian", Selection: amd64}, func(e SyncEvent) {
			if e.Kind == SyncFileDone && strings.HasPrefix(e.Path, "pool/") {
				if left++; left == 29 {
					close(others)
				}
			}
		})
		ended <- report
	}()
	<-others
	ask := w.up.requests(paths[3])[0]
	select {
	case <-ask.Behind:
		t.Error("somebody waits for the file, it says")
	default:
	}
	live := w.m.Repo("debian").Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	go func() {
		<-ask.Behind
		w.up.heal()
	}()
	wantGet(t, live, paths[3], s.content(paths[3]))
	if report := <-ended; report.Failed != 0 {
		t.Errorf("got %+v", report)
	}
	if n := len(w.up.requests(paths[3])); n != 1 {
		t.Errorf("the file was asked for %d times", n)
	}
}

func TestASyncLooksAgainWhenTheStoreHasLostSomething(t *testing.T) {
	w, s, paths := poolOf(t, 5)
	w.mustSync(amd64)
	if err := w.store.Shrink(func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(20 * time.Minute)
	if report := w.mustSync(amd64); report.Unchanged != 0 || report.Files != 5 || report.Lacking != 0 {
		t.Errorf("got %+v, want a look at all files", report)
	}
	s.wantUnchanged(w)
	w.damages()["other bytes, found by a check"](s.content(paths[2]))
	w.clock.advance(20 * time.Minute)
	if report := w.mustSync(amd64); report.Lacking != 1 {
		t.Errorf("got %+v, want the damaged file to be fetched", report)
	}
	w.holds(s, paths...)
}

func TestASyncIsNotBelievedForEver(t *testing.T) {
	w, _, _ := poolOf(t, 3)
	w.mustSync(amd64)
	w.clock.advance(assured + time.Minute)
	if report := w.mustSync(amd64); report.Unchanged != 0 || report.Files != 3 {
		t.Errorf("got %+v, want a look at all files", report)
	}
}
