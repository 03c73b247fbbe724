package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"pillion/creds"
	"pillion/sftpgw"
)

const credentialScanUsage = `Show the host keys that an SFTP server offers, without logging in.

Usage:
    pillion credential scan-host-key HOST:PORT

It connects once for each type of key, by the way that the configuration bounds
(upstream.allow, resolve, proxy), and leaves before any name or password is asked for.
The last lines are flags to paste behind pillion credential set.

What answers may be anybody: compare the SHA256 with what the server's owner says,
by another way than this network, before a key is pinned.

Example:
    pillion credential scan-host-key sftp.example:22
`

func (a *app) credentialScan() *cobra.Command {
	return &cobra.Command{
		Use: "scan-host-key", Short: "The host keys that an SFTP server offers", Long: credentialScanUsage, Args: exactly("HOST:PORT"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.scanHostKeys(cmd.Context(), args[0]) },
	}
}

func (a *app) scanHostKeys(ctx context.Context, address string) error {
	target, err := serverOf(address)
	if err != nil {
		return err
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	out, err := a.wayOut(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	found, err := sftpgw.ScanHostKeys(ctx, out.DialContext, target.Authority())
	if err != nil && len(found) == 0 {
		return err
	}
	for _, key := range found {
		if c.isOwnKey(key.Key) {
			return fmt.Errorf("%s is pillion itself: name the server", target.Authority())
		}
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, key := range found {
		fmt.Fprintf(t, "%s\t%s\n", key.Type, key.SHA256)
	}
	_ = t.Flush()
	fmt.Fprintf(a.stdout, "\nAnybody may answer on a network: ask the owner of %s which of these it is.\nThen pin that one, with pillion credential set NAME and\n\n", target.Host)
	for _, key := range found {
		fmt.Fprintf(a.stdout, "    --host-key '%s'\n", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.Key))))
	}
	if err != nil {
		return fmt.Errorf("not all types could be asked for: %w", err)
	}
	return nil
}

// isOwnKey reports whether a host key is the one that our clients know us by.
func (c *config) isOwnKey(key ssh.PublicKey) bool {
	published, err := os.ReadFile(filepath.Join(c.Publish, sftpgw.KnownHostsFile))
	return err == nil && bytes.Contains(published, bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))
}

// serverOf reads HOST:PORT, and is lenient about a whole URL.
func serverOf(address string) (creds.Target, error) {
	if !strings.Contains(address, "://") {
		address = "sftp://" + address + "/"
	}
	target, err := creds.ParseTarget(address)
	if err != nil {
		return target, usagef("HOST:PORT %v", err)
	}
	if target.Scheme != string(creds.SFTP) {
		return target, usagef("only SFTP servers have host keys: write HOST:PORT")
	}
	return target, nil
}

// testSFTP logs in once, with the credential as it is stored.
func (a *app) testSFTP(ctx context.Context, g *grantWork) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	c := g.credential
	if c.Password.IsZero() && c.PrivateKey.IsZero() { // over Vault the public fields were read
		if c, err = creds.LoadCredential(ctx, g.store, c.Name); err != nil {
			return fmt.Errorf("reading the secrets of %s, for which your own token must be allowed (or let a running pillion try it: pillion put): %w", g.credential.Name, err)
		}
	}
	out, err := a.wayOut(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	version, err := sftpgw.Try(ctx, out.DialContext, c)
	if err != nil {
		fmt.Fprintln(a.stdout, err.Error())
		return errors.New("the credential " + c.Name + " does not work as it is stored")
	}
	target, err := c.Instance()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s shows a pinned host key, lets user %q log in and opens an SFTP session (%q)\n", target.Authority(), c.Username, version)
	return nil
}
