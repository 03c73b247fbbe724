package credstest

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// Mount mounts a KV v2 engine of the test's own as pillion asks for it, with
// check-and-set required and five versions kept, and returns its name, such as
// "pillion-3". It is gone after the test.
func (v *Vault) Mount(t testing.TB) string {
	t.Helper()
	v.mu.Lock()
	v.mounts++
	name := fmt.Sprintf("pillion-%d", v.mounts)
	v.mu.Unlock()
	v.MountAt(t, name)
	t.Cleanup(func() { _, _ = v.do(v.Root, http.MethodDelete, "sys/mounts/"+name, nil, nil) })
	return name
}

// MountAt mounts what Mount does under a name of the test's choice.
func (v *Vault) MountAt(t testing.TB, name string) {
	t.Helper()
	v.Write(t, "sys/mounts/"+name, map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	v.configure(t, name, map[string]any{"cas_required": true, "max_versions": 5})
}

// MountV1 mounts a KV v1 engine, which has no versions and so no check-and-set.
func (v *Vault) MountV1(t testing.TB, name string) {
	t.Helper()
	v.Write(t, "sys/mounts/"+name, map[string]any{"type": "kv", "options": map[string]string{"version": "1"}})
}

// configure sets a KV v2 engine's configuration. A new engine answers 400 for a
// moment, while it prepares its storage.
func (v *Vault) configure(t testing.TB, mount string, settings map[string]any) {
	t.Helper()
	var answer VaultAnswer
	if !v.poll(10*time.Second, func() bool {
		var err error
		answer, err = v.do(v.Root, http.MethodPost, mount+"/config", settings, nil)
		return err == nil && answer.Status < 300
	}) {
		t.Fatalf("configuring the engine at %s: Vault answers %d %v", mount, answer.Status, answer.Body["errors"])
	}
}

// Unmount removes an engine and all that it holds.
func (v *Vault) Unmount(t testing.TB, name string) {
	t.Helper()
	v.must(t, http.MethodDelete, "sys/mounts/"+name, nil, nil)
}

// Policy writes a policy.
func (v *Vault) Policy(t testing.TB, name, rules string) {
	t.Helper()
	v.Write(t, "sys/policies/acl/"+name, map[string]any{"policy": rules})
}

// DropPolicy removes a policy: tokens that have it can do that much less.
func (v *Vault) DropPolicy(t testing.TB, name string) {
	t.Helper()
	v.must(t, http.MethodDelete, "sys/policies/acl/"+name, nil, nil)
}

// Token returns a token with these policies and "default", for an hour.
func (v *Vault) Token(t testing.TB, policies ...string) string {
	t.Helper()
	policies = append([]string{"default"}, policies...) // with none at all, Vault gives it root's
	answer := v.Write(t, "auth/token/create-orphan", map[string]any{"policies": policies, "ttl": "1h", "renewable": true})
	return clientToken(t, answer)
}

// Revoke makes a token worthless. A batch token cannot be revoked.
func (v *Vault) Revoke(t testing.TB, token string) {
	t.Helper()
	v.Write(t, "auth/token/revoke", map[string]any{"token": token})
}

func clientToken(t testing.TB, answer VaultAnswer) string {
	t.Helper()
	token, _ := answer.Auth()["client_token"].(string)
	if token == "" {
		t.Fatalf("Vault gives no token: %d %v", answer.Status, answer.Body["errors"])
	}
	return token
}

// poll calls ready every few milliseconds until it is true, or the time is up.
func (v *Vault) poll(limit time.Duration, ready func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for !ready() {
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
	return true
}
