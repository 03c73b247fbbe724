package vaultstore

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// problems joins what is wrong with a configuration.
func problems(c Config, getenv func(string) string) string {
	var lines []string
	for _, p := range c.WithEnvironment(getenv).Problems(getenv) {
		lines = append(lines, p.Field+": "+p.Problem)
	}
	return strings.Join(lines, "\n")
}

func TestConfigProblems(t *testing.T) {
	good := Config{Address: "https://vault.example:8200"}
	for _, c := range []struct {
		change func(*Config)
		env    []string
		want   string
	}{
		{func(*Config) {}, nil, ""},
		{func(c *Config) { c.Address = "" }, nil, "address: is missing"},
		{func(c *Config) { c.Address = "" }, []string{"VAULT_ADDR", "https://vault.example"}, ""},
		{func(c *Config) { c.Address = "vault.example:8200" }, nil, "address: is not the URL of a Vault"},
		{func(c *Config) { c.Address = "https://user:pw@vault.example" }, nil, "address: is not the URL of a Vault"},
		{func(c *Config) { c.Mount = "a/../b" }, nil, "mount: "},
		{func(c *Config) { c.Prefixes = []string{"a", "a", "+"} }, nil, "prefixes[1]: \"a\" stands in the list twice: remove one\nprefixes[2]: "},
		{func(c *Config) { c.Auth.Method = "ldap" }, nil, `auth.method: "ldap" is not known: write kubernetes, jwt, approle, token`},
		{func(c *Config) { c.Auth.Method = "kubernetes" }, nil, "auth.role: the method kubernetes needs it"},
		{func(c *Config) { c.Auth = Auth{Method: "jwt", Role: "r"} }, nil, "auth.token_file: the method jwt needs it"},
		{func(c *Config) { c.Auth = Auth{Method: "approle"} }, nil, "auth.role_id: the method approle needs it, here or in role_id_file\nauth.secret_id_file: the method approle needs it"},
		{func(c *Config) { c.Auth = Auth{Method: "approle", RoleID: "a", RoleIDFile: "b", SecretIDFile: "c"} }, nil, "auth.role_id: stands here and as role_id_file: keep one"},
		{func(c *Config) { c.Auth = Auth{Method: "token", TokenFile: "a", Role: "b", Wrapped: true} }, nil, "auth.role: belongs to the method kubernetes or jwt: remove it, or change auth.method\nauth.wrapped: "},
		{func(c *Config) { c.MaxStale = -1 }, nil, "max_stale: must not be negative"},
		{func(*Config) {}, []string{"VAULT_SKIP_VERIFY", "true"}, "skip_verify: VAULT_SKIP_VERIFY asks to accept any certificate"},
		{func(*Config) {}, []string{"VAULT_SKIP_VERIFY", "maybe"}, "skip_verify: VAULT_SKIP_VERIFY must be true or false"},
		{func(c *Config) { c.SkipVerify = true }, []string{"VAULT_SKIP_VERIFY", "1"}, ""},
	} {
		config := good
		c.change(&config)
		got := problems(config, environment(c.env...))
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v %v: got %q, want %q", config, c.env, got, c.want)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	c := Config{Address: "https://vault.example/", Prefixes: []string{"/team-a/"}, Auth: Auth{Method: "kubernetes", Role: "r", Path: "auth/cluster-1/"}}.
		WithEnvironment(environment("VAULT_NAMESPACE", "ns"))
	if c.Mount != "pillion" || c.Prefixes[0] != "team-a" || c.Auth.Path != "cluster-1" || c.Auth.TokenFile != kubernetesToken ||
		c.MaxStale != 12*time.Hour || c.MaxDenied != 5*time.Minute || c.Namespace != "ns" || c.Authority() != "vault.example:443" {
		t.Errorf("%+v", c)
	}
	if got := (Config{Address: "http://[::1]:8200"}).Authority(); got != "[::1]:8200" {
		t.Error(got)
	}
}

// The variables that Vault's own command reads, over TLS.
func TestVaultVariables(t *testing.T) {
	vault := credstest.VaultSetup{TLS: true}.Start(t)
	mount := vault.Mount(t)
	mustCAS(t, client(t, Config{Address: vault.Addr, Mount: mount, CAFile: vault.CAFile}, environment("VAULT_TOKEN", vault.Root)).Store(""), "index", `{"n":1}`, 0)
	pem, err := os.ReadFile(vault.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	try := func(pairs ...string) error {
		getenv := environment(append(pairs, "VAULT_ADDR", vault.Addr, "VAULT_TOKEN", vault.Root)...)
		c, err := New(Config{Mount: mount}.WithEnvironment(getenv), getenv)
		if err != nil {
			return err
		}
		return canRead(t, c)
	}
	if err := try("VAULT_CACERT", vault.CAFile); err != nil {
		t.Error(err)
	}
	if err := try("VAULT_CACERT_BYTES", string(pem)); err != nil {
		t.Error(err)
	}
	if err := try("VAULT_CAPATH", filepath.Dir(vault.CAFile)); err != nil {
		t.Error(err)
	}
	fails(t, try(), "a certificate of an authority that is not trusted here", "VAULT_CACERT")
	fails(t, try("VAULT_CACERT", vault.CAFile, "VAULT_TLS_SERVER_NAME", "other.example"), "a certificate for another name")
	for _, c := range []struct{ name, value, want string }{
		{"VAULT_CACERT", "/not/there", "VAULT_CACERT: the file"},
		{"VAULT_CLIENT_CERT", "x", "belong together"},
		{"VAULT_CLIENT_TIMEOUT", "soon", "VAULT_CLIENT_TIMEOUT must be"},
	} {
		if err := try(c.name, c.value); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
		}
	}
	getenv := environment("VAULT_ADDR", vault.Addr, "VAULT_TOKEN", vault.Root)
	c, err := New(Config{Mount: mount, SkipVerify: true}.WithEnvironment(getenv), getenv)
	if err != nil {
		t.Fatal(err)
	}
	if err := canRead(t, c); err != nil {
		t.Error(err)
	}
	plain := "http" + strings.TrimPrefix(vault.Addr, "https")
	fails(t, canRead(t, client(t, Config{Address: plain}, getenvToken(vault.Root))), "speaks TLS: write https://")
}

func getenvToken(token string) func(string) string { return environment("VAULT_TOKEN", token) }

// In a pod HTTP_PROXY is pillion itself: it must never carry our own login.
func TestNoProxyAndNamespace(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, _ := reader(t, vault)
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("through the proxy: %s", r.URL) }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "VAULT_HTTP_PROXY", "VAULT_PROXY_ADDR"} {
		t.Setenv(name, proxy.URL)
	}
	// The process's own variables are not those that we were given.
	t.Setenv("VAULT_TOKEN", "of-the-process")
	t.Setenv("VAULT_NAMESPACE", "of-the-process")
	t.Setenv("VAULT_SKIP_VERIFY", "true")
	lossy := vault.Lossy(t)
	c := client(t, Config{Address: lossy.Addr, Mount: mount, Namespace: "team"}, getenvToken(vault.Root))
	mustRead(t, c)
	for _, r := range lossy.Requests() {
		if r.Namespace != "team" {
			t.Errorf("%s has the namespace %q", r.Path, r.Namespace)
		}
	}
}
