package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"pillion/creds"
	"pillion/creds/token"
)

// tokenCollector asks, when somebody scrapes, how the tokens stand: a process that
// only reads what others renew hears of no event.
type tokenCollector struct {
	table func() *creds.Table
	state func(name string) token.State

	expiry, success, consent, grant *prometheus.Desc
}

var _ prometheus.Collector = (*tokenCollector)(nil)

func newTokenCollector(table func() *creds.Table, state func(string) token.State) *tokenCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("pillion_"+name, help, []string{"credential"}, nil)
	}
	return &tokenCollector{
		table: table, state: state,
		expiry:  desc("token_expiry_timestamp_seconds", "When the access token in use expires; 0 before the first."),
		success: desc("token_last_success_timestamp_seconds", "When the access token in use was got; 0 before the first."),
		consent: desc("consent_required", "1 while a person has to connect the credential (again)."),
		grant:   desc("grant_expiry_timestamp_seconds", "When a person has to connect the credential again at the latest; 0 when that is not known."),
	}
}

// Describe implements prometheus.Collector.
func (t *tokenCollector) Describe(out chan<- *prometheus.Desc) {
	out <- t.expiry
	out <- t.success
	out <- t.consent
	out <- t.grant
}

// Collect implements prometheus.Collector.
func (t *tokenCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, name string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, name)
	}
	for _, c := range t.table().All() {
		if !hasToken(c) {
			continue
		}
		state := t.state(c.Name)
		gauge(t.expiry, seconds(state.Expires), c.Name)
		gauge(t.success, seconds(state.Issued), c.Name)
		if c.Authorization != creds.AuthorizationCode {
			continue
		}
		needed := 0.0
		if state.Status == token.StatusNeedsConsent {
			needed = 1
		}
		gauge(t.consent, needed, c.Name)
		gauge(t.grant, seconds(state.GrantEnds), c.Name)
	}
}
