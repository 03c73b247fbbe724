package main

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"pillion/creds"
	"pillion/creds/token"
	"pillion/creds/vaultstore"
	"pillion/proxy"
	"pillion/sftpgw"
)

// metrics are the program's own series; those of proxy and gateway stand in their
// packages. Each is described in docs/metrics.md, which a test holds against the
// registry.
type metrics struct {
	registry *prometheus.Registry
	proxy    *proxy.Metrics
	sftp     *sftpgw.Metrics
	table    atomic.Pointer[creds.Table] // whose series there are

	credentials     *prometheus.GaugeVec
	credentialInfo  *prometheus.GaugeVec
	reloadOK        prometheus.Gauge
	reloadTime      prometheus.Gauge
	refreshes       *prometheus.CounterVec
	refreshErrors   *prometheus.CounterVec
	refreshDuration *prometheus.HistogramVec
	leaseConflicts  *prometheus.CounterVec
	rescues         *prometheus.CounterVec
	unknownOutcomes *prometheus.CounterVec
	journalFailures *prometheus.CounterVec
	storeRequests   *prometheus.CounterVec
	storeDuration   prometheus.Histogram
	vaultLogins     *prometheus.CounterVec
}

// newMetrics makes a registry of its own: the default one collects whatever a
// library puts there. perCredential names the credential in the histogram of
// request durations: some twenty series more for each.
func newMetrics(perCredential bool) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pillion_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pillion_" + name, Help: help}, labels)
	}
	plain := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "pillion_" + name, Help: help})
	}
	m := &metrics{
		registry:       prometheus.NewRegistry(),
		credentials:    gauge("credentials", "Credentials in use.", "protocol", "authorization"),
		credentialInfo: gauge("credential_info", "1 for each credential in use.", "credential", "protocol", "authorization"),
		reloadOK:       plain("config_last_reload_successful", "1 if the last reload was taken over, 0 if the old configuration was kept."),
		reloadTime:     plain("config_last_reload_success_timestamp_seconds", "When configuration and credentials were last taken over."),
		refreshes:      counter("token_refreshes_total", "Token requests, by how they ended.", "credential", "grant", "result"),
		refreshErrors:  counter("token_refresh_errors_total", "Token requests that failed, by reason.", "credential", "reason"),
		refreshDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pillion_token_refresh_duration_seconds", Help: "Time of a token request.",
			Buckets:                     []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"grant", "result"}),
		leaseConflicts:  counter("token_lease_conflicts_total", "Renewals that another process had begun a moment before.", "credential"),
		rescues:         counter("token_rescues_total", "Tokens that were written although their lease was lost, or after a crash.", "credential"),
		unknownOutcomes: counter("token_unknown_outcomes_total", "Token requests that ended so that the provider may have acted on them.", "credential"),
		journalFailures: counter("token_journal_failures_total", "Tokens that could not be written to the journal before the store had them.", "credential"),
		storeRequests:   counter("store_requests_total", "Requests to the credential store, by how they ended.", "operation", "result"),
		storeDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pillion_store_request_duration_seconds", Help: "Time of a request to the credential store.",
			Buckets: []float64{.0001, .001, .01, .1, 1, 10},
		}),
		vaultLogins: counter("vault_logins_total", "Logins at Vault, by how they ended.", "result"),
	}
	m.table.Store(creds.NewTable(nil))
	registerProcess(m.registry)
	m.registry.MustRegister(
		m.credentials, m.credentialInfo, m.reloadOK, m.reloadTime,
		m.refreshes, m.refreshErrors, m.refreshDuration, m.leaseConflicts, m.rescues, m.unknownOutcomes, m.journalFailures,
		m.storeRequests, m.storeDuration,
	)
	for _, operation := range storeOperations {
		for _, result := range storeResults {
			m.storeRequests.WithLabelValues(operation, result)
		}
	}
	for _, result := range loginResults {
		m.vaultLogins.WithLabelValues(result)
	}
	m.proxy = proxy.NewMetrics(m.registry, perCredential)
	m.sftp = sftpgw.NewMetrics(m.registry)
	return m
}

// watched is what is asked when somebody scrapes.
type watched struct {
	live    *creds.Live
	token   func(name string) token.State
	renews  func(*creds.Credential) bool // whether this process asks the provider for its tokens
	ready   func() bool
	vault   *vaultstore.Client // nil over the embedded store
	ca      *proxy.CA
	tunnels int // the limit of open tunnels
}

