package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"pillion/creds"
	"pillion/creds/filestore"
)

// openStore opens the store that the configuration names, and makes it where
// there is none: for commands that write.
func (a *app) openStore() (*config, creds.Store, error) { return a.storeBy(filestore.Open) }

// storeBy opens the store; open is for one in a file. With its error there is a
// configuration where the store alone was at fault.
func (a *app) storeBy(open func(path, keyFile string, recipients ...string) (*filestore.Store, error)) (*config, creds.Store, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	if c.vault != nil {
		store, err := a.operatorsVault(*c.vault)
		return c, store, err
	}
	store, err := open(c.Store.File.Path, c.Store.File.KeyFile)
	if err != nil {
		return c, nil, fmt.Errorf("opening the credential store: %w", err)
	}
	return c, store, nil
}

// noStoreError says that there is nothing to read yet.
type noStoreError struct{ dir string }

func (e *noStoreError) Error() string {
	return "there is no credential store in " + e.dir + " yet: credential set makes one, or name another directory with --state"
}

// lookIntoStore is openStore for commands that only read: it makes nothing. Its
// error is a *noStoreError where there is no store yet; the configuration is
// returned even then.
func (a *app) lookIntoStore() (*config, creds.Store, error) {
	c, store, err := a.storeBy(filestore.OpenExisting)
	if errors.Is(err, filestore.ErrNoStore) {
		return c, nil, &noStoreError{filepath.Dir(c.Store.File.Path)}
	}
	return c, store, err
}
