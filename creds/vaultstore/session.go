package vaultstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"pillion/creds"
)

// session is our token at Vault.
//
// It is replaced by a new login, never renewed: that works for batch tokens, and
// a role that was changed takes effect. A login is made when there is no token,
// at two thirds of its life (plus or minus a tenth of it, so that a fleet spreads
// out), and once when Vault does not accept it any more.
type session struct {
	turn chan struct{} // held by the one login that runs
	once sync.Once

	mu      sync.Mutex
	current login
	number  int // logins so far
	failed  error
	tries   int       // failures in a row
	next    time.Time // no login before, after a failure
	name    string    // display name of current, once asked for
	unwrap  unwrapped
	noNotes int // the number of the login that may not note who wrote
}

// login is one successful login.
type login struct {
	token   creds.Secret
	at      time.Time
	expires time.Time // zero: never
	renewAt time.Time // zero: never
	file    fileStamp // of the method "token"
}

// Session is what is known of our own token.
type Session struct {
	Authenticated bool
	Since         time.Time // of the login
	Expires       time.Time // zero: never, or not known
	Err           error     // of the last login, if it failed
}

// Session returns the state of our login.
func (c *Client) Session() Session {
	s := &c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	valid := !s.current.token.IsZero() && (s.current.expires.IsZero() || c.now().Before(s.current.expires))
	return Session{valid, s.current.at, s.current.expires, s.failed}
}

// refusedAgain is how old a login must be for a 403 to be worth a new one: a role
// may have got other policies since, but a fleet that is refused must not log in
// every second.
const refusedAgain = time.Minute

// call does a request with our token, after a login if need be, and once more
// with a new one when Vault no longer accepts it or refuses an old one.
func (c *Client) call(ctx context.Context, q request) (answer, error) {
	used, number, err := c.token(ctx)
	if err != nil {
		return answer{}, err
	}
	q.token = used.token.Reveal()
	a, err := c.send(ctx, q)
	if !isKind(err, BadToken) && !(isKind(err, Denied) && c.worthALogin(q, used)) {
		return a, err
	}
	again, loginErr := c.renew(ctx, number)
	if loginErr != nil {
		if isKind(err, Denied) {
			return a, err
		}
		return answer{}, loginErr
	}
	q.token = again.token.Reveal()
	return c.send(ctx, q)
}

// worthALogin reports whether a new login could change a refusal. The operator's
// token would be the same again, and a write is refused to most sidecars for good
// (the sweep's): who may write finds out at his next login.
func (c *Client) worthALogin(q request, used login) bool {
	reads := q.operation == "get" || q.operation == "list" || q.operation == "metadata"
	return reads && c.config.Auth.Method != "" && c.now().Sub(used.at) > refusedAgain
}

// token returns the token to use, and the number of its login.
func (c *Client) token(ctx context.Context) (login, int, error) {
	s := &c.session
	s.mu.Lock()
	current, number, next := s.current, s.number, s.next
	s.mu.Unlock()
	now := c.now()
	switch {
	case current.token.IsZero(), !current.expires.IsZero() && !now.Before(current.expires), c.fileChanged(current):
	case current.renewAt.IsZero() || now.Before(current.renewAt) || now.Before(next):
		return current, number, nil
	default: // due, and still good: a failure is told by Session, not by this request
		if fresh, err := c.renew(ctx, number); err == nil {
			return fresh, number + 1, nil
		}
		return current, number, nil
	}
	fresh, err := c.renew(ctx, number)
	return fresh, number + 1, err
}

// renew logs in, unless another goroutine has done so since the numbered login.
// After a failure it waits 1 to 8 s before it asks again, and meanwhile returns
// the error of the last try.
func (c *Client) renew(ctx context.Context, number int) (login, error) {
	s := &c.session
	s.once.Do(func() { s.turn = make(chan struct{}, 1) })
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return login{}, c.cancelled(request{operation: "login", path: "auth"}, ctx.Err())
	}
	s.mu.Lock()
	if s.number != number && !s.current.token.IsZero() {
		defer s.mu.Unlock()
		return s.current, nil
	}
	if c.now().Before(s.next) && s.failed != nil {
		defer s.mu.Unlock()
		return login{}, s.failed
	}
	s.mu.Unlock()
	fresh, err := c.logIn(ctx)
	if errors.Is(err, context.Canceled) {
		return login{}, err // the caller's end says nothing of Vault
	}
	c.remember(fresh, err)
	if c.OnLogin != nil {
		c.OnLogin(err)
	}
	return fresh, err
}

func (c *Client) remember(fresh login, err error) {
	s := &c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
	if err != nil {
		s.next = c.now().Add(backOff(s.tries))
		s.tries++
		return
	}
	s.current, s.tries, s.next, s.name = fresh, 0, time.Time{}, ""
	s.number++
}

// backOff is 1, 2, 4, 8, 8 ... s, drawn from the upper half and never below 1 s.
func backOff(tries int) time.Duration {
	d := time.Second << min(tries, 3)
	return max(time.Second, d/2+rand.N(d/2)) //nolint:gosec // not a secret
}

// KeepLoggedIn logs in when it is time, until ctx ends, so that a request rarely
// has to wait for it.
func (c *Client) KeepLoggedIn(ctx context.Context) {
	for {
		timer := time.NewTimer(c.untilRenewal())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			_, _, _ = c.token(ctx) // Session and OnLogin tell
		}
	}
}

func (c *Client) untilRenewal() time.Duration {
	s := &c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.now()
	switch {
	case s.next.After(now):
		return s.next.Sub(now)
	case s.current.token.IsZero():
		return time.Second
	case s.current.renewAt.IsZero():
		return time.Minute
	}
	return max(s.current.renewAt.Sub(now), 100*time.Millisecond)
}

// loginFor makes a login of a token that lives for ttl; 0 is for ever.
func (c *Client) loginFor(token string, ttl time.Duration) login {
	now := c.now()
	l := login{token: creds.NewSecret(token), at: now}
	if ttl > 0 {
		l.expires = now.Add(ttl)
		share := 2./3 + (rand.Float64()*2-1)/10 //nolint:gosec // not a secret
		l.renewAt = now.Add(time.Duration(float64(ttl) * share))
	}
	return l
}

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}
