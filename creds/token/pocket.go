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

// pocket is what the Sources of a grant have in common: a token at hand, and at
// most one flight for the next.
//
//	issued            refreshAt                    unusableAt  expires
//	  |---- serve it ----|--- serve it, and fly behind ---|--- fly and wait ---
//
// A flight is on a context of its own, and all who need its result wait for it,
// each with their own. Nothing runs while nobody asks: a flight ahead is started by
// use. What a flight does is the Source's own: see cache and shared.
type pocket struct {
	credential string
	now        func() time.Time
	build      func(token creds.Secret) creds.Authorization
	run        func(*flight) // one attempt, that ends by closing done
	// recorded: a flight for a refused token is a look at records, which say when a
	// refresh was forced last, for all. It may then be made for each token once.
	recorded bool

	current atomic.Pointer[held] // read without mu; written under it

	mu        sync.Mutex
	flight    *flight                              // under way
	refusal   func(retryAfter time.Duration) error // why the last one brought nothing, if it did not
	fails     int                                  // in a row
	notBefore time.Time                            // no flight before
	forced    time.Time                            // the last refresh that a 401 forced
	forcedFor string                               // fingerprint that was refused then
	closed    bool
	gone      chan struct{} // closed by Close
}

// forcedEvery keeps an upstream that answers 401 to everything from turning each
// of its answers into a token request.
const forcedEvery = 30 * time.Second

// Authorization implements Source. With a good token it takes no lock and
// allocates nothing.
func (p *pocket) Authorization(ctx context.Context) (*creds.Authorization, error) {
	for {
		now := p.now()
		if h := p.current.Load(); h.usable(now) {
			if !before(now, h.refreshAt) {
				p.flyBehind(now)
			}
			return h.authorization, nil
		}
		f, err := p.join(now)
		if err != nil {
			return nil, err
		}
		authorization, err := p.wait(ctx, f)
		if !errors.Is(err, errNothingNew) {
			return authorization, err
		}
	}
}

// Refused implements Source.
func (p *pocket) Refused(ctx context.Context, fingerprint string) (*creds.Authorization, error) {
	for {
		f, newer, err := p.force(p.now(), fingerprint)
		if newer != nil || err != nil {
			return newer, err
		}
		authorization, err := p.wait(ctx, f)
		switch {
		case errors.Is(err, errNothingNew): // it was one ahead, of before the refusal
		case err != nil && ctx.Err() != nil:
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("%w: %w", creds.ErrNoProgress, err)
		case authorization.Token == fingerprint:
			return nil, creds.ErrNoProgress
		default:
			return authorization, nil
		}
	}
}

// flyBehind starts a flight that nobody waits for, unless one must not.
func (p *pocket) flyBehind(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Another caller's may have landed between our look and the lock.
	if h := p.current.Load(); h.usable(now) && before(now, h.refreshAt) {
		return
	}
	if p.closed || p.flight != nil || before(now, p.notBefore) {
		return
	}
	p.start(&flight{ahead: true})
}

// join returns the flight that brings the next token.
func (p *pocket) join(now time.Time) (*flight, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, p.changed()
	case p.flight != nil:
		return p.flight, nil
	}
	if h := p.current.Load(); h.usable(now) {
		return landed(h.authorization), nil
	}
	if before(now, p.notBefore) {
		return nil, p.refusal(p.notBefore.Sub(now))
	}
	return p.start(&flight{}), nil
}

// force returns a newer authorization than the refused one if there is one, else
// the flight that may bring it.
func (p *pocket) force(now time.Time, fingerprint string) (*flight, *creds.Authorization, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.current.Load()
	switch {
	case p.closed:
		return nil, nil, fmt.Errorf("%w: %w", creds.ErrNoProgress, p.changed())
	case h.usable(now) && h.authorization.Token != fingerprint:
		return nil, h.authorization, nil
	case p.flight != nil:
		return p.flight, nil, nil
	case before(now, p.notBefore):
		return nil, nil, fmt.Errorf("%w: %w", creds.ErrNoProgress, p.refusal(p.notBefore.Sub(now)))
	case h.usable(now) && !p.forced.IsZero() && before(now, p.forced.Add(forcedEvery)) && (!p.recorded || p.forcedFor == fingerprint):
		return nil, nil, creds.ErrNoProgress
	}
	p.forced, p.forcedFor = now, fingerprint
	return p.start(&flight{refused: fingerprint}), nil, nil
}

// start begins a flight. The caller holds mu.
func (p *pocket) start(f *flight) *flight {
	f.done = make(chan struct{})
	p.flight = f
	go p.run(f)
	return f
}

// take keeps what f brought. The caller holds mu.
func (p *pocket) take(f *flight, next *held) {
	p.current.Store(next)
	p.refusal, p.fails, p.notBefore = nil, 0, time.Time{}
	f.authorization = next.authorization
}

// fail notes why f brought nothing, and when the next may start. The caller holds mu.
func (p *pocket) fail(f *flight, next time.Time, now time.Time, refusal func(retryAfter time.Duration) error) {
	p.refusal, p.notBefore = refusal, next
	p.fails++
	f.err = refusal(next.Sub(now))
}

// wait waits for f as long as ctx and the credential last.
func (p *pocket) wait(ctx context.Context, f *flight) (*creds.Authorization, error) {
	select {
	case <-f.done:
		return f.authorization, f.err
	default:
	}
	select {
	case <-f.done:
		return f.authorization, f.err
	case <-p.gone:
		return nil, p.changed()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a token of %s: %w", p.credential, ctx.Err())
	}
}

// Close implements Source. A token request under way is left to end by itself: a
// provider that rotates may already have acted on it.
func (p *pocket) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.current.Store(nil)
		close(p.gone)
	}
}

func (p *pocket) changed() error {
	return &creds.TokenError{Credential: p.credential, Reason: ReasonChanged, RetryAfter: time.Second}
}

// state is what every Source says of its token. The caller holds mu.
func (p *pocket) state(now time.Time) State {
	state := State{Status: StatusNone, Failures: p.fails, NextAttempt: p.notBefore}
	if h := p.current.Load(); h.usable(now) {
		state.Status = StatusOK
		state.Token, state.Issued, state.Expires = h.authorization.Token, h.authorization.Issued, h.authorization.Expires
	}
	return state
}
