package main

// refresherConfig is the section refresher.
type refresherConfig struct {
	Enabled string `yaml:"enabled"`
}

// refreshes reports whether this process gets access tokens itself: reads client
// secrets and refresh tokens, and speaks to token endpoints. Left to itself a
// pillion over the embedded store does, since there is nobody else; one over Vault
// does not, so that a sidecar holds no secret from which tokens are made.
func (c *config) refreshes() bool {
	switch c.Refresher.Enabled {
	case "true":
		return true
	case "false":
		return false
	}
	return c.vault == nil
}
