package proxy

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pillion/creds"
)

// Metrics are the proxy's series. Each is described in docs/metrics.md.
type Metrics struct {
	requests     *prometheus.CounterVec
	injections   *prometheus.CounterVec
	unauthorized *prometheus.CounterVec
	refusals     *prometheus.CounterVec
	misses       *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	overhead     prometheus.Histogram
	tunnels      prometheus.Gauge
	inFlight     prometheus.Gauge
	perName      bool
}

// NewMetrics registers the series with reg. perCredential adds the credential's
// name to the duration histogram: dozens of series a credential more.
func NewMetrics(reg prometheus.Registerer, perCredential bool) *Metrics {
	durationLabels := []string{}
	if perCredential {
		durationLabels = []string{"credential"}
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pillion_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "pillion_" + name, Help: help})
	}
	buckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	m := &Metrics{
		requests:     counter("requests_total", "Requests answered, by credential (empty: none matched) and class of status code.", "credential", "code"),
		injections:   counter("injections_total", "Requests for which an authorization was (ok) or could not be (refused) injected.", "credential", "result"),
		unauthorized: counter("upstream_unauthorized_total", "Answers 401 of the tool to an injected authorization.", "credential"),
		refusals:     counter("refusals_total", "Requests that pillion itself refused, by kind of problem.", "error"),
		misses:       counter("match_misses_total", "Requests that matched no credential, by what was done with them.", "action"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pillion_request_duration_seconds", Help: "Time from a request's head to the end of its answer.", Buckets: buckets,
		}, durationLabels),
		overhead: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pillion_proxy_overhead_seconds", Help: "Time that pillion itself took until the head of the answer: all but the tool's.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .1, 1, 10},
		}),
		tunnels:  gauge("tunnels_open", "CONNECT tunnels and WebSockets that are open."),
		inFlight: gauge("requests_in_flight", "Requests that are being answered."),
		perName:  perCredential,
	}
	reg.MustRegister(m.requests, m.injections, m.unauthorized, m.refusals, m.misses, m.duration, m.overhead, m.tunnels, m.inFlight)
	if !perCredential {
		m.duration.WithLabelValues() // or it is not there before the first request
	}
	for _, k := range kinds {
		m.refusals.WithLabelValues(k.name)
	}
	m.misses.WithLabelValues(actionDeny)
	m.misses.WithLabelValues(actionTunnel)
	for _, code := range codeClasses {
		m.requests.WithLabelValues("", code)
	}
	return m
}

// The values of the action label of match_misses_total.
const (
	actionDeny   = "deny"
	actionTunnel = "tunnel"
)

var codeClasses = []string{"1xx", "2xx", "3xx", "4xx", "5xx"}

// Follow starts the series of credentials that came at 0, and ends those of
// credentials that went. old may be nil.
func (m *Metrics) Follow(old, current *creds.Table) {
	if old != nil {
		for _, c := range old.All() {
			if _, ok := current.ByName(c.Name); !ok {
				m.forget(c.Name)
			}
		}
	}
	for _, c := range current.All() {
		if c.Protocol != creds.HTTPS {
			continue
		}
		for _, code := range codeClasses {
			m.requests.WithLabelValues(c.Name, code)
		}
		m.injections.WithLabelValues(c.Name, "ok")
		m.injections.WithLabelValues(c.Name, "refused")
		m.unauthorized.WithLabelValues(c.Name)
	}
}

func (m *Metrics) forget(name string) {
	label := prometheus.Labels{"credential": name}
	m.requests.DeletePartialMatch(label)
	m.injections.DeletePartialMatch(label)
	m.unauthorized.DeletePartialMatch(label)
	if m.perName {
		m.duration.DeletePartialMatch(label)
	}
}

// count takes in a request that is over.
func (m *Metrics) count(e *Entry, head time.Duration) {
	m.requests.WithLabelValues(e.Credential, codeClass(e.Status)).Inc()
	if e.Error != "" {
		m.refusals.WithLabelValues(e.Error).Inc()
	}
	if m.perName {
		m.duration.WithLabelValues(e.Credential).Observe(e.Duration.Seconds())
	} else {
		m.duration.WithLabelValues().Observe(e.Duration.Seconds())
	}
	if e.Upstream > 0 {
		m.overhead.Observe((head - e.Upstream).Seconds())
	}
}

func codeClass(status int) string {
	if class := status/100 - 1; 0 <= class && class < len(codeClasses) {
		return codeClasses[class]
	}
	return strconv.Itoa(status)
}
