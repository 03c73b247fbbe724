package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// team is a fleet in small: an operator, a refresher and a sidecar over one Vault,
// each with the policy that is shipped for it, before a provider and a tool that
// takes only tokens which the provider calls good.
type team struct {
	*testing.T
	vault                        *credstest.Vault
	provider                     *credstest.OIDC
	tool                         *httptest.Server
	operator, refresher, sidecar *installation
	watched                      *credstest.LossyVault // by which the sidecar reaches Vault
}

func newTeam(t *testing.T) *team {
	t.Helper()
	w := &team{T: t, vault: credstest.StartVault(t), provider: credstest.StartOIDC(t)}
	w.vault.MountAt(t, "pillion")
	w.tool = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if _, active, err := w.provider.Active(token); err != nil || !active {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(w.tool.Close)
	w.watched = w.vault.Lossy(t)
	w.operator = w.install("console", w.vault.Addr, "proxy: {listen: 'off'}")
	w.refresher = w.install("refresher", w.vault.Addr, "proxy: {listen: 'off'}\nrefresher: {enabled: true}")
	w.sidecar = w.install("sidecar", w.watched.Addr, "proxy: {listen: 127.0.0.1:0}")
	return w
}

func (w *team) install(role, vault, sections string) *installation {
	w.Helper()
	rules, err := os.ReadFile(filepath.Join("..", "..", "deploy", "vault", role+".hcl"))
	if err != nil {
		w.Fatal(err)
	}
	w.vault.Policy(w, "pillion-"+role, string(rules))
	i := &installation{w.T, w.TempDir(), map[string]string{"VAULT_TOKEN": w.vault.Token(w, "pillion-"+role)}}
	i.environ["PILLION_CONFIG"] = filepath.Join(i.dir, "pillion.yaml")
	i.environ["PILLION_SFTP_LISTEN"] = off
	tool := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.tool.Certificate().Raw})
	text := fmt.Sprintf(`state: state
metrics: {listen: 127.0.0.1:0}
store: {vault: {address: %q}}
upstream: {ca_file: ca.pem, allow: [127.0.0.1], resolve: {example.com: %q}}
%s
`, vault, w.tool.Listener.Addr(), sections)
	for name, data := range map[string][]byte{"pillion.yaml": []byte(text), "ca.pem": append(tool, w.provider.CA...)} {
		if err := os.WriteFile(filepath.Join(i.dir, name), data, 0o600); err != nil {
			w.Fatal(err)
		}
	}
	return i
}

// does runs a command that has to work, and returns what it says.
func (w *team) does(i *installation, stdin string, words ...string) string {
	w.Helper()
	output, failed := i.run(stdin, words...)
	if failed {
		w.Fatalf("pillion %s:\n%s", strings.Join(words, " "), output)
	}
	return output
}

// connects has the operator connect the credential, and a person consent.
func (w *team) connects(name string) {
	w.Helper()
	out, say := io.Pipe()
	in, paste := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- run(context.Background(), []string{"credential", "connect", name, "--paste"}, w.operator.getenv, in, say, say)
		say.Close()
	}()
	said := ""
	for buffer := make([]byte, 4096); ; {
		n, err := out.Read(buffer)
		said += string(buffer[:n])
		if address := regexp.MustCompile(`(?m)^ {4}(https://\S+)\n`).FindStringSubmatch(said); address != nil {
			go func() { _, _ = io.WriteString(paste, w.provider.Consent(w, address[1]).String()+"\n") }()
			break
		}
		if err != nil {
			w.Fatalf("connect: %v\n%s", err, said)
		}
	}
	rest, _ := io.ReadAll(out)
	if err := <-ended; err != nil {
		w.Fatalf("connect: %v\n%s%s", err, said, rest)
	}
}

