package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"chantal/internal/config"
	"chantal/mirror"
)

// memory keeps states.
type memory struct {
	mu     sync.Mutex
	states map[string][]byte
}

func (m *memory) State(name string, v any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if text := m.states[name]; text != nil {
		return json.Unmarshal(text, v)
	}
	return fs.ErrNotExist
}

func (m *memory) SetState(name string, v any) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states[name], err = json.Marshal(v)
	return err
}

// filling is a fillFunc that takes a minute.
type filling struct {
	mu    sync.Mutex
	calls []mirror.SyncRequest
	fails map[string]error
}

func (f *filling) fill(ctx context.Context, q mirror.SyncRequest, events func(mirror.SyncEvent)) (syncResult, error) {
	f.mu.Lock()
	f.calls = append(f.calls, q)
	f.mu.Unlock()
	r := syncResult{SyncReport: mirror.SyncReport{Repo: q.Repo, Started: time.Now(), DryRun: q.DryRun, Seconds: 60}}
	events(mirror.SyncEvent{Kind: mirror.SyncTree, Tree: "t"})
	events(mirror.SyncEvent{Kind: mirror.SyncPlan, Tree: "t", Files: 2, Lacking: 1, LackingBytes: 7})
	events(mirror.SyncEvent{Kind: mirror.SyncFile, Tree: "t", Path: "a", Size: 7})
	select {
	case <-time.After(time.Minute):
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	if err := f.fails[q.Repo]; err != nil {
		r.Failed, r.Failures = 1, []mirror.SyncFailure{{Repo: q.Repo, Path: "a", Reason: err.Error()}}
		events(mirror.SyncEvent{Kind: mirror.SyncFileFailed, Tree: "t", Path: "a", Error: err.Error()})
	} else {
		events(mirror.SyncEvent{Kind: mirror.SyncFileDone, Tree: "t", Path: "a", Size: 7})
	}
	events(mirror.SyncEvent{Kind: mirror.SyncTreeDone, Tree: "t"})
	return r, nil
}

func (f *filling) begun() []mirror.SyncRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

var quiet = slog.New(slog.DiscardHandler)

func TestOneSyncOfARepositoryIsForAllWhoAskForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &filling{}
		s := newSyncs(f.fill, &memory{states: map[string][]byte{}}, quiet)
		q := mirror.SyncRequest{Repo: "debian"}
		var steps [2][]string
		var wg sync.WaitGroup
		for i := range steps {
			wg.Go(func() {
				result, err := s.run(t.Context(), q, func(step syncStep) { steps[i] = append(steps[i], step.Event) })
				if err != nil || !result.good() || result.Artifacts != 1 {
					t.Errorf("got %+v, %v", result, err)
				}
			})
			time.Sleep(10 * time.Second)
		}
		if began := s.underway("debian"); time.Since(began) != 20*time.Second {
			t.Errorf("began %s ago", time.Since(began))
		}
		// One that is not the same is told that it has to wait.
		other := q
		other.DryRun = true
		var busy *failure
		if _, err := s.run(t.Context(), other, nil); !errors.As(err, &busy) || !strings.Contains(busy.Message, "under way") {
			t.Errorf("got %v", err)
		}
		// Another repository has nothing to do with it.
		if _, err := s.run(t.Context(), mirror.SyncRequest{Repo: "epel"}, func(syncStep) {}); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if n := len(f.begun()); n != 2 {
			t.Errorf("%d syncs were made", n)
		}
		if diff := cmp.Diff([2][]string{{"begun", "progress", "progress", "done"}, {"progress", "done"}}, steps); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		if !s.underway("debian").IsZero() {
			t.Error("still under way")
		}
	})
}

func TestASyncEndsWithTheLastWhoWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &filling{}
		kept := &memory{states: map[string][]byte{}}
		s := newSyncs(f.fill, kept, quiet)
		q := mirror.SyncRequest{Repo: "debian"}
		first, leaveFirst := context.WithCancel(t.Context())
		second, leaveSecond := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, ctx := range []context.Context{first, second} {
			wg.Go(func() {
				if _, err := s.run(ctx, q, func(syncStep) {}); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		synctest.Wait()
		leaveFirst()
		synctest.Wait()
		if s.underway("debian").IsZero() {
			t.Error("ended with the first of two")
		}
		leaveSecond()
		wg.Wait()
		if !s.underway("debian").IsZero() {
			t.Error("goes on for nobody")
		}
		if end, ok := s.last("debian"); !ok || !end.Result.Interrupted || !end.Success.IsZero() {
			t.Errorf("remembered as %+v", end)
		}
		// The next one begins anew, and how it ended outlives the process.
		if _, err := s.run(t.Context(), q, func(syncStep) {}); err != nil {
			t.Error(err)
		}
		if end, _ := newSyncs(f.fill, kept, quiet).last("debian"); end.Result.Interrupted || end.Success.IsZero() {
			t.Errorf("remembered as %+v", end)
		}
		f.fails = map[string]error{"debian": errors.New("404")}
		if r, err := s.run(t.Context(), q, func(syncStep) {}); err != nil || r.good() {
			t.Errorf("got %+v, %v", r, err)
		}
		q.DryRun = true
		if _, err := s.run(t.Context(), q, func(syncStep) {}); err != nil {
			t.Error(err)
		}
		if end, _ := s.last("debian"); end.Result.DryRun || time.Since(end.Success) != 2*time.Minute || end.Result.Failures != nil || end.Result.Failed != 1 {
			t.Errorf("remembered as %+v", end)
		}
	})
}

func TestTheEndOfServeEndsSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSyncs((&filling{}).fill, &memory{states: map[string][]byte{}}, quiet)
		ended := make(chan error)
		go func() {
			_, err := s.run(t.Context(), mirror.SyncRequest{Repo: "debian"}, func(syncStep) {})
			ended <- err
		}()
		synctest.Wait()
		before := time.Now()
		s.close()
		if err := <-ended; !errors.Is(err, errClosing) || time.Now() != before {
			t.Errorf("got %v after %s", err, time.Since(before))
		}
		if _, err := s.run(t.Context(), mirror.SyncRequest{Repo: "debian"}, nil); !errors.Is(err, errClosing) {
			t.Errorf("got %v", err)
		}
	})
}

// A reader that takes nothing holds up no sync, and is told the end.
func TestASlowReaderOfStepsHoldsUpNothing(t *testing.T) {
	r, _ := newSyncRun(mirror.SyncRequest{Repo: "debian"})
	slow := r.enter()
	for range 3 * maxSteps {
		r.tell(syncStep{Event: stepProgress})
		r.tell(syncStep{Event: stepFailed})
	}
	r.tell(syncStep{Event: stepDone})
	var got []string
	r.pass(slow, func(s syncStep) { got = append(got, s.Event) })
	if len(got) > maxSteps+2 || got[len(got)-1] != stepDone {
		t.Errorf("%d steps, the last is %s", len(got), got[len(got)-1])
	}
}

