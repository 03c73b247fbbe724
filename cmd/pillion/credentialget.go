package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pillion/creds"
)

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
