package console

import (
	"fmt"
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
	if c.Protocol == creds.SFTP || !isFetched(c.Authorization) {
		return chip{"plain", "Ready", ""}
	}
	switch state.Condition {
	case Good:
		return chip{"good", "OK", ""}
	case Expiring:
		return chip{"warn", "Expiring", state.Detail}
	case Failing:
		return chip{"warn", "Refresh failing", state.Detail}
	case NeedsConsent:
		return chip{"bad", "Needs consent", state.Detail}
	case Wrong:
		return chip{"bad", "Refused", state.Detail}
	}
	if state.Detail == "" {
		return chip{"plain", "Not known here", ""}
	}
	return chip{"plain", "Not known yet", state.Detail}
}

// isFetched reports whether a type has a token that is fetched.
func isFetched(t creds.AuthorizationType) bool {
	f, _ := fieldNamed("access_token_url")
	return f.belongs(string(t))
}

// ago is a time as people say it, beside what a tooltip shows exactly.
func ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "–"
	case d < 0:
		return "in " + span(-d)
	case d < 10*time.Second:
		return "just now"
	default:
		return span(d) + " ago"
	}
}

func span(d time.Duration) string {
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if n := int(d / unit.of); n == 1 {
			return "1 " + unit.name
		} else if n > 1 {
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return fmt.Sprintf("%d seconds", int(d/time.Second))
}
