package token

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

func TestRequest(t *testing.T) {
	for _, c := range []struct {
		style         creds.AuthStyle
		authorization string
		form          url.Values
	}{
		{"", "Basic aWQrd2l0aCUzQW9kZCUyRmNoYXJhY3RlcnM6", url.Values{}},
		{creds.AuthStyleHeader, "Basic aWQrd2l0aCUzQW9kZCUyRmNoYXJhY3RlcnM6", url.Values{}},
		{creds.AuthStyleBody, "", url.Values{"client_id": {"id with:odd/characters"}, "client_secret": {"*"}}},
	} {
		t.Run("style "+string(c.style), func(t *testing.T) {
			f := newFixture(t)
			f.jira.AuthStyle, f.jira.Scope = c.style, "read write"
			f.jira.ClientID = "id with:odd/characters"
			f.provider.ClientID = f.jira.ClientID
			f.jira.Params = map[string]string{"audience": "https://api.example/"}
			f.bearer(t)
			got := f.provider.Requests()[0]
			c.form["grant_type"], c.form["scope"], c.form["audience"] = []string{"client_credentials"}, []string{"read write"}, []string{"https://api.example/"}
			if c.form.Has("client_secret") {
				c.form.Set("client_secret", f.provider.ClientSecret)
			}
			if !reflect.DeepEqual(got.Form, c.form) {
				t.Errorf("form %v, want %v", got.Form, c.form)
			}
			if !strings.HasPrefix(got.Header.Get("Authorization"), c.authorization) || c.authorization == "" && got.Header.Get("Authorization") != "" {
				t.Errorf("Authorization %q", got.Header.Get("Authorization"))
			}
			if got.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || got.Header.Get("Accept") != "application/json" {
				t.Errorf("header %v", got.Header)
			}
		})
	}
}

func TestParamsDoNotReplaceWhatTheTypeSays(t *testing.T) {
	f := newFixture(t)
	f.jira.AuthStyle = creds.AuthStyleBody
	f.jira.Params = map[string]string{"grant_type": "password", "client_secret": "theirs", "resource": "r"}
	f.bearer(t)
	form := f.provider.Requests()[0].Form
	if form.Get("grant_type") != "client_credentials" || form.Get("client_secret") != f.provider.ClientSecret || form.Get("resource") != "r" {
		t.Errorf("form %v", form)
	}
	if !reflect.DeepEqual(f.jira.Params, map[string]string{"grant_type": "password", "client_secret": "theirs", "resource": "r"}) {
		t.Error("the credential was written to")
	}
}

func BenchmarkAuthorizeWithToken(b *testing.B) {
	provider := credstest.NewProvider(b)
	k := &Keeper{HTTP: provider.Transport()}
	c := provider.Credential("jira")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := k.Authorize(b.Context(), c); err != nil {
				b.Error(err)
			}
		}
	})
}

func TestAuthorizeAllocatesNothing(t *testing.T) {
	f := newFixture(t)
	static := &creds.Credential{Name: "static", Authorization: creds.Bearer, Token: creds.NewSecret("t")}
	ctx := t.Context()
	for _, c := range []*creds.Credential{static, f.jira} {
		allocations := testing.AllocsPerRun(1000, func() {
			if _, err := f.Authorize(ctx, c); err != nil {
				t.Error(err)
			}
		})
		if allocations != 0 {
			t.Errorf("%s: %v allocations", c.Authorization, allocations)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Run("a token comes", func(t *testing.T) {
		f := newFixture(t)
		f.jira.AccessTokenURL += "?key=" + canary
		report := f.Check(t.Context(), f.jira)
		want := []string{
			`asking ` + f.provider.URL() + ` for a token (oauth2-client-credentials, client id "pillion-client", secret in the Authorization header)`,
			`a token came after 0s: 7 characters, fingerprint ` + creds.NewSecret("token-1").Fingerprint() + `, type Bearer`,
			`it lives for 1h0m0s (by expires_in)`,
			`requests to https://jira.example/ carry Authorization: Bearer [secret]`,
		}
		if !report.OK || !reflect.DeepEqual(report.Lines, want) {
			t.Errorf("OK %t:\n%q", report.OK, report.Lines)
		}
		if s := f.State("jira"); s.Status != StatusNone {
			t.Errorf("Check left a state: %+v", s)
		}
	})
	t.Run("none comes", func(t *testing.T) {
		f := newFixture(t)
		f.jira.ClientSecret = creds.NewSecret("wrong")
		report := f.Check(t.Context(), f.jira)
		want := []string{
			report.Lines[0],
			`no token after 0s: invalid_client, status 401`,
			`check client id and client secret; if they are right, try the other auth style (header or body)`,
		}
		if report.OK || !reflect.DeepEqual(report.Lines, want) {
			t.Errorf("OK %t:\n%q", report.OK, report.Lines)
		}
	})
	t.Run("past the back-off", func(t *testing.T) {
		f := newFixture(t)
		f.provider.Next(credstest.Reply(503, "", ""))
		f.refusal(t)
		if report := f.Check(t.Context(), f.jira); !report.OK {
			t.Errorf("%q", report.Lines)
		}
	})
	t.Run("every reason has advice", func(t *testing.T) {
		for _, reason := range append(Reasons(), ReasonUnsupported, ReasonChanged) {
			if Advice(reason, "") == "" {
				t.Errorf("none for %s", reason)
			}
		}
	})
	t.Run("an unknown kind", func(t *testing.T) {
		report := (&Keeper{Timeout: time.Second}).Check(t.Context(), &creds.Credential{Name: "l", Authorization: "voodoo"})
		if report.OK || len(report.Lines) != 1 {
			t.Errorf("%q", report.Lines)
		}
	})
	t.Run("a consent is not spent", func(t *testing.T) {
		f := newFixture(t)
		authorizationCodeCredential(f.jira)
		report := f.Check(t.Context(), f.jira)
		want := []string{
			`no token was asked for: each request spends the refresh token, so only the refresher that keeps it may`,
			`to renew the token: pillion credential refresh jira; to consent anew: pillion credential connect jira`,
			`requests to https://jira.example/ carry Authorization: Bearer [secret]`,
		}
		if !report.OK || !reflect.DeepEqual(report.Lines, want) {
			t.Errorf("OK %t:\n%q", report.OK, report.Lines)
		}
		f.wantCalls(t, 0)
		f.jira.AccessTokenURL = "http://login.example/"
		if report := f.Check(t.Context(), f.jira); report.OK {
			t.Errorf("%q", report.Lines)
		}
	})
}