func TestCountsOfASync(t *testing.T) {
	c, now := newSyncCount("debian"), noon
	add := func(e mirror.SyncEvent) *syncStep { now = now.Add(time.Second); return c.add(e, now) }
	add(mirror.SyncEvent{Kind: mirror.SyncStarted})
	add(mirror.SyncEvent{Kind: mirror.SyncTree, Tree: "a"})
	add(mirror.SyncEvent{Kind: mirror.SyncFile, Tree: "a", Path: "Packages.xz", Size: 100})
	add(mirror.SyncEvent{Kind: mirror.SyncFileDone, Tree: "a", Path: "Packages.xz", Size: 100})
	add(mirror.SyncEvent{Kind: mirror.SyncPlan, Tree: "a", Files: 10, Bytes: 1000, Lacking: 3, LackingBytes: 300})
	add(mirror.SyncEvent{Kind: mirror.SyncFile, Tree: "a", Path: "x.deb", Size: 100})
	add(mirror.SyncEvent{Kind: mirror.SyncFileDone, Tree: "a", Path: "x.deb", Size: 100})
	add(mirror.SyncEvent{Kind: mirror.SyncFile, Tree: "a", Path: "y.deb", Size: 100})
	got := add(mirror.SyncEvent{Kind: mirror.SyncProgress, Tree: "a", Path: "y.deb", Size: 100, Done: 40})
	want := &syncStep{
		Event: stepProgress, Time: now, Repo: "debian", Trees: 1, Files: 10, Bytes: 1000, Lacking: 3, LackingBytes: 300, Fetched: 1, FetchedBytes: 140,
		Active: []syncFile{{Path: "y.deb", Size: 100, Done: 40, Since: now.Add(-time.Second)}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	failed := add(mirror.SyncEvent{Kind: mirror.SyncFileFailed, Tree: "a", Path: "y.deb", Error: "404"})
	if diff := cmp.Diff(&syncStep{Event: stepFailed, Time: now, Repo: "debian", Tree: "a", Path: "y.deb", Error: "404"}, failed); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	// Upstream changed: what is stored by now is no longer lacking, and indexes
	// come first again.
	add(mirror.SyncEvent{Kind: mirror.SyncTree, Tree: "a"})
	add(mirror.SyncEvent{Kind: mirror.SyncFile, Tree: "a", Path: "Packages.xz", Size: 100})
	if got = add(mirror.SyncEvent{Kind: mirror.SyncFileDone, Tree: "a", Path: "Packages.xz", Size: 100}); got.Fetched != 0 || got.Files != 0 {
		t.Errorf("after a change upstream: %+v", got)
	}
	add(mirror.SyncEvent{Kind: mirror.SyncPlan, Tree: "a", Files: 11, Bytes: 1100, Lacking: 3, LackingBytes: 300})
	got = add(mirror.SyncEvent{Kind: mirror.SyncTreeDone, Tree: "a"})
	want = &syncStep{Event: stepProgress, Time: now, Repo: "debian", Trees: 1, TreesDone: 1, Files: 11, Bytes: 1100, Lacking: 3, LackingBytes: 300}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if c.add(mirror.SyncEvent{Kind: mirror.SyncFile, Tree: "b", Path: "z"}, now) != nil {
		t.Error("told twice at one time")
	}
}

func TestRhythm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		synctest.Wait()
		var mu sync.Mutex
		var log []string
		began := map[string]time.Time{
			"known": time.Now().Add(-5 * time.Hour), "late": time.Now().Add(-50 * time.Hour), "future": time.Now().Add(5000 * time.Hour),
		}
		start := time.Now()
		note := func(format string) {
			log = append(log, format+" "+time.Since(start).String())
		}
		daily := func(after time.Duration) string {
			at := start.Add(after).Local()
			return fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour())
		}
		beats := []beat{
			{repo: "new", every: 6 * time.Hour}, {repo: "known", every: 6 * time.Hour}, {repo: "late", every: 6 * time.Hour}, {repo: "future", every: 600 * time.Hour},
			{repo: "night", schedule: daily(3*time.Hour + 30*time.Minute)}, {repo: "long", every: 2 * time.Hour},
		}
		r := &rhythm{
			beats: func() []beat { mu.Lock(); defer mu.Unlock(); return beats },
			last:  func(repo string) time.Time { mu.Lock(); defer mu.Unlock(); return began[repo] },
			sync: func(ctx context.Context, repo string) {
				mu.Lock()
				note(repo)
				began[repo] = time.Now()
				mu.Unlock()
				took := time.Minute
				if repo == "long" {
					took = 5 * time.Hour // never two of one repository: the next waits
				}
				select {
				case <-time.After(took):
				case <-ctx.Done():
				}
			},
			changed: make(chan struct{}, 1),
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); r.run(ctx) }()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if due := r.due("new"); !due.Equal(start.Add(6 * time.Hour)) {
			t.Errorf("new is due at %v", due)
		}
		// Somebody syncs one by hand: the rhythm counts from there.
		mu.Lock()
		began["new"] = time.Now()
		mu.Unlock()
		time.Sleep(5*time.Hour + 30*time.Minute)
		mu.Lock()
		got := log
		log = nil
		beats = []beat{{repo: "night", schedule: daily(7*time.Hour + 45*time.Minute)}}
		mu.Unlock()
		for _, want := range []string{"new 0s", "late 0s", "long 0s", "future 0s", "known 1h0m0s", "night 3h30m0s", "long 5h0m0s", "late 6h0m0s", "known 7h0m0s"} {
			if !slices.Contains(got, want) {
				t.Errorf("no %q in %q", want, got)
			}
		}
		if len(got) != 9 {
			t.Errorf("got %q", got)
		}
		r.reset()
		time.Sleep(time.Hour)
		mu.Lock()
		if diff := cmp.Diff([]string{"night 7h45m0s"}, log); diff != "" {
			t.Errorf("after a reload: -want +got\n%s", diff)
		}
		mu.Unlock()
		before := time.Now()
		cancel()
		<-ended
		if time.Now() != before {
			t.Errorf("the end took %s", time.Since(before))
		}
	})
}

