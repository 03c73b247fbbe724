package sftpgw

import (
	"github.com/prometheus/client_golang/prometheus"

	"pillion/creds"
)

// Metrics are the gateway's series. Each is described in docs/metrics.md.
type Metrics struct {
	sessions   *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	mismatches *prometheus.CounterVec
	open       prometheus.Gauge
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pillion_sftp_" + name, Help: help}, labels)
	}
	m := &Metrics{
		sessions:   counter("sessions_total", "SFTP sessions that ended or were refused, by credential (empty: none matched) and result.", "credential", "result"),
		bytes:      counter("bytes_total", "Bytes of SFTP relayed, counted when a session ends: in from clients, out to clients.", "credential", "direction"),
		mismatches: counter("host_key_mismatches_total", "Sessions refused because the server's host key is not the pinned one.", "credential"),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "pillion_sftp_sessions_open", Help: "SFTP sessions that are open.",
		}),
	}
	reg.MustRegister(m.sessions, m.bytes, m.mismatches, m.open)
	for _, result := range unmatchedResults {
		m.sessions.WithLabelValues("", result)
	}
	return m
}

// The values of the label result: before a credential is known, and after.
var (
	unmatchedResults = []string{kindNoCredential, kindAmbiguous, kindStoreUnavailable, kindForbiddenClient, kindOverloaded, kindBadRequest, kindInternal}
	matchedResults   = []string{resultOK, dialConfig, dialHostKey, dialLogin, dialUnreachable, dialTimeout, dialForbidden, dialProtocol, dialLoop, kindLost, kindClientGone, kindInternal}
)

// The values of the label direction of sftp_bytes_total.
const (
	directionIn  = "in"
	directionOut = "out"
)

// Follow starts the series of credentials that came at 0, and ends those of
// credentials that went. old may be nil.
func (m *Metrics) Follow(old, current *creds.Table) {
	if old != nil {
		for _, c := range old.All() {
			if now, ok := current.ByName(c.Name); !ok || now.Protocol != creds.SFTP {
				m.forget(c.Name)
			}
		}
	}
	for _, c := range current.All() {
		if c.Protocol != creds.SFTP {
			continue
		}
		for _, result := range matchedResults {
			m.sessions.WithLabelValues(c.Name, result)
		}
		m.bytes.WithLabelValues(c.Name, directionIn)
		m.bytes.WithLabelValues(c.Name, directionOut)
		m.mismatches.WithLabelValues(c.Name)
	}
}

func (m *Metrics) forget(name string) {
	label := prometheus.Labels{"credential": name}
	m.sessions.DeletePartialMatch(label)
	m.bytes.DeletePartialMatch(label)
	m.mismatches.DeletePartialMatch(label)
}

// count takes in a session that is over.
func (m *Metrics) count(e *Entry, result string) {
	m.sessions.WithLabelValues(e.Credential, result).Inc()
	if e.Credential == "" {
		return
	}
	m.bytes.WithLabelValues(e.Credential, directionIn).Add(float64(e.In))
	m.bytes.WithLabelValues(e.Credential, directionOut).Add(float64(e.Out))
	if result == dialHostKey {
		m.mismatches.WithLabelValues(e.Credential).Inc()
	}
}
