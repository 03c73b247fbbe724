package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/token"
)

// SIGTERM in the middle of a token request that a client's request began: the process
// waits for the answer of a provider that has rotated, though the client is long gone,
// and what it brings is there for the next one.
func TestDrainWaitsForARenewal(t *testing.T) {
	provider := credstest.NewRotating(t)
	tool := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized) // the token has ended early
	}))
	defer tool.Close()
	i := install(t, provider.Provider, tool)
	config := filepath.Join(i.dir, "pillion.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "drain: 0s\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	connectWith(t, i, provider)

	log, signals, ended := &lockedBuffer{}, make(chan os.Signal, 2), make(chan error, 1)
	a := &app{getenv: i.getenv, stdin: strings.NewReader(""), stdout: log, stderr: log}
	go func() { ended <- a.serve(context.Background(), signals) }()
	eventually(t, func() bool { return strings.Contains(log.String(), `"msg":"ready"`) })
	s, err := newAdminClient(filepath.Join(i.dir, "state", "admin.sock")).status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	answer := sync.OnceFunc(func() { close(release) })
	t.Cleanup(answer)
	provider.Hold(release)
	calls := provider.Calls()
	cut := make(chan error, 1)
	go func() {
		through := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: s.Listeners["proxy"]}), DisableKeepAlives: true}
		response, err := (&http.Client{Transport: through}).Get("http://example.com/")
		if err == nil {
			response.Body.Close()
		}
		cut <- err
	}()
	eventually(t, func() bool { return provider.Calls() > calls })
	signals <- syscall.SIGTERM
	<-cut // by the shutdown, which comes before the waiting
	select {
	case <-ended:
		t.Fatal("it ended while the provider's answer was on its way")
	case <-time.After(500 * time.Millisecond):
	}
	answer()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if output, failed := i.run("", "credential", "refresh", "tool"); failed {
		t.Errorf("the refresh token is lost:\n%s", output)
	}
	if counts := provider.Counts(); counts.Reuse != 0 || counts.Revocations != 0 || counts.Rotations != 3 {
		t.Errorf("%+v", counts)
	}
}

// connectWith stores a credential tool and consents to it.
func connectWith(t *testing.T, i *installation, provider *credstest.Rotating) {
	t.Helper()
	output, failed := i.run(provider.ClientSecret, "credential", "set", "tool", "--url", "https://example.com/", "--authorization", "oauth2-authorization-code",
		"--client-id", provider.ClientID, "--client-secret-file", "-", "--access-token-url", provider.URL(), "--authorization-url", provider.URL(),
		"--refresh-token-lifetime", "100h")
	if failed {
		t.Fatal(output)
	}
	g, err := (&app{getenv: i.getenv}).openGrant(t.Context(), "tool")
	if err != nil {
		t.Fatal(err)
	}
	report, err := g.exchange(t.Context(), token.Consent{Code: creds.NewSecret(provider.Code()), Verifier: creds.NewSecret("v"), RedirectURL: "http://127.0.0.1/"})
	if err != nil || !report.OK {
		t.Fatalf("%+v, %v", report, err)
	}
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}

// How tokens stand shows in list, explain and metrics, whether a pillion runs, and has
// used the credential, or not; and a consent that ends soon in its log.
func TestStatesOfTokens(t *testing.T) {
	provider := credstest.NewRotating(t)
	tool := httptest.NewTLSServer(http.NotFoundHandler())
	defer tool.Close()
	i := install(t, provider.Provider, tool)
	says := func(words []string, wanted ...string) {
		t.Helper()
		output, failed := i.run("", words...)
		for _, want := range wanted {
			if failed || !strings.Contains(output, want) {
				t.Errorf("pillion %s does not say %q:\n%s", strings.Join(words, " "), want, output)
			}
		}
	}
	list, explain := []string{"credential", "list"}, []string{"explain", "https://example.com/"}
	connectWith(t, i, provider)
	says(list, "  ok ", "the consent ends on 20", "connect it again before")
	says(explain, "token:         ok, good for", "; the consent ends on 20")
	i.serve()
	eventually(t, func() bool {
		return strings.Contains(metricsText(t, i), `pillion_grant_expiry_timestamp_seconds{credential="tool"} 1.`)
	})
	says(list, "  ok ", "the consent ends on 20")
	says([]string{"credential", "list", "-o", "json"}, `"state": "ok"`, `"grant_ends": "20`)
	says(explain, "token:         ok, good for", "; the consent ends on 20")
	if text := metricsText(t, i); strings.Contains(text, `pillion_token_expiry_timestamp_seconds{credential="tool"} 0`) {
		t.Error("the expiry is not shown before the first request")
	}
}

// The log warns of a consent that ends soon, once a day.
func TestWarnOfGrants(t *testing.T) {
	provider := credstest.NewRotating(t)
	tool := httptest.NewTLSServer(http.NotFoundHandler())
	defer tool.Close()
	i := install(t, provider.Provider, tool)
	connectWith(t, i, provider)
	log := &lockedBuffer{}
	a := &app{getenv: i.getenv, stdin: strings.NewReader(""), stdout: log, stderr: log}
	ctx, cancel := context.WithCancel(t.Context())
	d, err := a.newDaemon(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	d.refresher.start(ctx)
	defer func() { cancel(); <-d.refresher.done }()
	eventually(t, func() bool { return !d.stateOf("tool").GrantEnds.IsZero() })
	begun, said := time.Now(), map[string]time.Time{}
	for _, row := range []struct {
		after time.Duration
		lines int
	}{{0, 1}, {time.Hour, 1}, {23 * time.Hour, 1}, {25 * time.Hour, 2}, {50 * time.Hour, 3}} {
		d.warnOfGrants(begun.Add(row.after), said)
		if n := strings.Count(log.String(), "a consent ends soon: run pillion credential connect tool"); n != row.lines {
			t.Errorf("%d lines after %s, want %d:\n%s", n, row.after, row.lines, log)
		}
	}
	d.warnOfGrants(begun.Add(-30*24*time.Hour), map[string]time.Time{})
	if n := strings.Count(log.String(), "a consent ends soon"); n != 3 {
		t.Error("it warns a month ahead")
	}
}
