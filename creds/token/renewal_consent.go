package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pillion/creds"
)

// codeLife is how long a code waits for a refresher. RFC 6749 lets it live for ten
// minutes at most.
const codeLife = 10 * time.Minute

var (
	errNoConsent    = errors.New("no consent is waiting: connect the credential again")
	errConsentTaken = errors.New("another refresher has the consent in hand")
	errNoSpare      = errors.New("the provider gave no refresh token, so there is no spare: ask for the scope that brings one, such as offline_access")
	errConsentOld   = errors.New("the consent is too old: connect the credential again")
)

// exchange spends the code that waits in grants/NAME: it buys the grant's next
// refresh token, or a spare. It needs no lease: taking the code is a check-and-set,
// and whoever renews at that moment with the old refresh token finds it replaced,
// and drops what it got.
func (r *renewal) exchange(ctx context.Context) error {
	if err := r.deliver(); err != nil {
		return err
	}
	s, consent, err := r.takeConsent(ctx)
	if err != nil {
		return err
	}
	own, times := context.WithoutCancel(ctx), r.timesOf(s.record)
	ctx, cancel := context.WithTimeout(own, timingsOf(0, r.timeout).request)
	defer cancel()
	begun := r.now()
	started := s.clock(begun)
	got, err := r.grant(ctx, proof{
		code: creds.NewSecret(consent.Code), verifier: creds.NewSecret(consent.Verifier), redirectURL: consent.RedirectURL,
	})
	failed := failureOf(err)
	if failed != nil && failed.refresh.IsZero() {
		r.report(begun, answer{}, tokenRecord{}, failed)
		return errors.Join(failed.tokenError(r.credential.Name, 0), r.wipeConsent(own, s, times, consent.ID))
	}
	if failed != nil {
		got = answer{refresh: failed.refresh}
	}
	p := r.purchase(s, got, consent.parent(), started)
	p.Failed = failed.record(s.clock(r.now()))
	p.Consent, p.Spare = consent.ID, consent.Spare
	r.report(begun, got, p.Token, failed)
	s, err = r.keep(p)
	switch {
	case err != nil:
		return err
	case s.version == 0:
		return errNoConsent // another one has come, or the credential went
	case p.Spare && p.Refresh == nil:
		return errNoSpare
	}
	return nil
}

// takeConsent marks the waiting code as taken; one process can.
func (r *renewal) takeConsent(ctx context.Context) (seen, *consentRecord, error) {
	s, err := r.look(ctx)
	if err != nil {
		return seen{}, nil, err
	}
	times, id := r.timesOf(s.record), ""
	if s.record.Consent != nil {
		id = s.record.Consent.ID
	}
	mark := id + " " + newNonce()
	s, _, err = r.conclude(ctx, s, times, times.request, func(g *grantRecord, _ time.Time) bool {
		if g.Consent == nil || g.Consent.ID != id || g.Consent.taken() {
			return false
		}
		taken := *g.Consent
		taken.Taken = mark
		g.Consent = &taken
		return true
	})
	c := s.record.Consent
	switch {
	case err != nil:
		return seen{}, nil, fmt.Errorf("taking the consent for %s: %w", r.credential.Name, err)
	case c == nil || c.Code == "":
		return seen{}, nil, errNoConsent
	case c.Taken != mark:
		return seen{}, nil, errConsentTaken
	case s.now.Sub(fromMillis(c.At)) > codeLife:
		return seen{}, nil, errors.Join(errConsentOld, r.wipeConsent(ctx, s, times, id))
	}
	return s, c, nil
}

// wipeConsent removes a code that can be of no use any more.
func (r *renewal) wipeConsent(ctx context.Context, s seen, times timings, id string) error {
	_, _, err := r.conclude(ctx, s, times, times.lease, func(g *grantRecord, _ time.Time) bool {
		if g.Consent == nil || g.Consent.ID != id {
			return false
		}
		g.Consent = nil
		return true
	})
	return err
}

// taken reports whether a refresher has begun with it. The mark begins with the ID,
// since a newer consent is patched over an older one and its mark.
func (c *consentRecord) taken() bool {
	return len(c.Taken) > len(c.ID) && c.Taken[:len(c.ID)] == c.ID && c.Taken[len(c.ID)] == ' '
}

// parent is what seals the journal of an exchange.
func (c *consentRecord) parent() creds.Secret {
	if c == nil {
		return creds.Secret{}
	}
	return creds.NewSecret(c.Code + " " + c.Verifier)
}

// applyConsent is apply for a code: it waits for its answer until that is written.
func (p *purchase) applyConsent(g *grantRecord, now time.Time) bool {
	if g.Consent == nil || g.Consent.ID != p.Consent {
		return false
	}
	g.Consent = nil
	if p.Spare && !g.Refresh.secret(p.purpose()).IsZero() {
		if p.Refresh != nil {
			g.Spare, g.SpareEndsAt, g.SpareServes = p.Refresh, p.GrantEndsAt, false
			g.Gen++
		}
		return true
	}
	g.Refresh, g.GrantEndsAt, g.SpareServes, g.ConsentedAt = p.Refresh, p.GrantEndsAt, false, toMillis(now)
	p.serve(g, now)
	return true
}

// handIn is for the start of a process: what its predecessor bought and could not
// store is stored now, if the grant still waits for it.
func (r *renewal) handIn(ctx context.Context) error {
	if r.journal == nil {
		return nil
	}
	files, err := r.journal.load(r.credential.Name)
	if err != nil {
		return err
	}
	for gen, file := range files {
		s, err := r.look(ctx)
		if err != nil {
			return err
		}
		p, err := unseal(r.credential.Name, file, s.record.Refresh.value(), s.record.Lost.value(), s.record.Consent.parent())
		if err != nil {
			if err := r.journal.remove(r.credential.Name, gen); err != nil {
				return err
			}
			continue
		}
		p.from, p.times = s, r.timesOf(s.record)
		r.pending = p
		if err := r.deliver(); err != nil {
			return err
		}
	}
	return nil
}
