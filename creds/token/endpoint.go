package token

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"pillion/creds"
)

// endpoint sends token requests. It speaks to a RoundTripper, not to a Client: a
// redirect is then an answer like any other, and no 307 can carry a client
// secret to another host.
type endpoint struct {
	http http.RoundTripper // nil: nothing is sent
	now  func() time.Time
}

// maxBody bounds an answer; real ones are below 20 KiB.
const maxBody = 256 << 10

// ask posts form to c's access token URL, the client id and secret where its
// auth style wants them.
func (e endpoint) ask(ctx context.Context, c *creds.Credential, form url.Values) (answer, error) {
	request, err := newRequest(ctx, c, form)
	if err != nil {
		return answer{}, err
	}
	if e.http == nil {
		return answer{}, &failure{reason: ReasonNetwork, detail: "this program was built without a way to reach it"}
	}
	response, err := e.http.RoundTrip(request)
	if err != nil {
		return answer{}, classifyTransport(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err == nil {
		// Hanging up at the deadline makes a server end its body, and net/http may
		// still read that end: a cut body without an error. A cut JWT looks whole.
		err = ctx.Err()
	}
	switch {
	case response.StatusCode < 200 || response.StatusCode > 299:
		// Whatever came of the body may hold the code; the status is known anyway.
		f := classifyAnswer(response.StatusCode, readCode(body))
		f.retryAfter = retryAfter(response.Header, e.now())
		return answer{}, f
	case err != nil:
		f := classifyTransport(err)
		f.status = response.StatusCode
		return answer{}, f
	case len(body) > maxBody:
		return answer{}, badResponse(response.StatusCode, "the answer is too long to be a token")
	}
	return readAnswer(response.StatusCode, body)
}

func newRequest(ctx context.Context, c *creds.Credential, form url.Values) (*http.Request, error) {
	target, err := url.Parse(c.AccessTokenURL)
	if err != nil || target.Scheme != "https" || target.Host == "" || target.User != nil {
		return nil, &failure{reason: ReasonForbiddenTarget, detail: "it is not an https URL, or holds a user name"}
	}
	target.Fragment = ""
	if c.AuthStyle == creds.AuthStyleBody {
		form.Set("client_id", c.ClientID)
		if !c.ClientSecret.IsZero() {
			form.Set("client_secret", c.ClientSecret.Reveal())
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, &failure{reason: ReasonForbiddenTarget, detail: "it cannot be asked"}
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "pillion")
	if c.AuthStyle != creds.AuthStyleBody {
		// Both halves are form-encoded before they are joined: RFC 6749 section 2.3.1.
		request.SetBasicAuth(url.QueryEscape(c.ClientID), url.QueryEscape(c.ClientSecret.Reveal()))
	}
	return request, nil
}
