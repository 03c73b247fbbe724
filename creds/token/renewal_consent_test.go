package token

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

func TestExchange(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		g.patch(map[string]any{"refresh_token": nil, "gen": nil})
		a, b := g.process("a"), g.process("b")
		if _, _, err := a.renew(t.Context(), want{}); !errors.Is(err, creds.ErrNeedsConsent) {
			t.Fatal(err)
		}
		if g.token().Status != StatusNeedsConsent {
			t.Errorf("status %s", g.token().Status)
		}
		if err := a.exchange(t.Context()); !errors.Is(err, errNoConsent) {
			t.Errorf("without a code: %v", err)
		}
		g.consent(false)
		if _, _, err := b.renew(t.Context(), want{}); !errors.Is(err, creds.ErrNeedsConsent) {
			t.Errorf("b before the exchange: %v", err)
		}
		if err := a.exchange(t.Context()); err != nil {
			t.Fatal(err)
		}
		record := g.record()
		if record.Consent != nil || record.Gen != 1 || record.ConsentedAt == 0 {
			t.Errorf("consent %v, generation %d", record.Consent != nil, record.Gen)
		}
		if err := b.exchange(t.Context()); !errors.Is(err, errNoConsent) {
			t.Errorf("the code a second time: %v", err)
		}
		g.gets(b, want{})
		if g.provider.Calls() != 1 {
			t.Errorf("%d calls", g.provider.Calls())
		}
		g.sound()
	})
}

func TestExchangeOfASpare(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		a := g.process("a")
		first := g.gets(a, want{})
		g.consent(true)
		if err := a.exchange(t.Context()); err != nil {
			t.Fatal(err)
		}
		if g.gets(a, want{}) != first || !g.token().Spare {
			t.Error("a spare serves already, or is not there")
		}
		g.sound()
		g.provider.Next(credstest.ReplyError(400, "invalid_grant", ""))
		time.Sleep(time.Hour)
		g.gets(a, want{})
		if g.token().Status != StatusDegraded || g.token().Spare {
			t.Errorf("status %s, spare %t", g.token().Status, g.token().Spare)
		}
		g.consent(true)
		g.provider.Next(credstest.ReplyToken("canary", 3600))
		refresh := g.record().Refresh.Value
		if err := a.exchange(t.Context()); !errors.Is(err, errNoSpare) || g.record().Refresh.Value != refresh {
			t.Errorf("a consent without a refresh token: %v", err)
		}
		g.consent(true) // and a new spare makes it whole
		if err := a.exchange(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.sound()
	})
}

// Eight refreshers, one code: it is spent once.
func TestExchangeOnce(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		g.consent(false)
		var wg sync.WaitGroup
		var mu sync.Mutex
		done := 0
		for range 8 {
			wg.Go(func() {
				err := g.process(newNonce()).exchange(t.Context())
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					done++
				case !errors.Is(err, errNoConsent) && !errors.Is(err, errConsentTaken):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if done != 1 || g.provider.Calls() != 1 {
			t.Errorf("%d exchanges, %d calls", done, g.provider.Calls())
		}
		g.sound()
	})
}

// A person consents while the old refresh token is being spent: what that brings is
// dropped.
func TestExchangeDuringARenewal(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		a, b := g.process("a"), g.process("b")
		ask := a.grant
		var consented string
		a.grant = func(ctx context.Context, p proof) (answer, error) {
			g.consent(false)
			if err := b.exchange(ctx); err != nil {
				t.Error(err)
			}
			consented = g.record().Refresh.Value
			return ask(ctx, p)
		}
		g.gets(a, want{})
		if g.record().Refresh.Value != consented {
			t.Error("the consent's refresh token is gone")
		}
		g.sound()
	})
}

func TestExchangeRefused(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		a := g.process("a")
		for _, row := range []struct {
			name  string
			reply int
			code  string
			want  string
		}{{"refused", 400, "invalid_grant", ReasonInvalidGrant}, {"unclear", 502, "", ReasonServer5xx}} {
			g.consent(false)
			g.provider.Next(credstest.ReplyError(row.reply, row.code, "canary: an error body"))
			err := a.exchange(t.Context())
			var refused *creds.TokenError
			if !errors.As(err, &refused) || refused.Reason != row.want || strings.Contains(printed(err), "canary") {
				t.Errorf("%s: %v", row.name, err)
			}
			if g.record().Consent != nil {
				t.Errorf("%s: the code is still there", row.name)
			}
		}
		g.consent(false)
		time.Sleep(11 * time.Minute)
		calls := g.provider.Calls()
		if err := a.exchange(t.Context()); !errors.Is(err, errConsentOld) || g.provider.Calls() != calls || g.record().Consent != nil {
			t.Errorf("an old code: %v", err)
		}
		g.gets(a, want{}) // the old consent goes on
		g.sound()
	})
}

// A newer code takes the place of one that was taken and never spent.
func TestExchangeAfterADeath(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 0; ; n++ {
			var of string
			overGrant(t, func(t *testing.T, g *rig) {
				g.consent(false)
				of = live(func() {
					if err := under(g.process("a"), deadly(n, after)).exchange(t.Context()); err != nil {
						t.Error(err)
					}
				})
				again := g.process("a")
				if err := again.handIn(t.Context()); err != nil {
					t.Fatal(err)
				}
				if g.record().Gen < 2 { // a journal, or the store, has it otherwise
					g.consent(false)
					if err := again.exchange(t.Context()); err != nil {
						t.Error(err)
					}
				} else if g.provider.Calls() != 1 {
					t.Errorf("%d calls", g.provider.Calls())
				}
				g.gets(again, want{})
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

// Nothing of a record gets into an error.
func TestErrorsOfMalformedRecords(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		for _, members := range []map[string]any{
			{"refresh_token": "canary"}, {"refresh_token": []string{"canary"}}, {"lease": "canary"}, {"schema": "canary"}, {"schema": "2.0"},
		} {
			stored, err := g.store.Get(t.Context(), creds.KeyGrants+"jira")
			if err != nil {
				t.Fatal(err)
			}
			whole := members
			if whole["schema"] == nil {
				whole["schema"] = schema
			}
			version, err := g.store.Patch(t.Context(), creds.KeyGrants+"jira", creds.NewSecret(string(marshal(whole))))
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := g.process("a").renew(t.Context(), want{}); err == nil || strings.Contains(printed(err), "canary") {
				t.Errorf("%v: %v", members, err)
			}
			if _, err := g.store.CAS(t.Context(), creds.KeyGrants+"jira", stored.Data, version); err != nil {
				t.Fatal(err)
			}
		}
		if g.provider.Calls() != 0 {
			t.Error("asked all the same")
		}
		g.gets(g.process("a"), want{})
	})
}
