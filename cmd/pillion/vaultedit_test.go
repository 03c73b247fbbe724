package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pillion/creds/credstest"
)

// What pillion credential writes into Vault is used by the next request through the
// pillion of that state directory, without waiting for a poll; what it deletes is
// refused from the next one on.
func TestEditInVaultIsUsedAtOnce(t *testing.T) {
	t.Parallel()
	vault := credstest.StartVault(t)
	vault.MountAt(t, "pillion")
	var mu sync.Mutex
	var last string
	origin := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		last = r.Header.Get("Authorization")
	}))
	defer origin.Close()
	i := installOverVault(t, vault, vault.Addr, false, origin.Listener.Addr().String())
	var bundle bytes.Buffer
	_ = pem.Encode(&bundle, &pem.Block{Type: "CERTIFICATE", Bytes: origin.TLS.Certificates[0].Certificate[0]})
	config, err := os.ReadFile(i.environ["PILLION_CONFIG"])
	if err == nil {
		text := strings.Replace(string(config), "unmatched: tunnel", "unmatched: deny", 1)
		text = strings.Replace(text, "resolve: {other.example:", "ca_file: tool.pem, resolve: {example.com:", 1)
		err = os.WriteFile(i.environ["PILLION_CONFIG"], []byte(text), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(i.dir, "tool.pem"), bundle.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	does := func(stdin, want string, failed bool, args ...string) {
		t.Helper()
		if output, didFail := i.run(stdin, args...); didFail != failed || !strings.Contains(output, want) {
			t.Errorf("pillion %s: want %q in\n%s", strings.Join(args, " "), want, output)
		}
	}
	i.serve()
	for n, verb := range []string{"made", "changed", "changed"} {
		token := fmt.Sprintf("token-%d", n)
		args := []string{"credential", "set", "tool", "--token-file", "-"}
		if n == 0 {
			args = append(args, "--url", "https://example.com/", "--authorization", "bearer")
		}
		does(token, verb+" tool", false, args...)
		does("", "200 OK", false, "try", "https://example.com/")
		mu.Lock()
		if last != "Bearer "+token {
			t.Errorf("after the edit the tool saw %q", last)
		}
		mu.Unlock()
	}
	does("", "deleted tool", false, "credential", "delete", "tool", "--yes")
	does("", "No credential", true, "try", "https://example.com/")
}
