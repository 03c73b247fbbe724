package token

import (
	"testing"
	"time"

	"pillion/creds"
)

// at is the store's clock in the rows of decide.
var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// standing is a grant in good order: an hour's token, half of it left.
func standing() situation {
	return situation{
		stored: true,
		record: grantRecord{
			Refresh: &bound{"p", "refresh-1"}, Gen: 3, Asked: "a",
			Token: &tokenRecord{
				AccessToken: &bound{"p", "access-1"},
				IssuedAt:    toMillis(at.Add(-30 * time.Minute)), ExpiresAt: toMillis(at.Add(30 * time.Minute)),
				RenewAt: toMillis(at.Add(-6 * time.Minute)),
			},
		},
		now: at, since: 3, purpose: "p", asked: "a", consent: true, times: timingsOf(time.Hour, 15*time.Second),
	}
}

var fingerprintOne = creds.NewSecret("access-1").Fingerprint()

// steps that rows are made of.
type edit func(*situation)

func expired(s *situation)         { s.record.Token.ExpiresAt = toMillis(at.Add(-time.Second)) }
func ahead(s *situation)           { s.want.ahead = true }
func forced(s *situation)          { s.want.force = true }
func upstreamRefused(s *situation) { s.want.refused = fingerprintOne }
func renewed(s *situation)         { s.since = 2 }
func noRefresh(s *situation)       { s.record.Refresh = nil }
func free(s *situation)            { s.record.Refresh, s.consent = nil, false } // client credentials
func mine(s *situation)            { s.own.id = "lease" }
func mineBlind(s *situation)       { s.own = ownLease{id: "lease", blind: true} }
func mineSent(s *situation)        { s.own = ownLease{id: "lease", sent: true} }
func otherScope(s *situation)      { s.asked = "b" }
func absent(s *situation)          { s.stored, s.record = false, grantRecord{} }
func otherURL(s *situation)        { s.purpose = "q" }

func leased(age time.Duration) edit {
	return func(s *situation) { s.record.Lease, s.age = &lease{ID: "lease", TTL: 25_000}, age }
}

func watched(d time.Duration) edit { return func(s *situation) { s.watched = d } }

func failed(reason string, left time.Duration) edit {
	return func(s *situation) {
		s.record.NotBefore, s.record.LastError, s.record.Tried = toMillis(at.Add(left)), &recordError{Reason: reason}, "a"
	}
}

func forcedAgo(d time.Duration) edit {
	return func(s *situation) { s.record.ForcedAt = toMillis(at.Add(-d)) }
}

func renewNotBefore(d time.Duration) edit {
	return func(s *situation) { s.record.Token.RenewAt = toMillis(at.Add(d)) }
}

