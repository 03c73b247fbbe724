package vaultstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pillion/creds"
)

// logIn gets a token by the configured method. Every file is read anew: projected
// tokens and secret ids are replaced while we run.
func (c *Client) logIn(ctx context.Context) (login, error) {
	a := c.config.Auth
	switch a.Method {
	case "kubernetes", "jwt":
		jwt, err := c.readFile("auth.token_file", a.TokenFile)
		if err != nil {
			return login{}, err
		}
		return c.authenticate(ctx, map[string]string{"role": a.Role, "jwt": jwt})
	case "approle":
		return c.appRole(ctx)
	case "token":
		return c.tokenFromFile(ctx)
	}
	return c.tokenFromEnvironment(ctx)
}

// authenticate sends the login of the configured method.
func (c *Client) authenticate(ctx context.Context, body map[string]string) (login, error) {
	path := "auth/" + c.config.Auth.Path + "/login"
	a, err := c.send(ctx, request{operation: "login", method: "POST", path: path, body: body})
	if err != nil {
		return login{}, c.loginProblem(path, a, err)
	}
	var result struct {
		Auth struct {
			Token string `json:"client_token"`
			TTL   int    `json:"lease_duration"`
		} `json:"auth"`
	}
	if a.decode(&result) != nil || result.Auth.Token == "" {
		return login{}, c.problem(BadLogin, "answered the login at %s without a token (a second factor, perhaps): use a method that needs none", path)
	}
	return c.loginFor(result.Auth.Token, time.Duration(result.Auth.TTL)*time.Second), nil
}

// loginHints are what Vault's login methods say, and what it means; the first
// that fits is told.
var loginHints = []struct {
	text, hint string
	decided    bool // somebody took it away: it will not heal by itself
}{
	{"wrapping token", "the secret id cannot be had", false},
	{"invalid role name", "there is no such role: correct store.vault.auth.role, or make the role", true},
	{"could not be found", "there is no such role: correct store.vault.auth.role, or make the role", true},
	{"invalid role or secret id", "the role id or the secret id is not valid (any more): deliver a new secret id", true},
	{"invalid role id", "there is no such role id: correct store.vault.auth.role_id", true},
	{"invalid secret id", "the secret id is not valid (any more): deliver a new one", true},
	{"role_id", "the role id is missing or wrong: correct store.vault.auth.role_id", true},
	{"audience", "the token is for another audience: give the projected token the audience that the role asks for", false},
	{"expired", "the token has expired: look at who writes store.vault.auth.token_file, and at the clocks", false},
	{"not authorized", "the role is bound to another service account or namespace: correct the role's bounds, or store.vault.auth.role", true},
	{"bound", "the token does not fit what the role is bound to: correct the role's bounds, or store.vault.auth.role", true},
	{"error validating token", "the token cannot be verified: look at the method's keys and issuer, and that Vault reaches them", false},
	{"missing role", "the role is missing: write store.vault.auth.role", true},
	{"no handler for route", "no login method is mounted there: correct store.vault.auth.path, or enable the method", true},
}

// loginProblem is the refusal of a login in our own words. It is a decision only
// where Vault says that somebody took the role away: a Kubernetes API server that
// is down makes the same 403 as a role that does not fit.
func (c *Client) loginProblem(path string, a answer, err error) error {
	if !isKind(err, BadRequest, Denied, BadToken, NoMount) {
		return err
	}
	texts, _ := a.errorsOf()
	for _, h := range loginHints {
		if !strings.Contains(texts, h.text) {
			continue
		}
		e := c.problem(BadLogin, "refuses the login at %s as %s: %s", path, c.who(), h.hint)
		if h.decided {
			e.cause = creds.ErrStoreDenied
		}
		return e
	}
	return c.problem(BadLogin, "refuses the login at %s as %s: look whether the role exists and what it is bound to, and into Vault's log", path, c.who())
}

// readFile returns the content of a file that holds one line.
func (c *Client) readFile(field, path string) (string, error) {
	data, err := os.ReadFile(path)
	text := strings.TrimSpace(string(data))
	switch {
	case err != nil:
		return "", &Error{Kind: BadLogin, Problem: "store.vault." + field + ": " + path + " cannot be read (" + reason(err) + "): look at the volume that brings it"}
	case text == "":
		return "", &Error{Kind: BadLogin, Problem: "store.vault." + field + ": " + path + " is empty: look at who writes it"}
	case strings.ContainsAny(text, "\r\n\x00"):
		return "", &Error{Kind: BadLogin, Problem: "store.vault." + field + ": " + path + " holds more than one line: it must hold the token alone"}
	}
	return text, nil
}

