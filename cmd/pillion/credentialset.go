package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"pillion/creds"
)

const credentialSetUsage = `Make a credential, or change one: what is not given stays as it is.

Usage:
    pillion credential set NAME --url URL --authorization TYPE [FLAGS]
    pillion credential set NAME --url URL --preset TOOL [FLAGS]

    --url URL             instance URL: https://host[:port]/[prefix/] or sftp://host:port/
    --authorization TYPE  none, basic, bearer, api-key, oauth2-client-credentials,
                          oauth2-authorization-code, oauth2-password, login
    --preset TOOL         fill in what the tool's type needs, as far as it is not given:
                          4me, bmc, cherwell, freshservice, ivanti, jira, servicenow
  basic, oauth2-password, login:
    --username NAME
    --password-file F
  bearer:
    --token-file F
  bearer, oauth2, login:
    --header-name N       what carries the token: default Authorization
    --header-prefix P     before the token: default Bearer, in another header nothing;
                          may be "" or end in = to stand without a space
  api-key:
    --api-key-file F
    --api-key-header N    send it in this header,
    --api-key-query N     or in this query parameter
  oauth2:
    --client-id ID
    --client-secret-file F
    --access-token-url URL
    --authorization-url URL
    --scope S
    --auth-style STYLE    client id and secret in a header (default) or body
    --authorization-param K=V  one more parameter of the authorization URL; repeatable
    --refresh-token-lifetime D  oauth2-authorization-code: how long a consent is good
                          for, where the provider does not say it: 2400h
    --share=false         oauth2-client-credentials: a token of its own for each process
  oauth2, login:
    --param K=V           one more parameter of the token request, or one that the
                          template refers to; repeatable
    --token-lifetime D    how long a token lives whose answer does not say it: 30m
  login:
    --access-token-url URL
    --login-template F    the request that returns a token
  any:
    --header-file NAME=F  one more header field, its value from a file; repeatable
    --remove SECRET       take a stored secret away: header:NAME, or one that the
                          type does not need, such as client_secret; repeatable
  sftp:
    --private-key-file F  instead of a password
    --host-key LINE       a key of the server, as in known_hosts; repeatable

A secret is never a flag's value: F is a file, or - for standard input (one of
them). One line end at its end is dropped. Changing host, port, token URL or host
key asks for all secrets again, so that a stored one cannot be aimed elsewhere.

Example:
    pillion credential set jira --url https://example.atlassian.net/ \
        --authorization basic --username me@example.com --password-file -
    pillion credential set bmc --url https://example-restapi.onbmc.com/ --preset bmc \
        --username integration --password-file password.txt
`

// setFlags are the flags of credential set.
type setFlags struct {
	url, authorization, preset, username       string
	headerName, headerPrefix                   string
	clientID, accessTokenURL, authorizationURL string
	scope, authStyle                           string
	apiKeyHeader, apiKeyQuery                  string
	tokenLifetime, refreshTokenLifetime        time.Duration
	share                                      bool
	params, authorizationParams, headerFiles   []string
	hostKeys, remove                           []string
	files                                      map[string]*string // flag -> file
}

// secretFlags are the flags that name a secret's file, and the secret's name.
var secretFlags = []struct{ flag, secret string }{
	{"password-file", "password"},
	{"token-file", "token"},
	{"api-key-file", "api_key"},
	{"client-secret-file", "client_secret"},
	{"private-key-file", "private_key"},
	{"login-template", "login_template"},
}

func (a *app) credentialSet() *cobra.Command {
	f := &setFlags{files: map[string]*string{}}
	cmd := &cobra.Command{
		Use: "set", Aliases: []string{"add"}, Short: "Make or change a credential", Long: credentialSetUsage, Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setCredential(cmd.Context(), args[0], f, cmd.Flags())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.url, "url", "", "")
	flags.StringVar(&f.authorization, "authorization", "", "")
	flags.StringVar(&f.preset, "preset", "", "")
	flags.StringVar(&f.username, "username", "", "")
	flags.StringVar(&f.headerName, "header-name", "", "")
	flags.StringVar(&f.headerPrefix, "header-prefix", "", "")
	flags.StringVar(&f.clientID, "client-id", "", "")
	flags.StringVar(&f.accessTokenURL, "access-token-url", "", "")
	flags.StringVar(&f.authorizationURL, "authorization-url", "", "")
	flags.StringVar(&f.scope, "scope", "", "")
	flags.StringVar(&f.authStyle, "auth-style", "", "")
	flags.StringVar(&f.apiKeyHeader, "api-key-header", "", "")
	flags.StringVar(&f.apiKeyQuery, "api-key-query", "", "")
	flags.DurationVar(&f.tokenLifetime, "token-lifetime", 0, "")
	flags.DurationVar(&f.refreshTokenLifetime, "refresh-token-lifetime", 0, "")
	flags.BoolVar(&f.share, "share", true, "")
	flags.StringArrayVar(&f.params, "param", nil, "")
	flags.StringArrayVar(&f.authorizationParams, "authorization-param", nil, "")
	flags.StringArrayVar(&f.headerFiles, "header-file", nil, "")
	flags.StringArrayVar(&f.hostKeys, "host-key", nil, "")
	flags.StringArrayVar(&f.remove, "remove", nil, "")
	for _, s := range secretFlags {
		f.files[s.flag] = flags.String(s.flag, "", "")
	}
	return cmd
}

