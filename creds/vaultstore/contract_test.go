package vaultstore

import (
	"testing"

	"pillion/creds"
	"pillion/creds/credstest"
)

// The contract that every store keeps, over a real Vault.
func TestContract(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	credstest.TestStore(t, func(t *testing.T) creds.Store { return rooted(t, vault, vault.Addr, mount) })
}

// The same under a prefix, the way that a team has it.
func TestContractUnderAPrefix(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	credstest.TestStore(t, func(t *testing.T) creds.Store {
		return client(t, Config{Address: vault.Addr, Mount: mount, Prefixes: []string{"team-a"}}, environment("VAULT_TOKEN", vault.Root)).Stores()[0]
	})
}
