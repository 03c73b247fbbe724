package vaultstore

import (
	"context"
	"errors"
	"sync"
)

// mountCheck remembers that the mount is what it should be. It is needed because
// KV version 1 answers a read of a path that version 2 has with "nothing there",
// which looks like a store without credentials.
type mountCheck struct {
	mu   sync.Mutex
	done bool
}

// checkMount asks once for the engine at the mount.
func (c *Client) checkMount(ctx context.Context) error {
	c.mount.mu.Lock()
	done := c.mount.done
	c.mount.mu.Unlock()
	if done {
		return nil
	}
	err := c.askMount(ctx)
	if err == nil {
		c.mount.mu.Lock()
		c.mount.done = true
		c.mount.mu.Unlock()
	}
	return err
}

func (c *Client) askMount(ctx context.Context) error {
	mount := c.config.Mount
	a, err := c.call(ctx, request{operation: "mount", method: "GET", path: "sys/internal/ui/mounts/" + mount})
	if isKind(err, Denied) || errors.Is(err, errNothing) {
		return c.problem(NoMount, "has nothing mounted at %s/ that %s may see: correct store.vault.mount, mount KV version 2 there, or give the login a policy for it", mount, c.who())
	}
	if err != nil {
		return err
	}
	var result struct {
		Data struct {
			Type    string            `json:"type"`
			Path    string            `json:"path"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	if a.decode(&result) != nil {
		return c.problem(NotVault, "answers in a way that no Vault does: correct store.vault.address or VAULT_ADDR")
	}
	switch {
	case result.Data.Type != "kv" && result.Data.Type != "generic":
		return c.problem(NoMount, "has another engine than KV at %s/: correct store.vault.mount", mount)
	case result.Data.Options["version"] != "2":
		return c.problem(NoMount, "has KV version 1 at %s/, which has no check-and-set: vault kv enable-versioning %s, or name another mount in store.vault.mount", mount, mount)
	case result.Data.Path != "" && result.Data.Path != mount+"/":
		return c.problem(NoMount, "has its mount at %s, and store.vault.mount says %s: write the mount there, and what is below it into store.vault.prefixes", result.Data.Path, mount)
	}
	return nil
}
