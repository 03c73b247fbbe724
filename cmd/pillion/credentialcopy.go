package main

import (
	"context"
	"errors"
	"fmt"

	"pillion/creds"
	"pillion/creds/filestore"
	"pillion/creds/vaultstore"
)

// copyCredentials copies every credential, with its secrets, from one kind of store
// to the other. All of them are read before one is written.
func (a *app) copyCredentials(ctx context.Context, from, to string) error {
	if from+" "+to != "file vault" && from+" "+to != "vault file" {
		return usagef("write --from file --to vault, or --from vault --to file")
	}
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	source, err := a.openNamed(cfg, from, false)
	if err != nil {
		return err
	}
	target, err := a.openNamed(cfg, to, true)
	if err != nil {
		return err
	}
	live := &creds.Live{Store: source}
	if err := live.Reload(ctx); err != nil {
		return fmt.Errorf("nothing was copied: %w", err)
	}
	if bad := live.Bad(); len(bad) > 0 {
		return fmt.Errorf("nothing was copied: the credential %s %s", bad[0].Name, oneLine(bad[0].Problem))
	}
	all := live.Table().All()
	copied := make([]*creds.Credential, len(all))
	for i, c := range all {
		one := *c
		one.Version = 0
		old, _, err := creds.LoadPublic(ctx, target, c.Name)
		switch {
		case err == nil:
			one.Version = old.Version
		case !errors.Is(err, creds.ErrNotFound):
			return fmt.Errorf("nothing was copied: reading the credential %s that is there: %w", c.Name, err)
		}
		copied[i] = &one
	}
	for i, c := range copied {
		if err := creds.Save(ctx, target, c); err != nil {
			return fmt.Errorf("%d of %d were copied; storing %s: %w", i, len(copied), c.Name, err)
		}
	}
	a.reloadRunning(ctx, cfg)
	fmt.Fprintf(a.stdout, "copied %s\n", counted(len(copied), "credential"))
	return nil
}

// openNamed opens one of the two kinds of stores, whichever the configuration uses.
func (a *app) openNamed(c *config, kind string, write bool) (creds.Store, error) {
	if kind == "vault" {
		config := vaultstore.Config{}.WithEnvironment(a.getenv)
		if c.vault != nil {
			config = *c.vault
		}
		return a.operatorsVault(config)
	}
	open := filestore.OpenExisting
	if write {
		open = filestore.Open
	}
	store, err := open(c.Store.File.Path, c.Store.File.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("opening the embedded store: %w", err)
	}
	return store, nil
}
