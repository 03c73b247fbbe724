package vault_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// setUp runs setup.sh with the variables that a person would set.
func setUp(t *testing.T, v *credstest.Vault, environment []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("./setup.sh", args...)
	cmd.Env = append(os.Environ(), "VAULT_ADDR="+v.Addr, "VAULT_TOKEN="+v.Root, "VAULT_CACERT="+v.CAFile,
		"HTTP_PROXY=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1")
	cmd.Env = append(cmd.Env, environment...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustSetUp(t *testing.T, v *credstest.Vault, environment []string, args ...string) {
	t.Helper()
	if out, err := setUp(t, v, environment, args...); err != nil {
		t.Fatalf("setup.sh %v: %v\n%s", args, err, out)
	}
}

func TestSetupMakesMountPoliciesAndLogins(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	v := credstest.VaultSetup{TLS: true}.Start(t)
	key := filepath.Join(t.TempDir(), "issuer.pub")
	if err := os.WriteFile(key, []byte(v.Issuer()), 0o600); err != nil {
		t.Fatal(err)
	}
	host, ca := v.APIServer(t)
	for range 2 { // all of it may be run again
		mustSetUp(t, v, nil)
		mustSetUp(t, v, nil, "approle", "host", "pillion-sidecar")
		mustSetUp(t, v, []string{"JWT_KEY_FILE=" + key, "JWT_ISSUER=https://issuer.example/"}, "jwt", "connector", "pillion-sidecar", "connector-1")
		mustSetUp(t, v, []string{"KUBERNETES_HOST=" + host, "KUBERNETES_CA_FILE=" + ca}, "kubernetes", "pod", "pillion-sidecar", "connector", "tools", "games")
	}

	config := v.Do(t, v.Root, http.MethodGet, "pillion/config", nil).Data()
	if config["cas_required"] != true || config["max_versions"] != 5.0 {
		t.Errorf("the mount is configured so: %v", config)
	}
	roleID, _ := v.Do(t, v.Root, http.MethodGet, "auth/approle/role/host/role-id", nil).Data()["role_id"].(string)
	for _, login := range []struct {
		method string
		body   map[string]any
	}{
		{"approle", map[string]any{"role_id": roleID, "secret_id": v.SecretID(t, "host")}},
		{"jwt", map[string]any{"role": "connector", "jwt": v.Sign(t, credstest.Claims("connector-1", "vault", time.Hour))}},
		{"kubernetes", map[string]any{"role": "pod", "jwt": v.ServiceAccountToken(t, "games", "connector", time.Hour)}},
	} {
		answer := v.Do(t, "", http.MethodPost, "auth/"+login.method+"/login", login.body)
		token, _ := answer.Auth()["client_token"].(string)
		if answer.Status != http.StatusOK || answer.Auth()["token_type"] != "batch" {
			t.Errorf("login %s: %d %v", login.method, answer.Status, answer.Body)
			continue
		}
		if status := try(t, v, token, "pillion", "data/credentials/jira", 'r'); status != http.StatusOK {
			t.Errorf("with the login %s, a credential: %d", login.method, status)
		}
		if status := try(t, v, token, "pillion", "data/grants/jira", 'r'); status != http.StatusForbidden {
			t.Errorf("with the login %s, a grant: %d", login.method, status)
		}
	}
}

func TestSetupSaysWhatVaultRefuses(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	v := credstest.SharedVault(t)
	out, err := setUp(t, v, []string{"VAULT_TOKEN=" + v.Token(t)})
	if err == nil || !strings.Contains(out, "permission denied") || strings.Contains(out, v.Root) {
		t.Errorf("with a token that may do nothing: %v\n%s", err, out)
	}
	v.MountV1(t, "kv-1")
	if out, err := setUp(t, v, []string{"MOUNT=kv-1"}); err == nil || !strings.Contains(out, "is no KV version 2") {
		t.Errorf("over KV version 1: %v\n%s", err, out)
	}
	if answer := v.Do(t, v.Root, http.MethodGet, "kv-1/config", nil); answer.Status != http.StatusNotFound {
		t.Errorf("over KV version 1 it has written: %v", answer.Body)
	}
}
