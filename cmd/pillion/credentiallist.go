package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pillion/creds"
	"pillion/creds/token"
)

const credentialListUsage = `List the stored credentials, and how their tokens stand.

Usage:
    pillion credential list [-o text|json]

    -o, --output FORMAT  text (default) or json

STATE is what the running pillion says, or else what the store has:
    ok             there is a token
    degraded       the last attempt to renew it failed; it is tried again by itself
    needs_consent  a person has to connect the credential (again)
    config_error   the provider refuses: something has to be edited
    none           nobody has used it lately: the first request fetches a token
    static         the type needs no token
    not known      no pillion runs here, and no refresher has told the store

Example:
    pillion credential list -o json
`

// listed is a credential in the list.
type listed struct {
	Name          string   `json:"name"`
	Protocol      string   `json:"protocol,omitempty"`
	URL           string   `json:"url,omitempty"`
	Authorization string   `json:"authorization,omitempty"`
	Problem       string   `json:"problem,omitempty"`
	SameURL       []string `json:"same_url,omitempty"`

	// Of the token: see tokenState.
	State     string     `json:"state,omitempty"`
	Expires   *time.Time `json:"expires,omitempty"`
	GrantEnds *time.Time `json:"grant_ends,omitempty"`
	Error     string     `json:"error,omitempty"` // of the last token request, if it failed
}

func (a *app) credentialList() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "The stored credentials", Long: credentialListUsage, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "text", "json"); err != nil {
				return err
			}
			all, err := a.storedCredentials(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(a.stdout, all)
			}
			printList(a.stdout, all)
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "")
	return cmd
}

// storedCredentials is the list; of a store that is not there yet, an empty one.
func (a *app) storedCredentials(ctx context.Context) ([]listed, error) {
	cfg, store, err := a.lookIntoStore()
	var none *noStoreError
	switch {
	case errors.As(err, &none):
		fmt.Fprintln(a.stderr, "pillion: "+none.Error())
		return []listed{}, nil
	case err != nil:
		return nil, err
	}
	all, err := creds.ListPublic(ctx, store)
	if err != nil {
		return nil, err
	}
	if all.Hidden > 0 {
		fmt.Fprintf(a.stderr, "note: %s more that this login may not read\n", counted(all.Hidden, "credential"))
	}
	running, _ := newAdminClient(cfg.adminSocket()).status(ctx) // none is no error here
	return listCredentials(all.Credentials, all.Bad, tokenStates(ctx, running, store, all.Credentials)), nil
}

func listCredentials(usable []*creds.Credential, bad []creds.BadRecord, states map[string]tokenState) []listed {
	all := []listed{}
	for _, c := range usable {
		t := states[c.Name]
		all = append(all, listed{
			Name: c.Name, Protocol: string(c.Protocol), URL: c.URL, Authorization: string(c.Authorization),
			State: t.State, Expires: t.Expires, GrantEnds: t.GrantEnds, Error: t.Error,
		})
	}
	for _, b := range bad {
		all = append(all, listed{Name: b.Name, Problem: oneLine(b.Problem)})
	}
	slices.SortFunc(all, func(a, b listed) int { return strings.Compare(a.Name, b.Name) })
	for _, names := range creds.NewTable(usable).Overlaps() {
		for i := range all {
			if slices.Contains(names, all[i].Name) {
				all[i].SameURL = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == all[i].Name })
			}
		}
	}
	return all
}

func printList(w io.Writer, all []listed) {
	if len(all) == 0 {
		fmt.Fprintln(w, "no credentials; pillion help credential set says how to make one")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tURL\tAUTHORIZATION\tSTATE\tNOTE")
	for _, l := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", l.Name, l.URL, l.Authorization, l.State, l.note(time.Now()))
	}
	_ = t.Flush()
}

// note is what somebody should look at.
func (l listed) note(now time.Time) string {
	var notes []string
	add := func(note string) {
		if note != "" {
			notes = append(notes, note)
		}
	}
	add(l.Problem)
	if len(l.SameURL) > 0 {
		add("same URL as " + strings.Join(l.SameURL, ", ") + ": ambiguous")
	}
	if l.State == string(token.StatusNeedsConsent) {
		add("pillion credential connect " + l.Name)
	} else if l.State != unknownState {
		add(l.Error)
	}
	add(grantNote(tokenState{GrantEnds: l.GrantEnds}, now))
	return strings.Join(notes, "; ")
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
