package token

import (
	"context"
	"time"

	"pillion/creds"
)

// cache is the Source that keeps a grant's token in this process: for a credential
// whose token is not shared, each of its flights is one token request.
type cache struct {
	*pocket
	kind    creds.AuthorizationType
	grant   grant
	timeout time.Duration
	ahead   float64 // share of the lifetime that is left when it is refreshed
	onEvent func(Event)

	last *failure // under mu
}

var _ Source = (*cache)(nil)

// request does one token request. Its context is nobody's: the first caller to
// leave must not take the token away from the others.
func (s *cache) request(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	started := s.now()
	got, err := s.grant(ctx, proof{})
	event, ok := s.land(f, got, err, started)
	if ok && s.onEvent != nil {
		s.onEvent(event)
	}
	close(f.done)
}

// land takes over what the token request brought. It reports false if nobody is
// to know of it any more.
func (s *cache) land(f *flight, got answer, err error, started time.Time) (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = nil
	if s.closed {
		f.err = s.changed()
		return Event{}, false
	}
	now := s.now()
	event := Event{Credential: s.credential, Grant: s.kind, Took: now.Sub(started)}
	var next *held
	if err == nil {
		next, err = s.hold(got, started, now)
	}
	if err != nil {
		failed := asFailure(err)
		pause := max(backoff(s.fails, failed.final()), min(failed.retryAfter, maxRetryAfter))
		s.last = failed
		s.fail(f, now.Add(pause), now, func(retryAfter time.Duration) error { return failed.tokenError(s.credential, retryAfter) })
		event.Result, event.Reason, event.Status = Failure, failed.reason, failed.status
		event.Code, event.Detail = failed.code, failed.detail
		return event, true
	}
	s.take(f, next)
	s.last = nil
	event.Result, event.Token = Success, next.authorization.Token
	event.Issued, event.Expires = next.authorization.Issued, next.authorization.Expires
	return event, true
}

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
	h := s.newHeld(got.token, issued, expires, life)
	h.refreshAt = expires.Add(-time.Duration(float64(life) * s.ahead))
	if !h.usable(now) {
		return nil, badResponse(0, "the token has expired before it could be used")
	}
	if same && expires.Sub(old.authorization.Expires) <= sameExpiry {
		h.refreshAt = unchangedRefreshAt(now, expires, h.unusableAt)
	}
	return h, nil
}

// State implements Source.
func (s *cache) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state(s.now())
	if s.last != nil {
		state.Status = StatusDegraded
		if s.last.final() {
			state.Status = StatusConfigError
		}
		state.LastError, state.Detail = s.last.tokenError(s.credential, max(0, s.notBefore.Sub(s.now()))), s.last.detail
	}
	return state
}
