package token

import (
	"context"
	"net/url"

	"pillion/creds"
)

// clientCredentials is RFC 6749 section 4.4. What the type itself says wins over
// the extra parameters.
func clientCredentials(c *creds.Credential, e endpoint) grant {
	return func(ctx context.Context) (answer, error) {
		form := url.Values{}
		for name, value := range c.Params {
			form.Set(name, value)
		}
		form.Set("grant_type", "client_credentials")
		if c.Scope != "" {
			form.Set("scope", c.Scope)
		}
		return e.ask(ctx, c, form)
	}
}
