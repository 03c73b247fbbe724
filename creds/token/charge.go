package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"pillion/creds"
)

// charge is one credential in a refresher's care. Once started it is looked at only
// when it is due by itself, or when somebody rings.
//
//	started, edited -> look at grants/ -+-> a code waits: exchange it
//	       ^                            +-> renew: it is wanted and its time has come
//	       |                            '-> nothing: due again ahead of the token's end,
//	       |                            |     in a week, or not until somebody rings
//	       '---- due ------------------ '-> a person has to consent: a look a minute
type charge struct {
	credential *creds.Credential
	kind       kind
	store      creds.Store
	renewal    *renewal
	gate       chan struct{} // holds one while renewal is in use

	// started: the journal is handed in, and tokens/ repaired. Under gate.
	started bool

	// Under Refresher.mu.
	busy  bool      // Run works at it
	asked bool      // Run answers its requests/
	quiet time.Time // no ask before
	due   time.Time // zero: not by itself
	fails int       // of the store, in a row
	sighting
	publishedAt time.Time // seen, of what is in states/
}

// enter takes the charge for one that uses its renewal.
func (ch *charge) enter(ctx context.Context) error {
	select {
	case ch.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a token of %s: %w", ch.credential.Name, ctx.Err())
	}
}

func (ch *charge) leave() { <-ch.gate }

// start hands in what an earlier process left, once.
func (ch *charge) start(ctx context.Context) error {
	if ch.started {
		return nil
	}
	if err := ch.renewal.handIn(ctx); err != nil {
		return err
	}
	if err := ch.renewal.repair(ctx); errors.Is(err, creds.ErrStoreUnavailable) {
		return err
	}
	ch.started = true
	return nil
}

// renew has the token of c renewed, one at a time in this process.
func (r *Refresher) renew(ctx context.Context, c *creds.Credential, w want) (record tokenRecord, clock time.Time, err error) {
	ch := r.charge(c)
	if ch == nil {
		return tokenRecord{}, time.Time{}, &creds.TokenError{Credential: c.Name, Reason: ReasonChanged, RetryAfter: time.Second}
	}
	ctx, end, err := r.begin(ctx, ch)
	if err != nil {
		return tokenRecord{}, time.Time{}, err
	}
	defer end()
	defer func() { r.show(ch, err) }()
	if err := ch.start(ctx); err != nil {
		return tokenRecord{}, time.Time{}, err
	}
	record, clock, err = ch.renewal.renew(ctx, w)
	r.note(ch, record, clock, err)
	return record, clock, err
}

// fetcher returns the fetch of a Source in this process.
func (r *Refresher) fetcher(c *creds.Credential) fetch {
	return func(ctx context.Context, f *flight, gen int) (tokenRecord, time.Time, error) {
		record, clock, err := r.renew(ctx, c, want{refused: f.refused, ahead: f.ahead, wanted: usedFor})
		if err == nil && f.ahead && record.Gen == gen {
			err = errNothingNew
		}
		return record, clock, err
	}
}

// tend looks at a charge and does what its record asks for. The caller has set busy.
func (r *Refresher) tend(ctx context.Context, ch *charge) {
	ctx, cancel := context.WithTimeout(ctx, refresherWait)
	defer cancel()
	ctx, end, err := r.begin(ctx, ch)
	if err == nil {
		err = r.look(ctx, ch)
		end()
	}
	if err != nil {
		r.note(ch, tokenRecord{}, time.Time{}, err)
	}
	r.mu.Lock()
	ch.busy = false
	r.mu.Unlock()
}

// look is tend's, with the gate held.
func (r *Refresher) look(ctx context.Context, ch *charge) (err error) {
	var failed error // what the record tells of, or will at the next look
	defer func() { r.show(ch, cmp.Or(err, failed)) }()
	if err := ch.start(ctx); err != nil {
		return err
	}
	s, err := ch.renewal.look(ctx)
	if err != nil {
		return err
	}
	ch.renewal.saw(s)
	switch p := r.planFor(ch, s.record, s.now); {
	case s.version == 0 && ch.kind.consent:
		r.postpone(ch, unconsentedFor)
	case s.version == 0:
		r.postpone(ch, 0)
	case p.exchange:
		if err := ch.renewal.exchange(ctx); err != nil {
			return err
		}
		r.postpone(ch, time.Second)
	case p.renew:
		var token tokenRecord
		var clock time.Time
		token, clock, failed = ch.renewal.renew(ctx, want{ahead: true})
		r.note(ch, token, clock, failed)
	default:
		r.postpone(ch, p.in)
	}
	return nil
}

