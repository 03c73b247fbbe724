package console

import (
	"context"
	"errors"
	"net/url"
	"time"

	"pillion/creds"
)

// knownGrants says what each test wants said, and remembers what it was asked for.
type knownGrants struct {
	states map[string]TokenState
	report Report
	err    error
	url    string // where a person consents

	asked []string
	query url.Values
}

func (g *knownGrants) Begin(c *creds.Credential, redirectURL string) (Consent, error) {
	g.asked = append(g.asked, "begin "+c.Name+" "+redirectURL)
	if c.Authorization != creds.AuthorizationCode {
		return Consent{}, errors.New("needs no consent")
	}
	return Consent{URL: g.url + "?state=the-state", State: creds.NewSecret("the-state"), Verifier: creds.NewSecret("the-verifier"), RedirectURL: redirectURL, Started: time.Now()}, nil
}

func (g *knownGrants) Finish(_ context.Context, _ *Session, c *creds.Credential, consent Consent, query url.Values) (Report, error) {
	g.asked, g.query = append(g.asked, "finish "+c.Name+" "+consent.Verifier.Reveal()+" "+consent.RedirectURL), query
	return g.report, g.err
}

func (g *knownGrants) Refresh(_ context.Context, _ *Session, c *creds.Credential) (Report, error) {
	g.asked = append(g.asked, "refresh "+c.Name)
	return g.report, g.err
}

func (g *knownGrants) Test(_ context.Context, _ *Session, c *creds.Credential, path string) (Report, error) {
	g.asked = append(g.asked, "test "+c.Name+" "+c.URL+" "+path)
	return g.report, g.err
}

func (g *knownGrants) States(_ context.Context, _ Part, list []*creds.Credential) []TokenState {
	states := make([]TokenState, len(list))
	for i, c := range list {
		var known bool
		if states[i], known = g.states[c.Name]; !known {
			states[i] = TokenState{Condition: Unknown, Detail: "this pillion has not needed its token since it started"}
		}
	}
	return states
}

// knownLive is an hour of requests.
type knownLive struct{ now time.Time }

func (knownLive) Source() string { return "requests through this pillion since 2026-11-23 08:12 UTC" }

func (l knownLive) Usage(name string) (Usage, bool) {
	if name == "status" {
		return Usage{}, true
	}
	return Usage{Last: l.now.Add(-3 * time.Minute), Requests: 1234, Clients: []string{"tools/connector-7d9f5c"}}, true
}

func (l knownLive) Requests(int) []Request {
	return []Request{
		{l.now, "jira", "GET", "example.atlassian.net", "/rest/api/3/issue/CON-1", 200, 84 * time.Millisecond, ""},
		{l.now.Add(-time.Second), "servicenow", "POST", "example.service-now.com", "/api/now/table/incident/with/a/rather/long/path/that/must/break/somewhere", 503, 1200 * time.Millisecond, ""},
		{l.now.Add(-time.Minute), "", "GET", "unknown.example", "/<script>", 403, time.Millisecond, "no-credential"},
	}
}

func (l knownLive) Minutes() []Minute {
	minutes := make([]Minute, 60)
	for i := range minutes {
		minutes[i] = Minute{Requests: i * i % 97, Errors: i % 7 / 6 * 3}
	}
	return minutes
}
