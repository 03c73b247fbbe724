package token

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"pillion/creds"
)

func consentCredential() *creds.Credential {
	return &creds.Credential{
		Name: "jira", Authorization: creds.AuthorizationCode, ClientID: "id", Scope: "a  b",
		AuthorizationURL:    "https://login.example/authorize?tenant=7&state=theirs",
		AuthorizationParams: map[string]string{"audience": "api", "client_id": "theirs"},
		Params:              map[string]string{"resource": "r"},
	}
}

const callback = "http://127.0.0.1:4711/callback"

func begin(t *testing.T) (*Pending, url.Values) {
	t.Helper()
	p, err := BeginConsent(consentCredential(), callback)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	return p, u.Query()
}

func TestBeginConsent(t *testing.T) {
	p, query := begin(t)
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "id", "redirect_uri": callback, "scope": "a b", "state": p.State.Reveal(),
		"code_challenge": oauth2.S256ChallengeFromVerifier(p.Verifier.Reveal()), "code_challenge_method": "S256", "tenant": "7", "audience": "api", "resource": "",
	} {
		if got := strings.Join(query[name], "|"); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(p.URL, "https://login.example/authorize?") || len(p.State.Reveal()) < 43 || p.State.Equal(p.Verifier) {
		t.Errorf("%s", p.URL)
	}
	if strings.Contains(p.URL, p.Verifier.Reveal()) {
		t.Error("the verifier stands in the address")
	}
	if other, _ := begin(t); other.State.Equal(p.State) || other.Verifier.Equal(p.Verifier) {
		t.Error("two consents have the same state or verifier")
	}
	for _, redirect := range []string{"", "http://tool.example/cb", "https://u@console.example/cb", "https://console.example/cb#x", "javascript:alert(1)", "/callback", "http://127.0.0.1.example/"} {
		if _, err := BeginConsent(consentCredential(), redirect); err == nil {
			t.Errorf("redirect URL %q was taken", redirect)
		}
	}
	for _, redirect := range []string{"https://console.example/oauth/callback", "http://localhost:1/", "http://[::1]:1/"} {
		if _, err := BeginConsent(consentCredential(), redirect); err != nil {
			t.Error(err)
		}
	}
	for _, edit := range []func(*creds.Credential){
		func(c *creds.Credential) { c.Authorization = creds.ClientCredentials },
		func(c *creds.Credential) { c.AuthorizationURL = "http://login.example/" },
		func(c *creds.Credential) { c.AuthorizationURL = "javascript:alert(1)" },
	} {
		c := consentCredential()
		edit(c)
		if _, err := BeginConsent(c, callback); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

// TestConsentAnswer: case 46, what comes back from the browser.
func TestConsentAnswer(t *testing.T) {
	ok := func(q url.Values) {}
	for _, row := range []struct {
		name string
		edit func(url.Values)
		late time.Duration
		want error // nil: the code comes
	}{
		{"46 as it should be", ok, 0, nil},
		{"46 after nine minutes", ok, 9 * time.Minute, nil},
		{"46 with the issuer", func(q url.Values) { q.Set("iss", "https://LOGIN.example:443/realm") }, 0, nil},
		{"46 after eleven minutes", ok, 11 * time.Minute, ErrConsentExpired},
		{"46 no state", func(q url.Values) { q.Del("state") }, 0, ErrConsentState},
		{"46 empty state", func(q url.Values) { q.Set("state", "") }, 0, ErrConsentState},
		{"46 another state", func(q url.Values) { q.Set("state", q.Get("state")+"x") }, 0, ErrConsentState},
		{"46 two states", func(q url.Values) { q.Add("state", "x") }, 0, ErrConsentAnswer},
		{"46 two codes", func(q url.Values) { q.Add("code", "x") }, 0, ErrConsentAnswer},
		{"46 no code", func(q url.Values) { q.Del("code") }, 0, ErrConsentAnswer},
		{"46 another issuer", func(q url.Values) { q.Set("iss", "https://evil.example/") }, 0, ErrConsentIssuer},
		{"46 an issuer in the clear", func(q url.Values) { q.Set("iss", "http://login.example/") }, 0, ErrConsentIssuer},
		{"46 refused", func(q url.Values) { q.Set("error", "access_denied") }, 0, &ConsentError{"access_denied"}},
		{"46 refused, with a script", func(q url.Values) {
			q.Set("error", "<script>"+canary)
			q.Set("error_description", "<script>"+canary)
		}, 0, &ConsentError{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, sent := begin(t)
			answer := url.Values{"code": {"c" + canary}, "state": {sent.Get("state")}}
			row.edit(answer)
			code, err := p.Code(answer, p.Started.Add(row.late))
			var refused, want *ConsentError
			switch {
			case row.want == nil:
				if err != nil || code.Reveal() != "c"+canary {
					t.Errorf("%q, %v", code.Reveal(), err)
				}
			case !code.IsZero():
				t.Error("a code came")
			case errors.As(row.want, &want):
				if !errors.As(err, &refused) || *refused != *want {
					t.Errorf("%v", err)
				}
			case !errors.Is(err, row.want):
				t.Errorf("%v, want %v", err, row.want)
			}
			if strings.Contains(printed(err, p), canary) {
				t.Errorf("echoed: %v", err)
			}
		})
	}

	t.Run("46 once", func(t *testing.T) {
		p, sent := begin(t)
		if _, err := p.Code(url.Values{"state": {"guessed"}, "code": {"x"}}, p.Started); !errors.Is(err, ErrConsentState) {
			t.Error(err)
		}
		var codes atomic.Int32
		var done sync.WaitGroup
		for range 8 {
			done.Go(func() {
				_, err := p.Code(url.Values{"state": {sent.Get("state")}, "code": {"c"}}, p.Started)
				if err == nil {
					codes.Add(1)
				} else if !errors.Is(err, ErrConsentUsed) {
					t.Error(err)
				}
			})
		}
		done.Wait()
		if codes.Load() != 1 {
			t.Errorf("%d codes", codes.Load())
		}
	})

	t.Run("46 of none that was begun", func(t *testing.T) {
		if _, err := (&Pending{}).Code(url.Values{"code": {"c"}, "state": {""}}, time.Time{}); !errors.Is(err, ErrConsentState) {
			t.Error(err)
		}
	})

	t.Run("every known code has words", func(t *testing.T) {
		plain := (&ConsentError{}).Error()
		for _, code := range []string{"access_denied", "invalid_scope", "unauthorized_client", "unsupported_response_type", "invalid_request", "server_error", "temporarily_unavailable", "login_required", "consent_required", "interaction_required"} {
			if e := (&ConsentError{consentCode(code)}).Error(); e == plain || !strings.HasPrefix(e, code) {
				t.Errorf("%s: %s", code, e)
			}
		}
	})
}
