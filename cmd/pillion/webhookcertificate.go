package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const webhookCertificateUsage = `Make a certificate for the webhook, and the authority that signed it.

Usage:
    pillion webhook certificate DIRECTORY --name NAME... [--days N]

It writes tls.crt and tls.key, for the Secret that the webhook mounts, and ca.crt, for
caBundle of the MutatingWebhookConfiguration. The authority's key is not kept: for the
next certificate there is a new authority. Put both authorities into caBundle first,
then the new files into the Secret, and take the old authority out when all replicas
have taken the files over.

    --name NAME     the Service as the API server calls it: SERVICE.NAMESPACE.svc;
                    may be repeated
    --days N        how long it is good (default 365)

Example:
    pillion webhook certificate tls --name pillion-webhook.pillion.svc
`

func (a *app) webhookCertificateCommand() *cobra.Command {
	var names []string
	var days int
	cmd := &cobra.Command{
		Use: "certificate", Short: "Make a certificate for the webhook", Long: webhookCertificateUsage, Args: exactly("DIRECTORY"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(names) == 0 {
				return usagef("--name is needed: SERVICE.NAMESPACE.svc, as the API server calls the webhook")
			}
			if days < 1 || days > 3650 {
				return usagef("--days must lie between 1 and 3650")
			}
			return a.webhookCertificate(args[0], names, days)
		},
	}
	cmd.Flags().StringArrayVar(&names, "name", nil, "")
	cmd.Flags().IntVar(&days, "days", 365, "")
	return cmd
}

func (a *app) webhookCertificate(dir string, names []string, days int) error {
	now := time.Now()
	until := now.AddDate(0, 0, days)
	made, err := newThrowaway("pillion webhook CA", names, now, until)
	if err != nil {
		return fmt.Errorf("making the certificate: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"ca.crt", made.ca}, {"tls.crt", made.cert}, {"tls.key", made.key}} {
		if err := replaceFile(filepath.Join(dir, f.name), f.data); err != nil {
			return fmt.Errorf("writing %s: %w", f.name, err)
		}
	}
	fmt.Fprintf(a.stdout, "%s: tls.crt and tls.key for %s until %s, and ca.crt for caBundle\n", dir, strings.Join(names, ", "), until.Format(time.DateOnly))
	return nil
}
