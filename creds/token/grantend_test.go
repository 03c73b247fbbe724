package token

import (
	"fmt"
	"testing"
	"time"

	"pillion/creds"
)

// When a grant ends: by what the answer says, else by the credential, from the consent
// or from the refresh token that took its place.
func TestGrantEnds(t *testing.T) {
	const days = 24 * time.Hour
	rotating := func(n int, more string) string {
		return fmt.Sprintf(`{"access_token":"at-%d","refresh_token":"rt-%d","expires_in":3600%s}`, n, n, more)
	}
	same := func(n int, more string) string {
		return fmt.Sprintf(`{"access_token":"at-%d","refresh_token":"rt","expires_in":3600%s}`, n, more)
	}
	for _, row := range []struct {
		name    string
		life    time.Duration
		answer  func(n int, more string) string
		more    string
		consent time.Duration // what is left after the consent; 0: not known
		renewed time.Duration // and after a renewal ten days later
	}{
		{"nobody says", 0, rotating, "", 0, 0},
		{"rotating: each new one lives as long", 90 * days, rotating, "", 90 * days, 90 * days},
		{"one for all: since the consent", 100 * days, same, "", 100 * days, 90 * days},
		{"the answer says", 0, rotating, `,"refresh_expires_in":1800`, 30 * time.Minute, 30 * time.Minute},
		{"by its other name, as text", 0, same, `,"refresh_token_expires_in":"864000"`, 10 * days, 10 * days},
		{"the answer is believed before the credential", 100 * days, same, `,"refresh_expires_in":864000.0`, 10 * days, 10 * days},
		{"zero is for ever", 0, same, `,"refresh_expires_in":0`, 0, 0},
		{"nonsense", 0, same, `,"refresh_expires_in":"soon"`, 0, 0},
		{"without bounds", 0, same, `,"refresh_expires_in":1e300`, maxGrantLifetime, maxGrantLifetime},
	} {
		t.Run(row.name, func(t *testing.T) {
			withReaders(t, func(w *readers, _ *creds.Credential) {
				code := w.add("code", creds.AuthorizationCode)
				code.RefreshTokenLifetime = row.life
				w.save(code)
				r := w.idleRefresher()
				left := func(want time.Duration) {
					t.Helper()
					ends := r.State("code").GrantEnds
					got := time.Until(ends)
					if ends.IsZero() {
						got = 0
					}
					if (want == 0) != (got == 0) || got < want-time.Minute || got > want+time.Minute {
						t.Errorf("ends in %s, want %s", got, want)
					}
				}
				w.instead(answering(200, row.answer(1, row.more)))
				w.connect(code)
				if report := r.Do(w.Context(), code, Ask{Op: OpExchange}); !report.OK {
					t.Fatalf("%+v", report)
				}
				left(row.consent)
				time.Sleep(10 * days)
				w.instead(answering(200, row.answer(2, row.more)))
				k := w.reader()
				k.Refresher = r
				w.bearer(k, code)
				left(row.renewed)
				if state := k.State("code").GrantEnds; !state.Equal(r.State("code").GrantEnds) {
					t.Errorf("the keeper says %s", state)
				}
			})
		})
	}
}

// A spare brings its own end, which counts once it serves.
func TestGrantEndsOfASpare(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		a := g.process("a")
		g.c.RefreshTokenLifetime = 90 * 24 * time.Hour
		g.gets(a, want{})
		first := g.token().GrantEndsAt
		time.Sleep(time.Hour)
		g.consent(true)
		if err := a.exchange(t.Context()); err != nil {
			t.Fatal(err)
		}
		if g.token().GrantEndsAt != first {
			t.Error("the spare's end counts already")
		}
		spare := g.record().SpareEndsAt
		g.patch(map[string]any{"refresh_token": bound{purposeOf(g.c), "of a grant that is lost"}})
		g.gets(a, want{force: true}) // invalid_grant, then the spare
		if ends := g.token().GrantEndsAt; ends < spare {
			t.Errorf("the grant ends at %d, the spare at %d", ends, spare)
		}
	})
}
