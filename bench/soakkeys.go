package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// soakKey is a credential of the soak: where it is good for, and what the origin has to see. The first segment of a request's path is its name.
type soakKey struct {
	Name string
	Port soakPort
	Kind soakKind
}

// soakKind is what a credential makes of a request.
type soakKind int

const (
	keyBearer soakKind = iota
	keyBasic
	keyHeader  // an API key in a field of its own
	keyQuery   // one in the query
	keyOAuth   // a token that is renewed, and revoked now and then
	keyRefused // a token, too, but the origin takes none
	keyRotated // a bearer token that an administrator replaces now and then
)

// soakPort is one of the origin's listeners.
type soakPort int

const (
	portHTTP1  soakPort = iota // offers http/1.1 alone
	portBoth                   // offers h2 and http/1.1
	portHTTP2                  // offers h2 alone
	portRude                   // http/1.1; closes kept-alive connections after a moment, without a word
	portTokens                 // the token endpoint
	soakPorts
)

func (p soakPort) protocols() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(p != portHTTP2)
	protocols.SetHTTP2(p == portBoth || p == portHTTP2)
	return protocols
}

func soakKeys() []soakKey {
	return []soakKey{
		{"static", portHTTP1, keyBearer}, {"basic", portHTTP1, keyBasic}, {"header", portHTTP1, keyHeader}, {"query", portHTTP1, keyQuery},
		{"oauth", portHTTP1, keyOAuth}, {"refused", portHTTP1, keyRefused}, {"rotated", portHTTP1, keyRotated},
		{"both", portBoth, keyBearer}, {"both-oauth", portBoth, keyOAuth},
		{"only2", portHTTP2, keyBearer}, {"only2-oauth", portHTTP2, keyOAuth},
		{"rude", portRude, keyBearer},
	}
}

func soakKeyNamed(name string) (soakKey, bool) {
	keys := soakKeys()
	i := slices.IndexFunc(keys, func(k soakKey) bool { return k.Name == name })
	if i < 0 {
		return soakKey{}, false
	}
	return keys[i], true
}

// secretOf is the password or the key of a credential.
func secretOf(name string) string { return "secret-of-" + name }

const (
	soakUser   = "soak"
	soakHeader = "X-Api-Key"
	soakQuery  = "api_key"
)

// arguments are those of `credential set`, but for the name; the secret comes by standard input.
func (k soakKey) arguments(url, tokenURL string) []string {
	args := []string{"--url", url, "--authorization"}
	switch k.Kind {
	case keyBasic:
		return append(args, "basic", "--username", soakUser, "--password-file", "-")
	case keyHeader:
		return append(args, "api-key", "--api-key-header", soakHeader, "--api-key-file", "-")
	case keyQuery:
		return append(args, "api-key", "--api-key-query", soakQuery, "--api-key-file", "-")
	case keyOAuth, keyRefused:
		return append(args, "oauth2-client-credentials", "--client-id", k.Name, "--client-secret-file", "-", "--access-token-url", tokenURL)
	default:
		return append(args, "bearer", "--token-file", "-")
	}
}

// doorman checks what a request carries.
type doorman struct {
	tokens *soakTokens

	mu      sync.Mutex
	rotated []string // what keyRotated may carry now: one, or for the time of a change two
}

// rotate makes next good beside the one of before; settled ends that one's time.
func (d *doorman) rotate(next string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rotated = append(d.rotated, next)
}

func (d *doorman) settled() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rotated = d.rotated[len(d.rotated)-1:]
}

func (d *doorman) takesRotated(token string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.rotated, token)
}

// admit reports whether the origin takes a request. The error is for one that should never have arrived as it did: exactly one credential stands in
// its place, and in no other.
func (d *doorman) admit(k soakKey, r *http.Request) (bool, error) {
	places := map[string][]string{"Authorization": r.Header["Authorization"], soakHeader: r.Header[soakHeader], soakQuery: r.URL.Query()[soakQuery]}
	place := "Authorization"
	switch k.Kind {
	case keyHeader:
		place = soakHeader
	case keyQuery:
		place = soakQuery
	}
	for name, values := range places {
		if want := map[bool]int{true: 1}[name == place]; len(values) != want {
			return false, fmt.Errorf("%d values of %s, want %d", len(values), name, want)
		}
	}
	return d.judge(k, places[place][0])
}

func (d *doorman) judge(k soakKey, value string) (bool, error) {
	token, _ := strings.CutPrefix(value, "Bearer ")
	right := false
	switch k.Kind {
	case keyOAuth, keyRefused:
		good, err := d.tokens.judge(k.Name, token)
		return good && k.Kind == keyOAuth, err
	case keyRotated:
		right = d.takesRotated(token)
	case keyBasic:
		right = value == "Basic "+base64.StdEncoding.EncodeToString([]byte(soakUser+":"+secretOf(k.Name)))
	case keyHeader, keyQuery:
		right = value == secretOf(k.Name)
	case keyBearer:
		right = value == "Bearer "+secretOf(k.Name)
	}
	if !right {
		return false, fmt.Errorf("the wrong secret of %s", k.Name)
	}
	return true, nil
}
