package token

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"pillion/creds"
)

// simProvider is a token endpoint of the strictest kind, without a network: a
// refresh token buys once, and one that comes a second time ends its whole family,
// as RFC 9700 section 4.14.2 asks.
type simProvider struct {
	life time.Duration
	// used hears of every refresh token that arrives and of how often it came
	// before, under the lock, if not nil.
	used func(token string, before int)

	mu       sync.Mutex
	families map[string]*family // by purpose and number
	codes    map[string]*family // unused codes

	calls, rotations, reuse, revocations, refused int
}

// family is what came of one consent.
type family struct {
	name    string
	n       int         // tokens bought so far
	uses    map[int]int // of refresh token n
	revoked bool
}

const simTokenURL = "https://provider.example/token"

func newSimProvider(life time.Duration) *simProvider {
	return &simProvider{life: life, families: map[string]*family{}, codes: map[string]*family{}}
}

// credential returns one whose tokens come from here.
func (p *simProvider) credential(name string, kind creds.AuthorizationType) *creds.Credential {
	c := &creds.Credential{
		Name: name, Protocol: creds.HTTPS, URL: "https://" + name + ".example/", Authorization: kind,
		ClientID: "client-" + name, ClientSecret: creds.NewSecret("secret-of-" + name),
		AccessTokenURL: simTokenURL, Version: 1,
	}
	if kind == creds.AuthorizationCode {
		c.AuthorizationURL = "https://provider.example/authorize"
	}
	return c
}

// consent begins a family and returns the code that stands for it.
func (p *simProvider) consent(name string) (code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &family{name: fmt.Sprintf("%s.%d", name, len(p.families)+1), uses: map[int]int{}}
	p.families[f.name] = f
	code = "code/" + f.name
	p.codes[code] = f
	return code
}

// granted begins a family whose code was used already, and returns its first
// refresh token.
func (p *simProvider) granted(name string) string {
	code := p.consent(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.codes[code]
	delete(p.codes, code)
	return f.refresh()
}

func (f *family) refresh() string { return fmt.Sprintf("rt/%s/%d", f.name, f.n) }
func (f *family) access() string  { return fmt.Sprintf("at/%s/%d", f.name, f.n) }

// accepts reports whether token is an access token of that name, not revoked.
func (p *simProvider) accepts(name, token string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.families {
		if strings.HasPrefix(token, "at/"+f.name+"/") {
			return strings.HasPrefix(f.name, name+".") && !f.revoked
		}
	}
	return strings.HasPrefix(token, "at/"+name+"/")
}

// asked returns the number of token calls so far.
func (p *simProvider) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// current returns the family of a refresh token, and whether that token still buys.
func (p *simProvider) current(token string) (f *family, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, n := p.find(token)
	return f, f != nil && !f.revoked && n == f.n
}

func (p *simProvider) find(token string) (*family, int) {
	parts := strings.Split(token, "/")
	if len(parts) != 3 {
		return nil, 0
	}
	f := p.families[parts[1]]
	var n int
	_, err := fmt.Sscanf(parts[2], "%d", &n)
	if err != nil {
		return nil, 0
	}
	return f, n
}

// RoundTrip implements http.RoundTripper.
func (p *simProvider) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := request.Context().Err(); err != nil {
		return nil, err
	}
	body, _ := io.ReadAll(request.Body)
	_ = request.Body.Close()
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	user, _, _ := request.BasicAuth()
	return p.answer(user, form), nil
}

func (p *simProvider) answer(user string, form url.Values) *http.Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	switch form.Get("grant_type") {
	case "client_credentials":
		p.rotations++
		name := strings.TrimPrefix(user, "client-")
		return p.reply(200, map[string]any{"access_token": fmt.Sprintf("at/%s/%d", name, p.rotations), "expires_in": p.life.Seconds()})
	case "authorization_code":
		f := p.codes[form.Get("code")]
		delete(p.codes, form.Get("code"))
		if f == nil {
			return p.refuse()
		}
		return p.rotate(f)
	}
	f, n := p.find(form.Get("refresh_token"))
	if f == nil {
		return p.refuse()
	}
	if p.used != nil {
		p.used(form.Get("refresh_token"), f.uses[n])
	}
	f.uses[n]++
	switch {
	case f.revoked:
		p.reuse++
		return p.refuse()
	case n != f.n:
		p.reuse++
		p.revocations++
		f.revoked = true
		return p.refuse()
	}
	return p.rotate(f)
}

func (p *simProvider) rotate(f *family) *http.Response {
	p.rotations++
	f.n++
	return p.reply(200, map[string]any{
		"access_token": f.access(), "refresh_token": f.refresh(), "token_type": "Bearer", "expires_in": p.life.Seconds(),
	})
}

func (p *simProvider) refuse() *http.Response {
	p.refused++
	return p.reply(400, map[string]any{"error": "invalid_grant"})
}

func (p *simProvider) reply(status int, members map[string]any) *http.Response {
	body, err := json.Marshal(members)
	if err != nil {
		panic(err) // a test's own mistake
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body)))}
}
