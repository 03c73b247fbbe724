// Package vaultstore keeps the records of pillion in HashiCorp Vault's KV version
// 2 engine: the source of truth of a fleet.
//
//	config := vaultstore.Config{Address: "https://vault.example:8200", Auth: ...}.WithEnvironment(os.Getenv)
//	client, err := vaultstore.New(config, os.Getenv)
//	go client.KeepLoggedIn(ctx)
//	live := &creds.Live{Store: client.Stores()[0], More: client.Stores()[1:], MaxStale: config.MaxStale, ...}
//	go (&creds.Poller{Live: live}).Run(ctx)
//
// A record is one secret of Vault, MOUNT/data/PREFIX/KEY, and its version is
// KV's; every write is a check-and-set, so the mount may have cas_required.
//
// What it does not do: it keeps no copy of what it read (creds.Live does), it
// never speaks through HTTP_PROXY (in a pod that is pillion itself), and it does
// not renew tokens but logs in again.
package vaultstore
