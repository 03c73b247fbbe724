package token

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"pillion/creds"
)

// Report is what Check found, in lines for a person.
type Report struct {
	OK    bool
	Lines []string
}

func (r *Report) say(format string, args ...any) {
	r.Lines = append(r.Lines, fmt.Sprintf(format, args...))
}

// Check tries c out: for a grant it does one real token request, past cache and
// back-off and without an Event, and tells how that went. Where that would spend a
// person's consent it asks nobody, and says so: the refresh token belongs to the
// process that keeps the grant's record.
func (k *Keeper) Check(ctx context.Context, c *creds.Credential) Report {
	var report Report
	sent, err := Describe(c)
	if err != nil {
		report.say("%v", err)
		return report
	}
	found, _ := kindOf(c) // Describe has asked already
	report.OK = true
	switch {
	case found.consent:
		k.checkConsent(c, &report)
	case found.grant != nil:
		k.checkGrant(ctx, c, found, &report)
	}
	if !report.OK {
		return report
	}
	if len(sent) == 0 {
		report.say("requests to %s carry nothing: the type is %s", c.URL, c.Authorization)
	}
	for _, field := range sent {
		report.say("requests to %s carry %s", c.URL, field)
	}
	if found.grant == nil {
		report.say("no token is needed; whether the tool takes this shows only with a request: pillion try %s", c.URL)
	}
	return report
}

// checkConsent looks at what can be looked at without a token request.
func (k *Keeper) checkConsent(c *creds.Credential, report *Report) {
	if f := k.endpoint().ready(c); f != nil {
		report.OK = false
		report.say("no token can be asked for: %s", f.words())
		report.say("%s", Advice(f.reason, f.code))
		return
	}
	report.say("no token was asked for: each request spends the refresh token, so only the refresher that keeps it may")
	report.say("to renew the token: pillion credential refresh %s; to consent anew: pillion credential connect %s", c.Name, c.Name)
}

func (k *Keeper) checkGrant(ctx context.Context, c *creds.Credential, found kind, report *Report) {
	ctx, cancel := context.WithTimeout(ctx, k.timeout())
	defer cancel()
	report.say("asking %s for a token (%s)", withoutQuery(c.AccessTokenURL), strings.Join(asker(c), ", "))
	started := k.now()
	got, err := found.grant(c, k.endpoint())(ctx, proof{})
	took := k.now().Sub(started).Round(time.Millisecond)
	if err != nil {
		failed := asFailure(err)
		report.OK = false
		report.say("no token after %s: %s", took, failed.words())
		report.say("%s", Advice(failed.reason, failed.code))
		return
	}
	report.say("a token came after %s: %d characters, fingerprint %s%s", took, len(got.token.Reveal()), got.token.Fingerprint(), typeWords(got.kind))
	report.say("it lives for %s (%s)", got.lifetime.Round(time.Second), got.basis)
}

// Describe returns what requests for c carry, without the secrets:
// "Authorization: Bearer [secret]". It asks nobody.
func Describe(c *creds.Credential) ([]string, error) {
	found, err := kindOf(c)
	if err != nil {
		return nil, err
	}
	own := headerOf(c.TokenHeader(), c.Prefix())
	if found.static != nil {
		own = found.static(c)
	}
	sent := withHeaders(c, own)
	if err := checkFields(c, sent); err != nil {
		return nil, err
	}
	var lines []string
	for i, field := range sent.Headers {
		prefix := ""
		if i < len(own.Headers) {
			prefix = prefixOf(c)
		}
		lines = append(lines, field.Name+": "+prefix+"[secret]")
	}
	for _, field := range sent.Query {
		lines = append(lines, "?"+url.QueryEscape(field.Name)+"=[secret]")
	}
	return lines, nil
}

// prefixOf is what stands before the secret in the field that c's kind sends.
func prefixOf(c *creds.Credential) string {
	switch c.Authorization {
	case creds.Basic:
		return "Basic "
	case creds.APIKey:
		return ""
	}
	return c.Prefix()
}

