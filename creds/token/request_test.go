package token

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"pillion/creds"
	"pillion/creds/credstest"
)

// TestRequestIsThatOfOAuth2 holds our request against the one that x/oauth2
// builds for the same credential.
func TestRequestIsThatOfOAuth2(t *testing.T) {
	for style, theirs := range map[creds.AuthStyle]oauth2.AuthStyle{
		"":                    oauth2.AuthStyleInHeader,
		creds.AuthStyleHeader: oauth2.AuthStyleInHeader,
		creds.AuthStyleBody:   oauth2.AuthStyleInParams,
	} {
		t.Run("style "+string(style), func(t *testing.T) {
			f := newFixture(t)
			f.jira.AuthStyle, f.jira.Scope = style, "read write"
			f.jira.ClientID = "id with:odd/characters"
			f.provider.ClientID = f.jira.ClientID
			f.jira.Params = map[string]string{"audience": "https://api.example/"}
			f.bearer(t)
			config := clientcredentials.Config{
				ClientID: f.jira.ClientID, ClientSecret: f.provider.ClientSecret, TokenURL: f.jira.AccessTokenURL,
				Scopes: []string{"read", "write"}, EndpointParams: url.Values{"audience": {"https://api.example/"}}, AuthStyle: theirs,
			}
			client := &http.Client{Transport: f.provider.Transport()}
			if _, err := config.Token(context.WithValue(t.Context(), oauth2.HTTPClient, client)); err != nil {
				t.Fatal(err)
			}
			requests := f.provider.Requests()
			ours, reference := requests[0], requests[1]
			if !reflect.DeepEqual(ours.Form, reference.Form) {
				t.Errorf("form %v, want %v", ours.Form, reference.Form)
			}
			for _, name := range []string{"Authorization", "Content-Type"} {
				if ours.Header.Get(name) != reference.Header.Get(name) {
					t.Errorf("%s: %q, want %q", name, ours.Header.Get(name), reference.Header.Get(name))
				}
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
	t.Run("a kind of later builds", func(t *testing.T) {
		report := (&Keeper{Timeout: time.Second}).Check(t.Context(), &creds.Credential{Name: "l", Authorization: creds.Login})
		if report.OK || len(report.Lines) != 1 {
			t.Errorf("%q", report.Lines)
		}
	})
}
