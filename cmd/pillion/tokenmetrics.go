package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"pillion/creds"
	"pillion/creds/token"
)

// tokenCollector asks, when somebody scrapes, how the tokens stand: a process that
// only reads what others renew hears of no event.
type tokenCollector struct {
	table  func() *creds.Table
	state  func(name string) token.State
	renews func(*creds.Credential) bool
}

var _ prometheus.Collector = (*tokenCollector)(nil)

// What it collects, by credential.
var (
	tokenStateDesc   = tokenDesc("token_state", "1 for the state that the token is in, told by who asks the provider for it.", "state")
	tokenExpiryDesc  = tokenDesc("token_expiry_timestamp_seconds", "When the access token in use expires; 0 while there is none to send.")
	tokenSuccessDesc = tokenDesc("token_last_success_timestamp_seconds", "When the access token in use was got; 0 while there is none to send.")
	unrenewedDesc    = tokenDesc("token_unrenewed", "1 while this process misses a token and no refresher brings one.")
	consentDesc      = tokenDesc("consent_required", "1 while a person has to connect the credential (again).")
	grantDesc        = tokenDesc("grant_expiry_timestamp_seconds", "When a person has to connect the credential again at the latest; 0 when that is not known.")
)

func tokenDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("pillion_"+name, help, append([]string{"credential"}, labels...), nil)
}

// tokenStatuses are the values of the label state of token_state.
var tokenStatuses = []token.Status{token.StatusOK, token.StatusDegraded, token.StatusNeedsConsent, token.StatusConfigError, token.StatusNone}

// Describe implements prometheus.Collector.
func (t *tokenCollector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{tokenStateDesc, tokenExpiryDesc, tokenSuccessDesc, unrenewedDesc, consentDesc, grantDesc} {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (t *tokenCollector) Collect(out chan<- prometheus.Metric) {
	for _, c := range t.table().All() {
		if !hasToken(c) {
			continue
		}
		state := t.state(c.Name)
		gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{c.Name}, labels...)...)
		}
		if t.renews(c) { // a reader knows what it saw at its last request: of a fleet, thousands of old states
			for _, status := range tokenStatuses {
				gauge(tokenStateDesc, oneIf(state.Status == status), string(status))
			}
		}
		gauge(tokenExpiryDesc, seconds(state.Expires))
		gauge(tokenSuccessDesc, seconds(state.Issued))
		gauge(unrenewedDesc, oneIf(isUnrenewed(state)))
		if c.Authorization == creds.AuthorizationCode {
			gauge(consentDesc, oneIf(state.Status == token.StatusNeedsConsent))
			gauge(grantDesc, seconds(state.GrantEnds))
		}
	}
}
