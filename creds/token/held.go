package token

import (
	"time"

	"pillion/creds"
)

// held is a token that the cache keeps. It never changes.
type held struct {
	token         creds.Secret
	authorization *creds.Authorization
	refreshAt     time.Time // from here on a use starts a refresh
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

// usable reports whether it may be sent. A nil *held is not.
func (h *held) usable(now time.Time) bool { return h != nil && before(now, h.unusableAt) }

// hold makes a held of an answer to a request sent at started; the provider's
// clock began to run before we had the answer. The caller holds mu.
func (s *cache) hold(got answer, started, now time.Time) (*held, error) {
	issued, expires := started, started.Add(got.lifetime)
	old := s.current.Load()
	same := old != nil && old.token.Equal(got.token)
	if same {
		issued = old.authorization.Issued
		// The token itself has not changed, so what it says of its end has not
		// either; and an expires_in of 0 prolongs nothing.
		if got.basis == fromJWT || got.basis == denied {
			expires = old.authorization.Expires
		}
	}
	life := expires.Sub(started)
	h := &held{
		token:      got.token,
		unusableAt: expires.Add(-min(margin, life/10)),
		refreshAt:  expires.Add(-time.Duration(float64(life) * s.ahead)),
	}
	if !h.usable(now) {
		return nil, badResponse(0, "the token has expired before it could be used")
	}
	if same && expires.Sub(old.authorization.Expires) <= sameExpiry {
		h.refreshAt = unchangedRefreshAt(now, expires, h.unusableAt)
	}
	authorization := s.build(got)
	authorization.Token, authorization.Issued, authorization.Expires = got.token.Fingerprint(), issued, expires
	h.authorization = &authorization
	return h, nil
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
