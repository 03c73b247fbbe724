package token

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"pillion/creds"
)

// flight is one token request. Its results may be read once done is closed.
type flight struct {
	done          chan struct{}
	authorization *creds.Authorization
	err           error
}

const (
	firstBackoff  = 500 * time.Millisecond
	maxBackoff    = 60 * time.Second
	maxRetryAfter = 15 * time.Minute
)

// start begins a token request. The caller holds mu.
func (s *cache) start() *flight {
	f := &flight{done: make(chan struct{})}
	s.flight = f
	go s.run(f)
	return f
}

// run does one token request. Its context is nobody's: the first caller to leave
// must not take the token away from the others.
func (s *cache) run(f *flight) {
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
		f.err = s.fail(failed, now)
		event.Result, event.Reason, event.Status = Failure, failed.reason, failed.status
		event.Code, event.Detail = failed.code, failed.detail
		return event, true
	}
	s.current.Store(next)
	s.last, s.fails, s.notBefore = nil, 0, time.Time{}
	f.authorization = next.authorization
	event.Result, event.Token = Success, next.authorization.Token
	event.Issued, event.Expires = next.authorization.Issued, next.authorization.Expires
	return event, true
}

// fail notes a failure, sets the time of the next attempt, and returns what the
// waiting callers get. The caller holds mu.
func (s *cache) fail(f *failure, now time.Time) error {
	pause := max(backoff(s.fails, f.final()), min(f.retryAfter, maxRetryAfter))
	s.last, s.notBefore = f, now.Add(pause)
	s.fails++
	return f.tokenError(s.credential, pause)
}

// backoff is how long to wait after one more failure than fails: 0.5 s, 1 s, 2 s
// up to 60 s, of which the second half is drawn, so that a fleet spreads out; at
// once 60 s when only an edit can help.
func backoff(fails int, final bool) time.Duration {
	if final {
		return maxBackoff + rand.N(maxBackoff/10)
	}
	pause := maxBackoff
	if fails < 7 { // 0.5 s x 2^7 is 64 s
		pause = firstBackoff << fails
	}
	return pause/2 + rand.N(pause/2)
}

func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return badResponse(0, "")
}

func landed(authorization *creds.Authorization) *flight {
	f := &flight{done: make(chan struct{}), authorization: authorization}
	close(f.done)
	return f
}