// A time that summer time leaves out is left out, and one that there is twice is
// kept once.
func TestSchedulesOverTheChangeOfClocks(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for day, want := range map[int][]string{
		time.Date(2026, 3, 28, 12, 0, 0, 0, berlin).YearDay():  {"30 02:30 CEST", "31 02:30 CEST"},
		time.Date(2026, 10, 24, 12, 0, 0, 0, berlin).YearDay(): {"25 02:30 CET", "26 02:30 CET"},
	} {
		at := time.Date(2026, 1, day, 12, 0, 0, 0, berlin)
		var got []string
		for range want {
			at = (beat{schedule: "30 2 * * *"}).next(at)
			got = append(got, at.Format("02 15:04 MST"))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
}

func TestBeatsAreThoseOfTheConfiguration(t *testing.T) {
	c, err := config.Parse("f", []byte(`repos:
  - {name: a, type: apt, upstream: "http://mirror.example.org/", sync: {every: 6h}}
  - {name: b, type: rpm, upstream: "http://mirror.example.org/", sync: {schedule: "1 2 3 4 *"}}
  - {name: c, type: pypi, upstream: "http://mirror.example.org/", sync: {}}
  - {name: d, type: apt, upstream: "http://mirror.example.org/"}
`), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	want := []beat{{"a", 6 * time.Hour, ""}, {"b", 0, "1 2 3 4 *"}}
	if diff := cmp.Diff(want, beatsOf(c), cmp.AllowUnexported(beat{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestSyncMetrics(t *testing.T) {
	s := newSyncs((&filling{}).fill, &memory{states: map[string][]byte{}}, quiet)
	s.note("debian", errors.New("no list"))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(syncMetrics{s})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		got[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
	}
	delete(got, "chantal_sync_last_start_timestamp_seconds")
	want := map[string]float64{
		"chantal_sync_last_success_timestamp_seconds": 0, "chantal_sync_duration_seconds": 0, "chantal_sync_failed_files": 0,
		"chantal_sync_given_up": 1, "chantal_sync_fetched_bytes": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestSyncIsToldInPlainLines(t *testing.T) {
	s := newShell(t)
	code, stdout, stderr := s.run(t.Context(), "sync", "debian", "torn", "wrong", "--metadata-only", "--dry-run")
	if diff := cmp.Diff(syncRequest{Repos: []string{"debian", "torn", "wrong"}, DryRun: true, MetadataOnly: true}, s.shelf.synced); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if code != 1 {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{
		"debian: sync begins\n", "debian: 1 tree, 3 files; 2 fetched, 2.0 KiB, in 1.5s\n", "torn: 1 tree, 3 files; 1 fetched, 2.0 KiB, 1 failed, in 1.5s\n",
		"torn http://mirror.example.org/pool/x.deb: upstream answered 404\n", "syncing wrong: no such suite\n",
		"chantal: not everything is there: 1 failure, 1 repository given up; chantal sync tries what is missing again, and fetches nothing else\n",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in\n%s", want, stderr)
		}
	}
	if !strings.Contains(stdout, "TO FETCH") || strings.Count(stdout, "\n") != 4 {
		t.Errorf("stdout is\n%s", stdout)
	}
	if code, stdout, stderr := s.run(t.Context(), "sync", "--quiet", "debian"); code != 0 || stdout+stderr != "" {
		t.Errorf("quiet: exit %d, %q, %q", code, stdout, stderr)
	}
}

// One document on standard output, and events on the other; the same through
// the server.
func TestSyncIsToldAsJSON(t *testing.T) {
	for _, served := range []bool{false, true} {
		s := newShell(t)
		if served {
			serveShelf(t, s, s.vars["CHANTAL_DATA"])
		}
		code, stdout, stderr := s.run(t.Context(), "sync", "torn", "--json")
		var report syncReport
		decoder := json.NewDecoder(strings.NewReader(stdout))
		if err := decoder.Decode(&report); err != nil || decoder.More() || code != 1 {
			t.Errorf("exit %d, %v, %s", code, err, stdout)
		}
		if report.OK || report.Failed != 1 || len(report.Failures) != 1 || report.Failures[0].URL == "" || report.Repos[0].Generations[0].Generation != 2 {
			t.Errorf("got %+v", report)
		}
		var events []string
		for line := range strings.Lines(stderr) {
			var step syncStep
			if json.Unmarshal([]byte(line), &step) == nil {
				events = append(events, step.Event)
			}
		}
		if diff := cmp.Diff([]string{"begun", "progress", "done"}, events); diff != "" {
			t.Errorf("served: %v, -want +got\n%s", served, diff)
		}
	}
}

func TestAnInterruptedSyncSaysThatNothingIsLost(t *testing.T) {
	s := newShell(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-s.shelf.entered
		cancel()
	}()
	code, _, stderr := s.run(ctx, "sync", "never")
	if code != 130 || !strings.HasSuffix(stderr, "chantal: interrupted; what has arrived is kept: chantal sync goes on from there\n") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestBarsLeaveNothingBehind(t *testing.T) {
	var to bytes.Buffer
	v := newBarView(&to)
	now := noon
	for i := range 20 {
		now = now.Add(time.Second)
		switch i {
		case 0:
			v.step(syncStep{Event: stepBegun, Time: now, Repo: "debian"})
		case 10:
			v.step(syncStep{Event: stepFailed, Time: now, Repo: "debian", Path: "z.deb", Error: "404\nnot \x1b[31mthere"})
		default:
			v.step(syncStep{
				Event: stepProgress, Time: now, Repo: "debian", Files: 20, Lacking: 20, LackingBytes: 2000, Fetched: i, FetchedBytes: int64(i) * 100,
				Active: []syncFile{{Path: "pool/" + strings.Repeat("long-", 10) + "name.deb", Size: 1000, Done: int64(i), Since: noon}, {Path: "quick.deb", Since: now}},
			})
		}
	}
	if len(v.files) != 1 || v.files["quick.deb"] != nil {
		t.Errorf("bars of %v", v.files)
	}
	if text := v.whole.texts.Load(); !strings.HasPrefix(text[0], "debian 19/20 ") || !strings.Contains(text[1], "1.9 KiB of 2.0 KiB") || !strings.HasSuffix(text[1], "100 B/s     1s") {
		t.Errorf("the bar says %q", text)
	}
	v.step(syncStep{Event: stepDone, Time: now, Repo: "debian"})
	v.close()
	if v.whole != nil || len(v.files) > 0 {
		t.Error("bars are left")
	}
	if got := to.String(); !strings.Contains(got, "debian z.deb: 404 not \uFFFD[31mthere\n") {
		t.Errorf("wrote %q", got)
	}
}

func TestPackageLists(t *testing.T) {
	for _, test := range []struct {
		name, typ, text string
		want            []string
		wrong           string
	}{
		{"names", config.Apt, "# all of them\n\nnginx*\n  curl # needed\r\nlibstdc++6\n", []string{"nginx*", "curl", "libstdc++6"}, ""},
		{"dpkg", config.Apt, "adduser\t\t\t\t\tinstall\nlibc6:amd64\t\t\tinstall\nold\t\tdeinstall\nheld\thold\ngone\tpurge\n", []string{"adduser", "libc6", "held"}, ""},
		{"rpm", config.RPM, "bash\ngcc-c++\ngpg-pubkey\n", []string{"bash", "gcc-c++", "gpg-pubkey"}, ""},
		{"pip", config.PyPI, "six==1.16.0\nFlask>=3 ; python_version > \"3\"\nrequests[socks]==2.0 --hash=sha256:ab \\\n    --hash=sha256:cd\n-e git+https://git.example.org/x#egg=x\n# Editable install\nlocal @ file:///src/local\nzope.* \nb[xy]*\n", []string{"six==1.16.0", "Flask>=3", "requests==2.0", "zope.*", "b[xy]*"}, ""},
		{"nothing", config.Apt, "# nothing\n", nil, "names nothing"},
		{"prose", config.Apt, "this is no list\n", nil, `line 1: "this is no list" is not one name`},
		{"two", config.RPM, "ok\none two\n", nil, "line 2"},
		{"glob", config.RPM, "ngin[\n", nil, "neither a name nor a glob"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := packageList(test.text, test.typ)
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
		})
	}
}

func TestPackageListsAreBesideTheConfiguration(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("etc", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"etc/a.txt": "curl\n", "etc/p.txt": "six==1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Parse("etc/chantal.yaml", []byte(`repos:
  - {name: a, type: apt, upstream: "http://mirror.example.org/", sync: {packages: [nginx], package_list: a.txt}}
  - {name: p, type: pypi, upstream: "http://mirror.example.org/", sync: {package_list: [p.txt, gone.txt]}}
`), func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	got, err := selection(c, &c.Repos[0])
	if diff := cmp.Diff([]string{"nginx", "curl"}, got.Packages); err != nil || diff != "" {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	if _, err := selection(c, &c.Repos[1]); err == nil || !strings.Contains(err.Error(), "etc/chantal.yaml:3:88: package_list of p: open etc/gone.txt") {
		t.Errorf("got %v", err)
	}
	c.Repos[1].Sync.PackageLists = c.Repos[1].Sync.PackageLists[:1]
	if got, err := selection(c, &c.Repos[1]); err != nil || !cmp.Equal(got.Projects, []string{"six==1"}) || got.Packages != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}
