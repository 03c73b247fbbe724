package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pillion/creds"
)

// claim lays a lease over what s saw, and asks for a token under it. It returns the
// record that holds what came of it; one without a version means: look again.
//
// One deadline, counted from before the claim and shorter than the lease, holds
// for claim and request: a holder for whom the store was slow never asks at a time
// when another may take it for dead.
func (r *renewal) claim(ctx context.Context, s seen, w want, how move) (seen, error) {
	begun, times := r.now(), r.timesOf(s.record)
	if how == claimBlind {
		times.request, times.lease = times.request+times.settle, times.lease+times.settle
	}
	own := context.WithoutCancel(ctx)
	ctx, cancel := context.WithTimeout(own, times.request)
	defer cancel()
	s, err := r.lay(ctx, s, w, how, times)
	if err == nil && s.version != 0 && how == claimBlind {
		s, err = r.settle(ctx, times)
	}
	if err != nil || s.version == 0 {
		return seen{}, err
	}
	if elapsed(begun, r.now()) > times.request*2/3 {
		err := fmt.Errorf("claiming the grant of %s took too long: %w", r.credential.Name, creds.ErrStoreUnavailable)
		if how == claimBlind { // it keeps others from the grant as the silent holder's lease did
			return seen{}, err
		}
		return seen{}, errors.Join(err, r.giveBack(own, s, nil))
	}
	return r.ask(ctx, own, s, times)
}

// lay writes the lease. What is laid and not used stays known as ours.
func (r *renewal) lay(ctx context.Context, s seen, w want, how move, times timings) (seen, error) {
	next, now := s.record, s.clock(r.now())
	next.Op = newNonce()
	next.Lease = &lease{ID: newNonce(), Holder: r.holder, TTL: times.lease.Milliseconds(), Blind: how != claimLease}
	if w.wanted > 0 {
		next.WantedUntil = max(next.WantedUntil, toMillis(now.Add(w.wanted)))
	}
	if w.refused != "" {
		next.ForcedAt = toMillis(now)
	}
	if how != claimLease { // the request before ended badly, and if this one does there is no word of it
		pause := pauseAfter(next.Fails, &failure{})
		next.Fails, next.NotBefore = next.Fails+1, toMillis(now.Add(times.lease+pause))
	}
	if how == claimOwn {
		next.LastError, next.Tried = r.own.failed, askedOf(r.credential)
	}
	r.own = ownLease{id: next.Lease.ID, blind: how == claimBlind}
	version, err := r.store.CAS(ctx, creds.KeyGrants+r.credential.Name, next.encode(), s.version)
	switch {
	case errors.Is(err, creds.ErrConflict):
		r.tell(EventLeaseConflict)
		return seen{}, nil
	case err != nil:
		// It may have been applied all the same.
		found, lookErr := r.look(ctx)
		if lookErr != nil || found.record.Op != next.Op {
			return seen{}, fmt.Errorf("claiming the grant of %s: %w", r.credential.Name, err)
		}
		s = found
	default:
		s.record, s.version = next, version
	}
	if how != claimLease {
		r.tell(EventBlindClaim)
	}
	return s, nil
}

// settle leaves a holder who was taken for dead the time to write its answer over
// the claim, and looks whether it did.
func (r *renewal) settle(ctx context.Context, times timings) (seen, error) {
	if err := r.pause(ctx, times.settle); err != nil {
		return seen{}, err
	}
	s, err := r.look(ctx)
	if err != nil || s.record.Lease == nil || s.record.Lease.ID != r.own.id {
		return seen{}, err
	}
	return s, nil
}

// ask does the one token request of a claim, and what its outcome asks for. The
// writes that follow are own's.
func (r *renewal) ask(ctx, own context.Context, s seen, times timings) (seen, error) {
	spent, begun := s.record.Refresh.secret(r.purpose()), r.now()
	started := s.clock(begun)
	r.own.sent = true
	got, err := r.grant(ctx, proof{refresh: spent})
	if err == nil {
		b := r.purchase(s, got, spent, started)
		r.report(begun, got, b.Token, nil)
		return r.keep(b)
	}
	failed := asFailure(err)
	r.report(begun, answer{}, tokenRecord{}, failed)
	switch {
	case !spent.IsZero() && !failed.refresh.IsZero() && !failed.refresh.Equal(spent):
		b := r.purchase(s, answer{refresh: failed.refresh}, spent, started)
		b.Failed = failed.record(s.clock(r.now()))
		s, err := r.keep(b)
		if err != nil || s.version == 0 {
			return s, err
		}
		return seen{}, failed.tokenError(r.credential.Name, max(time.Second, fromMillis(s.record.NotBefore).Sub(s.now)))
	case failed.unknown && !spent.IsZero() && failed.refresh.IsZero():
		r.tell(EventUnknownOutcome)
		now := s.clock(r.now())
		r.own.failed = failed.record(now)
		return seen{}, failed.tokenError(r.credential.Name, max(time.Second, times.lease-elapsed(begun, r.now())))
	case failed.unknown:
		r.tell(EventUnknownOutcome) // a second request costs nothing
	case failed.reason == ReasonInvalidGrant && !spent.IsZero():
		r.own.sent = false
		return seen{}, r.lost(own, s, spent, failed)
	}
	r.own.sent = false
	if err := r.giveBack(own, s, failed); err != nil {
		return seen{}, errors.Join(failed.tokenError(r.credential.Name, time.Second), err)
	}
	return seen{}, failed.tokenError(r.credential.Name, r.backedOff)
}

