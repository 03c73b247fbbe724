package token

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"pillion/creds"
)

// shared is the Source of a token that lies in a store's records, for as many
// processes as there are. A flight of it is a fetch: a reader's, who looks at
// tokens/NAME and rings for a refresher, or that of a refresher in this process.
//
// While a token is good and used it costs one fetch a rotation, at a point that
// this process has drawn: readers between 30 and 8 % of the life that is left, when
// a refresher has long renewed it. What is not used costs nothing.
type shared struct {
	*pocket
	purpose string
	share   float64 // of the life, left when it fetches ahead
	fetch   fetch
	limit   func(*flight) time.Duration
	silence func(now time.Time) string // that nobody answers, if so; nil: it needs nobody

	// Under mu.
	sighting
	looks int // flights ahead since the token came, in vain
}

var _ Source = (*shared)(nil)

// fetch brings a record with a token to send: for a flight ahead a newer one than
// that of generation gen, else errNothingNew; for one that was refused another than
// that. With an error it returns the record that it saw, if it saw one. clock is the
// store's.
type fetch func(ctx context.Context, f *flight, gen int) (record tokenRecord, clock time.Time, err error)

// usedFor is how long a token is renewed ahead of its end after it was last used, or
// rung for.
const usedFor = 24 * time.Hour

// fly makes one flight. Its context is nobody's but the credential's.
func (s *shared) fly(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), s.limit(f))
	defer cancel()
	go func() {
		select {
		case <-s.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	s.mu.Lock()
	gen := s.record.Gen
	s.mu.Unlock()
	record, clock, err := s.fetch(ctx, f, gen)
	s.land(f, record, clock, err)
	close(f.done)
}

// land takes over what a flight brought.
func (s *shared) land(f *flight, record tokenRecord, clock time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = nil
	if s.closed {
		f.err = s.changed()
		return
	}
	now := s.now()
	if !clock.IsZero() {
		s.record, s.offset = record, now.Sub(clock)
	}
	var next *held
	if err == nil {
		next, err = s.hold(record, now)
	}
	s.trouble = err
	h := s.current.Load()
	switch {
	case err == nil:
		s.take(f, next)
		s.looks = 0
		return
	case f.ahead:
		f.err = errNothingNew
	default:
		pause, refusal := s.refuse(err, now)
		s.fail(f, now.Add(pause), now, refusal)
		if h.usable(now) { // upstream has refused it: it serves, but another may come any moment
			s.notBefore = time.Time{}
		}
	}
	if h.usable(now) {
		s.current.Store(h.again(now.Add(s.nextLook(h, now))))
	}
}

// hold makes a held of a record.
func (s *shared) hold(record tokenRecord, now time.Time) (*held, error) {
	issued, expires := s.local(record.IssuedAt), s.local(record.ExpiresAt)
	life := expires.Sub(issued)
	h := s.newHeld(record.AccessToken.secret(s.purpose), issued, expires, life)
	if h.token.IsZero() || !h.usable(now) {
		return nil, badResponse(0, "the token has expired before it could be used").tokenError(s.credential, 0)
	}
	h.refreshAt = h.unusableAt.Add(-time.Duration(float64(life-marginOf(life)) * s.share))
	if renewAt := s.local(record.RenewAt); record.RenewAt != 0 && h.refreshAt.Before(renewAt) {
		// The provider hands out the same token until its end: nobody asks before.
		h.refreshAt = h.unusableAt.Add(-time.Duration(float64(h.unusableAt.Sub(renewAt)) * s.share))
	}
	return h, nil
}

// nextLook is when to fetch ahead again after one in vain: in 2 s, 4 s, 8 s ..., each
// drawn from its upper half, but before half of what is left.
func (s *shared) nextLook(h *held, now time.Time) time.Duration {
	pause := 4 * time.Second << min(s.looks, 10)
	s.looks++
	pause = min(pause, h.unusableAt.Sub(now)/2)
	return max(time.Second, pause/2+rand.N(max(1, pause/2)))
}

// maxRefusal is how long a refusal is repeated without another fetch: so much later
// than others a process sees that a person has connected the credential again.
const maxRefusal = 10 * time.Second

// refuse returns what callers get because of err, and for how long without another
// fetch. The caller holds mu.
func (s *shared) refuse(err error, now time.Time) (time.Duration, func(time.Duration) error) {
	unavailable, ok := errors.AsType[*creds.TokenError](err)
	if !ok {
		switch {
		case errors.Is(err, creds.ErrStoreUnavailable), errors.Is(err, creds.ErrNoProgress):
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			err = &creds.TokenError{Credential: s.credential, Reason: ReasonTimeout}
		default:
			err = fmt.Errorf("%w: %w", creds.ErrStoreUnavailable, err)
		}
		pause := min(backoff(s.fails, false), 8*time.Second)
		return pause, func(retryAfter time.Duration) error { return retryLater(err, retryAfter) }
	}
	pause := min(max(unavailable.RetryAfter, backoff(s.fails, false)), maxRefusal)
	until := now.Add(max(pause, unavailable.RetryAfter))
	return pause, func(time.Duration) error { return retryLater(err, max(0, until.Sub(s.now()))) }
}

// retryLater returns err with another RetryAfter, where it has one.
func retryLater(err error, retryAfter time.Duration) error {
	unavailable, ok := errors.AsType[*creds.TokenError](err)
	if !ok {
		return err
	}
	again := *unavailable
	again.RetryAfter = retryAfter
	if errors.Is(err, creds.ErrNeedsConsent) {
		return fmt.Errorf("%w: %w", creds.ErrNeedsConsent, &again)
	}
	return &again
}

// State implements Source.
func (s *shared) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	state := s.state(now)
	s.sighting.tell(&state, s.credential, now)
	s.tellSilence(&state, now)
	return state
}

// tellSilence adds that no refresher answers, where one ought to have.
func (s *shared) tellSilence(state *State, now time.Time) {
	waits := s.record.RetryAt != 0 && now.Before(s.local(s.record.RetryAt).Add(unansweredFor))
	if s.silence == nil || waits || s.record.Status == StatusNeedsConsent {
		return
	}
	if text := s.silence(now); text != "" {
		state.Detail = text
	}
}

// tokenError is e as callers get it.
func (e *recordError) tokenError(credential string, retryAfter time.Duration) *creds.TokenError {
	return &creds.TokenError{Credential: credential, Reason: e.Reason, Status: e.Status, Code: e.Code, RetryAfter: retryAfter}
}