func reason(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return "input or output error"
}

// fileStamp tells one content of a file from the next.
type fileStamp struct {
	size  int64
	time  int64
	inode uint64
}

func stampOf(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	s := fileStamp{size: info.Size(), time: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}

// fileChanged reports whether somebody has delivered another token. A file that
// went is no change: its token may serve to its end.
func (c *Client) fileChanged(l login) bool {
	if c.config.Auth.Method != "token" {
		return false
	}
	now := stampOf(c.config.Auth.TokenFile)
	return now != (fileStamp{}) && now != l.file
}

// tokenFromFile takes the token that somebody else keeps alive, such as a Vault
// agent; one that nobody replaced is renewed, if it can be.
func (c *Client) tokenFromFile(ctx context.Context) (login, error) {
	stamp := stampOf(c.config.Auth.TokenFile)
	token, err := c.readFile("auth.token_file", c.config.Auth.TokenFile)
	if err != nil {
		return login{}, err
	}
	c.session.mu.Lock()
	known := c.session.current
	c.session.mu.Unlock()
	if known.token.Reveal() == token {
		_, _ = c.send(ctx, request{operation: "renew", method: "POST", path: "auth/token/renew-self", token: token, body: map[string]string{}})
	}
	l, err := c.lookUp(ctx, token, "store.vault.auth.token_file")
	l.file = stamp
	return l, err
}

// tokenFromEnvironment takes the operator's own token.
func (c *Client) tokenFromEnvironment(ctx context.Context) (login, error) {
	token, from := operatorToken(c.getenv)
	if token == "" {
		return login{}, &Error{Kind: BadLogin, Problem: "there is no login at Vault: set VAULT_TOKEN, or run vault login, or write store.vault.auth"}
	}
	return c.lookUp(ctx, token, from)
}

// HasOperatorToken reports whether there is a token of the person who runs us.
func HasOperatorToken(getenv func(string) string) bool {
	token, _ := operatorToken(getenv)
	return token != ""
}

func operatorToken(getenv func(string) string) (token, from string) {
	if token := strings.TrimSpace(getenv("VAULT_TOKEN")); token != "" {
		return token, "VAULT_TOKEN"
	}
	home := getenv("HOME")
	if home == "" {
		return "", ""
	}
	data, err := os.ReadFile(filepath.Join(home, ".vault-token"))
	if err != nil {
		return "", ""
	}
	return strings.TrimSpace(string(data)), "~/.vault-token"
}

// lookUp asks Vault how long a token lives. A policy that forbids that is no
// reason not to use it.
func (c *Client) lookUp(ctx context.Context, token, from string) (login, error) {
	a, err := c.send(ctx, request{operation: "login", method: "GET", path: "auth/token/lookup-self", token: token})
	switch {
	case isKind(err, Denied):
		return c.loginFor(token, 0), nil
	case isKind(err, BadToken):
		return login{}, c.problem(BadLogin, "does not accept the token of %s: it has expired or was revoked; get a new one", from)
	case err != nil:
		return login{}, err
	}
	var result struct {
		Data struct {
			TTL int `json:"ttl"`
		} `json:"data"`
	}
	if err := a.decode(&result); err != nil {
		return login{}, c.problem(NotVault, "answers in a way that no Vault does: correct store.vault.address or VAULT_ADDR")
	}
	return c.loginFor(token, time.Duration(result.Data.TTL)*time.Second), nil
}

// displayName is under what name Vault knows us, for notes of who wrote what; ""
// when it does not tell.
func (c *Client) displayName(ctx context.Context) string {
	s := &c.session
	s.mu.Lock()
	name := s.name
	s.mu.Unlock()
	if name != "" {
		return name
	}
	a, err := c.call(ctx, request{operation: "login", method: "GET", path: "auth/token/lookup-self"})
	var result struct {
		Data struct {
			Name string `json:"display_name"`
		} `json:"data"`
	}
	if err != nil || a.decode(&result) != nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name = result.Data.Name
	return s.name
}
