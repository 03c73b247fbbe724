package token

import (
	"context"
	"net/url"

	"pillion/creds"
)

// authorizationCode spends a code (RFC 6749 section 4.1.3, with the verifier of
// RFC 7636) or a refresh token (section 6). Without either there is nothing to
// ask for: a person has to consent.
func authorizationCode(c *creds.Credential, e endpoint) grant {
	return func(ctx context.Context, p proof) (answer, error) {
		switch {
		case !p.refresh.IsZero():
			return e.refresh(ctx, c, p.refresh)
		case !p.code.IsZero():
			return e.post(ctx, c, url.Values{
				"grant_type":    {"authorization_code"},
				"code":          {p.code.Reveal()},
				"code_verifier": {p.verifier.Reveal()},
				"redirect_uri":  {p.redirectURL},
			})
		}
		return answer{}, &failure{reason: ReasonInvalidGrant, detail: "nobody has consented yet"}
	}
}

// refresh sends a refresh token. The scope is left out: it then stays as it was
// granted (RFC 6749 section 6), while one that was edited since would be refused
// as larger than that.
func (e endpoint) refresh(ctx context.Context, c *creds.Credential, token creds.Secret) (answer, error) {
	return e.post(ctx, c, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token.Reveal()}})
}
