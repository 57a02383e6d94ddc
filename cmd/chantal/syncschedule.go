package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/adhocore/gronx"
	"github.com/prometheus/client_golang/prometheus"

	"chantal/internal/config"
)

// rhythm begins the syncs that the configuration wants at their times. A time
// that has passed while nobody was there to keep it is made up for with every:,
// and not with schedule:, as cron has it.
type rhythm struct {
	beats   func() []beat                          // of the configuration in force
	last    func(repo string) time.Time            // when the last sync of a repository began; zero for never
	sync    func(ctx context.Context, repo string) // makes one, and returns at its end
	changed chan struct{}                          // has an entry when beats may be others; of capacity 1

	mu   sync.Mutex
	next map[string]time.Time
}

// beat is when one repository is synced.
type beat struct {
	repo     string
	every    time.Duration
	schedule string // in place of every
}

// beatsOf are those of a configuration.
func beatsOf(cfg *config.Config) (all []beat) {
	for _, c := range cfg.Repos {
		if y := c.Sync; y != nil && (y.Every > 0 || y.Schedule != "") {
			all = append(all, beat{c.Name, y.Every, y.Schedule})
		}
	}
	return all
}

// after returns when the repository is due that was last synced at last, zero
// for never, by who began to look at start; zero for not at all.
func (b beat) after(last, start time.Time) time.Time {
	switch {
	case b.schedule == "" && last.IsZero():
		return start
	case b.schedule == "":
		return last.Add(b.every)
	case last.Before(start):
		last = start
	}
	return b.next(last.Local())
}

// next returns the first time of the schedule after t, in the zone of t.
func (b beat) next(t time.Time) time.Time {
	at, err := gronx.NextTickAfter(b.schedule, t, false)
	if err != nil {
		return time.Time{}
	}
	return at
}

// lookAgain is after which time the clock is looked at, which somebody may have
// set meanwhile.
const lookAgain = time.Minute

