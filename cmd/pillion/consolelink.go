package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

const consoleLinkUsage = `Print a link that opens the page of the running pillion: good once, for ten minutes.

Usage:
    pillion console-link

A link that was printed before is void from then on. Over Vault there is none:
people log in with Vault.

Example:
    pillion console-link
`

// linkAnswer is what the admin socket answers.
type linkAnswer struct {
	Link string `json:"link"`
}

func (a *app) consoleLinkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "console-link", Short: "A new link that opens the page", Long: consoleLinkUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.loadConfig()
			if err != nil {
				return err
			}
			var answer linkAnswer
			if err := newAdminClient(c.adminSocket()).get(cmd.Context(), http.MethodPost, "/console-link", &answer); err != nil {
				return err
			}
			if answer.Link == "" {
				return errors.New("the running pillion has no page that opens by a link: set console.listen, and log in with Vault where the store is Vault")
			}
			fmt.Fprintln(a.stdout, answer.Link)
			return nil
		},
	}
}
