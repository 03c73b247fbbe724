package vaultstore

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says which Vault, which part of it, and who we are there. The zero value
// takes everything from the VAULT_ variables that Vault's own command reads.
type Config struct {
	// Address is Vault's URL, such as https://vault.example:8200. VAULT_ADDR is
	// stronger. There is no default: a wrong guess would send a login elsewhere.
	Address string
	// Namespace is that of Vault Enterprise; the community edition ignores it.
	// VAULT_NAMESPACE is stronger.
	Namespace string
	// Mount is where the KV version 2 engine is mounted. If empty, "pillion".
	Mount string
	// Prefixes are the paths inside the mount that hold credentials, one a team:
	// "team-a", or "" for the mount's root. If empty, the root alone. The first is
	// where new credentials go.
	Prefixes []string
	// Auth says who we are.
	Auth Auth
	// CAFile holds the authorities of Vault's certificate, in PEM form, instead of
	// the system's. VAULT_CACERT and VAULT_CAPATH are stronger.
	CAFile string
	// SkipVerify accepts any certificate. VAULT_SKIP_VERIFY alone does not.
	SkipVerify bool
	// MaxStale and MaxDenied are creds.Live's. If zero, 12 h and 5 min.
	MaxStale, MaxDenied time.Duration
	// Cache keeps what was read last, sealed, in the state directory. It is for
	// cmd: this package writes no file.
	Cache bool
}

// Auth is a login.
type Auth struct {
	// Method is one of Methods. If empty, the token of the environment: VAULT_TOKEN,
	// or the file ~/.vault-token that "vault login" writes.
	Method string
	// Role is the role of kubernetes and jwt.
	Role string
	// Path is where the method is mounted, under auth/. If empty, its name.
	Path string
	// TokenFile is the projected token of kubernetes and jwt, read at each login
	// (for kubernetes there is a default), or for "token" Vault's own.
	TokenFile string
	// RoleID or RoleIDFile, and SecretIDFile, are approle's. Wrapped says that the
	// file holds a wrapping token, which gives the secret id once.
	RoleID, RoleIDFile, SecretIDFile string
	Wrapped                          bool
}

// Methods are the logins: what store.vault.auth.method may say.
var Methods = []string{"kubernetes", "jwt", "approle", "token"}

// The defaults of Config.
const (
	DefaultMount     = "pillion"
	DefaultMaxStale  = 12 * time.Hour
	DefaultMaxDenied = 5 * time.Minute
	kubernetesToken  = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path
)

// FieldError says what is wrong with one field, by the name that it has in the
// configuration file.
type FieldError struct {
	Field   string // such as "auth.role"
	Problem string
}

// WithEnvironment returns the configuration as it will be used: defaults filled
// in, and the VAULT_ variables laid over it.
func (c Config) WithEnvironment(getenv func(string) string) Config {
	for _, v := range []struct {
		name  string
		field *string
	}{{"VAULT_ADDR", &c.Address}, {"VAULT_NAMESPACE", &c.Namespace}} {
		if value := getenv(v.name); value != "" {
			*v.field = value
		}
	}
	c.Address = strings.TrimRight(c.Address, "/")
	c.Mount = strings.Trim(c.Mount, "/")
	if c.Mount == "" {
		c.Mount = DefaultMount
	}
	prefixes := []string{}
	for _, p := range c.Prefixes {
		prefixes = append(prefixes, strings.Trim(p, "/"))
	}
	c.Prefixes = prefixes
	if len(prefixes) == 0 {
		c.Prefixes = []string{""}
	}
	if c.Auth.Path = strings.Trim(strings.TrimPrefix(strings.Trim(c.Auth.Path, "/"), "auth/"), "/"); c.Auth.Path == "" {
		c.Auth.Path = c.Auth.Method
	}
	if c.Auth.Method == "kubernetes" && c.Auth.TokenFile == "" {
		c.Auth.TokenFile = kubernetesToken
	}
	if c.MaxStale == 0 {
		c.MaxStale = DefaultMaxStale
	}
	if c.MaxDenied == 0 {
		c.MaxDenied = DefaultMaxDenied
	}
	return c
}

