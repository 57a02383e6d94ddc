package proxy

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics counts answers.
type Metrics struct {
	registry *prometheus.Registry
	answers  [4]prometheus.Counter // by chantal.CacheStatus
	passed   prometheus.Counter
	failures *prometheus.CounterVec
}

// NewMetrics returns metrics in a registry of their own, beside those of the
// process.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chantal_errors_total", Help: "Answers that are errors, by status code."}, []string{"code"}),
	}
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chantal_answers_total", Help: "Answers with content, by Cache-Status."}, []string{"cache"})
	for status, label := range [...]string{"hit", "miss", "revalidated", "stale"} {
		m.answers[status] = answers.WithLabelValues(label)
	}
	m.passed = answers.WithLabelValues("pass")
	m.registry.MustRegister(answers, m.failures, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Registry takes further metrics.
func (m *Metrics) Registry() prometheus.Registerer { return m.registry }

// Handler answers /-/metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *Metrics) answer(a *answer) {
	if a.file == nil {
		m.passed.Inc()
		return
	}
	m.answers[a.file.Cache&3].Inc()
}

func (m *Metrics) failure(status int) { m.failures.WithLabelValues(strconv.Itoa(status)).Inc() }
