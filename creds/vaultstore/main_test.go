package vaultstore

import (
	"os"
	"path/filepath"
	"testing"

	"pillion/creds"
	"pillion/creds/credstest"
)

// noEnvironment is an environment without variables.
func noEnvironment(string) string { return "" }

// environment is one with these variables.
func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// client makes one, or ends the test.
func client(t *testing.T, config Config, getenv func(string) string) *Client {
	t.Helper()
	c, err := New(config.WithEnvironment(getenv), getenv)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// writeFile makes a file that holds text, and returns its path.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	rewrite(t, path, text)
	return path
}

// rewrite replaces a file as those do who deliver tokens: by renaming.
func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// rooted is a store with the root token over a mount of the test's own.
func rooted(t *testing.T, vault *credstest.Vault, address, mount string) *Store {
	t.Helper()
	return client(t, Config{Address: address, Mount: mount}, environment("VAULT_TOKEN", vault.Root)).Store("")
}

func mustCAS(t *testing.T, s creds.Store, key, data string, version int) int {
	t.Helper()
	next, err := s.CAS(t.Context(), key, creds.NewSecret(data), version)
	if err != nil {
		t.Fatalf("CAS of %s over %d: %v", key, version, err)
	}
	return next
}