// Problems returns all that is wrong with a configuration that WithEnvironment
// returned, without asking Vault.
func (c Config) Problems(getenv func(string) string) []FieldError {
	var all []FieldError
	add := func(field, format string, args ...any) {
		all = append(all, FieldError{field, fmt.Sprintf(format, args...)})
	}
	if _, err := parseAddress(c.Address); err != nil {
		add("address", "%v", err)
	}
	if !cleanPath(c.Mount) {
		add("mount", "%q is no path of a mount: write one such as pillion", c.Mount)
	}
	for i, p := range c.Prefixes {
		field := fmt.Sprintf("prefixes[%d]", i)
		if p != "" && !cleanPath(p) {
			add(field, "%q is no path: write one such as team-a", p)
		}
		if slices.Index(c.Prefixes, p) != i {
			add(field, "%q stands in the list twice: remove one", p)
		}
	}
	c.Auth.problems(add)
	if c.MaxStale < 0 {
		add("max_stale", "must not be negative")
	}
	if c.MaxDenied < 0 {
		add("max_denied", "must not be negative")
	}
	skip, err := strconv.ParseBool(getenv("VAULT_SKIP_VERIFY"))
	switch {
	case getenv("VAULT_SKIP_VERIFY") == "":
	case err != nil:
		add("skip_verify", "VAULT_SKIP_VERIFY must be true or false")
	case skip && !c.SkipVerify:
		add("skip_verify", "VAULT_SKIP_VERIFY asks to accept any certificate, which would hand our login to whoever answers: unset it, and name Vault's authority in ca_file or VAULT_CACERT; or say skip_verify: true here as well")
	}
	return all
}

func (a Auth) problems(add func(field, format string, args ...any)) {
	if a.Method != "" && !slices.Contains(Methods, a.Method) {
		add("auth.method", "%q is not known: write %s", a.Method, strings.Join(Methods, ", "))
		return
	}
	if a.Path != "" && !cleanPath(a.Path) {
		add("auth.path", "%q is no path of a login method", a.Path)
	}
	needs := map[string]bool{}
	for _, f := range []struct{ field, value, methods string }{
		{"auth.role", a.Role, "kubernetes jwt"},
		{"auth.token_file", a.TokenFile, "kubernetes jwt token"},
		{"auth.role_id", a.RoleID, "approle"},
		{"auth.role_id_file", a.RoleIDFile, "approle"},
		{"auth.secret_id_file", a.SecretIDFile, "approle"},
	} {
		takes := a.Method != "" && slices.Contains(strings.Fields(f.methods), a.Method)
		switch {
		case f.value != "" && !takes:
			add(f.field, "belongs to the method %s: remove it, or change auth.method", strings.ReplaceAll(f.methods, " ", " or "))
		case f.value == "" && takes:
			needs[f.field] = true
		}
	}
	if a.Wrapped && a.Method != "approle" {
		add("auth.wrapped", "belongs to the method approle: remove it, or change auth.method")
	}
	switch {
	case needs["auth.role_id"] && needs["auth.role_id_file"]:
		add("auth.role_id", "the method approle needs it, here or in role_id_file")
	case a.RoleID != "" && a.RoleIDFile != "":
		add("auth.role_id", "stands here and as role_id_file: keep one")
	}
	delete(needs, "auth.role_id")
	delete(needs, "auth.role_id_file")
	for _, field := range []string{"auth.role", "auth.token_file", "auth.secret_id_file"} {
		if needs[field] {
			add(field, "the method %s needs it", a.Method)
		}
	}
}

// Authority returns the host:port of Vault, for the dial guard.
func (c Config) Authority() string {
	u, err := parseAddress(c.Address)
	if err != nil {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func parseAddress(address string) (*url.URL, error) {
	if address == "" {
		return nil, errors.New("is missing: write the URL of Vault, such as https://vault.example:8200, here or in VAULT_ADDR")
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("is not the URL of a Vault: write one such as https://vault.example:8200")
	}
	return u, nil
}

// CleanPath reports whether p can be the path of a mount or a login method.
func CleanPath(p string) bool { return cleanPath(p) }

// cleanPath reports whether p has only segments that mean themselves in a URL of
// Vault's API.
func cleanPath(p string) bool {
	for _, segment := range strings.Split(p, "/") {
		if !cleanSegment(segment) {
			return false
		}
	}
	return true
}

func cleanSegment(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || strings.ContainsRune(`?#%\+*"`, r) || r == '�'
	})
}
