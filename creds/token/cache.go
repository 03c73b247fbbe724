package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"pillion/creds"
)

// cache is the Source that keeps a grant's token in this process.
//
//	issued            refreshAt                    unusableAt  expires
//	  |---- serve it ----|-- serve it, and refresh behind --|--- ask and wait ---
//
// At most one token request is under way, on a context of its own, and all who
// need its answer wait for it, each with their own. Nothing runs while nobody
// asks: refreshing ahead is started by use.
type cache struct {
	credential string
	kind       creds.AuthorizationType
	grant      grant
	build      func(answer) creds.Authorization
	now        func() time.Time
	timeout    time.Duration
	ahead      float64 // share of the lifetime that is left when it is refreshed
	onEvent    func(Event)

	current atomic.Pointer[held] // read without mu; written under it

	mu        sync.Mutex
	flight    *flight // the token request under way
	last      *failure
	fails     int
	notBefore time.Time // no attempt before
	forced    time.Time // the last refresh that a 401 forced
	closed    bool
	gone      chan struct{} // closed by Close
}

var _ Source = (*cache)(nil)

// forcedEvery keeps an upstream that answers 401 to everything from turning each
// of its answers into a token request.
const forcedEvery = 30 * time.Second

// Authorization implements Source. With a good token it takes no lock and
// allocates nothing.
func (s *cache) Authorization(ctx context.Context) (*creds.Authorization, error) {
	now := s.now()
	if h := s.current.Load(); h.usable(now) {
		if !before(now, h.refreshAt) {
			s.refreshBehind(now)
		}
		return h.authorization, nil
	}
	f, err := s.join(now)
	if err != nil {
		return nil, err
	}
	return s.wait(ctx, f)
}

// Refused implements Source.
func (s *cache) Refused(ctx context.Context, fingerprint string) (*creds.Authorization, error) {
	f, newer, err := s.force(s.now(), fingerprint)
	if newer != nil || err != nil {
		return newer, err
	}
	authorization, err := s.wait(ctx, f)
	var unavailable *creds.TokenError
	switch {
	case errors.As(err, &unavailable):
		return nil, fmt.Errorf("%w: %w", creds.ErrNoProgress, err)
	case err != nil:
		return nil, err
	case authorization.Token == fingerprint:
		return nil, creds.ErrNoProgress
	}
	return authorization, nil
}

// refreshBehind starts a refresh that nobody waits for, unless one must not.
func (s *cache) refreshBehind(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Another caller's may have landed between our look and the lock.
	if h := s.current.Load(); h.usable(now) && before(now, h.refreshAt) {
		return
	}
	if s.closed || s.flight != nil || before(now, s.notBefore) {
		return
	}
	s.start()
}

// join returns the token request that brings the next token.
func (s *cache) join(now time.Time) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joinLocked(now)
}

func (s *cache) joinLocked(now time.Time) (*flight, error) {
	switch {
	case s.closed:
		return nil, s.changed()
	case s.flight != nil:
		return s.flight, nil
	}
	if h := s.current.Load(); h.usable(now) && before(now, h.refreshAt) {
		return landed(h.authorization), nil
	}
	if before(now, s.notBefore) {
		return nil, s.last.tokenError(s.credential, s.notBefore.Sub(now))
	}
	return s.start(), nil
}

// force returns a newer authorization than the refused one if there is one, else
// the token request that may bring it.
func (s *cache) force(now time.Time, fingerprint string) (*flight, *creds.Authorization, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.current.Load()
	switch {
	case s.closed:
		return nil, nil, fmt.Errorf("%w: %w", creds.ErrNoProgress, s.changed())
	case h.usable(now) && h.authorization.Token != fingerprint:
		return nil, h.authorization, nil
	case s.flight != nil:
		return s.flight, nil, nil
	case before(now, s.notBefore):
		return nil, nil, fmt.Errorf("%w: %w", creds.ErrNoProgress, s.last.tokenError(s.credential, s.notBefore.Sub(now)))
	case h.usable(now) && !s.forced.IsZero() && before(now, s.forced.Add(forcedEvery)):
		return nil, nil, creds.ErrNoProgress
	}
	s.forced = now
	return s.start(), nil, nil
}

// wait waits for f as long as ctx and the credential last.
func (s *cache) wait(ctx context.Context, f *flight) (*creds.Authorization, error) {
	select {
	case <-f.done:
		return f.authorization, f.err
	default:
	}
	select {
	case <-f.done:
		return f.authorization, f.err
	case <-s.gone:
		return nil, s.changed()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a token of %s: %w", s.credential, ctx.Err())
	}
}

// State implements Source.
func (s *cache) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := State{Status: StatusNone, Failures: s.fails, NextAttempt: s.notBefore}
	if h := s.current.Load(); h.usable(s.now()) {
		state.Status = StatusOK
		state.Token, state.Issued, state.Expires = h.authorization.Token, h.authorization.Issued, h.authorization.Expires
	}
	if s.last != nil {
		state.Status = StatusDegraded
		if s.last.final() {
			state.Status = StatusConfigError
		}
		state.LastError, state.Detail = s.last.tokenError(s.credential, max(0, s.notBefore.Sub(s.now()))), s.last.detail
	}
	return state
}

// Close implements Source. A token request under way is left to end by itself: a
// provider that rotates may already have acted on it.
func (s *cache) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.current.Store(nil)
		close(s.gone)
	}
}

func (s *cache) changed() error {
	return &creds.TokenError{Credential: s.credential, Reason: ReasonChanged, RetryAfter: time.Second}
}
