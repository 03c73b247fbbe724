package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"pillion/creds"
	"pillion/creds/console"
	"pillion/creds/token"
	"pillion/creds/vaultstore"
	"pillion/sftpgw"
)

// consoleGrants is what the page has done that needs a secret: over the embedded
// store by this process, over Vault by a refresher, which the person asks.
type consoleGrants struct{ d *daemon }

var _ console.Grants = consoleGrants{}

// Begin makes the address where a person consents.
func (consoleGrants) Begin(c *creds.Credential, redirectURL string) (console.Consent, error) {
	p, err := token.BeginConsent(c, redirectURL)
	if err != nil {
		return console.Consent{}, err
	}
	return console.Consent{URL: p.URL, State: p.State, Verifier: p.Verifier, RedirectURL: p.RedirectURL, Started: p.Started}, nil
}

// Finish takes the code out of query and has it exchanged.
func (g consoleGrants) Finish(ctx context.Context, s *console.Session, c *creds.Credential, consent console.Consent, query url.Values) (console.Report, error) {
	pending := &token.Pending{URL: consent.URL, State: consent.State, Verifier: consent.Verifier, RedirectURL: consent.RedirectURL, Started: consent.Started}
	code, err := pending.Code(query, time.Now())
	if err != nil {
		return console.Report{}, err
	}
	work, err := g.work(ctx, s, c)
	if err != nil {
		return console.Report{}, err
	}
	report, err := work.exchange(ctx, token.Consent{Code: code, Verifier: consent.Verifier, RedirectURL: consent.RedirectURL, Spare: consent.Spare})
	return console.Report(report), err
}

// Refresh has a new token fetched.
func (g consoleGrants) Refresh(ctx context.Context, s *console.Session, c *creds.Credential) (console.Report, error) {
	if !hasToken(c) {
		return console.Report{}, errors.New(c.Name + " has no token to refresh: its authorization type is " + string(c.Authorization))
	}
	work, err := g.work(ctx, s, c)
	if err != nil {
		return console.Report{}, err
	}
	report, err := work.do(ctx, token.OpRefresh)
	return console.Report(report), err
}

// work is what is done for c in the name of s.
func (g consoleGrants) work(ctx context.Context, s *console.Session, c *creds.Credential) (*grantWork, error) {
	work := &grantWork{store: s.At.Store, credential: c, by: s.Who}
	if g.d.vault != nil || g.d.refresher == nil {
		return work, nil
	}
	current, err := g.current(ctx, s.At, c)
	if err != nil {
		return nil, err
	}
	work.credential, work.refresher = current, g.d.refresher.Refresher
	return work, nil
}

// current is c as this process uses it, with its secrets. It must be the version that
// the person saw, of the part where the person saw it.
func (g consoleGrants) current(ctx context.Context, at console.Part, c *creds.Credential) (*creds.Credential, error) {
	for try := range 2 {
		if current, ok := g.d.live.Table().ByName(c.Name); ok && current.Version == c.Version && g.uses(at, c.Name) {
			return current, nil
		}
		if try == 0 {
			g.d.consoleChanged(ctx)
		}
	}
	return nil, errors.New(c.Name + " is not used by this pillion as it is stored: it was changed this moment, or store.credentials leaves it out")
}

// uses reports whether the credential of that name which this process uses is the one
// in that part.
func (g consoleGrants) uses(at console.Part, name string) bool {
	if g.d.vault == nil {
		return true
	}
	store := g.d.live.StoreOf(name)
	if counted, ok := store.(countedStore); ok {
		store = counted.Store
	}
	own, ok := store.(*vaultstore.Store)
	return ok && own.Prefix() == at.Name
}

// Test tries a credential out: its token request, if it has one, and a request to
// its own instance URL; over SFTP a login.
func (g consoleGrants) Test(ctx context.Context, s *console.Session, c *creds.Credential, path string) (console.Report, error) {
	var report console.Report
	if hasToken(c) && c.Authorization != creds.AuthorizationCode { // a refresh token is not spent for a test
		work, err := g.work(ctx, s, c)
		if err != nil {
			return report, err
		}
		asked, err := work.do(ctx, token.OpTest)
		report = console.Report(asked)
		if err != nil || !asked.OK {
			return report, err
		}
	}
	current, err := g.current(ctx, s.At, c)
	if err != nil && report.OK {
		report.Lines = append(report.Lines, "no request was sent to the tool itself: this pillion may not read the token")
		return report, nil
	}
	if err != nil {
		return report, err
	}
	if c.Protocol == creds.SFTP {
		return g.testSFTP(ctx, current)
	}
	return g.testHTTPS(ctx, current, path, report)
}