// giveBack ends our lease without a token; failed says why, if a request did.
func (r *renewal) giveBack(ctx context.Context, s seen, failed *failure) error {
	times := r.timesOf(s.record)
	_, _, err := r.conclude(ctx, s, times, times.lease, func(g *grantRecord, now time.Time) bool {
		if g.Lease == nil || g.Lease.ID != r.own.id {
			return false
		}
		g.Lease = nil
		if failed != nil {
			r.backedOff = g.note(failed, askedOf(r.credential), now)
		}
		return true
	})
	if err != nil || failed == nil {
		return err
	}
	_ = r.repair(ctx) // tokens/NAME tells others how it stands, and is repaired later too
	return nil
}

// note writes a failure down, and when the next request may be sent.
func (g *grantRecord) note(failed *failure, asked string, now time.Time) (pause time.Duration) {
	fails := g.Fails
	if failed.final() && !(g.LastError != nil && g.LastError.failure().final()) {
		fails = 0
	}
	pause = pauseAfter(fails, failed)
	g.Fails, g.NotBefore = fails+1, toMillis(now.Add(pause))
	g.LastError, g.Tried = failed.record(now), asked
	return pause
}

// lost is for an invalid_grant. Unless the refresh token has been replaced meanwhile,
// or somebody has claimed over us who will say what came of it, a spare takes its
// place; or the grant begins anew where that takes nobody; or a person has to. All
// of that shows at the next look.
func (r *renewal) lost(ctx context.Context, s seen, spent creds.Secret, failed *failure) error {
	times, purpose := r.timesOf(s.record), r.purpose()
	_, _, err := r.conclude(ctx, s, times, times.lease, func(g *grantRecord, now time.Time) bool {
		if !g.Refresh.secret(purpose).Equal(spent) || g.Lease == nil || g.Lease.ID != r.own.id {
			return false
		}
		g.Lost, g.Refresh, g.GrantEndsAt, g.Lease, g.NotBefore = g.Refresh, nil, 0, nil, 0
		switch {
		case !g.Spare.secret(purpose).IsZero():
			g.Refresh, g.GrantEndsAt, g.Spare, g.SpareEndsAt, g.SpareServes = g.Spare, g.SpareEndsAt, nil, 0, true
		case kinds[r.credential.Authorization].consent:
			g.LastError, g.Tried = failed.record(now), askedOf(r.credential)
		}
		return true
	})
	return err
}

// report tells of a token request that has ended.
func (r *renewal) report(begun time.Time, got answer, t tokenRecord, failed *failure) {
	if r.onEvent == nil {
		return
	}
	e := Event{Credential: r.credential.Name, Grant: r.credential.Authorization, Took: elapsed(begun, r.now())}
	if failed != nil {
		e.Result, e.Reason, e.Status, e.Code, e.Detail = Failure, failed.reason, failed.status, failed.code, failed.detail
	} else {
		e.Result, e.Token, e.Issued, e.Expires = Success, got.token.Fingerprint(), fromMillis(t.IssuedAt), fromMillis(t.ExpiresAt)
	}
	r.onEvent(e)
}

// record is f as records keep it; nil of nil.
func (f *failure) record(now time.Time) *recordError {
	if f == nil {
		return nil
	}
	return &recordError{Reason: f.reason, Status: f.status, Code: f.code, Detail: f.detail, At: toMillis(now)}
}

// failure is the reverse of record.
func (e *recordError) failure() *failure {
	if e == nil {
		return badResponse(0, "")
	}
	return &failure{reason: e.Reason, status: e.Status, code: e.Code, detail: e.Detail}
}
