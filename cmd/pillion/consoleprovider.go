package main

import (
	"context"
	"time"

	"pillion/creds"
	"pillion/creds/console"
	"pillion/creds/vaultstore"
)

// vaultProvider lets people in who log in at the OpenID provider of a login method of
// Vault's.
type vaultProvider struct {
	client *vaultstore.Client
	config consoleOIDCConfig
}

var _ console.Provider = (*vaultProvider)(nil)

// loginPatience is how long Vault may take for a login: it may ask a provider itself.
const loginPatience = 15 * time.Second

// Name is what people call it.
func (v *vaultProvider) Name() string { return v.config.Name }

// Begin asks Vault where to log in.
func (v *vaultProvider) Begin(ctx context.Context, redirectURL string) (console.Away, error) {
	ctx, cancel := context.WithTimeout(ctx, loginPatience)
	defer cancel()
	login, err := v.client.BeginOIDC(ctx, v.config.Path, v.config.Role, redirectURL)
	if err != nil {
		return console.Away{}, loginError(err)
	}
	return console.Away(login), nil
}

// Finish has Vault exchange the code, for a token of the person's.
func (v *vaultProvider) Finish(ctx context.Context, away console.Away, code creds.Secret) (console.Person, error) {
	ctx, cancel := context.WithTimeout(ctx, loginPatience)
	defer cancel()
	p, err := v.client.FinishOIDC(ctx, v.config.Path, vaultstore.OIDCLogin(away), code)
	return personOf(p, true, err)
}
