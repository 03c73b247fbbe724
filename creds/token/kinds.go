package token

import (
	"context"

	"pillion/creds"
)

// kind is one type of authorization: either static or a grant.
type kind struct {
	// static returns the whole authorization.
	static func(*creds.Credential) creds.Authorization
	// grant returns how a token is asked for.
	grant func(*creds.Credential, endpoint) grant
	// consent: its first token takes a person, since only a code of theirs, and the
	// refresh token that it brings, buy one.
	consent bool
}

// grant does one token request that spends p. It is safe for concurrent use, sends
// nothing twice, and takes ctx as the only limit of its time. Its error is a
// *failure.
type grant func(ctx context.Context, p proof) (answer, error)

// proof is what a token request spends beside the credential's own secrets: a
// refresh token, an authorization code, or nothing at all.
type proof struct {
	refresh creds.Secret // of the last answer, or of a consent

	code, verifier creds.Secret // RFC 6749 section 4.1.3, RFC 7636
	redirectURL    string       // that the code was sent to
}

var kinds = map[creds.AuthorizationType]kind{
	creds.None:              {static: none},
	creds.Basic:             {static: basic},
	creds.Bearer:            {static: bearer},
	creds.APIKey:            {static: apiKey},
	creds.ClientCredentials: {grant: clientCredentials},
	creds.AuthorizationCode: {grant: authorizationCode, consent: true},
	creds.PasswordGrant:     {grant: passwordGrant},
	creds.Login:             {grant: loginCall},
}

// kindOf looks c's kind up.
func kindOf(c *creds.Credential) (kind, error) {
	found, ok := kinds[c.Authorization]
	if !ok {
		return kind{}, &creds.TokenError{Credential: c.Name, Reason: ReasonUnsupported}
	}
	return found, nil
}
