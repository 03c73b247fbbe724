package token

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

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

// post sends form and c's own parameters to c's access token URL.
//
// x/oauth2 builds the request, for every grant by the one type of it that leaves
// the form to us; we take it from there. It would follow a 307 with the client
// secret, quote an answer's body in its errors, and throw away odd answers to a
// provider that has rotated already.
func (e endpoint) post(ctx context.Context, c *creds.Credential, form url.Values) (answer, error) {
	if f := e.ready(c); f != nil {
		return answer{}, f
	}
	config := clientcredentials.Config{
		ClientID:       c.ClientID,
		ClientSecret:   c.ClientSecret.Reveal(),
		TokenURL:       withoutFragment(c.AccessTokenURL),
		EndpointParams: withParams(c, form),
		AuthStyle:      authStyle(c),
	}
	s := &sender{endpoint: e, err: &failure{reason: ReasonForbiddenTarget, detail: "it cannot be asked"}}
	_, _ = config.Token(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: s})) // errTaken, in x/oauth2's words
	return withLifetime(c, s.answer), s.err
}

// ready says why nothing can be sent to c's access token URL.
func (e endpoint) ready(c *creds.Credential) *failure {
	target, err := url.Parse(c.AccessTokenURL)
	if err != nil || target.Scheme != "https" || target.Host == "" || target.User != nil {
		return &failure{reason: ReasonForbiddenTarget, detail: "it is not an https URL, or holds a user name"}
	}
	if e.http == nil {
		return &failure{reason: ReasonNetwork, detail: "this program was built without a way to reach it"}
	}
	return nil
}

// withParams adds c's extra parameters to a form, but for those that a grant says
// itself, or leaves out on purpose.
func withParams(c *creds.Credential, form url.Values) url.Values {
	for name, value := range c.Params {
		switch name {
		case "grant_type", "client_id", "client_secret", "scope", "code", "code_verifier", "redirect_uri", "refresh_token", "username", "password":
		default:
			form.Set(name, value)
		}
	}
	return form
}

func withScope(c *creds.Credential, form url.Values) url.Values {
	if scope := strings.Join(strings.Fields(c.Scope), " "); scope != "" {
		form.Set("scope", scope)
	}
	return form
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
	s.answer, s.err = s.send(own, readAnswer)
	return nil, errTaken
}

// send asks; read makes a token of a 2xx answer.
func (e endpoint) send(request *http.Request, read func(status int, body []byte) (answer, error)) (answer, error) {
	wire := &wire{}
	response, err := e.http.RoundTrip(request.WithContext(wire.watch(request.Context())))
	if err != nil {
		f := classifyTransport(err)
		f.unknown = f.unknown && wire.mayHaveLeft()
		return answer{}, f
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err == nil && !whole(response, body) {
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
		f.status, f.unknown = response.StatusCode, true
		return answer{}, f
	case len(body) > maxBody:
		return answer{}, badResponse(response.StatusCode, "the answer is too long to be a token")
	}
	return read(response.StatusCode, body)
}

// whole reports whether a body is sure to have come to its end. Such an answer is
// taken however late it is, for the refresh token in it may be the only one: the
// process, or its machine, may have stood still when it came.
func whole(response *http.Response, body []byte) bool {
	return response.ContentLength > 0 && response.ContentLength == int64(len(body)) || json.Valid(body)
}

// wire watches whether a request was written: only what never left is sure not to
// have been acted upon.
type wire struct{ traced, written atomic.Bool }

func (w *wire) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// net/http asks for another connection only where nothing was written to the
		// one before, or HTTP/2 says that the request was not looked at.
		GetConn:      func(string) { w.traced.Store(true); w.written.Store(false) },
		WroteHeaders: func() { w.written.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { w.written.Store(true) },
	})
}

// mayHaveLeft believes the worst of a transport that reports nothing.
func (w *wire) mayHaveLeft() bool { return w.written.Load() || !w.traced.Load() }

func withoutFragment(rawURL string) string {
	bare, _, _ := strings.Cut(rawURL, "#")
	return bare
}

// authStyle is fixed: left to x/oauth2 to find out, it costs a second request,
// which sends a rotating refresh token twice. A client without a secret only names
// itself, and that stands in the form (RFC 6749 section 3.2.1).
func authStyle(c *creds.Credential) oauth2.AuthStyle {
	if c.AuthStyle == creds.AuthStyleBody || c.ClientSecret.IsZero() {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}
