package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"pillion/creds"
	"pillion/creds/vaultstore"
)

// checkVault asks Vault what run would ask it, with run's own login, and reports
// login, policies path by path, clock and credentials.
func (a *app) checkVault(ctx context.Context, c *config) error {
	client, err := vaultstore.New(*c.vault, a.getenv)
	if err != nil {
		return err
	}
	if c.vault.Auth.Wrapped {
		return a.checkWrapped(ctx, c, client)
	}
	live := c.liveOver(client.Stores()[0])
	readErr := live.Reload(ctx)
	report, err := client.Examine(ctx, wanted(c, live))
	if err != nil && report.Name == "" {
		return err
	}
	fmt.Fprintf(a.stdout, "store: %s: %s\n", c.storeName(), loginWords(report))
	if err != nil {
		fmt.Fprintf(a.stdout, "note: the policies cannot be examined: %s\n", oneLine(err.Error()))
	}
	if d := report.Ahead.Abs(); d > 5*time.Second {
		fmt.Fprintf(a.stdout, "note: Vault's clock is %v %s ours: set one of them\n", d.Round(time.Second), map[bool]string{true: "ahead of", false: "behind"}[report.Ahead > 0])
	}
	for _, gap := range report.Missing {
		fmt.Fprintf(a.stdout, "note: the policy lacks %s on %q: %s\n", gap.Capability, gap.Path, gap.Why)
	}
	for _, gap := range report.Excess {
		fmt.Fprintf(a.stdout, "note: the policy allows %s on %q, more than the configuration asks for: %s\n", gap.Capability, gap.Path, gap.Why)
	}
	if readErr != nil {
		return readErr
	}
	fmt.Fprintf(a.stdout, "store: %s\n", counted(live.Table().Len(), "credential"))
	a.noteCredentials(c, live)
	return nil
}

// checkWrapped looks at a wrapped secret id and leaves it to run, which could not
// log in any more if it were used here.
func (a *app) checkWrapped(ctx context.Context, c *config, client *vaultstore.Client) error {
	until, err := client.ExamineWrapping(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "store: %s: the wrapping token was not used yet, and is good for another %s\n", c.storeName(), time.Until(until).Round(time.Second))
	fmt.Fprintln(a.stdout, "note: login, policies and credentials are not examined, since that would use the wrapping token up: examine a second secret id of the role, not wrapped, with a configuration of its own")
	return nil
}

func loginWords(r vaultstore.Report) string {
	text := "logged in"
	if r.Name != "" {
		text += " as " + r.Name
	}
	if len(r.Policies) > 0 {
		text += ", policies " + strings.Join(r.Policies, ", ")
	}
	if !r.Expires.IsZero() {
		text += ", for " + time.Until(r.Expires).Round(time.Minute).String()
	}
	return text
}

// wanted is what the configuration needs of the policy.
func wanted(c *config, live *creds.Live) vaultstore.Want {
	want := vaultstore.Want{Names: c.names(), WithList: len(c.names()) == 0, Refreshes: c.refreshes()}
	if want.WithList {
		for _, credential := range live.Table().All() {
			want.Names = append(want.Names, credential.Name)
		}
		for _, bad := range live.Bad() {
			if !strings.ContainsAny(bad.Name, "/+* ") {
				want.Names = append(want.Names, bad.Name)
			}
		}
	}
	for _, name := range want.Names {
		if credential, ok := live.Table().ByName(name); ok && hasToken(credential) {
			want.Tokens = append(want.Tokens, name)
		}
	}
	return want
}
