package vaultstore

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"

	"pillion/creds"
)

// OIDCLogin is a person's login by OpenID Connect that has begun: the browser is
// away at the provider, and Vault knows its state for ten minutes, for one use.
//
//	login, err := client.BeginOIDC(ctx, "oidc", "console", redirectURL)
//	// the browser goes to login.URL, and comes back to redirectURL?state=..&code=..
//	person, err := client.FinishOIDC(ctx, "oidc", login, code)
//
// What the provider is asked for, PKCE included, and what it says of the account, is
// Vault's business; the provider's client secret is in Vault alone.
type OIDCLogin struct {
	URL   string
	State creds.Secret
	// Nonce is ours: without it Vault takes no code for this state.
	Nonce creds.Secret
}

// BeginOIDC asks the method jwt, of its kind oidc, that is mounted at path. Its role
// (if "", the mount's default) must allow the redirect URL.
func (c *Client) BeginOIDC(ctx context.Context, path, role, redirectURL string) (OIDCLogin, error) {
	if !cleanPath(path) {
		return OIDCLogin{}, c.noOIDC(path)
	}
	login := OIDCLogin{Nonce: creds.NewSecret(rand.Text())}
	a, err := c.send(ctx, request{operation: "login", method: "POST", path: "auth/" + path + "/oidc/auth_url", body: map[string]string{
		"role": role, "redirect_uri": redirectURL, "client_nonce": login.Nonce.Reveal(),
	}})
	switch {
	case isKind(err, BadRequest):
		return OIDCLogin{}, c.problem(BadLogin, "begins no login at auth/%s: it has no %s, or is not set up for OpenID Connect", path, roleWords(role))
	case isKind(err, Denied, BadToken, NoMount):
		return OIDCLogin{}, c.noOIDC(path)
	case err != nil:
		return OIDCLogin{}, err
	}
	var body struct {
		Data struct {
			URL string `json:"auth_url"`
		} `json:"data"`
	}
	if a.decode(&body) != nil {
		return OIDCLogin{}, c.problem(NotVault, "answers in a way that no Vault does: correct store.vault.address or VAULT_ADDR")
	}
	if body.Data.URL == "" { // Vault does not say why
		return OIDCLogin{}, c.problem(BadLogin, "begins no login at auth/%s: list %s in allowed_redirect_uris of %s; else Vault cannot reach the provider, and its log tells", path, redirectURL, roleWords(role))
	}
	login.URL = body.Data.URL
	target, err := url.Parse(login.URL)
	if err != nil || target.Scheme != "https" && target.Scheme != "http" || target.Host == "" || len(target.Query()["state"]) != 1 {
		return OIDCLogin{}, c.problem(BadLogin, "sends to an address of the provider that cannot be one: correct the configuration of auth/%s", path)
	}
	login.State = creds.NewSecret(target.Query().Get("state"))
	return login, nil
}

func roleWords(role string) string {
	if role == "" {
		return "default role"
	}
	return "role " + role
}

func (c *Client) noOIDC(path string) error {
	return c.problem(BadLogin, "has no login method at auth/%s: enable it there, or correct console.vault.oidc.path", path)
}

// FinishOIDC hands the provider's code to Vault, and returns who that is. A refusal is
// an *Error of the kind BadLogin.
func (c *Client) FinishOIDC(ctx context.Context, path string, login OIDCLogin, code creds.Secret) (Person, error) {
	a, err := c.send(ctx, request{operation: "login", method: "GET", path: "auth/" + path + "/oidc/callback", query: map[string]string{
		"state": login.State.Reveal(), "client_nonce": login.Nonce.Reveal(), "code": code.Reveal(),
	}})
	switch {
	case isKind(err, BadRequest, Denied, BadToken, NoMount):
		return Person{}, c.problem(BadLogin, "does not let this account in: its role admits others, or the login took longer than ten minutes or was used; begin again, or ask who looks after Vault")
	case isKind(err, Broken): // so it answers to a bound_subject that differs, too
		return Person{}, c.problem(BadLogin, "does not let this account in, or has a problem of its own: its log tells which; ask who looks after Vault")
	case err != nil:
		return Person{}, err
	}
	token, err := a.loginToken()
	if err != nil {
		return Person{}, c.problem(BadLogin, "answered the login without a token: ask who looks after Vault")
	}
	return c.LookUp(ctx, token)
}

// loginToken is the token that a login brought.
func (a answer) loginToken() (creds.Secret, error) {
	var result struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	if err := a.decode(&result); err != nil {
		return creds.Secret{}, err
	}
	if result.Auth.Token == "" {
		return creds.Secret{}, errors.New("there is no token in it")
	}
	return creds.NewSecret(result.Auth.Token), nil
}
