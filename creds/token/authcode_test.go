package token

import (
	"errors"
	"net/url"
	"reflect"
	"testing"

	"pillion/creds"
	"pillion/creds/credstest"
)

// asked is a fixture whose grant is asked directly, without what stands around it.
func asked(t *testing.T, edit func(*creds.Credential)) (*fixture, grant) {
	t.Helper()
	f := newFixture(t)
	edit(f.jira)
	found, err := kindOf(f.jira)
	if err != nil {
		t.Fatal(err)
	}
	return f, found.grant(f.jira, f.endpoint())
}

func authorizationCodeCredential(c *creds.Credential) {
	c.Authorization, c.AuthorizationURL = creds.AuthorizationCode, "https://login.example/authorize"
	c.Scope, c.Params = "read offline_access", map[string]string{"resource": "r", "code": "theirs"}
}

func TestProofs(t *testing.T) {
	passwordCredential := func(c *creds.Credential) {
		c.Authorization, c.Username, c.Password = creds.PasswordGrant, "me", creds.NewSecret("pä&ss")
		c.Scope = "a  b"
	}
	for _, row := range []struct {
		name string
		edit func(*creds.Credential)
		p    proof
		want url.Values
	}{
		{"code", authorizationCodeCredential,
			proof{code: creds.NewSecret("c+1"), verifier: creds.NewSecret("v"), redirectURL: "http://127.0.0.1:1/callback"},
			url.Values{"grant_type": {"authorization_code"}, "code": {"c+1"}, "code_verifier": {"v"}, "redirect_uri": {"http://127.0.0.1:1/callback"}, "resource": {"r"}}},
		{"refresh", authorizationCodeCredential, proof{refresh: creds.NewSecret("r/1")},
			url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"r/1"}, "resource": {"r"}}},
		{"password", passwordCredential, proof{},
			url.Values{"grant_type": {"password"}, "username": {"me"}, "password": {"pä&ss"}, "scope": {"a b"}}},
		{"password with a refresh token", passwordCredential, proof{refresh: creds.NewSecret("r")},
			url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"r"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			f, ask := asked(t, row.edit)
			f.provider.Answer(credstest.Reply(200, "application/json", `{"access_token":"a","refresh_token":"r2","expires_in":"3600"}`))
			got, err := ask(t.Context(), row.p)
			if err != nil {
				t.Fatal(err)
			}
			if got.token.Reveal() != "a" || got.refresh.Reveal() != "r2" {
				t.Errorf("token %q, refresh token %q", got.token.Reveal(), got.refresh.Reveal())
			}
			request := f.provider.Requests()[0]
			if !reflect.DeepEqual(request.Form, row.want) {
				t.Errorf("form %v, want %v", request.Form, row.want)
			}
			if request.User != f.provider.ClientID || request.Password != f.provider.ClientSecret {
				t.Errorf("client %q", request.User)
			}
		})
	}

	t.Run("without any, nothing is asked", func(t *testing.T) {
		f, ask := asked(t, authorizationCodeCredential)
		_, err := ask(t.Context(), proof{})
		var failed *failure
		if !errors.As(err, &failed) || failed.reason != ReasonInvalidGrant || failed.unknown {
			t.Errorf("%v", err)
		}
		f.wantCalls(t, 0)
	})

	t.Run("a client without a secret only names itself", func(t *testing.T) {
		f, ask := asked(t, func(c *creds.Credential) {
			passwordCredential(c)
			c.ClientSecret = creds.Secret{}
		})
		f.provider.Answer(credstest.ReplyToken("a", 60))
		if _, err := ask(t.Context(), proof{}); err != nil {
			t.Fatal(err)
		}
		request := f.provider.Requests()[0]
		if request.Header.Get("Authorization") != "" || request.Form.Get("client_id") != f.provider.ClientID || request.Form.Has("client_secret") {
			t.Errorf("Authorization %q, form %v", request.Header.Get("Authorization"), request.Form)
		}
	})
}
