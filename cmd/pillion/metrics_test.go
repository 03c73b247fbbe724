package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"pillion/creds"
	"pillion/creds/token"
	"pillion/creds/vaultstore"
	"pillion/proxy"
)

// exposed gathers everything that the program exposes, with credentials of both
// sorts in use.
func exposed(t *testing.T) (*metrics, map[string]*dto.MetricFamily) {
	t.Helper()
	m := newMetrics(false)
	ca, err := proxy.LoadOrCreateCA(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m.watch(watched{
		live: &creds.Live{}, vault: &vaultstore.Client{}, ca: ca,
		token:  func(string) token.State { return token.State{Status: token.StatusNeedsConsent} },
		renews: func(c *creds.Credential) bool { return c.Name == "code" },
		ready:  func() bool { return true },
	})
	m.reloaded(true, time.Now())
	m.follow(creds.NewTable(nil), creds.NewTable(twoCredentials()))
	m.tokenEvent(token.Event{Credential: "itsm", Grant: creds.ClientCredentials, Result: token.Success, Took: time.Second})
	families := gather(t, m)
	for _, f := range webhookFamilies(t) {
		families[f.GetName()] = f
	}
	return m, families
}

func gather(t *testing.T, m *metrics) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*dto.MetricFamily{}
	for _, f := range families {
		all[f.GetName()] = f
	}
	return all
}

func twoCredentials() []*creds.Credential {
	return []*creds.Credential{
		{Name: "snow", Protocol: creds.HTTPS, URL: "https://example.service-now.com/", Authorization: creds.Basic, Username: "u", Password: creds.NewSecret("p")},
		{Name: "itsm", Protocol: creds.HTTPS, URL: "https://itsm.example/", Authorization: creds.ClientCredentials, ClientID: "i", ClientSecret: creds.NewSecret("s"), AccessTokenURL: "https://login.example/"},
		{Name: "drop", Protocol: creds.SFTP, URL: "sftp://drop.example:22/", Authorization: creds.Basic, Username: "u", Password: creds.NewSecret("p")},
		{Name: "code", Protocol: creds.HTTPS, URL: "https://code.example/", Authorization: creds.AuthorizationCode, ClientID: "i", AccessTokenURL: "https://login.example/"},
	}
}

// TestMetricsPage holds docs/metrics.md and the registry in step, both ways:
// names, types and labels.
func TestMetricsPage(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, families := exposed(t)
	rows := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(pillion_[a-z0-9_]+)` \\| ([a-z]+) \\|([^|]*)\\| ([^|]+) \\| ([^|]+) \\|$").FindAllStringSubmatch(string(data), -1) {
		rows[row[1]] = row[2:]
	}
	for name, f := range families {
		if !strings.HasPrefix(name, "pillion_") {
			continue // Go's and the process's own
		}
		row, ok := rows[name]
		if !ok {
			t.Errorf("the page does not have %s, or not all five columns of it", name)
			continue
		}
		if kind := strings.ToLower(f.GetType().String()); row[0] != kind {
			t.Errorf("%s is a %s, the page says %s", name, kind, row[0])
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		var said []string
		for _, l := range strings.Split(row[1], ",") {
			if l = strings.Trim(l, " `"); l != "" {
				said = append(said, l)
			}
		}
		slices.Sort(said)
		if !slices.Equal(labels, said) {
			t.Errorf("%s has the labels %v, the page says %v", name, labels, said)
		}
	}
	for name := range rows {
		if _, ok := families[name]; !ok {
			t.Errorf("the page has %s, which does not exist", name)
		}
	}
	if len(rows) < 20 {
		t.Errorf("only %d rows were read", len(rows))
	}
}

// TestSeriesFollowCredentials: they start at 0 and go with their credential.
func TestSeriesFollowCredentials(t *testing.T) {
	m, families := exposed(t)
	count := func(families map[string]*dto.MetricFamily, name, credential string) (series int, sum float64) {
		for _, metric := range families[name].GetMetric() {
			for _, l := range metric.GetLabel() {
				if l.GetName() == "credential" && l.GetValue() == credential {
					series++
					sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
				}
			}
		}
		return series, sum
	}
	if series, sum := count(families, "pillion_token_refreshes_total", "itsm"); series != 2 || sum != 1 {
		t.Errorf("refreshes: %d series, sum %v", series, sum)
	}
	if series, sum := count(families, "pillion_token_refresh_errors_total", "itsm"); series != len(token.Reasons()) || sum != 0 {
		t.Errorf("errors: %d series, sum %v", series, sum)
	}
	if series, _ := count(families, "pillion_token_refreshes_total", "snow"); series != 0 {
		t.Errorf("a credential without a token has %d series of tokens", series)
	}
	if series, _ := count(families, "pillion_requests_total", "snow"); series == 0 {
		t.Error("no series of requests before the first request")
	}
	all := twoCredentials()
	m.follow(creds.NewTable(all), creds.NewTable(all[:1]))
	families = gather(t, m)
	for name := range families {
		if series, _ := count(families, name, "itsm"); series != 0 {
			t.Errorf("%s outlives its credential", name)
		}
	}
}

// TestTokenStates: one series of a credential's states is 1, and of what others renew
// there is none.
func TestTokenStates(t *testing.T) {
	_, families := exposed(t)
	values := map[string]float64{}
	for _, metric := range families["pillion_token_state"].GetMetric() {
		var labels []string
		for _, l := range metric.GetLabel() {
			labels = append(labels, l.GetValue())
		}
		values[strings.Join(labels, " ")] = metric.GetGauge().GetValue()
	}
	want := map[string]float64{"code needs_consent": 1, "code ok": 0, "code degraded": 0, "code config_error": 0, "code none": 0}
	if !maps.Equal(values, want) {
		t.Errorf("%v", values)
	}
}

// TestTokenDurationsAreNative as well, for those who scrape native histograms.
func TestTokenDurationsAreNative(t *testing.T) {
	_, families := exposed(t)
	observed := 0
	for _, m := range families["pillion_token_refresh_duration_seconds"].GetMetric() {
		h := m.GetHistogram()
		if h.GetSampleCount() == 0 {
			continue
		}
		observed++
		if len(h.GetBucket()) == 0 || len(h.GetPositiveSpan()) == 0 {
			t.Errorf("classic buckets %d, native spans %d", len(h.GetBucket()), len(h.GetPositiveSpan()))
		}
	}
	if observed != 1 {
		t.Errorf("%d series have the one request", observed)
	}
	var _ prometheus.Gatherer = newMetrics(false).registry
}
