package token

import (
	"context"
	"net/url"

	"pillion/creds"
)

// clientCredentials is RFC 6749 section 4.4.
func clientCredentials(c *creds.Credential, e endpoint) grant {
	return func(ctx context.Context, _ proof) (answer, error) {
		return e.post(ctx, c, withScope(c, url.Values{"grant_type": {"client_credentials"}}))
	}
}