func (a *app) setCredential(ctx context.Context, name string, f *setFlags, given *pflag.FlagSet) error {
	cfg, store, err := a.openStore()
	if err != nil {
		return err
	}
	old, stored, err := creds.LoadPublic(ctx, store, name)
	if errors.Is(err, creds.ErrNotFound) || isBadName(name) {
		old, stored, err = nil, nil, nil
		if f.authorization == "" && protocolOf(f.url) == creds.SFTP {
			f.authorization = string(creds.Basic) // there is no other
			given.Lookup("authorization").Changed = true
		}
		if f.url == "" || f.authorization == "" && f.preset == "" {
			return usagef("there is no credential %q yet: to make it, --url and --authorization are needed, or --url and --preset", name)
		}
	}
	if err != nil {
		return fmt.Errorf("reading the credential %s: %w", name, err)
	}
	c, stored := startingPoint(name, old, stored, f, given)
	if err := f.apply(c, given); err != nil {
		return err
	}
	if stored, err = f.removeStored(c, stored); err != nil {
		return err
	}
	note, err := applyPreset(f.preset, c)
	if err != nil {
		return err
	}
	fresh, err := a.readSecrets(c, f, given)
	if err != nil {
		return err
	}
	keep := slices.DeleteFunc(slices.Clone(stored), func(s string) bool { return slices.Contains(fresh, s) })
	if err := creds.Update(ctx, store, c, keep); err != nil {
		return storeProblem("storing the credential "+name, err)
	}
	a.reloadRunning(ctx, cfg)
	if old == nil {
		fmt.Fprintln(a.stdout, "made "+name)
	} else {
		fmt.Fprintln(a.stdout, "changed "+name)
	}
	if note != "" {
		fmt.Fprintf(a.stderr, "note: %s\n", note)
	}
	if c.Authorization == creds.AuthorizationCode && old == nil {
		fmt.Fprintf(a.stderr, "note: %s is stored, but a person must consent to it: pillion credential connect %s\n", c.Name, c.Name)
	}
	return nil
}

// applyPreset fills what c leaves open; without a preset nothing.
func applyPreset(name string, c *creds.Credential) (note string, err error) {
	if name == "" {
		return "", nil
	}
	preset, err := creds.FindPreset(name)
	if err != nil {
		return "", usagef("--preset: %v", err)
	}
	left, err := preset.Apply(c)
	return left.Note, err
}

// startingPoint returns what the flags are laid over: the stored credential,
// without what only its former type had.
func startingPoint(name string, old *creds.Credential, stored []string, f *setFlags, given *pflag.FlagSet) (*creds.Credential, []string) {
	if old == nil {
		return &creds.Credential{Name: name}, nil
	}
	c := *old
	c.Headers = slices.Clone(old.Headers)
	to := creds.AuthorizationType(f.authorization)
	if !given.Changed("authorization") || to == old.Authorization {
		return &c, stored
	}
	reset := creds.Credential{
		Name: c.Name, Protocol: c.Protocol, URL: c.URL, Authorization: to, HostKeys: c.HostKeys, Headers: c.Headers, Version: c.Version,
	}
	kept := func(secret string) bool { return strings.HasPrefix(secret, "header:") }
	if isOAuth2(old.Authorization) && isOAuth2(to) {
		reset.ClientID, reset.AccessTokenURL, reset.Scope = c.ClientID, c.AccessTokenURL, c.Scope
		reset.AuthStyle, reset.Params, reset.TokenLifetime = c.AuthStyle, c.Params, c.TokenLifetime
		reset.HeaderName, reset.HeaderPrefix = c.HeaderName, c.HeaderPrefix
		kept = func(secret string) bool { return strings.HasPrefix(secret, "header:") || secret == "client_secret" }
	}
	return &reset, slices.DeleteFunc(slices.Clone(stored), func(s string) bool { return !kept(s) })
}

// isBadName reports whether no credential can have name: nothing is stored under
// it then, and the validation of the new one says what is wrong.
func isBadName(name string) bool {
	var invalid *creds.InvalidError
	return errors.As((&creds.Credential{Name: name}).Validate(), &invalid) &&
		slices.ContainsFunc(invalid.Fields, func(f creds.FieldError) bool { return f.Field == "name" })
}

// protocolOf takes a URL without a known prefix for an https one: what is wrong
// with it is then said of the URL, and not of a field that nobody fills in.
func protocolOf(rawURL string) creds.Protocol {
	return cmp.Or(creds.ProtocolOf(rawURL), creds.HTTPS)
}

func isOAuth2(t creds.AuthorizationType) bool { return strings.HasPrefix(string(t), "oauth2-") }