func TestDecide(t *testing.T) {
	second, minute := time.Second, time.Minute
	for _, row := range []struct {
		name  string
		edits []edit
		want  move
	}{
		{"a good token is used", nil, useToken},
		{"also when somebody else renews it", []edit{leased(second)}, useToken},
		{"also during a back-off", []edit{failed(ReasonServer5xx, minute)}, useToken},
		{"an expired one is renewed", []edit{expired}, claimLease},
		{"one with a second left is as good as expired", []edit{func(s *situation) { s.record.Token.ExpiresAt = toMillis(at.Add(second)) }}, claimLease},
		{"that of another instance URL is none", []edit{otherURL}, needConsent},
		{"the first token of a grant", []edit{func(s *situation) { s.record.Token = nil }}, claimLease},

		{"ahead of its end", []edit{ahead}, claimLease},
		{"ahead, and somebody has just done it", []edit{ahead, renewNotBefore(minute)}, useToken},
		{"ahead after an edit of the scope", []edit{ahead, renewNotBefore(minute), otherScope}, claimLease},
		{"an edit of the scope is no reason for those who only need a token", []edit{otherScope}, useToken},
		{"a person asks", []edit{forced}, claimLease},
		{"a person asked, and it is done", []edit{forced, renewed}, useToken},
		{"a person asks during a back-off", []edit{forced, failed(ReasonServer5xx, minute)}, claimLease},
		{"upstream refused it", []edit{upstreamRefused}, claimLease},
		{"upstream refused another one", []edit{func(s *situation) { s.want.refused = "other" }}, useToken},
		{"upstream refused it, and the renewed one is the same", []edit{upstreamRefused, renewed}, useToken},
		{"upstream refused it twice in half a minute", []edit{upstreamRefused, forcedAgo(29 * second)}, noProgress},
		{"upstream refused it again later", []edit{upstreamRefused, forcedAgo(31 * second)}, claimLease},
		{"upstream refused it, and it has expired as well", []edit{upstreamRefused, forcedAgo(second), expired}, claimLease},

		{"no refresh token", []edit{expired, noRefresh}, needConsent},
		{"no refresh token, and the last access token lives", []edit{noRefresh}, useToken},
		{"no refresh token, ahead", []edit{ahead, noRefresh}, needConsent},
		{"never connected", []edit{absent}, needConsent},
		{"client credentials need none", []edit{expired, free}, claimLease},
		{"client credentials whose record is gone", []edit{absent, free}, gone},

		{"back-off", []edit{expired, failed(ReasonServer5xx, second)}, backOff},
		{"back-off that is over", []edit{expired, failed(ReasonServer5xx, 0)}, claimLease},
		{"back-off ahead of the end", []edit{ahead, failed(ReasonServer5xx, second)}, backOff},
		{"back-off after what only an edit can help", []edit{expired, failed(ReasonInvalidClient, minute)}, backOff},
		{"and somebody has edited it", []edit{expired, failed(ReasonInvalidClient, minute), otherScope}, claimLease},
		{"an edit is no reason to storm a provider in trouble", []edit{expired, failed(ReasonServer5xx, minute), otherScope}, backOff},
		{"back-off until next year: a clock was set back", []edit{expired, failed(ReasonServer5xx, 24*time.Hour)}, claimLease},

		{"a fresh lease", []edit{expired, leased(0)}, wait},
		{"upstream refused it, and somebody forces a new one just now", []edit{upstreamRefused, forcedAgo(second), leased(second)}, wait},
		{"a lease just before its end", []edit{expired, leased(24_999 * time.Millisecond), watched(24 * second)}, wait},
		{"a lease of a silent holder, not watched", []edit{expired, leased(time.Hour)}, wait},
		{"watched, with a break", []edit{expired, leased(time.Hour), watched(59 * second)}, wait},
		{"watched for as long as it takes", []edit{expired, leased(time.Hour), watched(minute)}, claimBlind},
		{"the access token lives: the holder gets its time", []edit{ahead, leased(84 * second), watched(minute)}, wait},
		{"the access token lives, and all time is up", []edit{ahead, leased(85 * second), watched(minute)}, claimBlind},
		{"upstream refuses the token, which may live longer", []edit{upstreamRefused, leased(30 * second), watched(minute)}, wait},
		{"the store's clock was set back", []edit{expired, leased(0), watched(26 * second)}, wait},
		{"the store's clock was set back, and a watch is over", []edit{expired, leased(0), watched(minute)}, claimBlind},
		{"a lease of a century", []edit{expired, func(s *situation) { s.record.Lease = &lease{ID: "x", TTL: 1 << 60} }, watched(6 * minute)}, claimBlind},
		{"a silent holder in a back-off", []edit{expired, leased(time.Hour), watched(minute), failed(ReasonTimeout, second)}, backOff},
		{"a lease of client credentials", []edit{expired, free, leased(20 * second)}, wait},
		{"a second request of client credentials costs nothing", []edit{expired, free, leased(25 * second)}, claimLease},

		{"our own claim, without a request", []edit{expired, leased(second), mine}, claimLease},
		{"our own claim over a silent holder, after an outage", []edit{expired, leased(second), mineBlind}, claimBlind},
		{"our own request, its outcome unclear", []edit{expired, leased(second), mineSent}, wait},
		{"our own request, its time is up", []edit{expired, leased(25 * second), mineSent}, claimOwn},
		{"also while the access token lives", []edit{ahead, leased(25 * second), mineSent}, claimOwn},
	} {
		s := standing()
		for _, edit := range row.edits {
			edit(&s)
		}
		got := decide(s)
		if got.move != row.want {
			t.Errorf("%s: move %d, want %d", row.name, got.move, row.want)
		}
		if got.move == wait && (got.pause <= 0 || got.pause > time.Second) {
			t.Errorf("%s: waits %s", row.name, got.pause)
		}
	}
}

