package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"pillion/creds"
	"pillion/creds/filestore"
)

const checkUsage = `Examine the configuration and the stored credentials, and start nothing.

Usage:
    pillion check [--online] [--config FILE] [--state DIR]

    --online  with a store in Vault: log in as run would, and report what the
              policies lack or allow too much, path by path, and the clock

Exit status 1 when run would refuse to start. What run would start with, but
somebody should look at (two credentials for one URL, a record that cannot be
read, a role that this build does not have), is said and is no failure.

Example:
    pillion check --config pillion.yaml && systemctl reload pillion
`

func (a *app) checkCommand() *cobra.Command {
	var online bool
	cmd := &cobra.Command{
		Use: "check", Short: "Examine configuration and credentials", Long: checkUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.check(cmd.Context(), online) },
	}
	cmd.Flags().BoolVar(&online, "online", false, "")
	return cmd
}

func (a *app) check(ctx context.Context, online bool) error {
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	if problems := c.checkFiles(); len(problems) > 0 {
		return &problemsError{"the configuration", problems}
	}
	name := c.file
	if name == "" {
		name = "the default configuration"
	}
	fmt.Fprintf(a.stdout, "configuration: %s: good\n", name)
	for _, note := range c.notes {
		fmt.Fprintln(a.stdout, "note: "+note)
	}
	if note := c.stateNote(); note != "" {
		fmt.Fprintln(a.stdout, "note: "+note)
	}
	if note := c.journalNote(); note != "" {
		fmt.Fprintln(a.stdout, "note: "+note)
	}
	if c.Proxy.Listen != off && c.Proxy.AllowUIDs == nil && c.Proxy.ClientTokenFile == "" && a.getenv("KUBERNETES_SERVICE_HOST") == "" {
		fmt.Fprintf(a.stdout, "note: the proxy serves processes of uid %d, and any of them could read its memory as well: on a machine that is shared, give pillion a user of its own and list the connectors' in proxy.allow_uids\n", os.Geteuid())
	}
	if online && c.vault != nil {
		return a.checkVault(ctx, c)
	}
	return a.checkStore(ctx, c)
}

// journalNote says that new tokens could not be kept from a crash, if so.
func (c *config) journalNote() string {
	if !c.refreshes() {
		return ""
	}
	dir := c.journalDir()
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) { // what is missing is made at a start
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	file, err := os.CreateTemp(dir, ".check-*")
	if err != nil {
		return fmt.Sprintf("the journal %s cannot be written (%s): a crash at the wrong moment could cost a consent; give pillion's user a state directory that it may write", c.journalDir(), fileProblem(err))
	}
	file.Close()
	os.Remove(file.Name())
	return ""
}

// checkStore does not make a store: that is for run and credential set.
func (a *app) checkStore(ctx context.Context, c *config) error {
	if c.vault != nil {
		fmt.Fprintf(a.stdout, "store: %s: not asked; --online does\n", c.storeName())
		return nil
	}
	store, err := filestore.OpenExisting(c.Store.File.Path, c.Store.File.KeyFile)
	if errors.Is(err, filestore.ErrNoStore) {
		fmt.Fprintf(a.stdout, "store: %s: not made yet\n", c.Store.File.Path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the credential store: %w", err)
	}
	live := &creds.Live{Store: store, Names: c.names()}
	if err := live.Reload(ctx); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "store: %s: %s\n", c.Store.File.Path, counted(live.Table().Len(), "credential"))
	a.noteCredentials(c, live)
	return nil
}

// noteCredentials says what somebody should look at.
func (a *app) noteCredentials(cfg *config, live *creds.Live) {
	for _, bad := range live.Bad() {
		fmt.Fprintf(a.stdout, "note: credential %s is skipped: %s\n", bad.Name, oneLine(bad.Problem))
	}
	for _, c := range live.Table().All() {
		if c.Protocol == creds.SFTP && !cfg.servesSFTP() {
			fmt.Fprintf(a.stdout, "note: %s is stored, but sftp.listen is off: nothing uses it here\n", c.Name)
		}
	}
	for _, name := range sortedKeys(cfg.SFTP.Listeners) {
		if c, ok := live.Table().ByName(name); !ok || c.Protocol != creds.SFTP {
			fmt.Fprintf(a.stdout, "note: sftp.listeners has %s, which is no credential for SFTP: who connects there is refused\n", name)
		}
	}
	for _, names := range live.Table().Overlaps() {
		fmt.Fprintf(a.stdout, "note: %s have the same instance URL: a request must choose by name, as the proxy user\n", strings.Join(names, ", "))
	}
}
