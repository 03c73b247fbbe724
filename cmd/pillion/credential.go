package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pillion/creds"
	"pillion/creds/filestore"
	"pillion/creds/token"
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

// openStore opens the store that the configuration names, and makes it where
// there is none: for commands that write.
func (a *app) openStore() (*config, creds.Store, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	if c.vault != nil {
		store, err := a.operatorsVault(*c.vault)
		return c, store, err
	}
	store, err := filestore.Open(c.Store.File.Path, c.Store.File.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the credential store: %w", err)
	}
	return c, store, nil
}

// noStoreError says that there is nothing to read yet.
type noStoreError struct{ dir string }

func (e *noStoreError) Error() string {
	return "there is no credential store in " + e.dir + " yet: credential set makes one, or name another directory with --state"
}

// lookIntoStore is openStore for commands that only read: it makes nothing. Its
// error is a *noStoreError where there is no store yet; the configuration is
// returned even then.
func (a *app) lookIntoStore() (*config, creds.Store, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	if c.vault != nil {
		store, err := a.operatorsVault(*c.vault)
		return c, store, err
	}
	store, err := filestore.OpenExisting(c.Store.File.Path, c.Store.File.KeyFile)
	if errors.Is(err, filestore.ErrNoStore) {
		return c, nil, &noStoreError{filepath.Dir(c.Store.File.Path)}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("opening the credential store: %w", err)
	}
	return c, store, nil
}

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

const credentialGetUsage = `Show a credential. Of a secret it says that it is stored, never what it is.

Usage:
    pillion credential get NAME [-o text|json]

    -o, --output FORMAT  text (default) or json

Example:
    pillion credential get jira
`

func (a *app) credentialGet() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "get", Short: "Show a credential, without its secrets", Long: credentialGetUsage, Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "text", "json"); err != nil {
				return err
			}
			_, store, err := a.lookIntoStore()
			if err != nil {
				return err
			}
			c, stored, err := creds.LoadPublic(cmd.Context(), store, args[0])
			if err != nil {
				return noSuchCredential(args[0], err)
			}
			fields := publicFields(c, stored)
			if output == "json" {
				return printJSON(a.stdout, fieldsObject(fields))
			}
			for _, f := range fields {
				fmt.Fprintf(a.stdout, "%s: %v\n", f.name, f.value)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "")
	return cmd
}

func noSuchCredential(name string, err error) error {
	if errors.Is(err, creds.ErrNotFound) || isBadName(name) {
		return fmt.Errorf("there is no credential %q; pillion credential list shows those that are", name)
	}
	return fmt.Errorf("reading the credential %s: %w", name, err)
}

type publicField struct {
	name  string
	value any
}

// publicFields are the fields that are set, under the names of the import file.
func publicFields(c *creds.Credential, stored []string) []publicField {
	var fields []publicField
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, publicField{name, value})
		}
	}
	add("name", c.Name)
	add("protocol", string(c.Protocol))
	add("url", c.URL)
	add("authorization", string(c.Authorization))
	add("username", c.Username)
	add("header_name", c.HeaderName)
	if c.HeaderPrefix != nil {
		fields = append(fields, publicField{"header_prefix", *c.HeaderPrefix})
	}
	add("api_key_header", c.APIKeyHeader)
	add("api_key_query", c.APIKeyQuery)
	add("client_id", c.ClientID)
	add("access_token_url", c.AccessTokenURL)
	add("authorization_url", c.AuthorizationURL)
	add("scope", c.Scope)
	add("auth_style", string(c.AuthStyle))
	for _, name := range sortedKeys(c.Params) {
		add("param."+name, c.Params[name])
	}
	for _, name := range sortedKeys(c.AuthorizationParams) {
		add("authorization_param."+name, c.AuthorizationParams[name])
	}
	if c.TokenLifetime != 0 {
		add("token_lifetime", c.TokenLifetime.String())
	}
	if c.RefreshTokenLifetime != 0 {
		add("refresh_token_lifetime", c.RefreshTokenLifetime.String())
	}
	if c.Unshared {
		add("share", "false")
	}
	for _, key := range c.HostKeys {
		add("host_key", key)
	}
	for _, name := range slices.Sorted(slices.Values(stored)) {
		add(strings.Replace(name, "header:", "header.", 1), "stored")
	}
	return fields
}

func fieldsObject(fields []publicField) map[string]any {
	object := map[string]any{}
	for _, f := range fields {
		if f.name == "host_key" {
			keys, _ := object[f.name].([]any)
			object[f.name] = append(keys, f.value)
			continue
		}
		object[f.name] = f.value
	}
	return object
}

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
