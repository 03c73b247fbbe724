package console

import (
	"time"

	"pillion/creds"
)

// typeWords are the types as people read them.
func typeWords(p creds.Protocol, t creds.AuthorizationType) string {
	if p == creds.SFTP {
		return "Basic"
	}
	for _, group := range typeGroups() {
		for _, o := range group.Options {
			if o.Value == string(t) {
				return o.Label
			}
		}
	}
	return string(t)
}

type optionGroup struct {
	Label   string // "" for the first, which has none
	Options []option
}

// typeGroups are the types of HTTPS: the common ones, and the others under "More".
func typeGroups() []optionGroup {
	return []optionGroup{
		{"", []option{
			{string(creds.None), "No Auth"},
			{string(creds.Basic), "Basic"},
			{string(creds.Bearer), "Bearer token"},
			{string(creds.ClientCredentials), "OAuth 2.0 - Client credentials"},
			{string(creds.AuthorizationCode), "OAuth 2.0 - Authorization code"},
		}},
		{"More", []option{
			{string(creds.APIKey), "API key"},
			{string(creds.PasswordGrant), "OAuth 2.0 - Password"},
			{string(creds.Login), "Login call"},
		}},
	}
}

// examples are instance URLs of well-known tools: the part that all their requests
// share.
func examples() []option {
	return []option{
		{"https://example.service-now.com/", "ServiceNow"},
		{"https://example.atlassian.net/", "Jira"},
		{"https://example-restapi.onbmc.com/", "BMC Helix"},
		{"https://cherwell.example.com/", "Cherwell"},
		{"https://example.ivanticloud.com/", "Ivanti"},
		{"https://example.freshservice.com/", "Freshservice"},
		{"https://api.4me.com/", "4me"},
	}
}

// chip is a state in words and a class of the style sheet.
type chip struct{ Class, Text, Detail string }

func chipOf(c *creds.Credential, state TokenState) chip {
	if !hasFetched(c) {
		return chip{"plain", "Ready", ""}
	}
	switch state.Condition {
	case Good:
		return chip{"good", "OK", ""}
	case Expiring:
		return chip{"warn", "Expiring", state.Detail}
	case Ending:
		return chip{"warn", "Consent ends soon", state.Detail}
	case Failing:
		return chip{"warn", "Refresh failing", state.Detail}
	case NeedsConsent:
		return chip{"bad", "Needs consent", state.Detail}
	case Wrong:
		return chip{"bad", "Refused", state.Detail}
	case Idle:
		return chip{"plain", "Not in use", state.Detail}
	}
	if state.Detail == "" {
		return chip{"plain", "Not known here", ""}
	}
	return chip{"plain", "Not known yet", state.Detail}
}

// hasFetched reports whether a credential has a token that is fetched.
func hasFetched(c *creds.Credential) bool {
	f, _ := fieldNamed("access_token_url")
	return f.belongs(use(c.Protocol, c.Authorization))
}

// moment is something that has a time, as people say it.
type moment struct {
	At    time.Time // zero: Words stand for themselves
	Words string
}

const (
	notKnown = "not known"
	noMoment = "–" // there can be none
)

// past is a moment that has been; otherwise stands for one that is not known of.
func past(now, t time.Time, otherwise string) moment {
	if t.IsZero() {
		return moment{Words: otherwise}
	}
	return moment{t, ago(now, t)}
}

// refreshOf and expiryOf are what a list and a form tell of a token.
func refreshOf(c *creds.Credential, state TokenState, now time.Time) moment {
	if !hasFetched(c) {
		return moment{Words: noMoment}
	}
	return past(now, state.Refreshed, notKnown)
}

func expiryOf(c *creds.Credential, state TokenState, now time.Time) moment {
	switch {
	case !hasFetched(c):
		return moment{Words: noMoment}
	case !state.Expires.IsZero():
		return moment{state.Expires, until(now, state.Expires)}
	case state.Condition == Good:
		return moment{Words: "no end known"}
	}
	return moment{Words: notKnown}
}

// ago is a time that has been, as people say it.
func ago(now, t time.Time) string {
	if d := now.Sub(t); d >= 10*time.Second {
		return span(d) + " ago"
	}
	return "just now"
}

// until is a time to come.
func until(now, t time.Time) string {
	if d := t.Sub(now); d > 0 {
		return "in " + span(d)
	}
	return "expired"
}

func span(d time.Duration) string {
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int(d / unit.of); n > 0 {
			return countWords(n, unit.name)
		}
	}
	return countWords(int(d/time.Second), "second")
}
