package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chantal/internal/cas"
	"chantal/proxy"
)

const (
	trafficState = "traffic"       // of the state in the store
	trafficEvery = 5 * time.Second // how often counters are written down, where they have changed
	measureEvery = time.Hour       // how often the size of the store is, for its growth
	growthDays   = 31              // how many days of that are kept
	dayForm      = "2006-01-02"
)

// moved is what went over the wire for one repository.
type moved struct {
	Hits         int64 `json:"hits"`
	Misses       int64 `json:"misses"`
	FromCache    int64 `json:"from_cache"`    // bytes
	FromUpstream int64 `json:"from_upstream"` // bytes
}

func (m moved) plus(o moved) moved {
	return moved{m.Hits + o.Hits, m.Misses + o.Misses, m.FromCache + o.FromCache, m.FromUpstream + o.FromUpstream}
}

// savedTraffic is what outlives the process.
type savedTraffic struct {
	Since time.Time        `json:"since"`
	Repos map[string]moved `json:"repos"` // "" is what belongs to none
	Days  map[string]int64 `json:"days"`  // day, in UTC → bytes stored when it was last measured
}

// traffic counts what goes over the wire, over all runs. It is safe for
// concurrent use.
type traffic struct {
	store   *cas.Store
	clients func() map[string]proxy.Traffic // what clients got in this run
	log     *slog.Logger

	mu       sync.Mutex
	before   savedTraffic     // of earlier runs; days of this one too
	upstream map[string]int64 // bytes in this run
	fetched  prometheus.Counter
	written  map[string]moved
	measured time.Time
}

// newTraffic goes on where an earlier run ended.
func newTraffic(store *cas.Store, m *proxy.Metrics, log *slog.Logger) *traffic {
	t := &traffic{store: store, clients: m.Traffic, log: log, upstream: map[string]int64{}}
	t.fetched = prometheus.NewCounter(prometheus.CounterOpts{Name: "chantal_bytes_from_upstream_total", Help: "Bytes of bodies that upstreams sent."})
	m.Registry().MustRegister(t.fetched)
	if err := store.State(trafficState, &t.before); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("the counters begin anew", "error", err)
		}
		t.before = savedTraffic{Since: time.Now().UTC()}
	}
	if t.before.Days == nil {
		t.before.Days = map[string]int64{}
	}
	t.written = t.before.Repos
	return t
}

// received counts bytes that upstream sent.
func (t *traffic) received(repo string, n int) {
	t.fetched.Add(float64(n))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.upstream[repo] += int64(n)
}

// total returns what all runs have seen.
func (t *traffic) total() savedTraffic {
	clients := t.clients()
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := savedTraffic{Since: t.before.Since, Repos: map[string]moved{}, Days: maps.Clone(t.before.Days)}
	maps.Copy(sum.Repos, t.before.Repos)
	for repo, c := range clients {
		sum.Repos[repo] = sum.Repos[repo].plus(moved{c.Hits, c.Misses, c.FromCache, 0})
	}
	for repo, n := range t.upstream {
		sum.Repos[repo] = sum.Repos[repo].plus(moved{FromUpstream: n})
	}
	return sum
}

// measure notes how large the store is today.
func (t *traffic) measure(ctx context.Context, now time.Time) {
	_, bytes, err := t.store.Usage(ctx)
	if err != nil {
		return // somebody else's finding
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.measured = now
	t.before.Days[now.UTC().Format(dayForm)] = bytes
	days := slices.Sorted(maps.Keys(t.before.Days))
	for _, day := range days[:max(0, len(days)-growthDays)] {
		delete(t.before.Days, day)
	}
}

// save writes the counters down, where they have changed.
func (t *traffic) save() {
	sum := t.total()
	t.mu.Lock()
	defer t.mu.Unlock()
	if maps.Equal(sum.Repos, t.written) {
		return
	}
	if err := t.store.SetState(trafficState, sum); err != nil {
		t.log.Debug("noting what went over the wire", "error", err)
		return
	}
	t.written = sum.Repos
}

// run writes the counters down now and then until ctx ends.
func (t *traffic) run(ctx context.Context) {
	tick := time.NewTicker(trafficEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if now.Sub(t.measured) >= measureEvery {
				t.measure(ctx, now)
			}
			t.save()
		case <-ctx.Done():
			return
		}
	}
}

// startTraffic counts until ctx ends or the returned function is called, which
// waits for it.
func (s *server) startTraffic(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); s.traffic.run(ctx) }()
	return func() { cancel(); <-done }
}