// unreadFor is how long a record that cannot be read is left alone.
const unreadFor = time.Minute

// unconsentedFor is how soon a grant that a person has to bring is looked at again.
// Another refresher may be asked to take it, and this one would tell for ever that it
// is missing.
const unconsentedFor = time.Minute

// unaskedFor is how long a code waits for the ask that follows it before it is
// exchanged without one: who left it may have died between the two.
const unaskedFor = 15 * time.Second

// plan is what a grant's record asks for: an exchange, a renewal, or another look
// after in; 0 is none.
type plan struct {
	exchange, renew bool
	in              time.Duration
}

func (r *Refresher) planFor(ch *charge, g grantRecord, clock time.Time) plan {
	purpose, asked := purposeOf(ch.credential), askedOf(ch.credential)
	var at time.Time
	good := g.Token.usable(purpose, clock)
	switch {
	case g.Consent != nil && !g.Consent.taken() && clock.Sub(fromMillis(g.Consent.At)) <= unaskedFor:
		return plan{in: unaskedFor}
	case g.Consent != nil && !g.Consent.taken() && clock.Sub(fromMillis(g.Consent.At)) <= codeLife:
		return plan{exchange: true}
	case ch.kind.consent && g.Refresh.secret(purpose).IsZero():
		return plan{in: unconsentedFor} // a person has to do something first
	case good && g.Asked != "" && g.Asked != asked:
		at = clock // it was edited: the next request must not find out
	case clock.Before(fromMillis(g.WantedUntil)) && good:
		at = r.renewAt(*g.Token)
	case clock.Before(fromMillis(g.WantedUntil)):
		at = clock
	case g.Refresh.secret(purpose).IsZero():
		return plan{}
	default:
		at = fromMillis(max(g.RotatedAt, g.ConsentedAt)).Add(idleEvery - time.Duration(r.ahead*float64(24*time.Hour)))
	}
	if until, held := g.held(clock, asked); held && at.Before(until) {
		at = until
	}
	if !clock.Before(at) {
		return plan{renew: true}
	}
	return plan{in: at.Sub(clock)}
}

// renewAt is when this refresher renews a token that is in use, by the store's clock.
func (r *Refresher) renewAt(t tokenRecord) time.Time {
	at := fromMillis(t.ExpiresAt).Add(-time.Duration(float64(t.life()) * r.ahead))
	if renewAt := fromMillis(t.RenewAt); at.Before(renewAt) {
		return renewAt
	}
	return at
}

// note sets when a charge is due after a renewal.
func (r *Refresher) note(ch *charge, record tokenRecord, clock time.Time, err error) {
	if err == nil || errors.Is(err, creds.ErrNoProgress) { // which leaves the token with its time to be renewed
		r.postpone(ch, max(r.renewAt(record).Sub(clock), time.Second))
		return
	}
	unavailable, ok := errors.AsType[*creds.TokenError](err)
	switch {
	case errors.Is(err, creds.ErrNeedsConsent):
		r.postpone(ch, unconsentedFor)
	case ok && unavailable.Reason == ReasonBadRecord:
		r.postpone(ch, unreadFor)
	case ok:
		r.postpone(ch, max(unavailable.RetryAfter, time.Second)+rand.N(time.Second))
	default:
		r.mu.Lock()
		pause := max(time.Second, min(backoff(ch.fails, false), 8*time.Second))
		ch.fails++
		r.mu.Unlock()
		r.later(ch, pause)
	}
}

// postpone sets when a charge is due, after the store has answered; 0 is never.
func (r *Refresher) postpone(ch *charge, d time.Duration) {
	r.mu.Lock()
	ch.fails = 0
	r.mu.Unlock()
	r.later(ch, d)
}

func (r *Refresher) later(ch *charge, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch.due = time.Time{}
	if d > 0 {
		ch.due = r.now().Add(d)
	}
}
