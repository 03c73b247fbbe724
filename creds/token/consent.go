package token

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"pillion/creds"
)

// Pending is a consent that a person has been sent away for: RFC 6749 section
// 4.1 with PKCE (RFC 7636) always, and with plain never.
//
//	pending, err := token.BeginConsent(c, redirectURL)
//	// the browser goes to pending.URL, and comes back to redirectURL?code=..&state=..
//	code, err := pending.Code(query, now)
//
// It may be kept in a store between the two, by its exported fields: whoever does
// takes it out of there before Code, so that no other replica can use it again.
type Pending struct {
	URL             string // where the person consents
	State, Verifier creds.Secret
	RedirectURL     string
	Started         time.Time // by the caller's clock, the one that Code is asked with

	used atomic.Bool
}

// ConsentTime is how long a person may take.
const ConsentTime = 10 * time.Minute

// BeginConsent makes the address where a person consents to c. redirectURL is where
// the provider sends the browser afterwards: https, or http on this machine. The
// caller sets Started, if it is not to be now.
func BeginConsent(c *creds.Credential, redirectURL string) (*Pending, error) {
	if c.Authorization != creds.AuthorizationCode {
		return nil, fmt.Errorf("connecting %s: authorization type %s needs no consent, only %s does", c.Name, c.Authorization, creds.AuthorizationCode)
	}
	if !isRedirectURL(redirectURL) {
		return nil, fmt.Errorf("connecting %s: the redirect URL must be https, or http on 127.0.0.1, and have neither user name nor fragment", c.Name)
	}
	target, err := url.Parse(c.AuthorizationURL)
	if err != nil || target.Scheme != "https" || target.Host == "" || target.User != nil {
		return nil, fmt.Errorf("connecting %s: its authorization URL is not an https URL", c.Name)
	}
	p := &Pending{
		// Both are 256 random bits, in the form that RFC 7636 wants.
		State: creds.NewSecret(oauth2.GenerateVerifier()), Verifier: creds.NewSecret(oauth2.GenerateVerifier()),
		RedirectURL: redirectURL, Started: time.Now(),
	}
	query := target.Query()
	for name, value := range c.AuthorizationParams {
		query.Set(name, value)
	}
	query.Set("response_type", "code")
	query.Set("client_id", c.ClientID)
	query.Set("redirect_uri", redirectURL)
	query.Set("state", p.State.Reveal())
	query.Set("code_challenge", oauth2.S256ChallengeFromVerifier(p.Verifier.Reveal()))
	query.Set("code_challenge_method", "S256")
	withScope(c, query)
	target.RawQuery, target.Fragment = query.Encode(), ""
	p.URL = target.String()
	return p, nil
}

// isRedirectURL follows RFC 8252 section 7.3: a loopback redirect may be http.
func isRedirectURL(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || strings.Contains(raw, "#") {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	loopback := u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
	return u.Scheme == "https" || u.Scheme == "http" && loopback
}

// The reasons why Code has none; a *ConsentError is another.
var (
	ErrConsentState   = errors.New("the answer belongs to no consent that was begun here: begin again")
	ErrConsentExpired = errors.New("the consent took longer than 10 minutes: begin again")
	ErrConsentUsed    = errors.New("the answer was used already: begin again")
	ErrConsentAnswer  = errors.New("the provider's answer holds no code, or something twice: begin again")
	ErrConsentIssuer  = errors.New("the answer comes from another provider than the one that was asked: do not go on; check the authorization URL")
)

// ConsentError is a provider's refusal.
type ConsentError struct {
	Code string // of RFC 6749 section 4.1.2.1 or OpenID Connect; "" for any other
}

// Error is in our own words: what the provider wrote, whoever had the link could
// have written as well.
func (e *ConsentError) Error() string {
	switch e.Code {
	case "access_denied":
		return "access_denied: the consent was refused, by the person or by a rule of the provider"
	case "invalid_scope":
		return "invalid_scope: the provider does not know this scope, or does not allow it to this client: correct the scope"
	case "unauthorized_client", "unsupported_response_type":
		return e.Code + ": the provider does not allow authorization codes to this client: enable them there"
	case "invalid_request":
		return "invalid_request: the provider misses a parameter or dislikes one: compare scope, parameters and redirect URL with its documentation"
	case "server_error", "temporarily_unavailable":
		return e.Code + ": the provider has trouble of its own: try again later"
	case "login_required", "consent_required", "interaction_required":
		return e.Code + ": the provider was not allowed to ask the person: remove prompt=none from the authorization parameters"
	}
	return "the provider refused, for a reason that is not known here"
}

// Code returns the authorization code out of the query that the browser came back
// with. It works once, and for ten minutes. An answer with a wrong state does not
// use it up: anybody can send one.
func (p *Pending) Code(query url.Values, now time.Time) (creds.Secret, error) {
	for _, name := range []string{"state", "code", "error", "iss"} {
		if len(query[name]) > 1 {
			return creds.Secret{}, ErrConsentAnswer
		}
	}
	// An empty state of ours, of a Pending that was not begun, equals none.
	if want := p.State.Reveal(); want == "" || subtle.ConstantTimeCompare([]byte(want), []byte(query.Get("state"))) != 1 {
		return creds.Secret{}, ErrConsentState
	}
	if p.used.Swap(true) {
		return creds.Secret{}, ErrConsentUsed
	}
	if age := now.Sub(p.Started); age > ConsentTime || age < -ConsentTime {
		return creds.Secret{}, ErrConsentExpired
	}
	if iss := query.Get("iss"); iss != "" && !sameOrigin(iss, p.URL) {
		return creds.Secret{}, ErrConsentIssuer
	}
	if query.Has("error") {
		return creds.Secret{}, &ConsentError{consentCode(query.Get("error"))}
	}
	code := query.Get("code")
	if code == "" || len(code) > maxToken {
		return creds.Secret{}, ErrConsentAnswer
	}
	return creds.NewSecret(code), nil
}

// sameOrigin stands in for RFC 9207's comparison with the issuer, which nobody
// configures: its issuer and its authorization endpoint have one host.
func sameOrigin(iss, authorizationURL string) bool {
	a, err1 := url.Parse(iss)
	b, err2 := url.Parse(authorizationURL)
	return err1 == nil && err2 == nil && a.Scheme == "https" && a.User == nil && b.Scheme == "https" &&
		strings.EqualFold(strings.TrimSuffix(a.Host, ":443"), strings.TrimSuffix(b.Host, ":443"))
}

func consentCode(code string) string {
	if code == "unsupported_response_type" {
		return code
	}
	return knownCode(code)
}