// Advice returns what to do about a *creds.TokenError's reason and code.
func Advice(reason, code string) string {
	switch code {
	case "invalid_scope":
		return "the provider does not know this scope, or does not allow it to this client: correct the scope"
	case "unauthorized_client", "unsupported_grant_type":
		return "the provider does not allow this grant to this client: enable it there, or choose another authorization type"
	case "invalid_request", "invalid_target":
		return "the provider misses a parameter or dislikes one: compare scope, parameters and auth style with its documentation"
	}
	switch reason {
	case ReasonInvalidClient:
		return "check client id and client secret; if they are right, try the other auth style (header or body)"
	case ReasonInvalidGrant:
		return "the provider does not take what it was sent: check user name and password; where a person consents, have one do so again: pillion credential connect NAME"
	case ReasonOther4xx:
		return "the provider refuses the request: check the access token URL and the parameters"
	case ReasonServer5xx:
		return "the provider has trouble of its own: nothing to change here; it is tried again by itself"
	case ReasonTimeout:
		return "no answer in time: check that this machine reaches the access token URL"
	case ReasonNetwork:
		return "check the host and port of the access token URL, the network, and upstream.ca_file"
	case ReasonBadResponse:
		return "check that the access token URL is the token endpoint and not a login page"
	case ReasonRedirect:
		return "enter the address that the access token URL redirects to, if you trust it"
	case ReasonForbiddenTarget:
		return "check the access token URL: it must be https, and its address one that pillion may connect to (upstream.allow)"
	case ReasonUnsupported:
		return "choose another authorization type: pillion credential set --help lists them"
	case ReasonNoRefresher:
		return "see that a refresher runs (refresher.enabled: true) and uses this credential; its log says more"
	case ReasonBadRecord:
		return "the record of its grant in the store (grants/NAME) cannot be read: update this pillion if a newer one wrote it, else restore an earlier version of the record, or delete the credential and set it again"
	case ReasonChanged:
		return "the credential was edited meanwhile: repeat the request"
	}
	return ""
}

// words is the failure in a sentence.
func (f *failure) words() string {
	text := f.reason
	if f.status != 0 {
		text += fmt.Sprintf(", status %d", f.status)
	}
	if f.code != "" && f.code != f.reason {
		text += ", " + f.code
	}
	if f.detail != "" {
		text += ": " + f.detail
	}
	return text
}

// String is for a person.
func (b basis) String() string {
	switch b {
	case stated:
		return "by expires_in"
	case fromJWT:
		return "by the token itself: a JWT's exp minus iat"
	case configured:
		return "by token_lifetime of the credential: the answer has no expires_in that can be read"
	case denied:
		return "assumed: expires_in is 0 or less"
	}
	return "assumed: the answer has no expires_in that can be read"
}

func typeWords(kind string) string {
	if kind == "" {
		return ""
	}
	return ", type " + kind
}

// asker says who asks for a token, and how.
func asker(c *creds.Credential) []string {
	parts := []string{string(c.Authorization)}
	if c.Username != "" {
		parts = append(parts, fmt.Sprintf("user name %q", c.Username))
	}
	switch {
	case c.ClientID == "":
	case c.ClientSecret.IsZero():
		parts = append(parts, fmt.Sprintf("client id %q, without a secret", c.ClientID))
	default:
		parts = append(parts, fmt.Sprintf("client id %q, secret in the %s", c.ClientID, styleOf(c)))
	}
	return parts
}

func styleOf(c *creds.Credential) string {
	if c.AuthStyle == creds.AuthStyleBody {
		return "body"
	}
	return "Authorization header"
}

// withoutQuery drops what may hold a key.
func withoutQuery(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the access token URL"
	}
	u.RawQuery, u.Fragment, u.User = "", "", nil
	return u.String()
}
