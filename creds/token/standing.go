package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pillion/creds"
)

// sighting is what was seen last of how a token stands: a record, by a store's clock
// that ours was ahead of by offset.
type sighting struct {
	record  tokenRecord
	offset  time.Duration
	seen    time.Time // when, by the store's clock
	trouble error     // of the last attempt, if it failed; the record may not tell of it
}

// local returns a record's time by our clock.
func (s sighting) local(ms int64) time.Time { return fromMillis(ms).Add(s.offset) }

// tellToken adds to state the token, if it is one to send.
func (s sighting) tellToken(state *State, purpose string, now time.Time) {
	if t := s.record; t.usable(purpose, now.Add(-s.offset)) {
		state.Status, state.Token = StatusOK, t.fingerprint()
		state.Issued, state.Expires = s.local(t.IssuedAt), s.local(t.ExpiresAt)
	}
}

// tell adds to state what the record says, and what the last attempt ended with.
func (s sighting) tell(state *State, credential string, now time.Time) {
	switch s.record.Status {
	case StatusDegraded, StatusNeedsConsent, StatusConfigError:
		state.Status, state.Failures = s.record.Status, s.record.Fails
	}
	if s.record.RetryAt != 0 {
		state.NextAttempt = s.local(s.record.RetryAt)
	}
	if s.record.GrantEndsAt != 0 {
		state.GrantEnds = s.local(s.record.GrantEndsAt)
	}
	if e := s.record.Error; e != nil {
		state.LastError, state.Detail = e.tokenError(credential, max(0, state.NextAttempt.Sub(now))), e.Detail
	}
	unavailable, ok := errors.AsType[*creds.TokenError](s.trouble)
	switch {
	case s.trouble == nil, errors.Is(s.trouble, errNothingNew):
	case errors.Is(s.trouble, creds.ErrStoreUnavailable):
		state.Detail = creds.ErrStoreUnavailable.Error()
		if state.Status == StatusNone {
			state.Status = StatusDegraded
		}
	case ok && (state.LastError == nil || unavailable.Reason == ReasonBadRecord):
		state.LastError, state.Status = unavailable, StatusDegraded
		if errors.Is(s.trouble, creds.ErrNeedsConsent) {
			state.Status = StatusNeedsConsent
		} else if (&failure{reason: unavailable.Reason, code: unavailable.Code}).final() {
			state.Status = StatusConfigError
		}
		if unavailable.Reason == ReasonBadRecord {
			state.Detail = Advice(ReasonBadRecord, "")
		}
	}
}

// State tells how the token of the credential called name stands, as this refresher
// saw it last: for one that serves no request itself, or none with this credential.
// It asks nobody. StatusNone also means that it has not looked yet.
func (r *Refresher) State(name string) State {
	r.mu.Lock()
	defer r.mu.Unlock()
	state := State{Status: StatusNone}
	ch := r.charges[name]
	if ch == nil {
		return state
	}
	now, s := r.now(), ch.sighting
	s.tellToken(&state, purposeOf(ch.credential), now)
	s.tell(&state, name, now)
	return state
}

// show takes over what the charge's renewal has seen, and how its use ended. The
// caller has the charge's gate.
func (r *Refresher) show(ch *charge, trouble error) {
	r.mu.Lock()
	news := isUnreadable(trouble) && !isUnreadable(ch.sighting.trouble)
	ch.sighting = ch.renewal.sighting
	ch.sighting.trouble = trouble
	r.mu.Unlock()
	if news && r.OnEvent != nil {
		r.OnEvent(Event{
			Kind: EventState, Credential: ch.credential.Name, Grant: ch.credential.Authorization,
			State: StatusConfigError, Detail: Advice(ReasonBadRecord, ""),
		})
	}
}

// isUnreadable reports whether a grant's record cannot be read: what the record itself
// cannot tell, as it tells of all else.
func isUnreadable(err error) bool {
	unavailable, ok := errors.AsType[*creds.TokenError](err)
	return ok && unavailable.Reason == ReasonBadRecord
}

// Stored tells how the token of c stands by the record in its store alone, for one
// that neither uses nor renews it. It takes the public part of c.
func Stored(ctx context.Context, store creds.Store, c *creds.Credential) (State, error) {
	state := State{Status: StatusNone}
	found, err := kindOf(c)
	if err != nil || found.grant == nil || c.Unshared {
		return state, err
	}
	record, _, clock, err := (&reader{credential: c.Name, store: store}).look(ctx)
	if err != nil {
		return state, err
	}
	if record.Status == "" && found.consent {
		record.Status = StatusNeedsConsent // nobody ever wrote one
	}
	now := time.Now()
	s := sighting{record: record, offset: now.Sub(clock)}
	s.tellToken(&state, purposeOf(c), now)
	s.tell(&state, c.Name, now)
	return state, nil
}

// begin takes a charge for one that uses its renewal, until end. The context ends
// with Close as well: it bounds the waiting, and so never a token request.
func (r *Refresher) begin(ctx context.Context, ch *charge) (_ context.Context, end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	r.begun()
	stop := context.AfterFunc(r.life, cancel)
	if err := r.life.Err(); err != nil {
		r.mu.Unlock()
		cancel()
		return nil, nil, fmt.Errorf("waiting for a token of %s: %w", ch.credential.Name, err)
	}
	r.uses.Add(1)
	r.mu.Unlock()
	left := func() { stop(); cancel(); r.uses.Done() }
	if err := ch.enter(ctx); err != nil {
		left()
		return nil, nil, err
	}
	return ctx, func() { ch.leave(); left() }, nil
}

// begun makes what Close ends. The caller holds mu.
func (r *Refresher) begun() {
	if r.life == nil {
		r.life, r.end = context.WithCancel(context.Background())
	}
}

// Close ends the waiting of all who renew in this process, and returns when no token
// request is under way any more and what they brought is written: a provider that
// rotates has no second answer. Nothing is begun after it. Its error is ctx's.
func (r *Refresher) Close(ctx context.Context) error {
	r.mu.Lock()
	r.begun()
	r.end()
	r.mu.Unlock()
	done := make(chan struct{})
	go func() {
		r.uses.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
