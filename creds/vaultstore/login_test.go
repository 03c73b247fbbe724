package vaultstore

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// reader makes a mount with a record and a policy that reads it.
func reader(t *testing.T, vault *credstest.Vault) (mount, policy string) {
	t.Helper()
	mount = vault.Mount(t)
	policy = mount + "-reader"
	vault.Policy(t, policy, `path "`+mount+`/data/*" { capabilities = ["read"] }
path "`+mount+`/metadata/*" { capabilities = ["list"] }`)
	mustCAS(t, rooted(t, vault, vault.Addr, mount), "index", `{"n":1}`, 0)
	return mount, policy
}

func canRead(t *testing.T, c *Client) error {
	t.Helper()
	_, err := c.Store("").Get(t.Context(), "index")
	return err
}

func mustRead(t *testing.T, c *Client) {
	t.Helper()
	if err := canRead(t, c); err != nil {
		t.Fatal(err)
	}
	if s := c.Session(); !s.Authenticated || s.Err != nil {
		t.Fatalf("%+v", s)
	}
}

// fails wants an error with these words, and no canary in it.
func fails(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("it works")
	}
	if !errors.Is(err, creds.ErrStoreUnavailable) {
		t.Errorf("%v is no ErrStoreUnavailable", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	credstest.FindCanaries(t, []byte(err.Error()))
}

func TestKubernetesLogin(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	vault.Kubernetes(t, mount, "shop", "connector", policy)
	file := writeFile(t, vault.ServiceAccountToken(t, "shop", "connector", time.Hour)+"\n")
	config := Config{Address: vault.Addr, Mount: mount, Auth: Auth{Method: "kubernetes", Role: mount, TokenFile: file}}
	mustRead(t, client(t, config, noEnvironment))

	wrong := config
	wrong.Auth.Role = "nobody"
	err := canRead(t, client(t, wrong, noEnvironment))
	fails(t, err, "refuses the login at auth/kubernetes/login as the role nobody", "there is no such role")
	if !errors.Is(err, creds.ErrStoreDenied) {
		t.Error("a role that is gone is no decision")
	}
	rewrite(t, file, vault.ServiceAccountToken(t, "shop", "another", time.Hour))
	fails(t, canRead(t, client(t, config, noEnvironment)), "bound to another service account")
	rewrite(t, file, "")
	fails(t, canRead(t, client(t, config, noEnvironment)), "is empty")
	wrong.Auth.TokenFile = file + "-not-there"
	fails(t, canRead(t, client(t, wrong, noEnvironment)), "cannot be read (no such file or directory)")
	wrong.Auth.Path, wrong.Auth.TokenFile = "another-cluster", file
	rewrite(t, file, vault.ServiceAccountToken(t, "shop", "connector", time.Hour))
	fails(t, canRead(t, client(t, wrong, noEnvironment)), "auth/another-cluster/login")
}

// The projected token is read at every login: the kubelet replaces it.
func TestJWTLogin(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	vault.JWT(t, mount, "connector", policy)
	file := writeFile(t, vault.Sign(t, credstest.Claims("connector", "vault", -time.Minute)))
	c := client(t, Config{Address: vault.Addr, Mount: mount, Auth: Auth{Method: "jwt", Role: mount, TokenFile: file}}, noEnvironment)
	fails(t, canRead(t, c), "refuses the login at auth/jwt/login", "expired")
	rewrite(t, file, vault.Sign(t, credstest.Claims("connector", "vault", time.Hour)))
	c.session.next = time.Time{} // the back-off is another test's
	mustRead(t, c)
	rewrite(t, file, vault.Sign(t, credstest.Claims("connector", "elsewhere", time.Hour)))
	fails(t, canRead(t, client(t, c.config, noEnvironment)), "another audience")
}

func TestAppRoleLogin(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	roleID, secretID := vault.AppRole(t, mount, policy)
	config := Config{Address: vault.Addr, Mount: mount, Auth: Auth{Method: "approle", RoleID: roleID, SecretIDFile: writeFile(t, secretID)}}
	mustRead(t, client(t, config, noEnvironment))
	byFile := config
	byFile.Auth.RoleID, byFile.Auth.RoleIDFile = "", writeFile(t, roleID)
	mustRead(t, client(t, byFile, noEnvironment))
	rewrite(t, config.Auth.SecretIDFile, credstest.Canary("secret-id").Reveal())
	err := canRead(t, client(t, config, noEnvironment))
	fails(t, err, "the role id or the secret id is not valid", "deliver a new secret id")
}

// A wrapped secret id is unwrapped once and used again; a wrapping token that was
// used by somebody else is reported as a possible theft.
func TestWrappedSecretID(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	roleID, _ := vault.AppRole(t, mount, policy)
	vault.Write(t, "auth/approle/role/"+mount, map[string]any{"token_policies": []string{policy}, "token_type": "service", "token_ttl": "1h"})
	config := Config{Address: vault.Addr, Mount: mount, Auth: Auth{
		Method: "approle", RoleID: roleID, Wrapped: true, SecretIDFile: writeFile(t, vault.WrappedSecretID(t, mount, time.Minute)),
	}}
	c := client(t, config, noEnvironment)
	mustRead(t, c)
	vault.Revoke(t, c.session.current.token.Reveal())
	mustRead(t, c) // a second login, with the same secret id
	if c.session.number != 2 {
		t.Errorf("%d logins", c.session.number)
	}
	fails(t, canRead(t, client(t, config, noEnvironment)), "POSSIBLE THEFT", "destroy that secret id", "audit log")

	// A wrapping token around something else, put there by whoever took ours.
	token := wrapped(t, vault)
	rewrite(t, config.Auth.SecretIDFile, token)
	fails(t, canRead(t, client(t, config, noEnvironment)), "was not made for a secret id", "exchanged")
}

// wrapped makes a wrapping token around a secret id that no role gave.
func wrapped(t *testing.T, vault *credstest.Vault) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, vault.Addr+"/v1/sys/wrapping/wrap", strings.NewReader(`{"secret_id":"mine"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Vault-Token", vault.Root)
	r.Header.Set("X-Vault-Wrap-TTL", "60s")
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body struct {
		Wrap struct{ Token string } `json:"wrap_info"`
	}
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil || body.Wrap.Token == "" {
		t.Fatalf("%v: %+v", err, body)
	}
	return body.Wrap.Token
}

func TestTokenFile(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	first := vault.Token(t, policy)
	file := writeFile(t, first)
	c := client(t, Config{Address: vault.Addr, Mount: mount, Auth: Auth{Method: "token", TokenFile: file}}, noEnvironment)
	mustRead(t, c)
	if left := time.Until(c.Session().Expires); left < 50*time.Minute || left > time.Hour {
		t.Errorf("it expires in %v", left)
	}
	vault.Revoke(t, first)
	fails(t, canRead(t, c), "does not accept the token of store.vault.auth.token_file")
	rewrite(t, file, vault.Token(t, policy)) // at once, in spite of the back-off
	c.session.next = time.Time{}
	mustRead(t, c)
	// It is used although the old one is still good.
	old := c.session.current.token
	rewrite(t, file, vault.Token(t, policy))
	mustRead(t, c)
	if c.session.current.token.Equal(old) {
		t.Error("a new token in the file is not used")
	}
}

func TestOperatorsToken(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	token := vault.Token(t, policy)
	config := Config{Mount: mount}
	mustRead(t, client(t, config, environment("VAULT_ADDR", vault.Addr+"/", "VAULT_TOKEN", token)))
	home := t.TempDir()
	rewrite(t, home+"/.vault-token", token+"\n")
	getenv := environment("VAULT_ADDR", vault.Addr, "HOME", home)
	mustRead(t, client(t, config, getenv))
	if !HasOperatorToken(getenv) || HasOperatorToken(noEnvironment) {
		t.Error("HasOperatorToken")
	}
	fails(t, canRead(t, client(t, config, environment("VAULT_ADDR", vault.Addr))), "set VAULT_TOKEN")
	fails(t, canRead(t, client(t, config, environment("VAULT_ADDR", vault.Addr, "VAULT_TOKEN", credstest.Canary("token").Reveal()))), "does not accept the token of VAULT_TOKEN")
}

// A token of our own that ends, was revoked, or can be neither renewed nor replaced.
func TestAttack44(t *testing.T) {
	t.Run("44 a new login at two thirds of its life", loginAgain)
	t.Run("44 revoked", revoked)
	t.Run("44 replaced ahead, between requests", keptLoggedIn)
}

// Batch tokens, which cannot be renewed, are followed by one new login.
func loginAgain(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	roleID, secretID := vault.AppRole(t, mount, policy)
	vault.Write(t, "auth/approle/role/"+mount, map[string]any{"token_policies": []string{policy}, "token_type": "batch", "token_ttl": "1h"})
	lossy := vault.Lossy(t)
	c := client(t, Config{Address: lossy.Addr, Mount: mount, Auth: Auth{Method: "approle", RoleID: roleID, SecretIDFile: writeFile(t, secretID)}}, noEnvironment)
	now := time.Now()
	c.Now = func() time.Time { return now }
	logins := func() int { return lossy.Count("auth/") }
	mustRead(t, c)
	mustRead(t, c)
	if !strings.HasPrefix(c.session.current.token.Reveal(), "hvb.") || logins() != 1 {
		t.Fatalf("%d logins", logins())
	}
	early, late := time.Hour*2/3-time.Hour/10, time.Hour*2/3+time.Hour/10
	if due := c.session.current.renewAt.Sub(now); due < early || due > late {
		t.Errorf("the next login is due after %v", due)
	}
	now = now.Add(early - time.Second)
	mustRead(t, c)
	if logins() != 1 {
		t.Error("it logs in before two thirds of the token's life")
	}
	now = now.Add(late - early + 2*time.Second)
	mustRead(t, c)
	if logins() != 2 {
		t.Errorf("%d logins after two thirds of the token's life", logins())
	}
	// A login that fails does no harm while the token is good, and backs off.
	lossy.Answer(nil)
	rewrite(t, c.config.Auth.SecretIDFile, "wrong")
	now = now.Add(50 * time.Minute)
	if err := canRead(t, c); err != nil {
		t.Errorf("while the token is good: %v", err)
	}
	if s := c.Session(); !s.Authenticated || s.Err == nil {
		t.Errorf("%+v", s)
	}
	tried := logins()
	if err := canRead(t, c); err != nil || logins() != tried {
		t.Errorf("no back-off: %v, %d", err, logins())
	}
	now = now.Add(9 * time.Second)
	if err := canRead(t, c); err != nil || logins() != tried+1 {
		t.Errorf("no second try: %v, %d", err, logins())
	}
	rewrite(t, c.config.Auth.SecretIDFile, secretID)
	now = now.Add(9 * time.Second)
	mustRead(t, c)
}

// A token that Vault forgets is told by "invalid token", once a request.
func revoked(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	roleID, secretID := vault.AppRole(t, mount, policy)
	vault.Write(t, "auth/approle/role/"+mount, map[string]any{"token_policies": []string{policy}, "token_type": "service", "token_ttl": "1h"})
	lossy := vault.Lossy(t)
	c := client(t, Config{Address: lossy.Addr, Mount: mount, Auth: Auth{Method: "approle", RoleID: roleID, SecretIDFile: writeFile(t, secretID)}}, noEnvironment)
	mustRead(t, c)
	lossy.Reset()
	vault.Revoke(t, c.session.current.token.Reveal())
	mustRead(t, c)
	if n := lossy.Count(""); n != 3 { // refused, login, read
		t.Errorf("%d requests: %+v", n, lossy.Requests())
	}
}

// KeepLoggedIn logs in ahead of the end, without a request.
func keptLoggedIn(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	roleID, secretID := vault.AppRole(t, mount, policy)
	vault.Write(t, "auth/approle/role/"+mount, map[string]any{"token_policies": []string{policy}, "token_ttl": "2s"})
	c := client(t, Config{Address: vault.Addr, Mount: mount, Auth: Auth{Method: "approle", RoleID: roleID, SecretIDFile: writeFile(t, secretID)}}, noEnvironment)
	logins := make(chan error, 10)
	c.OnLogin = func(err error) { logins <- err }
	mustRead(t, c)
	<-logins
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { c.KeepLoggedIn(ctx); close(ended) }()
	for range 2 {
		select {
		case err := <-logins:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("no login")
		}
	}
	cancel()
	<-ended
}

// A fleet that logged in within one second does not do so again: the next logins
// fall into a fifth of the token's life, evenly.
func TestLoginsSpread(t *testing.T) {
	now := time.Now()
	c := &Client{Now: func() time.Time { return now }}
	minutes := map[int]int{}
	for range 1000 {
		minutes[int(c.loginFor("token", time.Hour).renewAt.Sub(now).Minutes())]++
	}
	for minute, n := range minutes {
		if minute < 34 || minute > 46 || n > 130 {
			t.Errorf("%d of a thousand log in in minute %d", n, minute)
		}
	}
}
