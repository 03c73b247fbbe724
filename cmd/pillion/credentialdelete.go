package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"pillion/creds"
)

const credentialDeleteUsage = `Delete a credential with its secrets and tokens.

Usage:
    pillion credential delete NAME [--yes]

It asks first. Without a terminal to ask on, --yes is needed.

    --yes  do not ask

Example:
    pillion credential delete jira --yes
`

func (a *app) credentialDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete", Aliases: []string{"rm"}, Short: "Delete a credential", Long: credentialDeleteUsage, Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			c, store, err := a.lookIntoStore()
			if err != nil {
				return err
			}
			if _, err := store.Get(cmd.Context(), creds.KeyCredentials+name); err != nil {
				return noSuchCredential(name, err)
			}
			if !yes {
				if err := a.confirm("Delete the credential " + name + " and its secrets?"); err != nil {
					return err
				}
			}
			if err := creds.Remove(cmd.Context(), store, name); err != nil {
				return fmt.Errorf("deleting the credential %s: %w", name, err)
			}
			a.reloadRunning(cmd.Context(), c)
			fmt.Fprintln(a.stdout, "deleted "+name)
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "")
	return cmd
}

func (a *app) confirm(question string) error {
	if !isTerminal(a.stdin) {
		return usagef("nothing was deleted: there is no terminal to ask on, so say --yes")
	}
	fmt.Fprint(a.stderr, question+" [y/N] ")
	answer, _ := bufio.NewReader(a.stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was deleted")
}
