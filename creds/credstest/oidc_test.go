package credstest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"pillion/creds"
)

// given is an answer of the token endpoint.
type given struct {
	Status  int    `json:"-"`
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Expires int    `json:"expires_in"`
	Code    string `json:"error"`
}

// ask sends a token request as the credential's client.
func (o *OIDC) ask(t *testing.T, c *creds.Credential, form url.Values) (given, error) {
	t.Helper()
	if c.AuthStyle == creds.AuthStyleBody {
		form.Set("client_id", c.ClientID)
		form.Set("client_secret", c.ClientSecret.Reveal())
	}
	r, err := http.NewRequest(http.MethodPost, o.TokenURL(), strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.AuthStyle != creds.AuthStyleBody {
		r.SetBasicAuth(url.QueryEscape(c.ClientID), url.QueryEscape(c.ClientSecret.Reveal()))
	}
	response, err := o.client.Do(r)
	if err != nil {
		return given{}, err
	}
	defer response.Body.Close()
	answer := given{Status: response.StatusCode}
	text, err := io.ReadAll(response.Body)
	if err == nil && strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		err = json.Unmarshal(text, &answer)
	}
	return answer, err
}

func (o *OIDC) mustAsk(t *testing.T, c *creds.Credential, form url.Values) given {
	t.Helper()
	answer, err := o.ask(t, c, form)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func (o *OIDC) refresh(t *testing.T, c *creds.Credential, token string) given {
	t.Helper()
	return o.mustAsk(t, c, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// connect does the whole code flow with PKCE.
func (o *OIDC) connect(t *testing.T, c *creds.Credential) given {
	t.Helper()
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	const redirect = "http://127.0.0.1:1/oauth/callback"
	query := url.Values{
		"response_type": {"code"}, "client_id": {c.ClientID}, "redirect_uri": {redirect}, "scope": {c.Scope},
		"prompt": {"consent"}, "state": {"state-1"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}
	back := o.Consent(t, o.AuthorizationURL()+"?"+query.Encode())
	if !strings.HasPrefix(back.String(), redirect+"?") || back.Query().Get("state") != "state-1" || back.Query().Get("iss") != o.Issuer {
		t.Fatalf("the browser is sent to %s", back)
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {redirect}}
	if wrong := o.mustAsk(t, c, form); wrong.Code != "invalid_grant" {
		t.Errorf("a code without its verifier gets %+v", wrong)
	}
	back = o.Consent(t, o.AuthorizationURL()+"?"+query.Encode())
	form.Set("code", back.Query().Get("code"))
	form.Set("code_verifier", verifier)
	answer := o.mustAsk(t, c, form)
	if answer.Access == "" || answer.Refresh == "" {
		t.Fatalf("the code gets %+v", answer)
	}
	return answer
}

func (o *OIDC) wantActive(t *testing.T, token string, want bool) time.Time {
	t.Helper()
	until, active, err := o.Active(token)
	if err != nil || active != want {
		t.Errorf("the token is active: %t, want %t (%v)", active, want, err)
	}
	return until
}

func TestOIDCRotatesStrictly(t *testing.T) {
	o := OIDCSetup{AccessToken: 5 * time.Second}.Start(t)
	for _, c := range []*creds.Credential{o.Credential("basic"), o.PostCredential("post")} {
		t.Run(c.Name, func(t *testing.T) {
			before := o.Stats(t)
			first := o.connect(t, c)
			if until := o.wantActive(t, first.Access, true); first.Expires != 5 || time.Until(until) > 5*time.Second {
				t.Errorf("the token lives for %d s, until %v", first.Expires, until)
			}
			second := o.refresh(t, c, first.Refresh)
			if second.Status != http.StatusOK || second.Refresh == first.Refresh || second.Access == first.Access {
				t.Fatalf("a refresh gets %+v", second)
			}
			o.wantActive(t, second.Access, true)
			if again := o.refresh(t, c, first.Refresh); again.Status != http.StatusBadRequest || again.Code != "invalid_grant" {
				t.Errorf("the second use gets %+v", again)
			}
			o.wantActive(t, second.Access, false)
			if after := o.refresh(t, c, second.Refresh); after.Code != "invalid_grant" {
				t.Errorf("after the second use, the newest refresh token gets %+v", after)
			}
			stats := o.Stats(t)
			if stats.Calls-before.Calls != 5 || stats.Reused-before.Reused != 1 || stats.GrantsRevoked-before.GrantsRevoked != 1 ||
				stats.Errors["invalid_grant"]-before.Errors["invalid_grant"] != 3 ||
				stats.Granted["refresh_token"]-before.Granted["refresh_token"] != 1 {
				t.Errorf("the counters are %+v, and were %+v", stats, before)
			}
		})
	}
}

func TestOIDCWithLeeway(t *testing.T) {
	o := OIDCSetup{Leeway: time.Minute}.Start(t)
	c := o.Credential("basic")
	first := o.connect(t, c)
	second, third := o.refresh(t, c, first.Refresh), o.refresh(t, c, first.Refresh)
	if second.Access == "" || third.Access == "" || second.Refresh == third.Refresh {
		t.Fatalf("the two uses get %+v and %+v", second, third)
	}
	o.wantActive(t, second.Access, true)
	if stats := o.Stats(t); stats.Reused != 1 || stats.GrantsRevoked != 0 {
		t.Errorf("the counters are %+v", stats)
	}
}

func TestOIDCFaults(t *testing.T) {
	o := StartOIDC(t)
	c := o.Credential("basic")
	first := o.connect(t, c)
	o.Fail(t, OIDCFaults{Unavailable: 1, RetryAfter: 7})
	if got := o.refresh(t, c, first.Refresh); got.Status != http.StatusServiceUnavailable {
		t.Errorf("unavailable: %+v", got)
	}
	o.Fail(t, OIDCFaults{TooMany: 1})
	if got := o.refresh(t, c, first.Refresh); got.Status != http.StatusTooManyRequests {
		t.Errorf("too many: %+v", got)
	}
	o.Fail(t, OIDCFaults{Lost: 1})
	if got, err := o.ask(t, c, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first.Refresh}}); err == nil {
		t.Errorf("lost: %+v", got)
	}
	o.Fail(t, OIDCFaults{})
	stats := o.Stats(t)
	if stats.Unavailable != 1 || stats.TooMany != 1 || stats.Lost != 1 || stats.Granted["refresh_token"] != 1 || stats.Reused != 0 {
		t.Errorf("the counters are %+v", stats)
	}
	if got := o.refresh(t, c, first.Refresh); got.Code != "invalid_grant" {
		t.Errorf("what was lost was not done: %+v", got)
	}
}

func TestOIDCRevokes(t *testing.T) {
	o := StartOIDC(t)
	c := o.Credential("basic")
	first := o.connect(t, c)
	if n := o.RevokeAccessTokens(t); n != 1 {
		t.Errorf("%d tokens revoked, want 1", n)
	}
	o.wantActive(t, first.Access, false)
	second := o.refresh(t, c, first.Refresh)
	o.wantActive(t, second.Access, true)
	o.RevokeGrants(t)
	o.wantActive(t, second.Access, false)
	if got := o.refresh(t, c, second.Refresh); got.Code != "invalid_grant" {
		t.Errorf("without the grant a refresh gets %+v", got)
	}
	machine := o.mustAsk(t, c, url.Values{"grant_type": {"client_credentials"}})
	if machine.Access == "" || machine.Refresh != "" {
		t.Errorf("client credentials get %+v", machine)
	}
}
