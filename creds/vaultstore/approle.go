package vaultstore

import (
	"context"
	"strings"
	"time"

	"pillion/creds"
)

// unwrapped is the secret id that a wrapping token gave: it gives it once, so it
// is kept in memory for later logins.
type unwrapped struct {
	wrapping, secretID creds.Secret
}

// appRole logs in with a role id and a secret id.
func (c *Client) appRole(ctx context.Context) (login, error) {
	a := c.config.Auth
	roleID := a.RoleID
	if a.RoleIDFile != "" {
		var err error
		if roleID, err = c.readFile("auth.role_id_file", a.RoleIDFile); err != nil {
			return login{}, err
		}
	}
	secretID, err := c.readFile("auth.secret_id_file", a.SecretIDFile)
	if err != nil {
		return login{}, err
	}
	if a.Wrapped {
		if secretID, err = c.unwrapSecretID(ctx, secretID); err != nil {
			return login{}, err
		}
	}
	return c.authenticate(ctx, map[string]string{"role_id": roleID, "secret_id": secretID})
}

// unwrapSecretID changes a wrapping token into the secret id. Before that it asks
// what was wrapped: somebody who took the first token could have put a second one
// in its place, around a secret id of his own.
func (c *Client) unwrapSecretID(ctx context.Context, wrapping string) (string, error) {
	s := &c.session
	s.mu.Lock()
	known := s.unwrap
	s.mu.Unlock()
	if known.wrapping.Reveal() == wrapping {
		return known.secretID.Reveal(), nil
	}
	if _, err := c.lookAtWrapping(ctx, wrapping); err != nil {
		return "", err
	}
	a, err := c.send(ctx, request{operation: "login", method: "POST", path: "sys/wrapping/unwrap", token: wrapping})
	if err != nil {
		return "", c.wrappingProblem(err)
	}
	var result struct {
		Data struct {
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	if a.decode(&result) != nil || result.Data.SecretID == "" {
		return "", c.problem(BadLogin, "wrapped no secret id in the token of store.vault.auth.secret_id_file: wrap the answer of .../role/ROLE/secret-id")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unwrap = unwrapped{creds.NewSecret(wrapping), creds.NewSecret(result.Data.SecretID)}
	return result.Data.SecretID, nil
}

// lookAtWrapping says until when a wrapping token is good, without using it up.
func (c *Client) lookAtWrapping(ctx context.Context, wrapping string) (until time.Time, err error) {
	a, err := c.send(ctx, request{operation: "login", method: "POST", path: "sys/wrapping/lookup", body: map[string]string{"token": wrapping}})
	if err != nil {
		return time.Time{}, c.wrappingProblem(err)
	}
	var origin struct {
		Data struct {
			Path    string    `json:"creation_path"`
			Created time.Time `json:"creation_time"`
			TTL     int       `json:"creation_ttl"`
		} `json:"data"`
	}
	prefix := "auth/" + c.config.Auth.Path + "/role/"
	if a.decode(&origin) != nil || !strings.HasPrefix(origin.Data.Path, prefix) || !strings.HasSuffix(origin.Data.Path, "/secret-id") {
		return time.Time{}, c.problem(BadLogin, "says that the wrapping token in store.vault.auth.secret_id_file was not made for a secret id of %s: somebody may have exchanged it; find out who, and deliver a new one", c.config.Auth.Path)
	}
	return origin.Data.Created.Add(time.Duration(origin.Data.TTL) * time.Second), nil
}

// ExamineWrapping is Examine for a login whose secret id is wrapped, which to log
// in would use up: it says until when the wrapping token is good, and nothing of
// what the login may do.
func (c *Client) ExamineWrapping(ctx context.Context) (until time.Time, err error) {
	wrapping, err := c.readFile("auth.secret_id_file", c.config.Auth.SecretIDFile)
	if err != nil {
		return time.Time{}, err
	}
	return c.lookAtWrapping(ctx, wrapping)
}

func (c *Client) wrappingProblem(err error) error {
	if !isKind(err, BadRequest, Denied, BadToken) {
		return err
	}
	return c.problem(BadLogin, "does not know the wrapping token in store.vault.auth.secret_id_file: it has expired, or was used before. Unless this pillion used it itself before a restart, somebody else has the secret id: POSSIBLE THEFT; destroy that secret id, look into Vault's audit log, and deliver a new wrapping token")
}
