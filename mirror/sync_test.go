package mirror

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/internal/testenv"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// amd64 selects all packages of the suite that most tests use.
var amd64 = chantal.Selection{Suites: []string{"bookworm"}, Architectures: []string{"amd64"}}

// pool adds n packages of size bytes to the suite and returns their paths.
func (s *suite) pool(n, size int) []string {
	s.t.Helper()
	var paths []string
	for i := range n {
		paths = append(paths, s.add(testenv.Package{Name: fmt.Sprintf("p%03d", i), Version: "1", Size: size}))
	}
	return paths
}

// sync runs a sync that has to end within a minute.
func (w *world) sync(req SyncRequest, events func(SyncEvent)) (SyncReport, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	return w.m.Sync(ctx, req, events)
}

// mustSync is sync of a selection from "debian" that fails in nothing.
func (w *world) mustSync(sel chantal.Selection) SyncReport {
	w.t.Helper()
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: sel}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if report.Failed != 0 {
		w.t.Fatalf("got failures %v", report.Failures)
	}
	return report
}

// askedFor returns the paths below base of all requests since forget, sorted.
func (u *upstream) askedFor(base string) []string {
	var paths []string
	for _, r := range u.requests(base) {
		paths = append(paths, strings.TrimPrefix(r.URL, base))
	}
	slices.Sort(paths)
	return paths
}

// holds ends the test where the store lacks one of the published paths.
func (w *world) holds(s *suite, paths ...string) {
	w.t.Helper()
	for _, p := range paths {
		if _, err := w.store.Find("debian", sha256Of(s.content(p))); err != nil {
			w.t.Errorf("%s: %v", p, err)
		}
	}
}

func TestSyncFetchesWhatTheSelectionNames(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	paths := s.pool(20, 2000)
	s.publish(w.up, baseA)
	w.debian(baseA)
	var events []SyncEvent
	report, err := w.sync(SyncRequest{Repo: "debian", Selection: amd64}, func(e SyncEvent) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	w.holds(s, append(paths, inRelease)...)
	var size int64
	for _, p := range paths {
		size += int64(len(s.content(p)))
	}
	want := SyncReport{Repo: "debian", Trees: 1, Files: 20, Lacking: 20, Bytes: size, LackingBytes: size}
	if diff := cmp.Diff(want, report, cmpopts.IgnoreFields(SyncReport{}, "Started", "Seconds", "Fetched", "FetchedBytes")); diff != "" {
		t.Error(diff)
	}
	count := map[SyncEventKind]int{}
	for _, e := range events {
		count[e.Kind]++
	}
	if n := report.Fetched; count[SyncFile] != n || count[SyncFileDone] != n || count[SyncPlan] != 1 || count[SyncFileFailed] != 0 || n <= 20 {
		t.Errorf("got %v for %d files", count, n)
	}
	plan := SyncEvent{Kind: SyncPlan, Repo: "debian", Tree: "dists/bookworm", Files: 20, Lacking: 20, Bytes: size, LackingBytes: size}
	if !slices.Contains(events, plan) {
		t.Errorf("no event is %+v", plan)
	}
}

func TestSyncAgainAsksForRootsOnly(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.pool(5, 2000)
	s.SetDate(time.Now().Add(-time.Hour))
	s.publish(w.up, baseA)
	w.debian(baseA)
	w.mustSync(amd64)
	w.up.forget()
	w.clock.advance(20 * time.Minute)
	report := w.mustSync(amd64)
	if diff := cmp.Diff([]string{inRelease}, w.up.askedFor(baseA)); diff != "" {
		t.Error(diff)
	}
	if report.Unchanged != 1 || report.Files != 0 {
		t.Errorf("got %+v", report)
	}
	w.restart(false)
	w.debian(baseA)
	w.up.forget()
	if report := w.mustSync(amd64); report.Unchanged != 1 {
		t.Errorf("after a restart: %+v", report)
	}
	if diff := cmp.Diff([]string{inRelease}, w.up.askedFor(baseA)); diff != "" {
		t.Error(diff)
	}
	if r := w.up.requests(inRelease); r[0].ETag == "" && r[0].Modified.IsZero() {
		t.Error("the root was not asked for conditionally")
	}
}

// A client has come by before: what it got is not asked for again.
func TestSyncAsksForTheGapsOnly(t *testing.T) {
	w := newWorld(t)
	s, _, live, first := debianWith(t, w, testenv.Package{Name: "first", Version: "1", Size: 100_000}, baseA)
	paths := s.pool(10, 3000)
	s.SetDate(time.Now())
	s.publish(w.up, baseA)
	w.clock.advance(20 * time.Minute)
	wantGet(t, live, inRelease, s.content(inRelease))
	for _, p := range paths[:6] {
		wantGet(t, live, p, s.content(p))
	}
	w.up.forget()
	report := w.mustSync(chantal.Selection{Suites: []string{"bookworm"}, Architectures: []string{"amd64"}, Languages: []string{"none"}})
	want := slices.Concat([]string{inRelease}, paths[6:], []string{first})
	slices.Sort(want)
	got := slices.DeleteFunc(w.up.askedFor(baseA), func(p string) bool { return strings.HasPrefix(p, "dists/") && p != inRelease })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if report.Lacking != 5 || report.Files != 11 {
		t.Errorf("got %+v", report)
	}
}
