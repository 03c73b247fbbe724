package credstest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"pillion/creds"
)

// Provider is a token endpoint on loopback TLS. It is honest until it is told
// to lie: it asks for its client id and secret, in either style, and hands out
// token-1, token-2 and so on, each for an hour.
//
//	provider := credstest.NewProvider(t)
//	provider.Answer(credstest.Reply(503, "text/html", "<html>"))
//	keeper := &token.Keeper{HTTP: provider.Transport()}
//	keeper.Authorize(ctx, provider.Credential("jira"))
type Provider struct {
	// ClientID and ClientSecret are what the honest provider takes. The secret
	// holds a character that a form must escape.
	ClientID, ClientSecret string

	server *httptest.Server

	mu       sync.Mutex
	requests []TokenRequest
	next     []http.HandlerFunc
	answer   http.HandlerFunc // nil: honest
	issued   int
}

// TokenRequest is what arrived at a Provider.
type TokenRequest struct {
	Method         string
	Path           string
	Header         http.Header
	Form           url.Values
	User, Password string // of Basic authentication, form-decoded
}

// NewProvider starts a Provider that ends with the test.
func NewProvider(t testing.TB) *Provider {
	t.Helper()
	p := &Provider{
		ClientID:     "pillion-client",
		ClientSecret: "canary-client+secret/7f3a",
	}
	p.server = httptest.NewUnstartedServer(p)
	// A client that gives up, or refuses our certificate, is the test's business.
	p.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.server.StartTLS()
	t.Cleanup(p.server.Close)
	return p
}

// URL is the address of the token endpoint.
func (p *Provider) URL() string { return p.server.URL + "/oauth/token" }

// RootCAs holds the certificate that the provider presents.
func (p *Provider) RootCAs() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.server.Certificate())
	return pool
}

// Transport returns one that trusts the provider and asks nobody for a proxy.
func (p *Provider) Transport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.RootCAs(), MinVersion: tls.VersionTLS12}}
}

// Credential returns one for https://tool.example/ whose tokens come from here.
func (p *Provider) Credential(name string) *creds.Credential {
	return &creds.Credential{
		Name:           name,
		Protocol:       creds.HTTPS,
		URL:            "https://" + name + ".example/",
		Authorization:  creds.ClientCredentials,
		ClientID:       p.ClientID,
		ClientSecret:   creds.NewSecret(p.ClientSecret),
		AccessTokenURL: p.URL(),
		Version:        1,
	}
}

// Answer sets what every later request gets; nil makes the provider honest.
func (p *Provider) Answer(reply http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = reply
}

// Next sets what the next requests get, one each, before Answer applies again.
func (p *Provider) Next(replies ...http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = append(p.next, replies...)
}

// Requests returns what has arrived so far.
func (p *Provider) Requests() []TokenRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]TokenRequest(nil), p.requests...)
}

// Calls returns how many requests have arrived.
func (p *Provider) Calls() int { return len(p.Requests()) }

// ServeHTTP answers a token request.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.record(r)(w, r)
}

// record notes the request and picks its answer. Noting comes first, so that a
// request that is never answered counts as well.
func (p *Provider) record(r *http.Request) http.HandlerFunc {
	seen := tokenRequest(r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, seen)
	switch {
	case len(p.next) > 0:
		reply := p.next[0]
		p.next = p.next[1:]
		return reply
	case p.answer != nil:
		return p.answer
	case !p.knows(seen):
		return ReplyError(http.StatusUnauthorized, "invalid_client", "")
	}
	p.issued++
	return ReplyToken("token-"+strconv.Itoa(p.issued), 3600)
}

func tokenRequest(r *http.Request) TokenRequest {
	_ = r.ParseForm()
	seen := TokenRequest{Method: r.Method, Path: r.URL.Path, Header: r.Header.Clone(), Form: r.PostForm}
	if user, password, ok := r.BasicAuth(); ok {
		seen.User, _ = url.QueryUnescape(user)
		seen.Password, _ = url.QueryUnescape(password)
	}
	return seen
}

func (p *Provider) knows(r TokenRequest) bool {
	id, secret := r.User, r.Password
	if r.Form.Has("client_secret") {
		id, secret = r.Form.Get("client_id"), r.Form.Get("client_secret")
	}
	return id == p.ClientID && secret == p.ClientSecret
}

// Reply answers with a status and a body as they are.
func Reply(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// ReplyToken answers with a token. expiresIn is written as JSON writes it; nil
// leaves the member out.
func ReplyToken(token string, expiresIn any) http.HandlerFunc {
	body := map[string]any{"access_token": token, "token_type": "Bearer"}
	if expiresIn != nil {
		body["expires_in"] = expiresIn
	}
	return replyJSON(http.StatusOK, body)
}

// ReplyError answers with an OAuth error (RFC 6749 section 5.2).
func ReplyError(status int, code, description string) http.HandlerFunc {
	return replyJSON(status, map[string]any{"error": code, "error_description": description})
}

// ReplyRedirect answers with a redirect.
func ReplyRedirect(status int, to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, status) }
}

// ReplyAfter answers as reply does, but only when release is closed. A client
// that leaves, or a server that closes, ends the wait as well.
func ReplyAfter(release <-chan struct{}, reply http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
			reply(w, r)
		case <-r.Context().Done():
		}
	}
}

// ReplyDrip begins a JSON body and then sends a blank every few milliseconds
// until the client has enough of it.
func ReplyDrip() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{")
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-tick.C:
				_, _ = io.WriteString(w, " ")
			case <-r.Context().Done():
				return
			}
		}
	}
}

func replyJSON(status int, body map[string]any) http.HandlerFunc {
	data, err := json.Marshal(body)
	if err != nil {
		panic(err) // a test's own mistake
	}
	return Reply(status, "application/json", string(data))
}
