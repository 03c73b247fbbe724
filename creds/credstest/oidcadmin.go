package credstest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"
)

// OIDCStats counts what happened at an OIDC since its start.
type OIDCStats struct {
	// Calls of the token endpoint, those that met a fault included.
	Calls int `json:"calls"`
	// Granted counts tokens given, by grant type; Errors refusals, by error code.
	Granted map[string]int `json:"granted"`
	Errors  map[string]int `json:"errors"`
	// Unavailable, TooMany and Lost count the faults of OIDCFaults. What was lost is
	// in Granted or Errors as well.
	Unavailable int `json:"unavailable"`
	TooMany     int `json:"too_many"`
	Lost        int `json:"lost"`
	// Reused counts uses of a refresh token that had been used before.
	Reused int `json:"reused"`
	// GrantsRevoked counts the grants that a second use ended.
	GrantsRevoked int `json:"grants_revoked"`
	// AccessTokensRevoked counts those of RevokeAccessTokens.
	AccessTokensRevoked int `json:"access_tokens_revoked"`
}

// OIDCFaults are the shares, 0 to 1, of the calls of the token endpoint that meet a
// fault. The zero value is none.
type OIDCFaults struct {
	// Unavailable and TooMany are answers of 503 and 429; the provider does not see
	// the call. RetryAfter, if not 0, is the seconds of their Retry-After.
	Unavailable float64 `json:"unavailable"`
	TooMany     float64 `json:"too_many"`
	RetryAfter  int     `json:"retry_after,omitempty"`
	// Lost are calls that the provider does, and whose answer never comes.
	Lost float64 `json:"lost"`
}

// Stats returns what happened so far.
func (o *OIDC) Stats(t testing.TB) OIDCStats {
	t.Helper()
	var stats OIDCStats
	o.admin(t, http.MethodGet, "stats", nil, &stats)
	return stats
}

// Fail sets which faults the calls of the token endpoint meet from now on.
func (o *OIDC) Fail(t testing.TB, faults OIDCFaults) {
	t.Helper()
	o.admin(t, http.MethodPut, "faults", faults, nil)
}

// RevokeAccessTokens ends all access tokens before their time, and says how many
// there were. Grants and refresh tokens stay.
func (o *OIDC) RevokeAccessTokens(t testing.TB) int {
	t.Helper()
	return o.revoke(t, "access-tokens")
}

// RevokeGrants ends every grant with its tokens, as people do who withdraw what
// they consented to, and says how many there were.
func (o *OIDC) RevokeGrants(t testing.TB) int {
	t.Helper()
	return o.revoke(t, "grants")
}

func (o *OIDC) revoke(t testing.TB, what string) int {
	t.Helper()
	var answer struct {
		Revoked int `json:"revoked"`
	}
	o.admin(t, http.MethodPost, "revoke-"+what, nil, &answer)
	return answer.Revoked
}

func (o *OIDC) admin(t testing.TB, method, what string, body, into any) {
	t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(method, o.Issuer+"/admin/"+what, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	status, text, err := o.do(o.client, r)
	if err == nil && into != nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s of the OpenID provider: %d, %v", what, status, err)
	}
}

func (o *OIDC) do(client *http.Client, r *http.Request) (int, []byte, error) {
	response, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, text, err
}

// Active asks the provider whether an access token is good, as a resource server
// does (RFC 7662), and until when.
func (o *OIDC) Active(token string) (until time.Time, active bool, err error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	r, err := http.NewRequest(http.MethodPost, o.Issuer+"/token/introspection", strings.NewReader(form.Encode()))
	if err != nil {
		return time.Time{}, false, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(url.QueryEscape(o.ClientID), url.QueryEscape(o.ClientSecret))
	status, text, err := o.do(o.client, r)
	if err != nil {
		return time.Time{}, false, err
	}
	var answer struct {
		Active bool  `json:"active"`
		Exp    int64 `json:"exp"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || status != http.StatusOK {
		return time.Time{}, false, fmt.Errorf("introspection answers %d", status)
	}
	return time.Unix(answer.Exp, 0), answer.Active, nil
}

// Consent goes to an authorization URL as a person with a browser does, logs in,
// allows everything, and returns where the browser is sent in the end, with the
// code in its query. Nobody needs to listen there. Each call is a new session, and
// so a grant of its own.
func (o *OIDC) Consent(t testing.TB, authorizationURL string) *url.URL {
	t.Helper()
	redirect, err := o.consent(authorizationURL)
	if err != nil {
		t.Fatalf("consenting: %v", err)
	}
	return redirect
}

func (o *OIDC) consent(authorizationURL string) (*url.URL, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	var away *url.URL
	browser := &http.Client{
		Transport: o.client.Transport, Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			if r.URL.Scheme+"://"+r.URL.Host != o.Issuer {
				away = r.URL
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	response, err := browser.Get(authorizationURL)
	if err != nil {
		return nil, err
	}
	response.Body.Close()
	if away == nil && strings.HasPrefix(response.Request.URL.Path, "/interaction/") {
		if response, err = browser.PostForm(response.Request.URL.String(), url.Values{"login": {"alice"}, "answer": {"allow"}}); err != nil {
			return nil, err
		}
		response.Body.Close()
	}
	if away == nil {
		return nil, fmt.Errorf("the provider answers %d at %s", response.StatusCode, response.Request.URL.Path)
	}
	return away, nil
}
