package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// soakTokens is a token endpoint for client credentials, and the memory of what it has issued: the origin asks it about every token that arrives.
type soakTokens struct {
	life     time.Duration // of a token
	findings *findings

	mu     sync.Mutex
	tokens map[string]*soakToken
	used   map[string]*soakToken // the newest that arrived, by credential
	number int
}

type soakToken struct {
	credential string
	number     int
	expires    time.Time
	revoked    bool
}

func newSoakTokens(life time.Duration, f *findings) *soakTokens {
	return &soakTokens{life: life, findings: f, tokens: map[string]*soakToken{}, used: map[string]*soakToken{}}
}

// ServeHTTP issues a token (RFC 6749 section 4.4), each time another one. A client's id is the credential's name.
func (t *soakTokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	client, secret, ok := r.BasicAuth()
	if !ok || secret != secretOf(client) || r.PostFormValue("grant_type") != "client_credentials" {
		t.findings.add("token endpoint: client %q, the right secret %v, grant %q", client, secret == secretOf(client), r.PostFormValue("grant_type"))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"error":"invalid_client"}`))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": t.issue(client), "token_type": "Bearer", "expires_in": int(t.life.Seconds())})
}

func (t *soakTokens) issue(credential string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	now := time.Now()
	for text, old := range t.tokens {
		if now.After(old.expires.Add(time.Minute)) { // nobody could tell what an older one was
			delete(t.tokens, text)
		}
	}
	text := fmt.Sprintf("soak-%s-%d", credential, t.number)
	t.tokens[text] = &soakToken{credential: credential, number: t.number, expires: now.Add(t.life)}
	return text
}

// judge says whether a token that arrived is good. One that this credential never got, or that has expired, must not arrive at all, and is an error; one
// that was revoked may.
func (t *soakTokens) judge(credential, text string) (good bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	token := t.tokens[text]
	switch {
	case token == nil || token.credential != credential:
		return false, fmt.Errorf("a token that %s never got, or that ended long ago", credential)
	case time.Now().After(token.expires):
		return false, fmt.Errorf("a token of %s that expired %v ago", credential, time.Since(token.expires))
	}
	if last := t.used[credential]; last == nil || last.number < token.number {
		t.used[credential] = token
	}
	return !token.revoked, nil
}

// revoke ends the newest token of a credential that has arrived, as an administrator of the tool would.
func (t *soakTokens) revoke(credential string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if token := t.used[credential]; token != nil {
		token.revoked = true
	}
}
