package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"pillion/creds"
	"pillion/creds/token"
	"pillion/proxy"
)

const credentialTestUsage = `Try a stored credential out.

Usage:
    pillion credential test NAME

For the OAuth types it does one real token request, from this process and by the
way that the configuration bounds (upstream.allow, ca_file, proxy), and says how
that went; the token is thrown away. The other types need no token: it says what
a request would carry. pillion try sends one.

Example:
    pillion credential test servicenow
`

func (a *app) credentialTest() *cobra.Command {
	return &cobra.Command{
		Use: "test", Short: "Try a stored credential out", Long: credentialTestUsage, Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, store, err := a.lookIntoStore()
			if err != nil {
				return err
			}
			c, err := creds.LoadCredential(cmd.Context(), store, args[0])
			if err != nil {
				return noSuchCredential(args[0], err)
			}
			keeper, err := a.keeper(cfg)
			if err != nil {
				return err
			}
			report := keeper.Check(cmd.Context(), c)
			for _, line := range report.Lines {
				fmt.Fprintln(a.stdout, line)
			}
			if !report.OK {
				return errors.New("the credential " + args[0] + " does not work as it is stored")
			}
			return nil
		},
	}
}

// keeper asks for tokens by the same way out as run does.
func (a *app) keeper(c *config) (*token.Keeper, error) {
	d := &daemon{app: a}
	settings, err := d.proxySettings(c)
	if err != nil {
		return nil, err
	}
	server := &proxy.Server{}
	server.Configure(settings)
	return &token.Keeper{HTTP: server.Upstream()}, nil
}
