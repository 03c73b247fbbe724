package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pillion/creds"
)

const credentialImportUsage = `Store all credentials of a file, or none of them.

Usage:
    pillion credential import FILE.yaml
    pillion credential import --from file|vault --to vault|file

The file has a list "credentials"; each entry has the field names of credential
set with underscores, and deploy/credentials.example.yaml shows every type.
Secrets stand in files of their own (password_file: F, relative to FILE.yaml), or
in the file itself (password: ...), which then needs the care of a key.
Everything is examined before anything is written, and all problems are listed
with their lines. A credential that exists is replaced whole.

    --from STORE  copy from a store instead: file, the embedded one, or vault
    --to STORE    the store to copy to: vault or file

Copying needs both stores: the embedded one is that of the state directory or of
store.file, Vault is store.vault's or, without that, VAULT_ADDR's. The copy has the
secrets; what it was copied from stays as it is.

Example:
    pillion credential import credentials.yaml
    pillion credential import --from file --to vault
`

// importFile is what import reads. The tags are the names of its fields.
type importFile struct {
	Credentials []imported `yaml:"credentials"`
}

type imported struct {
	Name             string            `yaml:"name"`
	Protocol         string            `yaml:"protocol"`
	URL              string            `yaml:"url"`
	Preset           string            `yaml:"preset"`
	Authorization    string            `yaml:"authorization"`
	Username         string            `yaml:"username"`
	Password         *string           `yaml:"password"`
	PasswordFile     string            `yaml:"password_file"`
	Token            *string           `yaml:"token"`
	TokenFile        string            `yaml:"token_file"`
	HeaderName       string            `yaml:"header_name"`
	HeaderPrefix     *string           `yaml:"header_prefix"`
	APIKey           *string           `yaml:"api_key"`
	APIKeyFile       string            `yaml:"api_key_file"`
	APIKeyHeader     string            `yaml:"api_key_header"`
	APIKeyQuery      string            `yaml:"api_key_query"`
	ClientID         string            `yaml:"client_id"`
	ClientSecret     *string           `yaml:"client_secret"`
	ClientSecretFile string            `yaml:"client_secret_file"`
	AccessTokenURL   string            `yaml:"access_token_url"`
	AuthorizationURL string            `yaml:"authorization_url"`
	Scope            string            `yaml:"scope"`
	AuthStyle        string            `yaml:"auth_style"`
	Param            map[string]string `yaml:"param"`
	AuthParam        map[string]string `yaml:"authorization_param"`
	TokenLifetime    time.Duration     `yaml:"token_lifetime"`
	RefreshLifetime  time.Duration     `yaml:"refresh_token_lifetime"`
	Share            *bool             `yaml:"share"`
	Header           map[string]string `yaml:"header"`
	HeaderFile       map[string]string `yaml:"header_file"`
	PrivateKey       *string           `yaml:"private_key"`
	PrivateKeyFile   string            `yaml:"private_key_file"`
	LoginTemplate    string            `yaml:"login_template"` // a file, as for credential set
	HostKey          []string          `yaml:"host_key"`
}

func (a *app) credentialImport() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use: "import", Short: "Store all credentials of a file", Long: credentialImportUsage,
		Args: func(cmd *cobra.Command, args []string) error {
			if from != "" || to != "" {
				return noArguments(cmd, args)
			}
			return exactly("FILE.yaml")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if from != "" || to != "" {
				return a.copyCredentials(cmd.Context(), from, to)
			}
			return a.importCredentials(cmd.Context(), args[0])
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "")
	cmd.Flags().StringVar(&to, "to", "", "")
	return cmd
}

func (a *app) importCredentials(ctx context.Context, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading %s: %s", file, fileProblem(err))
	}
	all, err := parseImport(file, data, secretBeside(filepath.Dir(file)))
	if err != nil {
		return err
	}
	cfg, store, err := a.openStore()
	if err != nil {
		return err
	}
	for _, c := range all {
		old, _, err := creds.LoadPublic(ctx, store, c.Name)
		switch {
		case errors.Is(err, creds.ErrNotFound):
		case err != nil:
			return fmt.Errorf("nothing was stored: reading the credential %s that is there: %w", c.Name, err)
		default:
			c.Version = old.Version
		}
	}
	for i, c := range all {
		if err := creds.Save(ctx, store, c); err != nil {
			return fmt.Errorf("%d of %d were stored; storing %s: %w", i, len(all), c.Name, err)
		}
	}
	a.reloadRunning(ctx, cfg)
	for _, names := range creds.NewTable(all).Overlaps() {
		fmt.Fprintf(a.stderr, "pillion: %s have the same instance URL: a request must choose by name, as the proxy user\n", strings.Join(names, ", "))
	}
	fmt.Fprintf(a.stdout, "stored %s\n", counted(len(all), "credential"))
	return nil
}

