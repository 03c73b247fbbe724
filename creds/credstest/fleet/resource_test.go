package fleet

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// resource is what the sidecars' requests go to: it answers 401 to a token that is
// not good. It asks the provider (RFC 7662), and trusts a yes for knows.
type resource struct {
	provider *credstest.OIDC

	mu     sync.Mutex
	tokens map[string]*known
}

// known is what was learnt of a token. One no is for ever.
type known struct {
	mu     sync.Mutex
	asked  time.Time
	until  time.Time
	active bool
}

// knows is short: what is revoked should be refused at once.
const knows = 100 * time.Millisecond

func startResource(t *testing.T, provider *credstest.OIDC) string {
	t.Helper()
	server := httptest.NewServer(&resource{provider: provider, tokens: map[string]*known{}})
	t.Cleanup(server.Close)
	return server.URL
}

// ServeHTTP implements http.Handler.
func (s *resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	k := s.tokens[token]
	if k == nil {
		k = &known{active: true}
		s.tokens[token] = k
	}
	s.mu.Unlock()
	switch good, err := s.good(k, token); {
	case err != nil:
		w.WriteHeader(http.StatusBadGateway)
	case !good:
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (s *resource) good(k *known, token string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if !k.active || now.Sub(k.asked) < knows && now.Before(k.until) {
		return k.active, nil
	}
	until, active, err := s.provider.Active(token)
	if err != nil {
		return false, err
	}
	k.asked, k.until, k.active = time.Now(), until, active
	return active, nil
}
