package main

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"chantal"
	"chantal/internal/cas"
)

// diskMetrics say whether the disk takes what is to be kept.
func diskMetrics(store *cas.Store) []prometheus.Collector {
	is := func(trouble func(*chantal.DiskError) bool) func() float64 {
		return func() float64 {
			if d := (*chantal.DiskError)(nil); errors.As(store.Health(), &d) && trouble(d) {
				return 1
			}
			return 0
		}
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	return []prometheus.Collector{
		gauge("chantal_disk_failing", "1 while the disk takes no writes: files are passed on from memory, and not stored.",
			is(func(*chantal.DiskError) bool { return true })),
		gauge("chantal_disk_full", "1 while the disk takes no writes for want of space.",
			is(func(d *chantal.DiskError) bool { return d.Full })),
		gauge("chantal_disk_memory_bytes", "What lies in memory because the disk did not take it.",
			func() float64 { return float64(store.InMemory()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "chantal_disk_failures_total", Help: "Writes that the disk refused, attempts to find out whether it still does included."},
			func() float64 { return float64(store.Failures()) }),
	}
}
