package proxy

import (
	"maps"
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"chantal"
)

// Metrics counts answers.
type Metrics struct {
	registry *prometheus.Registry
	mu       sync.Mutex
	traffic  map[string]Traffic // by repository; "" for what belongs to none
	sent     prometheus.Counter
	answers  [4]prometheus.Counter // by chantal.CacheStatus
	passed   prometheus.Counter
	failures *prometheus.CounterVec
}

// NewMetrics returns metrics in a registry of their own, beside those of the
// process.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		traffic:  map[string]Traffic{},
		sent:     prometheus.NewCounter(prometheus.CounterOpts{Name: "chantal_bytes_from_cache_total", Help: "Bytes of answers from the store, as they were begun."}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chantal_errors_total", Help: "Answers that are errors, by status code."}, []string{"code"}),
	}
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chantal_answers_total", Help: "Answers with content, by Cache-Status."}, []string{"cache"})
	for status, label := range [...]string{"hit", "miss", "revalidated", "stale"} {
		m.answers[status] = answers.WithLabelValues(label)
	}
	m.passed = answers.WithLabelValues("pass")
	m.registry.MustRegister(answers, m.sent, m.failures, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Registry takes further metrics.
func (m *Metrics) Registry() prometheus.Registerer { return m.registry }

// Handler answers /-/metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Traffic is what clients got of one repository.
type Traffic struct {
	Hits, Misses int64 // answers from the store; answers that had to be fetched
	FromCache    int64 // bytes of the hits, as they were begun
}

// Traffic returns what clients got so far, by repository; "" for what belongs
// to none.
func (m *Metrics) Traffic() map[string]Traffic {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.traffic)
}

// answer counts an answer with n bytes of content.
func (m *Metrics) answer(a *answer, n int64) {
	if a.file == nil {
		m.passed.Inc()
		return
	}
	m.answers[a.file.Cache&3].Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.traffic[a.repo]
	if a.file.Cache == chantal.Miss {
		t.Misses++
	} else {
		t.Hits++
		t.FromCache += n
		m.sent.Add(float64(n))
	}
	m.traffic[a.repo] = t
}

func (m *Metrics) failure(status int) { m.failures.WithLabelValues(strconv.Itoa(status)).Inc() }