// run keeps the times until ctx ends, and returns when the syncs that it began
// have ended.
func (r *rhythm) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	start := time.Now()
	begun, busy, ended := map[string]time.Time{}, map[string]bool{}, make(chan string)
	for {
		now := time.Now()
		next, wait := map[string]time.Time{}, lookAgain
		for _, b := range r.beats() {
			if busy[b.repo] {
				continue
			}
			last := r.last(b.repo)
			if last.After(now) { // somebody has set the clock back
				last = time.Time{}
			}
			at := b.after(latest(last, begun[b.repo]), start)
			switch {
			case at.IsZero():
			case at.After(now):
				next[b.repo] = at
				wait = min(wait, at.Sub(now))
			default:
				begun[b.repo], busy[b.repo] = now, true
				running.Go(func() {
					r.sync(ctx, b.repo)
					select {
					case ended <- b.repo:
					case <-ctx.Done():
					}
				})
			}
		}
		r.mu.Lock()
		r.next = next
		r.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-r.changed:
		case repo := <-ended:
			delete(busy, repo)
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reset makes run look at the configuration again.
func (r *rhythm) reset() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// due returns when the next sync of a repository begins; zero for none.
func (r *rhythm) due(repo string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next[repo]
}

// startSyncs keeps the times of the configuration until the returned function is
// called, which also ends the syncs that are under way.
func (s *server) startSyncs(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	r := &rhythm{
		beats: func() []beat { return beatsOf(s.config.Load()) },
		last: func(repo string) time.Time {
			end, _ := s.syncs.last(repo)
			return end.Result.Started
		},
		sync: s.scheduled, changed: make(chan struct{}, 1),
	}
	if !s.offline {
		s.rhythm.Store(r)
		go func() { defer close(done); r.run(ctx) }()
	} else {
		close(done)
	}
	return func() {
		cancel()
		s.syncs.close()
		<-done
	}
}

// scheduled makes the sync of a repository that is due.
func (s *server) scheduled(ctx context.Context, repo string) {
	l, cfg := &local{s.node}, s.config.Load()
	i := slices.IndexFunc(cfg.Repos, func(c config.Repo) bool { return c.Name == repo })
	if i < 0 || cfg.Repos[i].Sync == nil {
		return
	}
	s.log.Info("sync begins", "repo", repo)
	q, err := l.syncRequest(cfg, &cfg.Repos[i])
	if err != nil {
		s.syncs.note(repo, err)
		s.log.Error("sync cannot be made", "repo", repo, "error", err)
		return
	}
	result, err := s.syncs.alone(ctx, q)
	switch {
	case err != nil:
		s.log.Info("sync ends before it is done", "repo", repo, "reason", err)
		return
	case result.Error != "":
		s.log.Error("sync failed", "repo", repo, "error", result.Error)
		return
	}
	attrs := []any{"repo", repo, "files", result.Files, "fetched", result.Fetched, "bytes", result.FetchedBytes, "failed", result.Failed, "took", took(result.Seconds)}
	if len(result.Failures) > 0 {
		s.log.Warn("sync left something undone", append(attrs, "first", describeFailure(result.Failures[0]))...)
		return
	}
	s.log.Info("sync is done", attrs...)
}

// syncStatus is how a repository's syncs are doing; nil where there are none.
func (n *node) syncStatus(repo string) *syncStatus {
	status := syncStatus{Underway: n.syncs.underway(repo)}
	if r := n.rhythm.Load(); r != nil {
		status.Next = r.due(repo)
	}
	if end, ok := n.syncs.last(repo); ok {
		status.Last, status.Success = &end.Result, end.Success
	}
	if status == (syncStatus{}) {
		return nil
	}
	return &status
}

// printSyncs tells people how the syncs of repositories are doing.
func (env *environment) printSyncs(rows []statusRow) error {
	t := table{header: []string{"SYNC OF", "LAST", "RESULT", "NEXT"}}
	for _, row := range rows {
		if row.Sync == nil {
			continue
		}
		last, result, next := "never", "-", "-"
		if end := row.Sync.Last; end != nil {
			last, result = age(end.Started), outcome(end)
			if end.Error != "" {
				result = oneLine(end.Error)
			}
		}
		if !row.Sync.Next.IsZero() {
			next = age(row.Sync.Next)
		}
		if !row.Sync.Underway.IsZero() {
			next = "under way, begun " + age(row.Sync.Underway)
		}
		t.add(row.Repo, last, result, next)
	}
	if len(t.rows) == 0 {
		return nil
	}
	if err := env.print("\n"); err != nil {
		return err
	}
	return env.printTable(t)
}

// syncMetrics say how the last sync of each repository ended.
type syncMetrics struct{ *syncs }

var syncMeasures = []struct {
	desc  *prometheus.Desc
	value func(syncEnd) float64
}{
	{syncMeasure("last_success_timestamp_seconds", "When the last sync that left nothing undone ended; 0 for never."),
		func(e syncEnd) float64 { return seconds(e.Success) }},
	{syncMeasure("last_start_timestamp_seconds", "When the last sync began."),
		func(e syncEnd) float64 { return seconds(e.Result.Started) }},
	{syncMeasure("duration_seconds", "How long the last sync took."),
		func(e syncEnd) float64 { return e.Result.Seconds }},
	{syncMeasure("failed_files", "Files and trees that the last sync could not bring up to date."),
		func(e syncEnd) float64 { return float64(e.Result.Failed) }},
	{syncMeasure("given_up", "1 where the last sync did not come to its end."),
		func(e syncEnd) float64 {
			if e.Result.Error != "" {
				return 1
			}
			return 0
		}},
	{syncMeasure("fetched_bytes", "Bytes that the last sync fetched."),
		func(e syncEnd) float64 { return float64(e.Result.FetchedBytes) }},
}

func syncMeasure(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("chantal_sync_"+name, help, []string{"repo"}, nil)
}

// Describe is for prometheus.Collector.
func (m syncMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, measure := range syncMeasures {
		to <- measure.desc
	}
}

// Collect is for prometheus.Collector.
func (m syncMetrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	ends := maps.Clone(m.ended)
	m.mu.Unlock()
	for repo, end := range ends {
		for _, measure := range syncMeasures {
			to <- prometheus.MustNewConstMetric(measure.desc, prometheus.GaugeValue, measure.value(end), repo)
		}
	}
}
