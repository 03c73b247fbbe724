package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds/credstest"
)

// A real Prometheus, with the alerts and the dashboard that are shipped, watches a
// fleet in small under load, while the provider answers and while it does not: every
// expression of the dashboard has an answer, the alert of a renewal that fails fires,
// tells the reason, and ends.
func TestMonitoringOfAFleet(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	w := newTeam(t)
	w.sidecar.environ["PILLION_SFTP_LISTEN"] = "127.0.0.1:0"
	w.does(w.operator, w.provider.ClientSecret, "credential", "set", "tool", "--url", "https://example.com/", "--authorization", "oauth2-authorization-code",
		"--client-id", w.provider.ClientID, "--client-secret-file", "-", "--access-token-url", w.provider.TokenURL(),
		"--authorization-url", w.provider.AuthorizationURL(), "--scope", "openid offline_access", "--refresh-token-lifetime", "2400h")
	w.does(w.operator, "secret", "credential", "set", "drop", "--url", "sftp://drop.example:22/", "--authorization", "basic",
		"--username", "upload", "--password-file", "-", "--host-key", someHostKey(t))
	refresher, sidecar := w.refresher, w.sidecar
	refresher.serve()
	sidecar.serve()
	w.connects("tool")
	at := sidecar.listeners(t)
	prometheus := startPrometheus(t, program, hastyRules(t), refresher.listeners(t)["metrics"], at["metrics"])
	failed := load(t, at["proxy"])

	await := func(query, want string) { t.Helper(); prometheus.await(t, query, want) }
	await(`count(pillion_build_info)`, "2")
	await(`sum(increase(pillion_requests_total{credential="tool",code="2xx"}[1m])) > bool 20`, "1")
	await(`count(ALERTS{alertstate="firing"}) or vector(0)`, "0")

	w.provider.Fail(t, credstest.OIDCFaults{Unavailable: 1})
	if output, failed := w.operator.run("", "credential", "refresh", "tool"); !failed {
		t.Errorf("a provider that does not answer:\n%s", output)
	}
	await(`count by (credential) (ALERTS{alertname="PillionTokenRefreshFailing",alertstate="firing",credential="tool",severity="warning"})`, "1")
	if alerts := prometheus.get(t, "/api/v1/alerts"); !strings.Contains(alerts, "token requests fail with server_5xx.") || !strings.Contains(alerts, "still serves for") {
		t.Errorf("the alert does not tell why: %s", alerts)
	}
	for where, expr := range dashboard(t).expressions() {
		expr = strings.NewReplacer("$__rate_interval", "30s", "$instance", ".*", "$credential", ".*").Replace(expr)
		if !prometheus.hasNumber(t, expr) {
			t.Errorf("%s: no answer to %s", where, expr)
		}
	}

	w.provider.Fail(t, credstest.OIDCFaults{})
	w.does(w.operator, "", "credential", "refresh", "tool")
	await(`count(ALERTS{alertname="PillionTokenRefreshFailing",alertstate="firing"}) or vector(0)`, "0")
	if n := failed.Load(); n > 0 {
		t.Errorf("%d requests failed, while their token was good", n)
	}
}

// listeners are where pillion listens, by role.
func (i *installation) listeners(t *testing.T) map[string]string {
	t.Helper()
	s, err := newAdminClient(filepath.Join(i.dir, "state", "admin.sock")).status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Listeners
}

// load sends some twenty requests a second to the tool, and one to a host that nobody
// knows, until the test ends. It counts those to the tool that fail.
func load(t *testing.T, proxy string) *atomic.Int64 {
	t.Helper()
	client := &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy})},
		Timeout:   10 * time.Second,
	}
	var failed atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	send := func(target string) bool {
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		response, err := client.Do(request)
		if err != nil {
			return ctx.Err() != nil
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
	for !send("http://example.com/") { // the sidecar learns of the consent within ten seconds
		select {
		case <-time.After(100 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("no request succeeds")
		}
	}
	go func() {
		defer close(ended)
		send("http://nobody.example/")
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if !send("http://example.com/") {
					failed.Add(1)
				}
			}
		}
	}()
	t.Cleanup(func() { stop(); <-ended; client.CloseIdleConnections() })
	return &failed
}

// hastyRules are the rules that are shipped, whose alerts wait for a second instead
// of minutes; the expressions are the same.
func hastyRules(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pillion.rules.yaml")
	text := regexp.MustCompile(`(?m)^( +)for: .*$`).ReplaceAll(readMonitoring(t, "pillion.rules.yaml"), []byte("${1}for: 1s"))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func someHostKey(t *testing.T) string {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(key))
}

// hasNumber reports whether a query has an answer with a number in it.
func (p promServer) hasNumber(t *testing.T, query string) bool {
	t.Helper()
	for _, value := range p.values(t, query) {
		if n, err := strconv.ParseFloat(value, 64); err == nil && !math.IsNaN(n) {
			return true
		}
	}
	return false
}

// get returns what the API answers.
func (p promServer) get(t *testing.T, path string) string {
	t.Helper()
	response, err := http.Get("http://" + p.address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(answer)
}
