package token

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"pillion/creds"
)

// purchase is what a token request has brought, as the journal keeps it: enough to
// write it over any state of the grant that still waits for it.
type purchase struct {
	Gen     int         `json:"gen"` // of the grant that it was bought for
	Refresh *bound      `json:"refresh_token,omitempty"`
	Token   tokenRecord `json:"token"`
	// Failed is why there is no access token: the answer held the next refresh token
	// alone, and the one before is spent all the same.
	Failed *recordError `json:"failed,omitempty"`
	Asked  string       `json:"asked"`
	// GrantEndsAt is when Refresh ends, or the one that it goes on with; 0: not known.
	GrantEndsAt int64  `json:"grant_ends_at,omitempty"`
	Consent     string `json:"consent,omitempty"` // ID of the consent whose code was spent
	Spare       bool   `json:"spare,omitempty"`

	parent creds.Secret // what was spent: the refresh token, or code and verifier
	lease  string       // that it was bought under
	from   seen
	times  timings
}

// purchase makes one of an answer to a request sent at started, by the store's
// clock: the provider's began to run after that.
func (r *renewal) purchase(s seen, got answer, spent creds.Secret, started time.Time) *purchase {
	p := &purchase{
		Gen: s.record.Gen, Asked: askedOf(r.credential), parent: spent, lease: r.own.id, from: s, times: r.timesOf(s.record),
	}
	if !got.refresh.IsZero() {
		p.Refresh = &bound{r.purpose(), got.refresh.Reveal()}
	}
	p.GrantEndsAt = toMillis(r.grantEnds(s.record, got.grantLife, p.rotated(), started))
	if got.token.IsZero() {
		return p
	}
	issued, expires := started, started.Add(got.lifetime)
	renew := expires.Add(-got.lifetime * 6 / 10)
	if old := s.record.Token; old != nil && old.AccessToken.secret(r.purpose()).Equal(got.token) {
		// The token itself has not changed, so what it says of its end has not either;
		// and an expires_in of 0 prolongs nothing.
		issued = fromMillis(old.IssuedAt)
		if got.basis == fromJWT || got.basis == denied {
			expires = fromMillis(old.ExpiresAt)
		}
		if expires.Sub(fromMillis(old.ExpiresAt)) <= sameExpiry {
			renew = unchangedRefreshAt(started, expires, expires.Add(-margin))
		}
	}
	p.Token = tokenRecord{
		AccessToken: &bound{r.purpose(), got.token.Reveal()}, Type: got.kind,
		IssuedAt: toMillis(issued), ExpiresAt: toMillis(expires), RenewAt: toMillis(renew),
	}
	return p
}

// grantEnds is when a person has to consent again: by the answer, else by what the
// credential says of a refresh token's life, which begins with each that is new.
func (r *renewal) grantEnds(g grantRecord, stated time.Duration, rotated bool, started time.Time) time.Time {
	life := r.credential.RefreshTokenLifetime
	switch {
	case stated > 0:
		return started.Add(stated)
	case life > 0 && rotated:
		return started.Add(life)
	case life > 0 && g.ConsentedAt != 0:
		return fromMillis(max(g.GrantEndsAt, toMillis(fromMillis(g.ConsentedAt).Add(life))))
	}
	return time.Time{}
}

// apply puts the purchase into g, and reports false if g does not wait for it: the
// grant has moved on, or holds it already.
func (p *purchase) apply(g *grantRecord, now time.Time) bool {
	if p.Consent != "" {
		return p.applyConsent(g, now)
	}
	// A refresh token that still stands there has no better successor than ours. One
	// that the provider did not replace tells nothing: there the generation must; and
	// where the token has been given up since, ours is at least worth trying.
	fits := g.Gen == p.Gen
	if !p.parent.IsZero() && g.Refresh != nil {
		fits = g.Refresh.value().Equal(p.parent) && (fits || p.rotated())
	}
	if !fits {
		return false
	}
	if p.Refresh != nil {
		g.Refresh = p.Refresh
	}
	if p.GrantEndsAt != 0 || p.rotated() {
		g.GrantEndsAt = p.GrantEndsAt
	}
	p.serve(g, now)
	return true
}

func (p *purchase) rotated() bool {
	return p.Refresh != nil && !p.Refresh.value().Equal(p.parent)
}

// purpose is what all that it holds was given for.
func (p *purchase) purpose() string {
	if p.Refresh != nil {
		return p.Refresh.For
	}
	return p.Token.AccessToken.For
}

