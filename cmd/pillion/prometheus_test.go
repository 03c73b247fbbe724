package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// A real Prometheus scrapes a pillion whose provider first gives a token and then
// refuses: it takes every series of tokens, and they say what happened.
func TestPrometheusSeesTokens(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	provider := credstest.NewProvider(t)
	tool := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(tool.Close)
	i := install(t, provider, tool)
	does := func(words ...string) {
		t.Helper()
		if output, failed := i.run(provider.ClientSecret, words...); failed {
			t.Fatalf("pillion %s:\n%s", strings.Join(words, " "), output)
		}
	}
	does("credential", "set", "tool", "--url", "https://example.com/", "--authorization", "oauth2-client-credentials",
		"--client-id", provider.ClientID, "--client-secret-file", "-", "--access-token-url", provider.URL())
	does("credential", "set", "code", "--url", "https://code.example/", "--authorization", "oauth2-authorization-code",
		"--client-id", provider.ClientID, "--client-secret-file", "-", "--access-token-url", provider.URL(), "--authorization-url", provider.URL())
	i.serve()
	prometheus := startPrometheus(t, program, "", i.listeners(t)["metrics"])

	does("try", "https://example.com/")
	provider.Answer(credstest.ReplyError(http.StatusUnauthorized, "invalid_client", ""))
	_, _ = i.run("", "try", "https://example.com/refused") // a 401, for which a new token is asked in vain
	for query, want := range map[string]string{
		`pillion_token_refreshes_total{credential="tool",result="success"}`:                                "1",
		`pillion_token_refreshes_total{credential="tool",result="failure"}`:                                "1",
		`pillion_token_refresh_errors_total{credential="tool",reason="invalid_client"}`:                    "1",
		`pillion_token_refresh_errors_total{credential="tool",reason="timeout"}`:                           "0",
		`pillion_token_refresh_duration_seconds_count{grant="oauth2-client-credentials",result="success"}`: "1",
		`pillion_token_expiry_timestamp_seconds{credential="tool"} > bool time()`:                          "1",
		`pillion_token_last_success_timestamp_seconds{credential="tool"} > bool 0`:                         "1",
		`pillion_token_lease_conflicts_total{credential="tool"}`:                                           "0",
		`pillion_token_rescues_total{credential="tool"}`:                                                   "0",
		`pillion_token_unknown_outcomes_total{credential="tool"}`:                                          "0",
		`pillion_upstream_unauthorized_total{credential="tool"}`:                                           "1",
		`pillion_consent_required{credential="code"}`:                                                      "1",
		`pillion_token_refreshes_total{credential="code",result="failure"}`:                                "0",
	} {
		prometheus.await(t, query, want)
	}
}

// promServer is a Prometheus that scrapes its targets every second.
type promServer struct{ address string }

// startPrometheus starts one that evaluates the rules of a file; if "", none.
func startPrometheus(t *testing.T, program, rules string, targets ...string) promServer {
	t.Helper()
	return startPrometheusAt(t, program, credstest.FreeAddress(t), rules, targets...)
}

func startPrometheusAt(t *testing.T, program, address, rules string, targets ...string) promServer {
	t.Helper()
	dir := t.TempDir()
	config := map[string]any{
		"global":         map[string]string{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"},
		"scrape_configs": []any{map[string]any{"job_name": "pillion", "static_configs": []any{map[string]any{"targets": targets}}}},
	}
	if rules != "" {
		config["rule_files"] = []string{rules}
	}
	data, err := json.Marshal(config) // which is YAML as well
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=error")
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
	})
	return promServer{address}
}

// await asks until the one series of a query has that value.
func (p promServer) await(t *testing.T, query, want string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(100 * time.Millisecond) {
		if got = p.values(t, query); slices.Equal(got, []string{want}) {
			return
		}
	}
	t.Errorf("%s is %v, want %s", query, got, want)
}

func (p promServer) values(t *testing.T, query string) []string {
	t.Helper()
	response, err := http.Get("http://" + p.address + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return nil // it has just been started
	}
	defer response.Body.Close()
	var answer struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil && response.StatusCode == http.StatusOK {
		t.Fatal(err)
	}
	var values []string
	for _, r := range answer.Data.Result {
		values = append(values, fmt.Sprint(r.Value[1]))
	}
	return values
}
