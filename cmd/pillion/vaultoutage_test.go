package main_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/vaultstore"
)

// TestVaultOutages does to Vault what happens to Vaults, while a client sends a
// hundred requests a second through the real program. Inside max_stale, and inside
// max_denied where Vault refuses, not one of them fails; and pillion has recovered
// within 10 s of Vault.
func TestVaultOutages(t *testing.T) {
	t.Parallel()
	sufferOutages(t, 2*time.Second, 10*time.Second)
}

// TestSoakVaultOutages is the same with outages of 30 s; it prints the table of
// docs/vault.md.
func TestSoakVaultOutages(t *testing.T) {
	if os.Getenv("PILLION_SOAK") == "" {
		return // make soak
	}
	sufferOutages(t, 30*time.Second, time.Minute)
}

func sufferOutages(t *testing.T, hold, denied time.Duration) {
	o := newVaultOutages(t, denied)
	t.Logf("%-34s %9s %7s %9s %s", "what", "requests", "failed", "slowest", "recovered after")
	o.during(t, "nothing", hold, func() {}, func() {}, false)
	o.during(t, "Vault sealed", hold, func() { o.vault.Seal(t) }, func() { o.vault.Unseal(t) }, true)
	o.during(t, "Vault frozen", hold, func() { o.vault.Freeze(t) }, func() { o.vault.Thaw(t) }, true)
	o.during(t, "Vault killed, started again", hold, func() { o.vault.Kill(t) }, func() { o.vault.Restart(t) }, true)
	o.during(t, "our token revoked", hold, func() { o.revoke(t) }, func() {}, false)
	o.during(t, "policy removed and given back", min(hold, denied/2), func() { o.vault.DropPolicy(t, "sidecar") }, func() { o.allow(t) }, true)
	o.cutOff(t, denied)
}

type vaultOutages struct {
	vault   *credstest.Vault
	sidecar *sidecarProcess
	client  *http.Client
}

const outageMount = "pillion"

