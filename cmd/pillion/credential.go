package main

import (
	"github.com/spf13/cobra"
)

const credentialUsage = `Manage the stored credentials. Secrets are written, never shown.

Usage:
    pillion credential list [-o text|json]
    pillion credential get NAME [-o text|json]
    pillion credential set NAME --url URL --authorization TYPE ...
    pillion credential delete NAME [--yes]
    pillion credential connect NAME
    pillion credential refresh NAME
    pillion credential test NAME
    pillion credential scan-host-key HOST:PORT
    pillion credential import FILE.yaml

Over Vault these commands use your own token (VAULT_TOKEN, or what vault login
left), and the first of store.vault.prefixes:

    --prefix P  another prefix, such as a team's

A running pillion takes a change over at once, for its next request. ls, add and
rm are other names of list, set and delete.

Example:
    pillion credential list
`

func (a *app) credentialCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "credential", Short: "list, get, set, delete, connect, refresh, test, scan-host-key, import", Long: credentialUsage, Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			return usagef("which command? see pillion credential --help")
		},
	}
	cmd.PersistentFlags().StringVar(&a.flags.prefix, "prefix", "", "")
	cmd.AddCommand(a.credentialList(), a.credentialGet(), a.credentialSet(), a.credentialDelete(),
		a.credentialConnect(), a.credentialRefresh(), a.credentialTest(), a.credentialScan(), a.credentialImport())
	return cmd
}
