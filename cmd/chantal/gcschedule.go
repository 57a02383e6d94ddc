package main

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chantal/internal/cas"
	"chantal/internal/keep"
)

const (
	gcState    = "gc"             // of the state in the store
	lookEvery  = 5 * time.Second  // how often the size of the store is compared with its limit
	gcPatience = 10 * time.Minute // how long nothing is evicted again where the last time it did not help, or failed
)

// collections knows how the last one ended, and what all since the start did.
type collections struct {
	mu    sync.Mutex
	last  gcReport
	told  bool // that the limit is exceeded by what has to stay
	runs  int
	blobs int
	bytes int64
}

func (c *collections) note(r keep.Collected, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = gcReport{At: time.Now().UTC(), BlobsFreed: r.BlobsFreed, BytesFreed: r.BytesFreed, OverLimit: r.OverLimit}
	if err != nil {
		c.last.Error = err.Error()
	}
	c.runs++
	c.blobs += r.BlobsFreed
	c.bytes += r.BytesFreed
}

// collected reports how the last collection of this process ended; nil for none.
func (n *node) collected() *gcReport {
	n.gc.mu.Lock()
	defer n.gc.mu.Unlock()
	if n.gc.last.At.IsZero() {
		return nil
	}
	r := n.gc.last
	return &r
}

// startCollecting frees by itself what nothing needs, every gc.every and
// whenever cache.max_size is exceeded, until ctx ends or the returned function
// is called, which waits for it.
func (s *server) startCollecting(ctx context.Context) (end func()) {
	counter := func(name, help string, value func(*collections) float64) {
		s.metrics.Registry().MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 {
			s.gc.mu.Lock()
			defer s.gc.mu.Unlock()
			return value(&s.gc)
		}))
	}
	counter("chantal_gc_runs_total", "Collections of what nothing needs.", func(c *collections) float64 { return float64(c.runs) })
	counter("chantal_gc_freed_blobs_total", "Blobs that were freed.", func(c *collections) float64 { return float64(c.blobs) })
	counter("chantal_gc_freed_bytes_total", "Bytes that were freed.", func(c *collections) float64 { return float64(c.bytes) })
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); s.keepCollecting(ctx) }()
	return func() { cancel(); <-done }
}

// lastCollection is when things were last collected by themselves.
type lastCollection struct {
	At time.Time `json:"at"`
}

func (s *server) keepCollecting(ctx context.Context) {
	var last lastCollection
	if err := s.store.State(gcState, &last); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("when something was last freed is not known", "error", err)
		}
		last.At = time.Now() // whoever has just begun has nothing to free
		s.noteCollection(last)
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var notBefore time.Time
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		cfg, now := s.config.Load(), time.Now()
		due := cfg.GC.Every > 0 && now.Sub(last.At) >= cfg.GC.Every
		if !due && (now.Before(notBefore) || !s.overfull(ctx, cfg.Cache.MaxSize)) {
			continue
		}
		r, err := s.collect(ctx, keep.CollectRequest{Instants: true})
		if ctx.Err() != nil {
			return
		}
		if due && !errors.Is(err, cas.ErrCollecting) {
			last.At = now
			s.noteCollection(last)
		}
		s.tellCollection(r, err)
		if err != nil || r.OverLimit > 0 {
			notBefore = time.Now().Add(gcPatience)
		}
	}
}

// overfull reports whether the blobs are more than there is to be.
func (s *server) overfull(ctx context.Context, limit int64) bool {
	if limit <= 0 {
		return false
	}
	_, total, err := s.store.Usage(ctx)
	return err == nil && total > limit
}

func (s *server) noteCollection(last lastCollection) {
	if err := s.store.SetState(gcState, last); err != nil {
		s.log.Warn("noting when something was last freed", "error", err)
	}
}

// tellCollection says in the log what happened, and what people can do about
// it: that only when it is new.
func (s *server) tellCollection(r keep.Collected, err error) {
	switch {
	case errors.Is(err, cas.ErrCollecting):
		return // somebody has asked for it
	case err != nil:
		s.log.Error("freeing what nothing needs", "error", err, "freed", r.BytesFreed)
		return
	default:
		s.log.Info("freed what nothing needs", "blobs", r.BlobsFreed, "bytes", r.BytesFreed, "evicted", r.BlobsEvicted,
			"observations", r.Forgotten, "kept", r.BlobsKept)
	}
	s.gc.mu.Lock()
	told := s.gc.told
	s.gc.told = r.OverLimit > 0
	s.gc.mu.Unlock()
	if r.OverLimit > 0 && !told {
		s.log.Warn("cache.max_size is exceeded by what may not be evicted: snapshots hold it, or it is metadata", "bytes", r.OverLimit)
	}
}
