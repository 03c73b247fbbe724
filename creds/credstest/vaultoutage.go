package credstest

import (
	"net/http"
	"syscall"
	"testing"
	"time"
)

// Seal seals Vault: it answers 503 to everything until Unseal.
func (v *Vault) Seal(t testing.TB) {
	t.Helper()
	v.must(t, http.MethodPut, "sys/seal", nil, nil)
}

// Unseal unseals Vault, and returns when it serves again.
func (v *Vault) Unseal(t testing.TB) {
	t.Helper()
	v.must(t, http.MethodPut, "sys/unseal", map[string]string{"key": v.unsealKey}, nil)
	if !v.poll(10*time.Second, func() bool {
		answer, err := v.do("", http.MethodGet, "sys/health", nil, nil)
		return err == nil && answer.Status == http.StatusOK
	}) {
		t.Fatal("Vault does not serve 10 s after it was unsealed")
	}
}

// Freeze stops the process where it stands: connections are taken by the kernel
// and nobody answers on them. It is also thawed when the test ends.
func (v *Vault) Freeze(t testing.TB) {
	t.Helper()
	t.Cleanup(func() { _ = v.process.signal(syscall.SIGCONT) })
	if err := v.process.signal(syscall.SIGSTOP); err != nil {
		t.Fatalf("freezing Vault: %v", err)
	}
	// The signal reaches its threads one by one.
	if !v.poll(5*time.Second, v.process.stopped) {
		t.Fatal("freezing Vault: it does not stop")
	}
}

// Thaw lets a frozen process go on; it answers what has waited.
func (v *Vault) Thaw(t testing.TB) {
	t.Helper()
	if err := v.process.signal(syscall.SIGCONT); err != nil {
		t.Fatalf("thawing Vault: %v", err)
	}
}

// Kill ends the process at once: connections are refused until Restart.
func (v *Vault) Kill(t testing.TB) {
	t.Helper()
	v.process.kill()
}

// Restart starts Vault again on the same address, after Kill or after killing it
// first. With VaultSetup.Keep it is unsealed and has its data; without, it is a
// new one with another Root that has neither mounts, policies, logins nor data.
func (v *Vault) Restart(t testing.TB) {
	t.Helper()
	v.process.kill()
	root := v.Root
	if err := v.run(); err != nil {
		t.Fatalf("starting Vault again: %v", err)
	}
	if v.Root != root {
		v.mu.Lock()
		clear(v.enabled)
		v.mu.Unlock()
		return
	}
	if !v.enabled["kubernetes"] {
		return
	}
	v.Write(t, "auth/kubernetes/config", map[string]any{ // the API server has moved
		"kubernetes_host": v.kubernetes, "kubernetes_ca_cert": v.kubernetesCA, "disable_local_ca_jwt": true,
	})
}
