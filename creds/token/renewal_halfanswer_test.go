package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"pillion/creds"
)

// halved takes the access token out of the answers to n requests, on their way from a
// provider that has rotated.
func halved(next http.RoundTripper, n int) roundTrip {
	return func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err != nil || n == 0 {
			return response, err
		}
		n--
		var members map[string]any
		if err := json.NewDecoder(response.Body).Decode(&members); err != nil {
			return nil, err
		}
		delete(members, "access_token")
		response.Body = io.NopCloser(bytes.NewReader(marshal(members)))
		return response, nil
	}
}

// half makes r's provider answer its next n requests without an access token.
func (g *rig) half(r *renewal, n int) *renewal {
	g.t.Helper()
	found, err := kindOf(g.c)
	if err != nil {
		g.t.Fatal(err)
	}
	r.grant = found.grant(g.c, endpoint{http: halved(g.provider.Direct(), n), now: time.Now})
	return r
}

// An answer without an access token that brings the next refresh token all the
// same. That one is kept, and the one before, which is spent, never sent again.
func refreshTokenAlone(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		g.gets(g.process("a"), want{})
		time.Sleep(time.Hour)
		a := g.half(g.process("a"), 2)
		before := g.record().Refresh.Value
		for n := 1; n <= 2; n++ {
			_, _, err := a.renew(t.Context(), want{})
			if refused, ok := errors.AsType[*creds.TokenError](err); !ok || refused.Reason != ReasonBadResponse || refused.RetryAfter <= 0 {
				t.Fatalf("%v", err)
			}
			record, token := g.record(), g.token()
			if record.Refresh.Value == before || record.Lease != nil || record.Fails != n || record.Gen != 2 {
				t.Errorf("refresh token kept: %t, lease %v, fails %d, generation %d", record.Refresh.Value != before, record.Lease, record.Fails, record.Gen)
			}
			if token.Status != StatusDegraded || token.Error == nil || token.RetryAt == 0 {
				t.Errorf("readers see %s, %+v", token.Status, token.Error)
			}
			if _, _, err := g.process("b").renew(t.Context(), want{}); err == nil || g.provider.Calls() != 1+n {
				t.Errorf("another asks in the back-off: %v", err)
			}
			before = record.Refresh.Value
			time.Sleep(time.Minute)
		}
		if g.heard(EventUnknownOutcome)+g.heard(EventBlindClaim) != 0 {
			t.Error("it is called unknown")
		}
		g.gets(a, want{})
		if record := g.record(); record.Fails != 0 || record.LastError != nil {
			t.Errorf("%+v after a success", record.LastError)
		}
		g.sound()
	})
}

// The old access token serves while the next is not there.
func TestRefreshTokenAloneAhead(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		first := g.gets(g.process("a"), want{})
		time.Sleep(40 * time.Minute)
		a := g.half(g.process("a"), 1)
		if _, _, err := a.renew(t.Context(), want{ahead: true}); err == nil {
			t.Error("no error")
		}
		if g.gets(a, want{}) != first {
			t.Error("another token")
		}
		time.Sleep(time.Minute)
		if g.gets(a, want{ahead: true}) == first {
			t.Error("not renewed ahead any more")
		}
		g.sound()
	})
}

// A process dies at each step of that: the journal has the refresh token.
func TestDeathWithARefreshTokenAlone(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 0; ; n++ {
			var of string
			overGrant(t, func(t *testing.T, g *rig) {
				of = live(func() { _, _, _ = under(g.half(g.process("a"), 1), deadly(n, after)).renew(t.Context(), want{}) })
				again := g.process("a")
				if err := again.handIn(t.Context()); err != nil {
					t.Fatal(err)
				}
				if of == "request" && after || of == "journal" && !after {
					return // inside the request: see deathAtEveryStep
				}
				for {
					_, _, err := again.renew(t.Context(), want{})
					if err == nil {
						break
					}
					if refused, ok := errors.AsType[*creds.TokenError](err); !ok || refused.RetryAfter > time.Minute {
						t.Fatal(err)
					}
					time.Sleep(time.Minute)
				}
				g.sound()
			})
			if t.Failed() {
				t.Fatalf("having died at step %d (%s), after it: %t", n, of, after)
			}
			if of == "" {
				break
			}
		}
	}
}

// The same of a code: the person who consented is not asked again.
func TestExchangeForARefreshTokenAlone(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		g.patch(map[string]any{"refresh_token": nil, "gen": nil})
		g.consent(false)
		a := g.half(g.process("a"), 1)
		if err := a.exchange(t.Context()); err != nil {
			t.Fatal(err)
		}
		record := g.record()
		if record.Consent != nil || record.Refresh == nil || record.LastError == nil {
			t.Errorf("consent waits: %t, refresh token kept: %t, error %v", record.Consent != nil, record.Refresh != nil, record.LastError)
		}
		g.gets(a, want{})
		g.sound()
	})
}

// A journal that cannot be written is told of, and costs nothing else.
func TestJournalThatCannotBeWritten(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		a := g.process("a")
		a.journal = directory{g.dir + "/key.txt"} // a file
		g.gets(a, want{})
		if g.heard(EventJournalFailed) != 1 {
			t.Errorf("told %d times", g.heard(EventJournalFailed))
		}
		for _, e := range g.events {
			if e.Kind == EventJournalFailed && e.Detail == "" {
				t.Error("it does not say why")
			}
		}
		g.sound()
	})
}
