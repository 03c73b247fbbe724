package vaultstore

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// A fleet is gentle with Vault: what a sidecar asks while nothing changes does not
// grow with its credentials. PILLION_SOAK_SIDECARS and PILLION_SOAK_MINUTES make it
// smaller.
func TestSoakFleet(t *testing.T) {
	if os.Getenv("PILLION_SOAK") == "" {
		return // make soak
	}
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	sidecars, minutes := number("PILLION_SOAK_SIDECARS", 1000), number("PILLION_SOAK_MINUTES", 10)
	const credentials = 100
	vault := credstest.StartVault(t)
	mount := vault.Mount(t)
	admin := rooted(t, vault, vault.Addr, mount)
	for i := range credentials {
		mustSave(t, admin, basic(fmt.Sprintf("c%d", i)))
	}
	vault.Policy(t, "fleet", sidecarPolicy(mount))
	roleID, secretID := vault.AppRole(t, "fleet", "fleet")
	secret := writeFile(t, secretID)

	var requests, logins, reads atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var running, started sync.WaitGroup
	starting := make(chan struct{}, 8)
	// One who may write sweeps for all, as a refresher or the console does.
	sweeper := &creds.Live{Store: admin}
	mustReload(t, sweeper)
	running.Go(func() { (&creds.Poller{Live: sweeper}).Run(ctx) })
	begun := time.Now()
	for range sidecars {
		c := client(t, Config{Address: vault.Addr, Mount: mount, Auth: Auth{Method: "approle", RoleID: roleID, SecretIDFile: secret}}, environment("VAULT_CLIENT_TIMEOUT", "60"))
		c.OnRequest = func(operation string, _ int, _ time.Duration) {
			requests.Add(1)
			switch operation {
			case "login":
				logins.Add(1)
			case "get":
				reads.Add(1)
			}
		}
		live := &creds.Live{Store: c.Store(""), MaxStale: c.config.MaxStale, MaxDenied: c.config.MaxDenied}
		started.Add(1)
		running.Go(func() {
			starting <- struct{}{}
			err := live.Reload(ctx)
			<-starting
			started.Done()
			if err != nil || live.Table().Len() != credentials {
				t.Errorf("%d credentials, %v", live.Table().Len(), err)
				return
			}
			(&creds.Poller{Live: live}).Run(ctx)
		})
	}
	started.Wait()
	t.Logf("%d sidecars x %d credentials started in %v with %d requests", sidecars, credentials, time.Since(begun).Round(time.Second), requests.Load())
	begun = time.Now()
	before, readsBefore, loginsBefore := requests.Load(), reads.Load(), logins.Load()
	for minute := range minutes {
		at := requests.Load()
		<-time.After(time.Minute)
		t.Logf("minute %d: %.2f requests a second", minute+1, float64(requests.Load()-at)/60)
	}
	took := time.Since(begun).Seconds()
	stop()
	running.Wait()
	rate := float64(requests.Load()-before) / took
	limit := float64(sidecars) / 60 * 1.3
	t.Logf("steady: %.2f requests a second (%.2f reads, %.2f logins), at most %.2f are allowed", rate,
		float64(reads.Load()-readsBefore)/took, float64(logins.Load()-loginsBefore)/took, limit)
	if rate > limit {
		t.Errorf("%.2f requests a second, more than %.2f", rate, limit)
	}
}

func mustReload(t *testing.T, live *creds.Live) {
	t.Helper()
	if err := live.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}
