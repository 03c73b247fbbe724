package token

import (
	"context"
	"errors"
	"fmt"

	"pillion/creds"
)

// repair writes tokens/NAME as grants/NAME has it, if it is behind.
func (r *renewal) repair(ctx context.Context) error {
	for {
		again, err := r.repairOnce(ctx)
		if err != nil {
			return fmt.Errorf("writing the token of %s: %w", r.credential.Name, err)
		}
		if !again {
			return nil
		}
	}
}

// repairOnce reads the token before the grant: what it then writes over that very
// token is never older than the token was.
func (r *renewal) repairOnce(ctx context.Context) (again bool, err error) {
	key := creds.KeyTokens + r.credential.Name
	stored, err := r.store.Get(ctx, key)
	missing := errors.Is(err, creds.ErrNotFound)
	if err != nil && !missing {
		return false, err
	}
	s, err := r.look(ctx)
	if err != nil {
		return false, err
	}
	next := r.saw(s)
	if s.version == 0 {
		return false, nil
	}
	old, err := decodeToken(stored.Data)
	if !missing && err == nil && old.encode().Equal(next.encode()) {
		return false, nil
	}
	if missing && !r.exists(ctx) {
		return false, nil
	}
	_, err = r.store.CAS(ctx, key, next.encode(), stored.Version)
	switch {
	case errors.Is(err, creds.ErrConflict):
		return true, nil
	case err != nil:
		return false, err
	case missing && !r.exists(ctx):
		return false, r.store.Delete(ctx, key) // removed at the same moment
	case old.Status != next.Status && r.onEvent != nil:
		r.onEvent(Event{Kind: EventState, Credential: r.credential.Name, Grant: r.credential.Authorization, State: next.Status})
	}
	return false, nil
}

// exists reports whether the credential is still there: a token of one that is not
// would be nobody's.
func (r *renewal) exists(ctx context.Context) bool {
	_, err := r.store.Get(ctx, creds.KeyCredentials+r.credential.Name)
	return !errors.Is(err, creds.ErrNotFound)
}

// saw keeps, for Refresher.State, how the grant stands, and returns it.
func (r *renewal) saw(s seen) tokenRecord {
	next := r.project(s)
	r.sighting = sighting{record: next, offset: s.at.Sub(s.now), seen: s.now}
	return next
}

// project is tokens/NAME by what grants/NAME says.
func (r *renewal) project(s seen) tokenRecord {
	g := s.record
	var t tokenRecord
	if g.Token != nil {
		t = *g.Token
	}
	t.Schema, t.Gen = schema, g.Gen
	t.Fails, t.RetryAt, t.ConsentedAt, t.Spare = g.Fails, g.NotBefore, g.ConsentedAt, g.Spare != nil
	t.GrantEndsAt = 0
	if kinds[r.credential.Authorization].consent && !g.Refresh.secret(r.purpose()).IsZero() {
		t.GrantEndsAt = g.GrantEndsAt
	}
	t.Status, t.Error = r.status(s)
	return t
}

// status puts into a word how a grant stands, and why.
func (r *renewal) status(s seen) (Status, *recordError) {
	g := s.record
	last := g.LastError
	if kinds[r.credential.Authorization].consent && g.Refresh.secret(r.purpose()).IsZero() {
		if !g.Token.usable(r.purpose(), s.now) || last != nil && last.Reason == ReasonInvalidGrant {
			return StatusNeedsConsent, last
		}
		return StatusDegraded, &recordError{
			Reason: ReasonInvalidGrant, Detail: "the provider gave no refresh token: the token cannot be renewed", At: g.RotatedAt,
		}
	}
	switch {
	case last != nil && last.failure().final():
		return StatusConfigError, last
	case last != nil:
		return StatusDegraded, last
	case g.SpareServes:
		return StatusDegraded, &recordError{
			Reason: ReasonInvalidGrant, Detail: "the first consent was lost; a spare serves: connect again", At: g.ConsentedAt,
		}
	}
	return StatusOK, nil
}