// serve makes the purchase's token the one that is served. Without one the last goes
// on to serve, and the next request waits like that after any failure; but for one
// that follows a consent, which is what a person is waiting for.
func (p *purchase) serve(g *grantRecord, now time.Time) {
	if p.Failed != nil {
		g.Lease, g.RotatedAt, g.Lost = nil, toMillis(now), nil
		if g.note(p.Failed.failure(), p.Asked, now); p.Consent != "" {
			g.NotBefore = 0
		}
		return
	}
	g.Gen++
	token := p.Token
	token.Gen = g.Gen
	g.Token, g.Asked, g.Lease, g.RotatedAt = &token, p.Asked, nil, toMillis(now)
	g.Fails, g.NotBefore, g.LastError, g.Tried, g.Lost = 0, 0, nil, "", nil
	if !token.usable(token.AccessToken.For, now) {
		f := badResponse(0, "the token has expired before it could be used")
		g.Fails, g.NotBefore, g.LastError = 1, toMillis(now.Add(pauseAfter(6, f))), f.record(now)
	}
}

// keep brings a purchase to safety: first to the journal, then to the store. A
// journal that cannot be written only adds to what a death would cost.
func (r *renewal) keep(p *purchase) (seen, error) {
	if r.journal != nil && !p.parent.IsZero() {
		file, err := seal(r.credential.Name, p)
		if err == nil {
			err = r.journal.store(r.credential.Name, p.Gen, file)
		}
		if err != nil && r.onEvent != nil {
			r.onEvent(Event{Kind: EventJournalFailed, Credential: r.credential.Name, Grant: r.credential.Authorization, Detail: err.Error()})
		}
	}
	r.pending = p
	return r.write(p, p.times.lease+p.times.rescue)
}

// deliver writes what an earlier call has bought and could not write.
func (r *renewal) deliver() error {
	if r.pending == nil {
		return nil
	}
	_, err := r.write(r.pending, 0)
	return err
}

// write writes a purchase: at first, for as long as its lease keeps others away and
// they would watch after that. It belongs to nobody's context: the refresh token
// that it holds may be the only one.
func (r *renewal) write(p *purchase, patience time.Duration) (seen, error) {
	ctx := context.Background()
	rescued := false
	s, applied, err := r.conclude(ctx, p.from, p.times, patience, func(g *grantRecord, now time.Time) bool {
		rescued = g.Lease == nil || g.Lease.ID != p.lease
		return p.apply(g, now)
	})
	if err != nil {
		return seen{}, fmt.Errorf("storing a new token of %s: %w", r.credential.Name, err)
	}
	r.pending, r.own = nil, ownLease{}
	if applied && rescued && p.Consent == "" {
		r.tell(EventRescue)
	}
	if applied {
		_ = r.repair(ctx) // a later one repairs it
	}
	if r.journal != nil && !p.parent.IsZero() {
		_ = r.journal.remove(r.credential.Name, p.Gen) // the next start finds that it is of no use
	}
	if !applied {
		return seen{}, nil
	}
	return s, nil
}

// conclude writes a change over base, or over what stands there by now, until it is
// stored or change reports false: there is nothing to do any more. Nothing but a
// patience that has run out makes it return an error.
func (r *renewal) conclude(ctx context.Context, base seen, times timings, patience time.Duration, change func(*grantRecord, time.Time) bool) (seen, bool, error) {
	begun, op, quick := r.now(), newNonce(), 0
	for {
		next := base.record
		if base.version == 0 || !change(&next, base.clock(r.now())) {
			return base, false, nil
		}
		next.Op = op
		version, err := r.put(ctx, next, base.version)
		if err == nil {
			base.record, base.version, base.now, base.at = next, version, base.clock(r.now()), r.now()
			return base, true, nil
		}
		found, lookErr := r.lookShortly(ctx)
		switch {
		case lookErr == nil && found.record.Op == op:
			return found, true, nil
		case lookErr == nil:
			base = found
			// Whatever it was, the store answers now; and somebody may have claimed over
			// us, and waits no longer than settle: one pause fits into that, not two.
			if quick < 3 {
				quick++
				continue
			}
		}
		if elapsed(begun, r.now()) >= patience {
			return base, false, errors.Join(err, lookErr)
		}
		// Shorter than settle, so that one who claims over us hears of it.
		if err := r.pause(ctx, times.settle/3+rand.N(times.settle/3)); err != nil {
			return base, false, err
		}
		quick = 0
	}
}

// storePatience bounds one call of a store within conclude.
const storePatience = 5 * time.Second

func (r *renewal) put(ctx context.Context, g grantRecord, version int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	return r.store.CAS(ctx, creds.KeyGrants+r.credential.Name, g.encode(), version)
}

func (r *renewal) lookShortly(ctx context.Context) (seen, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	return r.look(ctx)
}
