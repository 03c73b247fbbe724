package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pillion/creds"
)

// renewal gets tokens for one credential in one process, so that all processes that
// do so over one store never spend a refresh token twice, and never lose what one
// has bought, short of a death between the provider's commit and its answer.
//
//	+--> look at grants/NAME --> decide --- useToken --------------------------> token
//	|                              |  |  \- needConsent, backOff, noProgress --> error
//	|                              |  \---- wait: a lease is held --+
//	|<-----------------------------|--------------------------------+
//	|                              v
//	|                            claim: the lease, by check-and-set -- unclear --> error
//	|<-- another was faster -------|
//	|                              |- over a silent holder: settle, look again
//	|<-- the holder spoke up ------|
//	|                              v
//	|                            ask: one token request
//	|                              |- an answer: journal, grants/NAME ------\
//	|<-- somebody consented -------|      tokens/NAME, journal gone --------> token
//	|<-- invalid_grant: spare? ----|- refused: lease and back-off written --> error
//	|                              \- unclear: the lease stays standing ----> error
//
// What it has bought and cannot write it keeps, and writes first at the next call.
// One call at a time. A process that dies leaves a lease, and perhaps a journal.
type renewal struct {
	store      creds.Store
	credential *creds.Credential
	grant      grant
	holder     string                                     // names this process in leases
	now        func() time.Time                           // the machine's clock
	sleep      func(context.Context, time.Duration) error // nil: a timer
	timeout    time.Duration                              // of a token request, at most
	times      func(life time.Duration) timings           // nil: timingsOf
	journal    journal                                    // nil: none
	onEvent    func(Event)                                // may be nil

	watch     watch
	own       ownLease
	pending   *purchase     // bought, and not yet in the store
	backedOff time.Duration // the pause that giveBack wrote last
	sighting  sighting      // how the grant stood when it was looked at last
}

// seen is grants/NAME as one look found it.
type seen struct {
	record  grantRecord
	version int           // 0: there is none
	age     time.Duration // of that version, at the look
	now     time.Time     // the store's clock, at the look
	at      time.Time     // ours
}

// clock returns the store's clock at a later time of ours.
func (s seen) clock(now time.Time) time.Time { return s.now.Add(elapsed(s.at, now)) }

// elapsed trusts the clock that went further: the monotonic one stands still while a
// machine sleeps.
func elapsed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// renew drives the protocol to its end: a token that is wanted, with the store's
// clock, or an error: a *creds.TokenError (around it creds.ErrNeedsConsent where
// only a person can help), creds.ErrNoProgress, creds.ErrStoreUnavailable, or ctx's.
//
// ctx bounds the waiting; never a token request under way, nor what is done with
// its answer. With an error, too, the record is what tokens/NAME ought to be, where
// that was seen: its Schema is set then.
func (r *renewal) renew(ctx context.Context, w want) (tokenRecord, time.Time, error) {
	since := -1
	for {
		if err := r.deliver(); err != nil {
			return tokenRecord{}, time.Time{}, err
		}
		s, err := r.look(ctx)
		if err != nil {
			return tokenRecord{}, time.Time{}, err
		}
		if since < 0 {
			since = s.record.Gen
		}
		switch d := decide(r.situation(s, w, since)); d.move {
		case wait:
			err = r.pause(ctx, d.pause)
		case claimLease, claimBlind, claimOwn:
			if err = ctx.Err(); err == nil {
				s, err = r.claim(ctx, s, w, d.move)
			}
			if err == nil && s.version != 0 {
				return r.bought(s)
			}
		default:
			return r.end(ctx, s, d)
		}
		if err != nil {
			return tokenRecord{}, time.Time{}, err
		}
	}
}

// end is the end of a renewal that needs no request, or must not send one.
func (r *renewal) end(ctx context.Context, s seen, d decision) (tokenRecord, time.Time, error) {
	err := error(nil)
	switch d.move {
	case useToken:
	case needConsent:
		err = fmt.Errorf("%w: %w", creds.ErrNeedsConsent, &creds.TokenError{Credential: r.credential.Name, Reason: ReasonInvalidGrant})
	case noProgress:
		err = creds.ErrNoProgress
	case backOff:
		err = s.record.LastError.failure().tokenError(r.credential.Name, d.retry.Sub(s.now))
	default:
		err = &creds.TokenError{Credential: r.credential.Name, Reason: ReasonChanged, RetryAfter: time.Second}
	}
	// Whoever wrote grants/NAME may have died before tokens/NAME. A store that does
	// not let us repair that takes nothing away from the token that we have.
	_ = r.repair(ctx)
	return r.project(s), s.now, err
}

// bought is the end of a renewal whose own request has brought what s holds.
func (r *renewal) bought(s seen) (tokenRecord, time.Time, error) {
	if t := s.record.Token; t.usable(r.purpose(), s.now) {
		return r.project(s), s.now, nil
	}
	f := s.record.LastError.failure()
	return r.project(s), s.now, f.tokenError(r.credential.Name, max(0, fromMillis(s.record.NotBefore).Sub(s.now)))
}

// look reads the grant and the store's clock.
func (r *renewal) look(ctx context.Context) (seen, error) {
	s, err := r.read(ctx)
	if err != nil {
		r.watch = watch{} // whoever could not write either begins anew
		if errors.Is(err, errRecordForm) || errors.Is(err, errRecordSchema) {
			err = fmt.Errorf("%w: %w", &creds.TokenError{Credential: r.credential.Name, Reason: ReasonBadRecord, RetryAfter: unreadFor}, err)
		}
		return seen{}, fmt.Errorf("reading the grant of %s: %w", r.credential.Name, err)
	}
	return s, nil
}

func (r *renewal) read(ctx context.Context) (seen, error) {
	stored, err := r.store.Get(ctx, creds.KeyGrants+r.credential.Name)
	if err != nil && !errors.Is(err, creds.ErrNotFound) {
		return seen{}, err
	}
	now, clockErr := r.store.Now(ctx)
	if clockErr != nil {
		return seen{}, clockErr
	}
	s := seen{now: now, at: r.now()}
	if err != nil {
		return s, nil
	}
	s.version, s.age = stored.Version, max(0, now.Sub(stored.Created))
	s.record, err = decodeGrant(stored.Data)
	return s, err
}

func (r *renewal) situation(s seen, w want, since int) situation {
	times := r.timesOf(s.record)
	return situation{
		stored: s.version != 0, record: s.record, now: s.now, since: since, age: s.age,
		watched: r.watch.see(s.record.Lease, s.at, times.gap()), own: r.own,
		purpose: r.purpose(), asked: askedOf(r.credential), consent: kinds[r.credential.Authorization].consent,
		want: w, times: times,
	}
}

// timesOf takes the lifetime of the last token for that of the next.
func (r *renewal) timesOf(g grantRecord) timings {
	if r.times != nil {
		return r.times(g.Token.life())
	}
	return timingsOf(g.Token.life(), r.timeout)
}

func (r *renewal) purpose() string { return purposeOf(r.credential) }

func (r *renewal) pause(ctx context.Context, d time.Duration) error {
	if r.sleep != nil {
		return r.sleep(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a token of %s: %w", r.credential.Name, ctx.Err())
	}
}

func (r *renewal) tell(kind EventKind) {
	if r.onEvent != nil {
		r.onEvent(Event{Kind: kind, Credential: r.credential.Name, Grant: r.credential.Authorization})
	}
}
