package main

import (
	"cmp"
	"strings"

	"pillion/creds/vaultstore"
)

// consoleVaultConfig is how people log in over Vault, beside with a token.
type consoleVaultConfig struct {
	Userpass string             `yaml:"userpass"`
	OIDC     *consoleOIDCConfig `yaml:"oidc"`
}

// consoleOIDCConfig is a login method of Vault's, of the type oidc.
type consoleOIDCConfig struct {
	Path string `yaml:"path"`
	Role string `yaml:"role"`
	Name string `yaml:"name"`
}

// fill sets what is left out. A path may be written as Vault's own command shows it.
func (v *consoleVaultConfig) fill() {
	mount := func(path, otherwise string) string {
		return cmp.Or(strings.Trim(strings.TrimPrefix(strings.Trim(path, "/"), "auth/"), "/"), otherwise)
	}
	v.Userpass = mount(v.Userpass, "userpass")
	if v.OIDC != nil {
		v.OIDC.Path = mount(v.OIDC.Path, "oidc")
		v.OIDC.Name = cmp.Or(strings.TrimSpace(v.OIDC.Name), "single sign-on")
	}
}

func (c *config) checkConsoleVault(d *document) {
	v := &c.Console.Vault
	if c.Store.Vault == nil && (v.Userpass != "" || v.OIDC != nil) {
		d.add("console.vault", "belongs to a store in Vault: remove it, or configure store.vault")
		return
	}
	v.fill()
	if !vaultstore.CleanPath(v.Userpass) {
		d.add("console.vault.userpass", "%q is no path of a login method: write one such as userpass, or off", v.Userpass)
	}
	if v.OIDC != nil && !vaultstore.CleanPath(v.OIDC.Path) {
		d.add("console.vault.oidc.path", "%q is no path of a login method: write one such as oidc", v.OIDC.Path)
	}
}
