package token

import (
	"context"
	"net/url"

	"pillion/creds"
)

// passwordGrant is RFC 6749 section 4.3. With a refresh token it spends that one:
// at Cherwell each password grant takes a licence seat.
func passwordGrant(c *creds.Credential, e endpoint) grant {
	return func(ctx context.Context, p proof) (answer, error) {
		if !p.refresh.IsZero() {
			return e.refresh(ctx, c, p.refresh)
		}
		return e.post(ctx, c, withScope(c, url.Values{
			"grant_type": {"password"},
			"username":   {c.Username},
			"password":   {c.Password.Reveal()},
		}))
	}
}
