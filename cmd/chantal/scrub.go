package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chantal/internal/keep"
)

// startScrub reads the store in the background until ctx ends or the returned
// function is called, which waits for it.
func (s *server) startScrub(ctx context.Context) (end func()) {
	cfg := s.config.Load().Scrub
	s.metrics.Registry().MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "chantal_damaged_blobs_total", Help: "Stored blobs found damaged since the start."},
			func() float64 { return float64(s.store.Damaged()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chantal_set_aside_blobs", Help: "Damaged blobs that were not fetched again yet."},
			func() float64 { return float64(len(s.store.SetAside())) }))
	if cfg.Every == 0 {
		return func() {}
	}
	scrub := keep.NewScrub(s.store, keep.ScrubOptions{Every: cfg.Every, Bandwidth: cfg.Bandwidth, Log: s.log, Now: time.Now})
	s.metrics.Registry().MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chantal_scrub_pass_bytes", Help: "Bytes read in this pass over the store, or the last one."},
			func() float64 { return float64(scrub.State().Bytes) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chantal_scrub_finished_timestamp_seconds", Help: "When the last pass over the store ended; 0 for never."},
			func() float64 { return seconds(scrub.State().Finished) }))
	s.scrub.Store(scrub)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); scrub.Run(ctx) }()
	return func() { cancel(); <-done }
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// scrubbed reports how far serve has come with reading the store.
func (n *node) scrubbed() *scrubReport {
	scrub := n.scrub.Load()
	if scrub == nil {
		return nil
	}
	s := scrub.State()
	return &scrubReport{
		Underway: s.Underway(), Done: s.Done(), Began: s.Began, Finished: s.Finished, Blobs: s.Blobs, Bytes: s.Bytes, Damaged: s.Damaged,
	}
}

// printScrub tells people how far the scrub has come.
func (env *environment) printScrub(s *scrubReport) error {
	switch {
	case s == nil || s.Began.IsZero():
		return nil
	case s.Underway:
		return env.print(fmt.Sprintf("\nscrub: %d %% of the store read again, %s, %d damaged; begun %s, the last one ended %s\n",
			int(s.Done*100), size(s.Bytes), s.Damaged, age(s.Began), never(s.Finished)))
	}
	return env.print(fmt.Sprintf("\nscrub: all of the store read again %s, %s, %d damaged\n", age(s.Finished), size(s.Bytes), s.Damaged))
}

func never(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return age(t)
}

// damagedBlobs says what status has to say of blobs that were set aside.
func damagedBlobs(n int) string {
	if n == 1 {
		return "1 blob was damaged and is set aside; chantal verify --repair fetches it again"
	}
	return fmt.Sprintf("%d blobs were damaged and are set aside; chantal verify --repair fetches them again", n)
}