func newVaultOutages(t *testing.T, denied time.Duration) *vaultOutages {
	t.Helper()
	o := &vaultOutages{vault: credstest.VaultSetup{Keep: true}.Start(t), sidecar: newSidecar(t, startStreamOrigin(t))}
	o.vault.MountAt(t, outageMount)
	o.allow(t)
	roleID, secretID := o.vault.AppRole(t, "sidecar", "sidecar")
	o.vault.Write(t, "auth/approle/role/sidecar", map[string]any{"token_policies": []string{"sidecar"}, "token_type": "service", "token_ttl": "1h"})
	o.save(t, "secret-token")
	secret := filepath.Join(t.TempDir(), "secret-id")
	text, err := os.ReadFile(o.sidecar.config)
	if err == nil {
		err = os.WriteFile(secret, []byte(secretID), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, `store:
  max_denied: %v
  vault:
    address: %s
    auth: {method: approle, role_id: %s, secret_id_file: %q}
    cache: true
`, denied, o.vault.Addr, roleID, secret)
	if err := os.WriteFile(o.sidecar.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	o.sidecar.start(t)
	o.client = o.sidecar.httpClient(t, false)
	o.client.Timeout = 10 * time.Second
	return o
}

func (o *vaultOutages) save(t *testing.T, token string) {
	t.Helper()
	getenv := func(name string) string { return map[string]string{"VAULT_TOKEN": o.vault.Root}[name] }
	client, err := vaultstore.New(vaultstore.Config{Address: o.vault.Addr, Mount: outageMount}.WithEnvironment(getenv), getenv)
	if err != nil {
		t.Fatal(err)
	}
	if err := creds.Save(t.Context(), client.Store(""), &creds.Credential{
		Name: "stream", Protocol: creds.HTTPS, URL: "https://stream.example/", Authorization: creds.Bearer, Token: creds.NewSecret(token),
	}); err != nil {
		t.Fatal(err)
	}
}

func (o *vaultOutages) allow(t *testing.T) {
	t.Helper()
	o.vault.Policy(t, "sidecar", `path "pillion/data/*" { capabilities = ["read"] }
path "pillion/metadata/credentials/" { capabilities = ["list"] }`)
}

// revoke takes away every token of the role.
func (o *vaultOutages) revoke(t *testing.T) {
	t.Helper()
	o.vault.Write(t, "sys/leases/revoke-force/auth/approle", map[string]any{})
}

// during sends requests while begin, some time and end happen. It has pillion look
// at once, since an outage between two polls is not even seen.
func (o *vaultOutages) during(t *testing.T, what string, hold time.Duration, begin, end func(), seen bool) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var result loadResult
	load.Go(func() { result = o.load(ctx) })
	begin()
	o.look(t)
	if seen {
		o.await(t, "1")
	}
	pause(t, hold)
	end()
	begun := time.Now()
	o.await(t, "0")
	recovered := time.Since(begun)
	o.awaitSeries(t, "pillion_config_last_reload_successful", "1") // it was the store alone that did not answer
	pause(t, time.Second/2)
	stop()
	load.Wait()
	t.Logf("%-34s %9d %7d %9s %s", what, result.sent, len(result.failed), result.slowest.Round(time.Millisecond), recovered.Round(100*time.Millisecond))
	if len(result.failed) > 0 {
		t.Errorf("%s: %d of %d requests failed, the first with %s", what, len(result.failed), result.sent, result.failed[0])
	}
	if recovered > 10*time.Second {
		t.Errorf("%s: recovered %v after Vault", what, recovered)
	}
	if result.sent < 50 {
		t.Errorf("%s: only %d requests were sent", what, result.sent)
	}
}

// cutOff takes the mount away for longer than max_denied: then nothing is served,
// with a document that says why.
func (o *vaultOutages) cutOff(t *testing.T, denied time.Duration) {
	t.Helper()
	o.vault.Unmount(t, outageMount)
	o.look(t)
	o.await(t, "1")
	begun := time.Now()
	if failure := o.one(); failure != "" {
		t.Errorf("mount gone, at first: %s", failure)
	}
	deadline := begun.Add(denied + 5*time.Second)
	for ; ; pause(t, 50*time.Millisecond) {
		if failure := o.one(); failure != "" {
			if !strings.HasPrefix(failure, "503 ") || !strings.Contains(failure, "store-unavailable") || strings.Contains(failure, "secret-token") {
				t.Errorf("mount gone, after max_denied: %s", failure)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("mount gone: the credentials serve for longer than max_denied")
		}
	}
	lasted := time.Since(begun)
	t.Logf("%-34s served for %v, then refused (max_denied %v)", "mount gone", lasted.Round(100*time.Millisecond), denied)
	if lasted < denied-5*time.Second {
		t.Errorf("mount gone: refused after %v already", lasted)
	}
}

// A new process starts while Vault is away with what the last one kept, encrypted;
// what it must not get round is tested in package creds.
func TestStartWhileVaultIsAway(t *testing.T) {
	t.Parallel()
	o := newVaultOutages(t, time.Minute)
	o.sidecar.stop(t)
	cache := filepath.Join(o.sidecar.state, "vault-cache.age")
	sealed, err := os.ReadFile(cache)
	if err != nil || !strings.HasPrefix(string(sealed), "age-encryption.org/") || strings.Contains(string(sealed), "secret-token") {
		t.Fatalf("the cache: %v", err)
	}
	o.vault.Kill(t)
	o.sidecar.start(t)
	if failure := o.one(); failure != "" {
		t.Errorf("from the cache: %s", failure)
	}
	o.await(t, "1")
	o.vault.Restart(t)
	o.await(t, "0")
	if failure := o.one(); failure != "" {
		t.Errorf("after Vault came back: %s", failure)
	}
}

// stop ends the process as a node does that dies.
func (s *sidecarProcess) stop(t *testing.T) {
	t.Helper()
	if err := s.process.Kill(); err != nil {
		t.Fatal(err)
	}
	for {
		response, err := http.Get("http://" + s.metrics + "/readyz")
		if err != nil {
			return
		}
		response.Body.Close()
		pause(t, 10*time.Millisecond)
	}
}

type loadResult struct {
	sent    int
	failed  []string
	slowest time.Duration
}

// load sends a hundred requests a second until ctx ends.
func (o *vaultOutages) load(ctx context.Context) loadResult {
	var mu sync.Mutex
	var result loadResult
	var requests sync.WaitGroup
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			requests.Wait()
			return result
		case <-tick.C:
			requests.Go(func() {
				begun := time.Now()
				failure := o.one()
				mu.Lock()
				defer mu.Unlock()
				result.sent++
				result.slowest = max(result.slowest, time.Since(begun))
				if failure != "" {
					result.failed = append(result.failed, failure)
				}
			})
		}
	}
}

// one sends a request and returns what was wrong with its answer.
func (o *vaultOutages) one() string {
	response, err := o.client.Get("https://stream.example/down?size=100")
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK || len(body) != 100 {
		return response.Status + " " + string(body)
	}
	return ""
}

func (o *vaultOutages) look(t *testing.T) {
	t.Helper()
	if err := o.sidecar.process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// await waits until pillion_store_stale has the value.
func (o *vaultOutages) await(t *testing.T, value string) {
	t.Helper()
	o.awaitSeries(t, "pillion_store_stale", value)
}

func (o *vaultOutages) awaitSeries(t *testing.T, series, value string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for ; time.Now().Before(deadline); pause(t, 20*time.Millisecond) {
		response, err := http.Get("http://" + o.sidecar.metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if strings.Contains(string(text), "\n"+series+" "+value+"\n") {
			return
		}
	}
	t.Fatalf("%s does not become %s", series, value)
}

// pause lets time pass in which the outside world does something.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}
