package main_test

import (
	"bufio"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"pillion/creds/credstest"
)

// connectRig is a sidecar with one authorization-code credential, jira, that nobody
// has connected yet, beside a real OpenID provider and a tool.
type connectRig struct {
	*sidecarProcess
	provider *credstest.OIDC
	tool     *origin
}

func newConnectRig(t *testing.T, before ...func(*testing.T, *sidecarProcess)) *connectRig {
	t.Helper()
	provider, tool := credstest.StartOIDC(t), startOrigin(t, "jira.example")
	trusted, err := os.ReadFile(tool.caFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tool.caFile, append(trusted, provider.CA...), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &connectRig{newSidecar(t, tool), provider, tool}
	for _, change := range before {
		change(t, r.sidecarProcess)
	}
	r.run(t, provider.ClientSecret, "credential", "set", "jira", "--config", r.config, "--url", "https://jira.example/",
		"--authorization", "oauth2-authorization-code", "--client-id", provider.ClientID, "--client-secret-file", "-",
		"--access-token-url", provider.TokenURL(), "--authorization-url", provider.AuthorizationURL(), "--scope", "openid offline_access")
	r.start(t)
	return r
}

// request sends one through the proxy, and returns the answer's status and body.
func (r *connectRig) request(t *testing.T) (int, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://jira.example/rest/api/3/myself", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: r.proxy}), DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// connecting is a `credential connect` that waits for the browser.
type connecting struct {
	address string // that it asks to open
	input   io.WriteCloser
	end     func() (output string, err error)
}

var asksToOpen = regexp.MustCompile(`^ {4}(https://\S+)$`)

func (r *connectRig) connect(t *testing.T, arguments ...string) connecting {
	t.Helper()
	command := exec.Command(r.binary, append([]string{"credential", "connect", "jira", "--config", r.config, "--state", r.state}, arguments...)...)
	command.Env = plainEnvironment(t)
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var problems strings.Builder
	command.Stderr = &problems
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill() })
	lines := bufio.NewReader(output)
	var said strings.Builder
	for {
		line, err := lines.ReadString('\n')
		said.WriteString(line)
		if match := asksToOpen.FindStringSubmatch(strings.TrimRight(line, "\n")); match != nil {
			return connecting{match[1], input, func() (string, error) {
				rest, _ := io.ReadAll(lines)
				err := command.Wait()
				return said.String() + string(rest) + problems.String(), err
			}}
		}
		if err != nil {
			t.Fatalf("it asked for no page: %v\n%s%s", err, said.String(), problems.String())
		}
	}
}

// wantConnected checks that requests carry a token that the provider knows, and that
// everything that tells of the grant says that it is well.
func (r *connectRig) wantConnected(t *testing.T) {
	t.Helper()
	status, body := r.request(t)
	if status != http.StatusOK {
		t.Fatalf("after the consent: %d %s", status, body)
	}
	seen := r.tool.seen()
	token, ok := strings.CutPrefix(seen[len(seen)-1].authorization, "Bearer ")
	if _, active, err := r.provider.Active(token); !ok || !active || err != nil {
		t.Errorf("the tool got a token that the provider does not know: active %v, %v", active, err)
	}
	if text := r.run(t, "", "explain", "https://jira.example/x", "--config", r.config); !strings.Contains(text, "token:         ok, good for") {
		t.Errorf("explain says:\n%s", text)
	}
	if _, text := get(t, "http://"+r.metrics+"/metrics"); !strings.Contains(text, `pillion_consent_required{credential="jira"} 0`) {
		t.Error("the metrics say that consent is needed")
	}
}

