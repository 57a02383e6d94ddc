package main

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/cas"
	"chantal/proxy"
)

func TestCountersSurviveARestart(t *testing.T) {
	store, err := cas.Open(t.TempDir(), cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var since time.Time
	for run := range 3 {
		c := newTraffic(store, proxy.NewMetrics(), slog.New(slog.DiscardHandler))
		c.clients = func() map[string]proxy.Traffic {
			return map[string]proxy.Traffic{"debian": {Hits: 2, Misses: 1, FromCache: 10}}
		}
		c.received("debian", 5)
		c.received("", 1)
		if _, err := store.Put(cas.Want{Size: -1}, make([]byte, 100*(run+1))); err != nil {
			t.Fatal(err)
		}
		if err := store.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.measure(t.Context(), time.Date(2026, 11, 20+run, 12, 0, 0, 0, time.UTC))
		c.save()
		if run == 0 {
			since = c.total().Since
		}
	}
	got := newTraffic(store, proxy.NewMetrics(), slog.New(slog.DiscardHandler))
	got.clients = func() map[string]proxy.Traffic { return nil }
	want := savedTraffic{
		Since: since,
		Repos: map[string]moved{"debian": {6, 3, 30, 15}, "": {FromUpstream: 3}},
		Days:  map[string]int64{"2026-11-20": 100, "2026-11-21": 300, "2026-11-22": 600},
	}
	if d := cmp.Diff(want, got.total()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for i := range 2 * growthDays {
		got.measure(t.Context(), time.Date(2027, 1, i, 0, 0, 0, 0, time.UTC))
	}
	if n := len(got.total().Days); n != growthDays {
		t.Errorf("%d days are kept", n)
	}
}