// Over Vault a sidecar never reads what tokens are made from: an operator who can
// read no grant connects a credential, a refresher exchanges the code and renews, and
// sidecars use what comes of it.
func TestSidecarsHoldNoGrant(t *testing.T) {
	t.Parallel()
	w := newTeam(t)
	w.does(w.operator, w.provider.ClientSecret, "credential", "set", "tool", "--url", "https://example.com/", "--authorization", "oauth2-authorization-code",
		"--client-id", w.provider.ClientID, "--client-secret-file", "-", "--access-token-url", w.provider.TokenURL(),
		"--authorization-url", w.provider.AuthorizationURL(), "--scope", "openid offline_access")
	refreshing := w.refresher.serve()
	log := w.sidecar.serve()
	// The refresher serves no request, and knows all the same how the grant stands.
	eventually(t, func() bool {
		return strings.Contains(metricsText(t, w.refresher), `pillion_consent_required{credential="tool"} 1`)
	})
	if output := w.does(w.refresher, "", "credential", "list"); !strings.Contains(output, "needs_consent  pillion credential connect tool") {
		t.Errorf("the refresher's list:\n%s", output)
	}
	if output, failed := w.sidecar.run("", "try", "https://example.com/"); !failed || !strings.Contains(output, "pillion credential connect tool") {
		t.Errorf("before the consent:\n%s", output)
	}
	w.connects("tool")
	// The sidecar looks again at what it was told within ten seconds.
	deadline := time.Now().Add(patience)
	for {
		output, failed := w.sidecar.run("", "try", "https://example.com/")
		if !failed && strings.Contains(output, "answer:     200 OK") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the consent:\n%s\nthe sidecar's log:\n%s\nthe refresher's log:\n%s", output, log, refreshing)
		}
		<-time.After(200 * time.Millisecond)
	}
	// A token that the provider ends early: the sidecar rings, the refresher renews,
	// and the connector sees none of it.
	if w.provider.RevokeAccessTokens(t) == 0 {
		t.Error("there was no token to end")
	}
	if output := w.does(w.sidecar, "", "try", "https://example.com/"); !strings.Contains(output, "answer:     200 OK") {
		t.Errorf("after the token's end:\n%s", output)
	}
	w.does(w.operator, "", "credential", "refresh", "tool")
	w.does(w.operator, "", "credential", "test", "tool")
	if output, failed := w.sidecar.run("", "credential", "test", "tool"); !failed || !strings.Contains(output, "run this where a refresher runs") {
		t.Errorf("a test with the sidecar's login:\n%s", output)
	}
	for _, r := range w.watched.Requests() {
		if strings.Contains(r.Path, "/grants/") {
			t.Errorf("the sidecar sent %s %s", r.Method, r.Path)
		}
	}
	if stats := w.provider.Stats(t); stats.Reused != 0 || stats.GrantsRevoked != 0 || stats.Granted["authorization_code"] != 1 {
		t.Errorf("the provider counts %+v", stats)
	}
	all := log.String() + refreshing.String() + metricsText(t, w.sidecar) + metricsText(t, w.refresher)
	if strings.Contains(all, w.provider.ClientSecret) || strings.Contains(all, "canary") {
		t.Error("a secret was printed")
	}
	metrics := metricsText(t, w.refresher)
	if want := `pillion_consent_required{credential="tool"} 0`; !strings.Contains(metrics, want) {
		t.Errorf("the refresher's metrics do not have %s", want)
	}
	if strings.Contains(metrics, `pillion_token_expiry_timestamp_seconds{credential="tool"} 0`) {
		t.Error("the refresher's metrics have no expiry")
	}
	// Whoever may not read tokens is told by the refreshers how they stand, and no token.
	eventually(t, func() bool {
		return strings.Contains(w.does(w.operator, "", "credential", "list"), "oauth2-authorization-code  ok")
	})
	published := w.vault.Do(t, w.operator.environ["VAULT_TOKEN"], http.MethodGet, "pillion/data/states/tool", nil)
	tokens := w.vault.Do(t, w.vault.Root, http.MethodGet, "pillion/data/tokens/tool", nil).Data()
	kept, _ := tokens["data"].(map[string]any)["access_token"].([]any)
	if len(kept) != 2 || published.Status != http.StatusOK || strings.Contains(fmt.Sprint(published.Body), fmt.Sprint(kept[1])) {
		t.Errorf("states/ holds %v", published.Body)
	}
}

// With no refresher alive everything that a person looks at says so.
func TestNoRefresherAnswers(t *testing.T) {
	t.Parallel()
	w := newTeam(t)
	w.does(w.operator, w.provider.ClientSecret, "credential", "set", "tool", "--url", "https://example.com/", "--authorization", "oauth2-client-credentials",
		"--client-id", w.provider.ClientID, "--client-secret-file", "-", "--access-token-url", w.provider.TokenURL())
	w.sidecar.serve()
	output, failed := w.sidecar.run("", "try", "https://example.com/")
	if !failed || !strings.Contains(output, "no_refresher") {
		t.Errorf("try says:\n%s", output)
	}
	w.refresher.serve()
	deadline := time.Now().Add(patience)
	for {
		if output, failed = w.sidecar.run("", "try", "https://example.com/"); !failed {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("with a refresher try says:\n%s", output)
		}
		<-time.After(200 * time.Millisecond)
	}
}