// testTarget is where a test request goes: below the instance URL, by the same rule
// as a connector's requests.
func (g consoleGrants) testTarget(c *creds.Credential, path string) (string, error) {
	instance, err := c.Instance()
	if err != nil {
		return "", err
	}
	full := strings.TrimSuffix(instance.URL(), "/") + "/" + strings.TrimPrefix(strings.TrimSpace(path), "/")
	target, err := creds.ParseTarget(full)
	if err != nil {
		return "", fmt.Errorf("the path %w", err)
	}
	if _, err := g.d.live.Table().MatchNamed(c.Name, target); err != nil {
		return "", err
	}
	return full, nil
}

func (g consoleGrants) testHTTPS(ctx context.Context, c *creds.Credential, path string, report console.Report) (console.Report, error) {
	at, err := g.testTarget(c, path)
	if err != nil {
		return report, err
	}
	authorization, err := g.d.keeper.Authorize(ctx, c)
	if err != nil {
		return report, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	method := http.MethodHead
	status, took, err := g.send(ctx, method, at, authorization)
	if err == nil && (status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented) {
		method = http.MethodGet
		status, took, err = g.send(ctx, method, at, authorization)
	}
	report.OK = false
	shown, _, _ := strings.Cut(at, "?")
	if err != nil {
		report.Lines = append(report.Lines, fmt.Sprintf("%s %s got no answer: %s", method, shown, oneLine(rootCause(err))))
		return report, nil
	}
	report.Lines = append(report.Lines, fmt.Sprintf("%s %s was answered %d %s after %s", method, shown, status, http.StatusText(status), took.Round(time.Millisecond)))
	switch {
	case status == http.StatusUnauthorized:
		report.Lines = append(report.Lines, "the tool does not take this authorization: check what is stored")
	case status == http.StatusForbidden:
		report.Lines = append(report.Lines, "the tool knows who asks, or does not say so, and refuses: check the rights there, or test another path")
	case status >= 500:
		report.Lines = append(report.Lines, "the tool has trouble of its own")
	case status >= 300 && status < 400:
		report.OK = true
		report.Lines = append(report.Lines, "that is a redirect, which nobody follows: many tools send those that they do not know to a login page so; test a path of the tool's API")
	default:
		report.OK = true
	}
	return report, nil
}

// send does one request, follows nothing, and reads no body.
func (g consoleGrants) send(ctx context.Context, method, at string, authorization *creds.Authorization) (status int, took time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, method, at, nil)
	if err != nil {
		return 0, 0, err
	}
	for _, field := range authorization.Headers {
		request.Header.Set(field.Name, field.Value.Reveal())
	}
	query := request.URL.Query()
	for _, field := range authorization.Query {
		query.Set(field.Name, field.Value.Reveal())
	}
	if len(authorization.Query) > 0 {
		request.URL.RawQuery = query.Encode()
	}
	begin := time.Now()
	response, err := g.d.server.Upstream().RoundTrip(request)
	if err != nil {
		return 0, 0, err
	}
	response.Body.Close()
	return response.StatusCode, time.Since(begin), nil
}

func (g consoleGrants) testSFTP(ctx context.Context, c *creds.Credential) (console.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	begin := time.Now()
	server, err := sftpgw.Try(ctx, g.d.server.DialContext, c)
	if err != nil {
		return console.Report{Lines: []string{err.Error()}}, nil //nolint:nilerr // it is what the test found
	}
	return console.Report{OK: true, Lines: []string{
		fmt.Sprintf("the server showed a pinned host key, took the login and opened SFTP, in %s", time.Since(begin).Round(time.Millisecond)),
		"it calls itself " + server,
	}}, nil
}
