package vaultstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"pillion/creds"
)

// Person is somebody who logged in at Vault himself.
type Person struct {
	Name    string // as Vault knows him; "" when it does not tell
	Token   creds.Secret
	Expires time.Time // zero: never, or not known
}

// As returns a client that acts with the given token and with nothing else: that
// Vault's policies decide what its owner may do, and the audit log tells. It shares
// c's connections.
func (c *Client) As(token creds.Secret) (*Client, error) {
	p := &Client{Now: c.Now, OnRequest: c.OnRequest, config: c.config, transport: c.transport}
	p.config.Auth = Auth{}
	p.getenv = func(name string) string {
		if name == "VAULT_TOKEN" {
			return token.Reveal()
		}
		return ""
	}
	var err error
	if p.vault, err = p.connection(c.transport, c.vault.ClientTimeout()); err != nil {
		return nil, err
	}
	return p, nil
}

// Rights returns a digest of all that Vault's policies allow the login now: while it
// is the same, what was allowed still is. It costs one request, whatever the number
// of records. What the answer says is Vault's own business, and only compared.
func (c *Client) Rights(ctx context.Context) (string, error) {
	a, err := c.call(ctx, request{operation: "capabilities", method: "GET", path: "sys/internal/ui/resultant-acl"})
	if err != nil {
		return "", fmt.Errorf("looking what the login may do: %w", err)
	}
	var body struct {
		Data json.RawMessage `json:"data"` // without the request's id
	}
	if err := a.decode(&body); err != nil || len(body.Data) == 0 {
		return "", c.problem(NotVault, "does not say what the login may do")
	}
	sum := sha256.Sum256(body.Data)
	return hex.EncodeToString(sum[:]), nil
}

// LookUp asks Vault whose token that is, and how long it lives.
func (c *Client) LookUp(ctx context.Context, token creds.Secret) (Person, error) {
	as, err := c.As(token)
	if err != nil {
		return Person{}, err
	}
	l, err := as.lookUp(ctx, token.Reveal(), "this login")
	if err != nil {
		return Person{}, err
	}
	return Person{Name: as.displayName(ctx), Token: token, Expires: l.expires}, nil
}

// LogInWithPassword logs a person in at the method userpass, or one of its kind such
// as ldap, that is mounted at path. A refusal is an *Error of the kind BadLogin.
func (c *Client) LogInWithPassword(ctx context.Context, path, user string, password creds.Secret) (Person, error) {
	if user == "" || strings.ContainsAny(user, "/\\") || !cleanPath(path) {
		return Person{}, c.problem(BadLogin, "refuses this user name and password")
	}
	at := "auth/" + path + "/login/" + url.PathEscape(user)
	a, err := c.send(ctx, request{operation: "login", method: "POST", path: at, body: map[string]string{"password": password.Reveal()}})
	switch {
	case isKind(err, BadRequest, Denied, BadToken, NoMount):
		return Person{}, c.problem(BadLogin, "refuses this user name and password")
	case err != nil:
		return Person{}, err
	}
	token, err := a.loginToken()
	if err != nil {
		return Person{}, c.problem(BadLogin, "answered the login without a token (a second factor, perhaps): log in with a token instead")
	}
	return c.LookUp(ctx, token)
}

// Revoke ends a token before its time.
func (c *Client) Revoke(ctx context.Context, token creds.Secret) error {
	_, err := c.send(ctx, request{operation: "login", method: "POST", path: "auth/token/revoke-self", token: token.Reveal()})
	if err != nil {
		return fmt.Errorf("revoking a token: %w", err)
	}
	return nil
}
