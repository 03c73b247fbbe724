package token

import (
	"context"
	"net/url"
	"strings"

	"golang.org/x/oauth2/clientcredentials"

	"pillion/creds"
)

// clientCredentials is RFC 6749 section 4.4.
func clientCredentials(c *creds.Credential, e endpoint) grant {
	return func(ctx context.Context, _ proof) (answer, error) {
		config := clientcredentials.Config{
			ClientID:       c.ClientID,
			ClientSecret:   c.ClientSecret.Reveal(),
			TokenURL:       withoutFragment(c.AccessTokenURL),
			Scopes:         strings.Fields(c.Scope),
			EndpointParams: extraParams(c),
			AuthStyle:      authStyle(c),
		}
		return e.ask(ctx, c, func(ctx context.Context) error {
			_, err := config.Token(ctx)
			return err
		})
	}
}

// extraParams are those of the credential that the type does not say itself:
// what it says wins.
func extraParams(c *creds.Credential) url.Values {
	form := url.Values{}
	for name, value := range c.Params {
		switch name {
		case "grant_type", "scope", "client_id", "client_secret":
		default:
			form.Set(name, value)
		}
	}
	return form
}
