package main

import (
	"errors"

	"github.com/spf13/cobra"

	"pillion/creds"
	"pillion/creds/token"
	"pillion/proxy"
)

const credentialTestUsage = `Try a stored credential out.

Usage:
    pillion credential test NAME

For the types that fetch a token it does one real token request, by the way that the
configuration bounds (upstream.allow, ca_file, proxy), and says how that went. Where
a token needs no consent it is thrown away; of oauth2-authorization-code the grant
is renewed, and the new token serves from now on. The other types need no token: it
says what a request would carry. pillion try sends one.

For SFTP it connects to the server once, checks the pinned host key, logs in and asks
for an SFTP session. A refused login is not tried again: servers lock accounts.

Over the embedded store this process asks. Over Vault a running refresher does, since
client secrets and refresh tokens are for refreshers alone; a login at an SFTP server
needs a token of Vault that may read the password.

Example:
    pillion credential test servicenow
`

func (a *app) credentialTest() *cobra.Command {
	return &cobra.Command{
		Use: "test", Short: "Try a stored credential out", Long: credentialTestUsage, Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := a.openGrant(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if g.credential.Protocol == creds.SFTP {
				return a.testSFTP(cmd.Context(), g)
			}
			var report token.Report
			if hasToken(g.credential) {
				report, err = g.do(cmd.Context(), token.OpTest)
			} else {
				report = (&token.Keeper{}).Check(cmd.Context(), g.credential)
			}
			if err = a.told(report, err); err != nil && !report.OK && len(report.Lines) > 0 {
				return errors.New("the credential " + args[0] + " does not work as it is stored")
			}
			return err
		},
	}
}

const credentialRefreshUsage = `Have a new token fetched now, although the old one may still be good.

Usage:
    pillion credential refresh NAME

For the types that fetch a token; every process that uses the credential takes the
new one up by itself. Useful after a change at the provider, such as another role
or scope. Over Vault a running refresher does it.

Example:
    pillion credential refresh servicenow
`

func (a *app) credentialRefresh() *cobra.Command {
	return &cobra.Command{
		Use: "refresh", Short: "Have a new token fetched now", Long: credentialRefreshUsage, Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			g, err := a.openGrant(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !hasToken(g.credential) {
				return errors.New(args[0] + " has no token to refresh: its authorization type is " + string(g.credential.Authorization))
			}
			if g.credential.Unshared {
				return errors.New(args[0] + " has a token of its own in each process (share: false), and none that could be refreshed for all; to try it out: pillion credential test " + args[0])
			}
			return a.told(g.do(cmd.Context(), token.OpRefresh))
		},
	}
}

// keeper asks for tokens by the same way out as run does.
func (a *app) keeper(c *config) (*token.Keeper, error) {
	out, err := a.wayOut(c)
	if err != nil {
		return nil, err
	}
	return &token.Keeper{HTTP: out.Upstream()}, nil
}

// wayOut is the one that run uses, as the configuration bounds it.
func (a *app) wayOut(c *config) (*proxy.Server, error) {
	d := &daemon{app: a}
	settings, err := d.proxySettings(c)
	if err != nil {
		return nil, err
	}
	server := &proxy.Server{}
	server.Configure(settings)
	return server, nil
}

// hasToken reports whether c's authorization is fetched.
func hasToken(c *creds.Credential) bool {
	return isOAuth2(c.Authorization) || c.Authorization == creds.Login
}