// apply sets the public fields that were given.
func (f *setFlags) apply(c *creds.Credential, given *pflag.FlagSet) error {
	for flag, set := range map[string]func(){
		"url":                    func() { c.URL, c.Protocol = f.url, protocolOf(f.url) },
		"authorization":          func() { c.Authorization = creds.AuthorizationType(f.authorization) },
		"username":               func() { c.Username = f.username },
		"header-name":            func() { c.HeaderName = f.headerName },
		"header-prefix":          func() { c.HeaderPrefix = &f.headerPrefix },
		"client-id":              func() { c.ClientID = f.clientID },
		"access-token-url":       func() { c.AccessTokenURL = f.accessTokenURL },
		"authorization-url":      func() { c.AuthorizationURL = f.authorizationURL },
		"scope":                  func() { c.Scope = f.scope },
		"auth-style":             func() { c.AuthStyle = creds.AuthStyle(f.authStyle) },
		"token-lifetime":         func() { c.TokenLifetime = f.tokenLifetime },
		"refresh-token-lifetime": func() { c.RefreshTokenLifetime = f.refreshTokenLifetime },
		"share":                  func() { c.Unshared = !f.share },
		"api-key-header":         func() { c.APIKeyHeader, c.APIKeyQuery = f.apiKeyHeader, "" },
		"api-key-query":          func() { c.APIKeyQuery, c.APIKeyHeader = f.apiKeyQuery, "" },
		"host-key":               func() { c.HostKeys = f.hostKeys },
	} {
		if given.Changed(flag) {
			set()
		}
	}
	if given.Changed("api-key-header") && given.Changed("api-key-query") {
		return usagef("--api-key-header and --api-key-query exclude one another: keep one")
	}
	for _, list := range []struct {
		flag  string
		given []string
		into  *map[string]string
	}{{"param", f.params, &c.Params}, {"authorization-param", f.authorizationParams, &c.AuthorizationParams}} {
		if !given.Changed(list.flag) {
			continue
		}
		params, err := pairs("--"+list.flag, list.given)
		if err != nil {
			return err
		}
		*list.into = params
	}
	return nil
}

// removeStored takes away what --remove names, and returns what is still stored.
// Whether the type can do without is for the validation to say.
func (f *setFlags) removeStored(c *creds.Credential, stored []string) ([]string, error) {
	left := slices.Clone(stored)
	for _, name := range f.remove {
		if header, ok := strings.CutPrefix(name, "header."); ok {
			name = "header:" + header // as credential get shows it
		}
		same := func(s string) bool { return strings.EqualFold(s, name) }
		if !slices.ContainsFunc(left, same) {
			return nil, fmt.Errorf("--remove: %s has no such stored secret; pillion credential get %s shows those that it has", c.Name, c.Name)
		}
		left = slices.DeleteFunc(left, same)
		c.Headers = slices.DeleteFunc(c.Headers, func(h creds.Header) bool { return same("header:" + h.Name) })
	}
	return left, nil
}

func pairs(flag string, list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, entry := range list {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, usagef("%s must be written NAME=VALUE", flag)
		}
		if _, twice := m[name]; twice {
			return nil, usagef("%s names %s twice", flag, name)
		}
		m[name] = value
	}
	return m, nil
}

// readSecrets reads the secrets that were given, and returns their names.
func (a *app) readSecrets(c *creds.Credential, f *setFlags, given *pflag.FlagSet) ([]string, error) {
	reader := &secretReader{stdin: a.stdin}
	var fresh []string
	if !c.LoginTemplate.IsZero() {
		fresh = append(fresh, "login_template") // of the preset
	}
	for _, s := range secretFlags {
		if !given.Changed(s.flag) {
			continue
		}
		value, err := reader.read(*f.files[s.flag])
		if err != nil {
			return nil, fmt.Errorf("reading --%s: %w", s.flag, err)
		}
		*secretField(c, s.secret) = value
		fresh = append(fresh, s.secret)
	}
	if !given.Changed("header-file") {
		return fresh, nil
	}
	files, err := pairs("--header-file", f.headerFiles)
	if err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(files) {
		value, err := reader.read(files[name])
		if err != nil {
			return nil, fmt.Errorf("reading --header-file of %s: %w", name, err)
		}
		c.Headers = slices.DeleteFunc(c.Headers, func(h creds.Header) bool { return strings.EqualFold(h.Name, name) })
		c.Headers = append(c.Headers, creds.Header{Name: name, Value: value})
		fresh = append(fresh, "header:"+name)
	}
	return fresh, nil
}

// secretField is the field of a secret's name in records and import files.
func secretField(c *creds.Credential, name string) *creds.Secret {
	switch name {
	case "password":
		return &c.Password
	case "token":
		return &c.Token
	case "api_key":
		return &c.APIKey
	case "client_secret":
		return &c.ClientSecret
	case "private_key":
		return &c.PrivateKey
	case "login_template":
		return &c.LoginTemplate
	}
	panic("no secret is called " + name)
}

// storeProblem leaves the sentences about a credential's fields as they are.
func storeProblem(doing string, err error) error {
	var invalid *creds.InvalidError
	if errors.As(err, &invalid) {
		return invalid
	}
	return fmt.Errorf("%s: %w", doing, err)
}
