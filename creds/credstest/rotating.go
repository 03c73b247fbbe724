package credstest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"sync"
	"testing"
	"time"

	"pillion/creds"
)

// Rotating is a Provider that rotates refresh tokens as strictly as any: each buys
// once, and one that comes again ends all that the same consent has brought (RFC
// 9700, section 4.14.2).
//
//	provider := credstest.NewRotating(t)
//	refresh := provider.Consent()              // what a person's consent would bring
//	code := provider.Code()                    // or one that is still to be exchanged
//	provider.Lose(1)                           // the next answer gets lost
//
// Provider's Next and Answer still lie for it; what they answer changes no grant.
type Rotating struct {
	*Provider
	// Life is that of an access token. If 0, an hour. Set it before first use.
	Life time.Duration
	// Leeway lets a refresh token come again so soon after it was used: it then gets
	// the same answer. Set it before first use.
	Leeway time.Duration

	mu       sync.Mutex
	families int
	codes    map[string]bool      // not yet spent
	refresh  map[string]*rotation // by refresh token
	access   map[string]*lineage  // by access token
	lose     int
	held     <-chan struct{} // answers wait for it; nil: they do not
	counts   RotatingCounts
}

// lineage is all that one consent has brought.
type lineage struct {
	n       int
	revoked bool
}

// rotation is one refresh token and what it bought.
type rotation struct {
	of            *lineage
	used          time.Time // zero: not yet
	access, child string
}

// RotatingCounts is what has happened at a Rotating.
type RotatingCounts struct {
	Rotations   int // requests that brought a new refresh token, codes among them
	Reuse       int // of refresh tokens or codes that had been used before
	Revocations int // of all that a consent had brought
	Lost        int // answers that were lost on purpose
}

// NewRotating starts a Rotating that ends with the test.
func NewRotating(t testing.TB) *Rotating {
	t.Helper()
	p := &Rotating{
		Provider: NewProvider(t), codes: map[string]bool{}, refresh: map[string]*rotation{}, access: map[string]*lineage{},
	}
	p.Answer(p.serve)
	return p
}

// AuthorizationCode returns a credential whose tokens come from here.
func (p *Rotating) AuthorizationCode(name string) *creds.Credential {
	c := p.Credential(name)
	c.Authorization, c.AuthorizationURL = creds.AuthorizationCode, p.server.URL+"/authorize"
	return c
}

// Direct returns a transport that asks the provider without a network, for tests
// in a bubble of testing/synctest.
func (p *Rotating) Direct() http.RoundTripper { return direct{p} }

type direct struct{ provider http.Handler }

// RoundTrip implements http.RoundTripper.
func (d direct) RoundTrip(r *http.Request) (response *http.Response, err error) {
	defer func() {
		if recover() != nil {
			response, err = nil, io.ErrUnexpectedEOF // the request was written whole by then
		}
	}()
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{})
	}
	w := httptest.NewRecorder()
	d.provider.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

// Consent begins a grant and returns its refresh token.
func (p *Rotating) Consent() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.families++
	return p.issue(&lineage{n: p.families * 1000})
}

// Code returns one that can be exchanged once, with any verifier.
func (p *Rotating) Code() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.families++
	code := fmt.Sprintf("canary-code-%d", p.families)
	p.codes[code] = true
	return code
}

// Lose loses the answers to the next n honest requests: the provider has acted, and
// the client sees its connection end.
func (p *Rotating) Lose(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = n
}

// Hold has answers wait until release is closed, after the provider has acted. It
// notes a request in Requests as soon as it has come.
func (p *Rotating) Hold(release <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = release
}

// Counts returns what has happened so far.
func (p *Rotating) Counts() RotatingCounts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Honours reports whether an access token is one that upstream would take.
func (p *Rotating) Honours(access string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.access[access]
	return l != nil && !l.revoked
}

func (p *Rotating) serve(w http.ResponseWriter, r *http.Request) {
	reply := ReplyError(http.StatusUnauthorized, "invalid_client", "")
	if p.knows(tokenRequest(r)) {
		reply = p.grant(r)
	}
	p.mu.Lock()
	lose, held := p.lose > 0, p.held
	if lose {
		p.lose--
		p.counts.Lost++
	}
	p.mu.Unlock()
	if held != nil {
		<-held
	}
	if lose {
		panic(http.ErrAbortHandler)
	}
	reply(w, r)
}

func (p *Rotating) grant(r *http.Request) http.HandlerFunc {
	p.mu.Lock()
	defer p.mu.Unlock()
	invalid := ReplyError(http.StatusBadRequest, "invalid_grant", "canary: the text of a refusal")
	switch r.PostFormValue("grant_type") {
	case "refresh_token":
		used := p.refresh[r.PostFormValue("refresh_token")]
		switch {
		case used == nil || used.of.revoked:
			return invalid
		case used.used.IsZero():
			used.used = time.Now()
			return p.bring(used)
		case time.Since(used.used) < p.Leeway:
			p.counts.Reuse++
			return p.tokens(used.access, used.child)
		}
		p.counts.Reuse++
		p.counts.Revocations++
		used.of.revoked = true
		return invalid
	case "authorization_code":
		code := r.PostFormValue("code")
		if !p.codes[code] {
			p.counts.Reuse++
			return invalid
		}
		delete(p.codes, code)
		p.families++
		return p.bring(&rotation{of: &lineage{n: p.families * 1000}})
	}
	return ReplyError(http.StatusBadRequest, "unsupported_grant_type", "")
}

// bring gives what comes after used.
func (p *Rotating) bring(used *rotation) http.HandlerFunc {
	p.counts.Rotations++
	used.child = p.issue(used.of)
	used.access = fmt.Sprintf("canary-access-%d", used.of.n)
	p.access[used.access] = used.of
	return p.tokens(used.access, used.child)
}

func (p *Rotating) issue(l *lineage) string {
	l.n++
	token := fmt.Sprintf("canary-refresh-%d", l.n)
	p.refresh[token] = &rotation{of: l}
	return token
}

func (p *Rotating) tokens(access, refresh string) http.HandlerFunc {
	life := p.Life
	if life == 0 {
		life = time.Hour
	}
	return replyJSON(http.StatusOK, map[string]any{
		"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": life.Seconds(),
	})
}
