package token

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/vaultstore"
)

// overVault is a store of a process of its own: a client, a login, a connection.
func overVault(t *testing.T, vault *credstest.Vault, address, mount string) creds.Store {
	t.Helper()
	env := func(name string) string {
		if name == "VAULT_TOKEN" {
			return vault.Root
		}
		return ""
	}
	client, err := vaultstore.New(vaultstore.Config{Address: address, Mount: mount}.WithEnvironment(env), env)
	if err != nil {
		t.Fatal(err)
	}
	return client.Store("")
}

// vaultFleet runs n refreshers over a real Vault and a strict provider on the
// network, each of which needs a token all the time, until disturb is over. It gets
// a function that waits for the next rotation.
func vaultFleet(t *testing.T, vault *credstest.Vault, address string, n int, disturb func(rotated func())) {
	t.Helper()
	rotations := make(chan Event, 1000)
	mount, provider := vault.Mount(t), credstest.NewRotating(t)
	provider.Life = 4 * time.Second
	g := newRig(t, overVault(t, vault, vault.Addr, mount), provider, provider.AuthorizationCode("jira"), t.TempDir())
	g.connect(provider.Consent())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		r := g.process(newNonce())
		r.store = overVault(t, vault, address, mount)
		r.onEvent = func(e Event) {
			g.hear(e)
			if e.Kind == EventRequest && e.Result == Success {
				rotations <- e
			}
		}
		found, _ := kindOf(g.c)
		r.grant = found.grant(g.c, endpoint{http: provider.Transport(), now: time.Now})
		wg.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				_, _, err := r.renew(t.Context(), want{ahead: true})
				var refused *creds.TokenError
				if err != nil && (errors.Is(err, creds.ErrNeedsConsent) || !errors.Is(err, creds.ErrStoreUnavailable) && !errors.As(err, &refused)) {
					t.Error(err)
					return
				}
				select {
				case <-tick.C:
				case <-stop:
					return
				}
			}
		})
	}
	disturb(func() {
		select {
		case <-rotations:
		case <-time.After(30 * time.Second):
			t.Error("nothing was renewed for half a minute")
		}
	})
	close(stop)
	wg.Wait()
	counts := provider.Counts()
	t.Logf("%d rotations, %d calls, %d conflicts, %d rescues, %d blind claims, %d unknown outcomes",
		counts.Rotations, provider.Calls(), g.heard(EventLeaseConflict), g.heard(EventRescue), g.heard(EventBlindClaim), g.heard(EventUnknownOutcome))
	if counts.Reuse != 0 || counts.Revocations != 0 || provider.Calls() != counts.Rotations {
		t.Errorf("%+v, %d calls", counts, provider.Calls())
	}
}

// One answer in five to a write never comes.
func vaultLosesAnswers(t *testing.T) {
	vault := credstest.SharedVault(t)
	lossy := vault.Lossy(t)
	lossy.LoseShare(0.2)
	vaultFleet(t, vault, lossy.Addr, 6, func(rotated func()) {
		for n := 0; n < 3 || n < 20 && lossy.Lost() < 2; n++ {
			rotated()
		}
	})
	if lossy.Lost() < 2 {
		t.Errorf("%d answers were lost", lossy.Lost())
	}
}

// Vault stands still as soon as a token has been bought: who holds it writes it
// afterwards, and nobody who only waits takes him for dead.
func TestVaultFreezes(t *testing.T) {
	vault := credstest.StartVault(t)
	vaultFleet(t, vault, vault.Addr, 6, func(rotated func()) {
		rotated()
		for range 2 {
			rotated()
			vault.Freeze(t)
			time.Sleep(4 * time.Second) // longer than a lease
			vault.Thaw(t)
		}
		rotated()
	})
}

// Every answer to the first writes is lost, time and again.
func vaultAwayForTheAnswer(t *testing.T) {
	vault := credstest.SharedVault(t)
	lossy := vault.Lossy(t)
	vaultFleet(t, vault, lossy.Addr, 3, func(rotated func()) {
		for range 3 {
			lossy.LoseNext(3, func(method, path string) bool {
				return method == http.MethodPost && strings.Contains(path, creds.KeyGrants)
			})
			rotated()
		}
	})
}
