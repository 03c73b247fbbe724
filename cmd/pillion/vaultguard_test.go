package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/vaultstore"
)

// A connector must not reach Vault through pillion, where it would do with our
// address what it may not do itself: not by Vault's own address, wherever that was
// configured, not by another name of it, and not because loopback is allowed.
func TestAttackVaultAddress(t *testing.T) {
	t.Parallel()
	vault := credstest.StartVault(t)
	vault.MountAt(t, "pillion")
	lossy := vault.Lossy(t)
	at := strings.TrimPrefix(lossy.Addr, "http://")
	_, port, _ := strings.Cut(at, ":")
	for _, c := range []struct{ name, url string }{
		{"26 the address of Vault", "https://" + at + "/"},
		{"26 another name of it", "https://other.example:" + port + "/"},
	} {
		for _, byVariable := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, by VAULT_ADDR %t", c.name, byVariable), func(t *testing.T) {
				saveInVault(t, vault, &creds.Credential{Name: "tool", Protocol: creds.HTTPS, URL: c.url, Authorization: creds.Bearer, Token: credstest.Canary("token")})
				i := installOverVault(t, vault, lossy.Addr, byVariable, at)
				i.serve()
				lossy.Reset()
				output, failed := i.run("", "try", c.url)
				if !failed || !strings.Contains(output, "it is the credential store: add") {
					t.Errorf("pillion try %s:\n%s", c.url, output)
				}
				if target := strings.Trim(strings.TrimPrefix(c.url, "https:"), "/"); i.tunnels(t, target) {
					t.Error("a tunnel to Vault was opened")
				}
				for _, r := range lossy.Requests() {
					if !strings.HasPrefix(r.Path, "pillion/") && !strings.HasPrefix(r.Path, "auth/") && !strings.HasPrefix(r.Path, "sys/") {
						t.Errorf("Vault was sent %s %s", r.Method, r.Path)
					}
				}
			})
		}
	}
}

// saveInVault replaces the one credential of the mount pillion.
func saveInVault(t *testing.T, vault *credstest.Vault, c *creds.Credential) {
	t.Helper()
	getenv := func(name string) string { return map[string]string{"VAULT_TOKEN": vault.Root}[name] }
	client, err := vaultstore.New(vaultstore.Config{Address: vault.Addr}.WithEnvironment(getenv), getenv)
	if err != nil {
		t.Fatal(err)
	}
	_ = creds.Remove(t.Context(), client.Store(""), c.Name) // of the last case, if there was one
	if err := creds.Save(t.Context(), client.Store(""), c); err != nil {
		t.Fatal(err)
	}
}

// installOverVault configures a pillion that may reach loopback and passes on what
// it has no credential for. other.example is a name of Vault's address.
func installOverVault(t *testing.T, vault *credstest.Vault, address string, byVariable bool, resolved string) *installation {
	t.Helper()
	i := &installation{t, t.TempDir(), map[string]string{"VAULT_TOKEN": vault.Root}}
	i.environ["PILLION_CONFIG"] = filepath.Join(i.dir, "pillion.yaml")
	configured := address
	if byVariable {
		configured, i.environ["VAULT_ADDR"] = "https://vault.example:8200", address
	}
	text := fmt.Sprintf(`state: state
proxy: {listen: 127.0.0.1:0, unmatched: tunnel}
metrics: {listen: 127.0.0.1:0}
store: {vault: {address: %q}}
upstream: {allow: [127.0.0.0/8], resolve: {other.example: %q}}
`, configured, resolved)
	if err := os.WriteFile(i.environ["PILLION_CONFIG"], []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

// tunnels reports whether a target without a credential is passed on blindly: the
// one that the credential is for is asked for by another spelling of its host.
func (i *installation) tunnels(t *testing.T, target string) bool {
	t.Helper()
	s, err := newAdminClient(filepath.Join(i.dir, "state", "admin.sock")).status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	target = strings.NewReplacer("//", "", "127.0.0.1", "[::ffff:127.0.0.1]", "other.example", "127.0.0.1").Replace(target)
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: s.Listeners["proxy"]}), DisableKeepAlives: true}}
	response, err := client.Get("https://" + target + "/v1/sys/health")
	if err != nil { // refused, or a tunnel in which nobody speaks TLS
		return strings.Contains(err.Error(), "HTTP response to HTTPS client")
	}
	defer response.Body.Close()
	return true
}

// Nothing was ever read: the log does not invent since when.
func TestNeverRead(t *testing.T) {
	d := &daemon{live: &creds.Live{}}
	log := &lockedBuffer{}
	d.log = newLogger(&logBuffer{w: log}, "json", &d.level)
	d.polled(t.Context(), false, creds.ErrStoreUnavailable)
	if text := log.String(); !strings.Contains(text, "nothing was read from it yet") || strings.Contains(text, "0001") || strings.Contains(text, `"since"`) {
		t.Errorf("the log says:\n%s", text)
	}
}