// registerProcess adds what every process of ours says of itself.
func registerProcess(registry *prometheus.Registry) {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "pillion_build_info", Help: "1, with the version and the Go release it was built with.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// watch adds the series whose values are asked for when somebody scrapes.
func (m *metrics) watch(w watched) {
	m.registry.MustRegister(&tokenCollector{table: m.table.Load, state: w.token, renews: w.renews})
	ask := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "pillion_" + name, Help: help}, value))
	}
	moment := func(name, help string, value func() time.Time) {
		ask(name, help, func() float64 { return seconds(value()) })
	}
	flag := func(name, help string, value func() bool) { ask(name, help, func() float64 { return oneIf(value()) }) }

	flag("ready", "1 while this process serves: what /readyz says.", w.ready)
	ask("credentials_skipped", "Stored credentials that cannot be used.", func() float64 { return float64(len(w.live.Bad())) })
	ask("tunnels_limit", "How many CONNECT tunnels may be open; 0: as many as come.", func() float64 { return float64(w.tunnels) })
	moment("store_last_success_timestamp_seconds", "When the credentials were last read from the store.", w.live.LastSuccess)
	moment("store_serves_until_timestamp_seconds", "Until when what was last read may serve, if nothing more is read; 0: without limit.", w.live.ServesUntil)
	flag("store_stale", "1 while the last reading of the store failed and older credentials serve.", func() bool { return w.live.Err() != nil })
	if w.vault != nil {
		m.registry.MustRegister(m.vaultLogins)
		flag("vault_authenticated", "1 while our token at Vault is good.", func() bool { return w.vault.Session().Authenticated })
		moment("vault_token_issued_timestamp_seconds", "When we got our token at Vault; 0 if there is none.", func() time.Time { return w.vault.Session().Since })
		moment("vault_token_expiry_timestamp_seconds", "When our token at Vault expires; 0 if never, or if there is none.", func() time.Time { return w.vault.Session().Expires })
	}
	moment("ca_expiry_timestamp_seconds", "When our CA's certificate expires.", w.ca.ExpiresAt)
	ask("leaf_cache_entries", "Leaf certificates that are kept for hosts.", func() float64 { return float64(w.ca.CacheLen()) })
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// reloaded notes how a reload ended.
func (m *metrics) reloaded(ok bool, now time.Time) {
	if !ok {
		m.reloadOK.Set(0)
		return
	}
	m.reloadOK.Set(1)
	m.reloadTime.Set(seconds(now))
}

// follow starts the series of credentials that came at 0, so that a rate sees
// their first event, and ends those of credentials that went.
func (m *metrics) follow(old, current *creds.Table) {
	m.table.Store(current)
	m.proxy.Follow(old, current)
	m.sftp.Follow(old, current)
	for _, c := range ended(old, current) {
		label := prometheus.Labels{"credential": c.Name}
		for _, v := range []interface {
			DeletePartialMatch(prometheus.Labels) int
		}{m.refreshes, m.refreshErrors, m.leaseConflicts, m.rescues, m.unknownOutcomes, m.journalFailures} {
			v.DeletePartialMatch(label)
		}
	}
	m.credentials.Reset()
	m.credentialInfo.Reset()
	for _, c := range current.All() {
		m.credentials.WithLabelValues(string(c.Protocol), string(c.Authorization)).Inc()
		m.credentialInfo.WithLabelValues(c.Name, string(c.Protocol), string(c.Authorization)).Set(1)
		if hasToken(c) {
			m.startTokenSeries(c)
		}
	}
}

func (m *metrics) startTokenSeries(c *creds.Credential) {
	for _, result := range []token.Result{token.Success, token.Failure} {
		m.refreshes.WithLabelValues(c.Name, string(c.Authorization), string(result))
		m.refreshDuration.WithLabelValues(string(c.Authorization), string(result))
	}
	for _, reason := range token.Reasons() {
		m.refreshErrors.WithLabelValues(c.Name, reason)
	}
	for _, v := range []*prometheus.CounterVec{m.leaseConflicts, m.rescues, m.unknownOutcomes, m.journalFailures} {
		v.WithLabelValues(c.Name)
	}
}