// Whatever the tokens live, a request ends before its lease, a holder's pause is
// shorter than what a blind claim waits, and a watch holds many looks.
func TestTimings(t *testing.T) {
	for _, life := range []time.Duration{0, time.Second, 2 * time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, time.Hour, 24 * time.Hour} {
		for _, timeout := range []time.Duration{0, time.Second, 15 * time.Second, time.Minute} {
			times := timingsOf(life, timeout)
			switch {
			case times.request < time.Second, times.lease-times.request < 1500*time.Millisecond:
				t.Errorf("life %s, timeout %s: request %s, lease %s", life, timeout, times.request, times.lease)
			case times.settle*2/3 >= times.settle, times.gap() < time.Second, times.poll(time.Hour) > times.gap()/2:
				t.Errorf("life %s: settle %s, gap %s, poll %s", life, times.settle, times.gap(), times.poll(time.Hour))
			case times.rescue < 4*times.settle:
				t.Errorf("life %s: rescue %s, settle %s", life, times.rescue, times.settle)
			}
		}
	}
	want := timings{15 * time.Second, 25 * time.Second, 3 * time.Second, 60 * time.Second}
	if got := timingsOf(time.Hour, 0); got != want {
		t.Errorf("an hour: %v, want %v", got, want)
	}
}

func TestWatchBreaks(t *testing.T) {
	var w watch
	l, gap := &lease{ID: "a"}, 15*time.Second
	look := func(l *lease, after, want time.Duration) {
		t.Helper()
		if got := w.see(l, at.Add(after), gap); got != want {
			t.Errorf("after %s it was watched for %s, want %s", after, got, want)
		}
	}
	look(l, 0, 0)
	look(l, 10*time.Second, 10*time.Second)
	look(l, 25*time.Second, 25*time.Second)
	look(l, 41*time.Second, 0) // an outage, or the machine slept
	look(l, 42*time.Second, time.Second)
	look(&lease{ID: "b"}, 43*time.Second, 0)
	look(nil, 44*time.Second, 0)
	look(&lease{ID: "b"}, 45*time.Second, 0)
}

// 40: a failing endpoint gets back-off.
func TestPauses(t *testing.T) {
	for fails, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
		for range 20 {
			if got := pauseAfter(fails, &failure{reason: ReasonServer5xx}); got < want/2 || got > want {
				t.Errorf("after %d failures: %s", fails, got)
			}
		}
	}
	if got := pauseAfter(0, &failure{reason: ReasonOther4xx, status: 429, retryAfter: 40 * time.Second}); got != 40*time.Second {
		t.Errorf("Retry-After 40: %s", got)
	}
	if got := pauseAfter(0, &failure{reason: ReasonOther4xx, status: 429, retryAfter: time.Hour}); got != 15*time.Minute {
		t.Errorf("Retry-After 3600: %s", got)
	}
	for fails, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
		if got := pauseAfter(fails, &failure{reason: ReasonInvalidClient}); got < want || got > want+6*time.Second {
			t.Errorf("after %d final failures: %s", fails, got)
		}
	}
}
