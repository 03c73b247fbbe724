package token

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

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

// ask has x/oauth2 build a token request for c, and takes it from there: x/oauth2
// would follow a 307 with the client secret, quote an answer's body in its errors,
// and throw away odd answers to a provider that has rotated already.
func (e endpoint) ask(ctx context.Context, c *creds.Credential, build func(ctx context.Context) error) (answer, error) {
	target, err := url.Parse(c.AccessTokenURL)
	if err != nil || target.Scheme != "https" || target.Host == "" || target.User != nil {
		return answer{}, &failure{reason: ReasonForbiddenTarget, detail: "it is not an https URL, or holds a user name"}
	}
	if e.http == nil {
		return answer{}, &failure{reason: ReasonNetwork, detail: "this program was built without a way to reach it"}
	}
	s := &sender{endpoint: e, err: &failure{reason: ReasonForbiddenTarget, detail: "it cannot be asked"}}
	_ = build(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: s})) // errTaken, in x/oauth2's words
	return s.answer, s.err
}

// sender is the transport that x/oauth2 gets: it keeps what came of the request,
// and gives x/oauth2 nothing.
type sender struct {
	endpoint
	answer answer
	err    error
}

var errTaken = errors.New("the answer is read elsewhere")

// RoundTrip implements http.RoundTripper.
func (s *sender) RoundTrip(request *http.Request) (*http.Response, error) {
	own := request.Clone(request.Context())
	own.Header.Set("Accept", "application/json")
	own.Header.Set("User-Agent", "pillion")
	s.answer, s.err = s.send(own)
	return nil, errTaken
}

func (e endpoint) send(request *http.Request) (answer, error) {
	response, err := e.http.RoundTrip(request)
	if err != nil {
		return answer{}, classifyTransport(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err == nil {
		// Hanging up at the deadline makes a server end its body, and net/http may
		// still read that end: a cut body without an error. A cut JWT looks whole.
		err = request.Context().Err()
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

func withoutFragment(rawURL string) string {
	bare, _, _ := strings.Cut(rawURL, "#")
	return bare
}

// authStyle is fixed: left to x/oauth2 to find out, it costs a second request,
// which sends a rotating refresh token twice.
func authStyle(c *creds.Credential) oauth2.AuthStyle {
	if c.AuthStyle == creds.AuthStyleBody {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}