// ended returns the credentials of old whose series end: they are no more, or
// they are of another type now. An edited one counts on.
func ended(old, current *creds.Table) []*creds.Credential {
	var list []*creds.Credential
	for _, c := range old.All() {
		if now, ok := current.ByName(c.Name); !ok || now.Authorization != c.Authorization {
			list = append(list, c)
		}
	}
	return list
}

// tokenEvent is token.Keeper.OnEvent.
func (m *metrics) tokenEvent(e token.Event) {
	switch e.Kind {
	case token.EventLeaseConflict:
		m.leaseConflicts.WithLabelValues(e.Credential).Inc()
	case token.EventRescue:
		m.rescues.WithLabelValues(e.Credential).Inc()
	case token.EventUnknownOutcome:
		m.unknownOutcomes.WithLabelValues(e.Credential).Inc()
	case token.EventJournalFailed:
		m.journalFailures.WithLabelValues(e.Credential).Inc()
	case token.EventRequest:
		m.refreshes.WithLabelValues(e.Credential, string(e.Grant), string(e.Result)).Inc()
		m.refreshDuration.WithLabelValues(string(e.Grant), string(e.Result)).Observe(e.Took.Seconds())
		if e.Result == token.Failure {
			m.refreshErrors.WithLabelValues(e.Credential, e.Reason).Inc()
		}
	}
}

// The labels of store_requests_total.
var (
	storeOperations = []string{"get", "cas", "patch", "list", "delete", "now"}
	storeResults    = []string{"ok", "not_found", "conflict", "denied", "error"}
)

// loginResults are those of vault_logins_total.
var loginResults = []string{"success", "refused", "failure"}

// loggedIn counts a login at Vault: refused ones apart from those that never got an
// answer.
func (m *metrics) loggedIn(err error) {
	result := "success"
	switch {
	case refusedByVault(err):
		result = "refused"
	case err != nil:
		result = "failure"
	}
	m.vaultLogins.WithLabelValues(result).Inc()
}

// refusedByVault reports whether Vault is well and says no.
func refusedByVault(err error) bool {
	v, ok := errors.AsType[*vaultstore.Error](err)
	return errors.Is(err, creds.ErrStoreDenied) || ok && v.Kind == vaultstore.BadLogin
}

// countedStore is a Store that counts what is asked of another.
type countedStore struct {
	creds.Store
	metrics *metrics
}

var _ creds.Store = countedStore{}

func (s countedStore) count(operation string, begin time.Time, err error) {
	result := "ok"
	switch {
	case errors.Is(err, creds.ErrNotFound):
		result = "not_found"
	case errors.Is(err, creds.ErrConflict):
		result = "conflict"
	case refusedByVault(err):
		result = "denied"
	case err != nil:
		result = "error"
	}
	s.metrics.storeRequests.WithLabelValues(operation, result).Inc()
	s.metrics.storeDuration.Observe(time.Since(begin).Seconds())
}

// Get counts a reading.
func (s countedStore) Get(ctx context.Context, key string) (creds.Record, error) {
	begin := time.Now()
	record, err := s.Store.Get(ctx, key)
	s.count("get", begin, err)
	return record, err
}

// CAS counts a writing.
func (s countedStore) CAS(ctx context.Context, key string, data creds.Secret, version int) (int, error) {
	begin := time.Now()
	v, err := s.Store.CAS(ctx, key, data, version)
	s.count("cas", begin, err)
	return v, err
}

// Patch counts a merging.
func (s countedStore) Patch(ctx context.Context, key string, data creds.Secret) (int, error) {
	begin := time.Now()
	v, err := s.Store.Patch(ctx, key, data)
	s.count("patch", begin, err)
	return v, err
}

// List counts a listing.
func (s countedStore) List(ctx context.Context, prefix string) ([]string, error) {
	begin := time.Now()
	keys, err := s.Store.List(ctx, prefix)
	s.count("list", begin, err)
	return keys, err
}

// Delete counts a removal.
func (s countedStore) Delete(ctx context.Context, key string) error {
	begin := time.Now()
	err := s.Store.Delete(ctx, key)
	s.count("delete", begin, err)
	return err
}

// Now counts a look at the store's clock.
func (s countedStore) Now(ctx context.Context) (time.Time, error) {
	begin := time.Now()
	now, err := s.Store.Now(ctx)
	s.count("now", begin, err)
	return now, err
}
