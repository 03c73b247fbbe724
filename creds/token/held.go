package token

import (
	"time"

	"pillion/creds"
)

// held is a token at hand. It never changes.
type held struct {
	token         creds.Secret
	authorization *creds.Authorization
	refreshAt     time.Time // from here on a use starts a flight ahead
	unusableAt    time.Time // from here on it is not sent
}

const (
	// margin is kept from the end of a token's life, so that it does not expire
	// on its way; of a short life a tenth.
	margin = 5 * time.Second
	// lastMinute is when to ask again for a token that the provider hands out
	// unchanged until it ends (ServiceNow).
	lastMinute = 60 * time.Second
	// sameExpiry is how far two computed ends of one token may lie apart: whole
	// seconds, and the way of the two answers.
	sameExpiry = 5 * time.Second
)

func marginOf(life time.Duration) time.Duration { return min(margin, life/10) }

// newHeld makes a held of a token that lives until expires; life is what was left
// when it came.
func (p *pocket) newHeld(token creds.Secret, issued, expires time.Time, life time.Duration) *held {
	authorization := p.build(token)
	authorization.Token, authorization.Issued, authorization.Expires = token.Fingerprint(), issued, expires
	return &held{token: token, authorization: &authorization, unusableAt: expires.Add(-marginOf(life))}
}

// usable reports whether it may be sent. A nil *held is not.
func (h *held) usable(now time.Time) bool { return h != nil && before(now, h.unusableAt) }

// again returns h with another time of its next flight.
func (h *held) again(refreshAt time.Time) *held {
	next := *h
	next.refreshAt = refreshAt
	return &next
}

// unchangedRefreshAt is when to ask again after a refresh that brought the same
// token with no later end: in its last minute, there at ever shorter distances,
// never below a second.
func unchangedRefreshAt(now, expires, unusableAt time.Time) time.Time {
	if at := expires.Add(-lastMinute); before(now, at) {
		return at
	}
	return now.Add(max(time.Second, unusableAt.Sub(now)/2))
}

// before reports whether now is before t by both clocks that a time.Time holds.
// The monotonic one stands still while a machine sleeps; the wall clock may be
// set back.
func before(now, t time.Time) bool {
	return now.Before(t) && now.Round(0).Before(t.Round(0))
}
