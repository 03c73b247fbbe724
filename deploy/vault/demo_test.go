package vault_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/vaultstore"
)

// make vault's three logins reach the example credential, and nothing of it is
// left afterwards.
func TestMakeVaultIsReadyForASidecar(t *testing.T) {
	for _, tool := range []string{"curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := filepath.Join(t.TempDir(), "vault")
	script := exec.Command("../../scripts/vault.sh")
	script.Env = append(os.Environ(), "VAULT_LISTEN=127.0.0.1:0", "VAULT_DIR="+dir)
	script.Stderr = t.Output()
	stdout, err := script.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = script.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, stdout)
		_ = script.Wait()
		if _, err := os.Stat(dir); err == nil {
			t.Error("its files are left behind")
		}
	}()
	address := readAddress(t, stdout)

	for _, auth := range []vaultstore.Auth{
		{Method: "approle", RoleID: "sidecar", SecretIDFile: filepath.Join(dir, "secret-id")},
		{Method: "jwt", Role: "sidecar", TokenFile: filepath.Join(dir, "jwt")},
		{Method: "kubernetes", Role: "sidecar", TokenFile: filepath.Join(dir, "service-account-token")},
	} {
		none := func(string) string { return "" }
		config := vaultstore.Config{Address: address, CAFile: filepath.Join(dir, "ca.crt"), Auth: auth}.WithEnvironment(none)
		client, err := vaultstore.New(config, none)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		live := &creds.Live{Store: client.Stores()[0]}
		if err := live.Reload(ctx); err != nil {
			t.Errorf("with the login %s: %v", auth.Method, err)
		} else if c, ok := live.Table().ByName("demo"); !ok || c.Token.IsZero() {
			t.Errorf("with the login %s, the example credential is not there; bad: %v", auth.Method, live.Bad())
		}
		cancel()
	}
}

// readAddress reads what make vault says, to its last line, and returns Vault's
// address.
func readAddress(t *testing.T, stdout io.Reader) (address string) {
	t.Helper()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 1 && fields[0] == "Vault" {
			address = strings.TrimSuffix(fields[1], ",")
		}
		if strings.HasPrefix(lines.Text(), "Ctrl-C") && address != "" {
			return address
		}
	}
	t.Fatal("it ends before it is ready")
	return ""
}