// From an empty state directory to an injected token: a person consents in a browser.
func TestConnectInABrowser(t *testing.T) {
	t.Parallel()
	need(t, "chromium", "node", "npm")
	r := newConnectRig(t)
	status, body := r.request(t)
	if status != http.StatusBadGateway || !strings.Contains(body, "urn:pillion:error:needs-consent") || !strings.Contains(body, "pillion credential connect jira") {
		t.Fatalf("before the consent: %d %s", status, body)
	}
	if _, text := get(t, "http://"+r.metrics+"/metrics"); !strings.Contains(text, `pillion_consent_required{credential="jira"} 1`) {
		t.Error("the metrics do not say that consent is needed")
	}

	waiting := r.connect(t, "--redirect-url", "http://"+credstest.FreeAddress(t)+"/callback")
	tab, ok := credstest.Browser(t, 1000, 700)
	if !ok {
		t.Skip("there is no chromium")
	}
	if err := chromedp.Do(tab, chromedp.Navigate(waiting.address)); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.RunResponse(tab, chromedp.Click(chromedp.CSS(`button[value="allow"]`))); err != nil {
		t.Fatal(err)
	}
	page, err := chromedp.Run(tab, chromedp.Text(chromedp.CSS("body")))
	if err != nil || !strings.Contains(page, "Connected") || strings.Contains(page, "Not connected") {
		t.Errorf("the browser ends on %q, %v", page, err)
	}
	output, err := waiting.end()
	if err != nil {
		t.Fatalf("connect: %v\n%s", err, output)
	}
	r.wantConnected(t)
}

// Where the browser runs elsewhere, the address that it ended on is pasted.
func TestConnectByPasting(t *testing.T) {
	t.Parallel()
	need(t, "node", "npm")
	r := newConnectRig(t)
	waiting := r.connect(t, "--redirect-url", "https://console.example/oauth/callback")
	back := r.provider.Consent(t, waiting.address)
	if _, err := io.WriteString(waiting.input, back.String()+"\n"); err != nil {
		t.Fatal(err)
	}
	output, err := waiting.end()
	if err != nil {
		t.Fatalf("connect: %v\n%s", err, output)
	}
	for _, secret := range []string{back.Query().Get("code"), r.provider.ClientSecret} {
		if strings.Contains(output, secret) {
			t.Errorf("it shows a secret: %s", output)
		}
	}
	r.wantConnected(t)

	// A refresh on demand, a spare, and what the provider saw of it all.
	r.run(t, "", "credential", "refresh", "jira", "--config", r.config)
	waiting = r.connect(t, "--spare", "--paste")
	if _, err := io.WriteString(waiting.input, r.provider.Consent(t, waiting.address).String()+"\n"); err != nil {
		t.Fatal(err)
	}
	if output, err := waiting.end(); err != nil || !strings.Contains(output, "spare") {
		t.Errorf("a spare: %v\n%s", err, output)
	}
	r.wantConnected(t)
	stats := r.provider.Stats(t)
	if stats.Reused != 0 || stats.GrantsRevoked != 0 || stats.Granted["authorization_code"] != 2 || stats.Granted["refresh_token"] != 1 {
		t.Errorf("the provider counts %+v", stats)
	}
}

// A stray request to the redirect URL ends nothing; a refusal at the provider does,
// in words.
func TestConnectRefused(t *testing.T) {
	t.Parallel()
	need(t, "node", "npm")
	r := newConnectRig(t)
	redirect := "http://" + credstest.FreeAddress(t) + "/callback"
	waiting := r.connect(t, "--redirect-url", redirect)
	for _, query := range []string{"?code=stolen&state=guessed", "?code=stolen", ""} {
		if status, body := get(t, redirect+query); status != http.StatusBadRequest || strings.Contains(body, "stolen") {
			t.Errorf("%s: %d %s", query, status, body)
		}
	}
	state := regexp.MustCompile(`[?&]state=([^&]+)`).FindStringSubmatch(waiting.address)[1]
	status, body := get(t, redirect+"?error=access_denied&error_description=%3Cscript%3Ehello&state="+state)
	if status != http.StatusOK || !strings.Contains(body, "access_denied") || strings.Contains(body, "script") {
		t.Errorf("refused: %d %s", status, body)
	}
	if output, err := waiting.end(); err == nil || !strings.Contains(output, "access_denied: the consent was refused") {
		t.Errorf("connect: %v\n%s", err, output)
	}
	if status, _ := r.request(t); status != http.StatusBadGateway {
		t.Errorf("a request gets %d", status)
	}
}

func get(t *testing.T, address string) (int, string) {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}