// secretBeside reads the secret files that an import file in dir names. Standard
// input is none of them: it could be only one's.
func secretBeside(dir string) func(string) (creds.Secret, error) {
	return func(file string) (creds.Secret, error) {
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		return readSecretFile(file)
	}
}

// parseImport returns the file's credentials, all of them valid, or every
// problem with its line. No message holds a secret.
func parseImport(file string, data []byte, readSecret func(file string) (creds.Secret, error)) ([]*creds.Credential, error) {
	var f importFile
	d := readStrict(filepath.Base(file), data, &f)
	if len(d.problems) == 0 && len(f.Credentials) == 0 {
		d.add("credentials", "there is none: write a list of credentials")
	}
	var all []*creds.Credential
	lines := map[string]string{}
	for i := range f.Credentials {
		path := fmt.Sprintf("credentials[%d]", i)
		c := f.Credentials[i].credential(d, path, readSecret)
		if first, twice := lines[c.Name]; twice && c.Name != "" {
			d.add(path+".name", "%q stands in the file twice, first at %s: rename or remove one", c.Name, first)
		} else {
			lines[c.Name] = d.place(path + ".name")
		}
		var invalid *creds.InvalidError
		if err := c.Validate(); errors.As(err, &invalid) {
			for _, field := range invalid.Fields {
				d.addOnce(path+"."+field.Field, field.Problem)
			}
		} else if err != nil {
			d.add(path, "%v", err)
		}
		all = append(all, c)
	}
	if len(d.problems) > 0 {
		byLine(d.problems)
		return nil, &problemsError{"nothing was stored: " + filepath.Base(file), d.problems}
	}
	return all, nil
}

// addOnce reports what Validate says, unless the field could not even be read.
func (d *document) addOnce(path, text string) {
	for _, p := range d.problems {
		if p.path == path || strings.HasPrefix(p.path, path+"_file") {
			return
		}
	}
	d.add(path, "%s", text)
}

func (in *imported) credential(d *document, path string, readSecret func(string) (creds.Secret, error)) *creds.Credential {
	c := &creds.Credential{
		Name: in.Name, Protocol: creds.Protocol(in.Protocol), URL: in.URL,
		Authorization: creds.AuthorizationType(in.Authorization), Username: in.Username, HostKeys: in.HostKey,
		HeaderName: in.HeaderName, HeaderPrefix: in.HeaderPrefix, APIKeyHeader: in.APIKeyHeader, APIKeyQuery: in.APIKeyQuery,
		ClientID: in.ClientID, AccessTokenURL: in.AccessTokenURL, AuthorizationURL: in.AuthorizationURL,
		Scope: in.Scope, AuthStyle: creds.AuthStyle(in.AuthStyle), Params: in.Param,
		AuthorizationParams: in.AuthParam, TokenLifetime: in.TokenLifetime, RefreshTokenLifetime: in.RefreshLifetime, Unshared: in.Share != nil && !*in.Share,
	}
	if c.Protocol == "" {
		c.Protocol = protocolOf(c.URL)
	}
	if _, err := applyPreset(in.Preset, c); err != nil {
		d.add(path+".preset", "%s", strings.TrimPrefix(err.Error(), "--preset: "))
	}
	read := func(field, file string) creds.Secret {
		secret, err := readSecret(file)
		if err != nil {
			d.add(path+"."+field, "%v", err)
		}
		return secret
	}
	for _, s := range []struct {
		name   string
		inline *string
		file   string
		into   *creds.Secret
	}{
		{"password", in.Password, in.PasswordFile, &c.Password},
		{"token", in.Token, in.TokenFile, &c.Token},
		{"api_key", in.APIKey, in.APIKeyFile, &c.APIKey},
		{"client_secret", in.ClientSecret, in.ClientSecretFile, &c.ClientSecret},
		{"private_key", in.PrivateKey, in.PrivateKeyFile, &c.PrivateKey},
	} {
		switch {
		case s.inline != nil && s.file != "":
			d.add(path+"."+s.name, "stands here and as %s_file: keep one", s.name)
		case s.inline != nil:
			*s.into = creds.NewSecret(*s.inline)
		case s.file != "":
			*s.into = read(s.name+"_file", s.file)
		}
	}
	if in.LoginTemplate != "" {
		c.LoginTemplate = read("login_template", in.LoginTemplate)
	}
	for _, name := range sortedKeys(in.Header) {
		c.Headers = append(c.Headers, creds.Header{Name: name, Value: creds.NewSecret(in.Header[name])})
	}
	for _, name := range sortedKeys(in.HeaderFile) {
		if slices.ContainsFunc(c.Headers, func(h creds.Header) bool { return strings.EqualFold(h.Name, name) }) {
			d.add(path+".header_file", "%s stands under header and header_file: keep one", printableKey(name))
		}
		c.Headers = append(c.Headers, creds.Header{Name: name, Value: read("header_file."+printableKey(name), in.HeaderFile[name])})
	}
	return c
}
