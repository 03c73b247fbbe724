package token

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"pillion/creds"
)

// reader fetches a token that others renew: it looks at tokens/NAME, and where that
// has none to send it rings at requests/NAME and looks again. It never sees
// grants/NAME.
//
//	look; a draw of up to 0.3 s; look; ring; look after 0.2, 0.4, 0.8, 1, 1 ... s
//
// The draw is for a fleet that misses the same token at once: most then find that
// the first of them has rung.
type reader struct {
	credential string
	purpose    string
	store      creds.Store
	bell       *bell
}

const (
	readerWait    = 15 * time.Second // for a token, where there is none to send
	readerRefused = 5 * time.Second  // for another one than upstream refused
	ringDraw      = 300 * time.Millisecond
)

func readerLimit(f *flight) time.Duration {
	if f.refused != "" {
		return readerRefused
	}
	return readerWait
}

// fetch is a fetch.
func (r *reader) fetch(ctx context.Context, f *flight, gen int) (record tokenRecord, clock time.Time, err error) {
	var failed error // of the store, at the last look
	for try := 0; ; try++ {
		seen, version, at, err := r.look(ctx)
		if err == nil {
			record, clock = seen, at
		}
		if ctx.Err() == nil {
			failed = err
		}
		switch {
		case err == nil && r.serves(record, clock, f, gen):
			r.bell.answered()
			return record, clock, nil
		case err != nil && (f.ahead || errors.Is(err, creds.ErrStoreDenied)):
			return record, clock, err
		case err == nil:
			ring, refusal := r.refusal(f, record, clock)
			if ring || refusal == nil && try > 0 {
				r.bell.ring(ctx, f.refused, version)
			}
			if refusal != nil {
				return record, clock, refusal
			}
		}
		if !pause(ctx, lookPause(try)) {
			return record, clock, r.nothing(failed)
		}
	}
}

// look reads tokens/NAME and the store's clock. No record is one without a token.
func (r *reader) look(ctx context.Context) (record tokenRecord, version int, clock time.Time, err error) {
	stored, err := r.store.Get(ctx, creds.KeyTokens+r.credential)
	missing := errors.Is(err, creds.ErrNotFound)
	if err == nil || missing {
		clock, err = r.store.Now(ctx)
	}
	if err != nil {
		return tokenRecord{}, 0, time.Time{}, fmt.Errorf("looking for a token of %s: %w", r.credential, err)
	}
	none := tokenRecord{Schema: schema}
	if missing {
		return none, 0, clock, nil
	}
	if record, err = decodeToken(stored.Data); err != nil {
		return none, stored.Version, clock, nil // a refresher that is asked for a token writes it anew
	}
	return record, stored.Version, clock, nil
}

// serves reports whether a record has what f is after.
func (r *reader) serves(record tokenRecord, clock time.Time, f *flight, gen int) bool {
	token := record.AccessToken.secret(r.purpose)
	expires := fromMillis(record.ExpiresAt)
	life := expires.Sub(fromMillis(record.IssuedAt))
	switch {
	case token.IsZero(), !clock.Before(expires.Add(-marginOf(life))):
		return false
	case f.refused != "" && token.Fingerprint() == f.refused:
		return false
	}
	return !f.ahead || record.Gen != gen
}

// refusal is why it is no use to wait, if it is not: a token is at hand, a person has
// to do something, or a refresher waits before it asks again. It also says whether to
// ring all the same: a refresher that waits knows that a token is missed.
func (r *reader) refusal(f *flight, record tokenRecord, clock time.Time) (ring bool, refusal error) {
	switch {
	case f.ahead:
		return true, errNothingNew
	case f.refused != "":
		return false, nil
	case record.AccessToken != nil && record.AccessToken.For != r.purpose:
		return false, nil // what it says is of another edit of the credential
	}
	unavailable := &creds.TokenError{Credential: r.credential, Reason: ReasonInvalidGrant}
	if record.Error != nil {
		unavailable = record.Error.tokenError(r.credential, max(0, fromMillis(record.RetryAt).Sub(clock)))
	}
	switch {
	case record.Status == StatusNeedsConsent:
		return false, fmt.Errorf("%w: %w", creds.ErrNeedsConsent, unavailable)
	case record.Status == StatusConfigError, unavailable.RetryAfter > 0:
		return unavailable.RetryAfter == 0, unavailable
	}
	return false, nil
}

// nothing is what a wait in vain ends with.
func (r *reader) nothing(failed error) error {
	if failed != nil {
		return failed
	}
	return &creds.TokenError{Credential: r.credential, Reason: ReasonNoRefresher, RetryAfter: time.Second}
}

// lookPause is how long to wait after that many looks.
func lookPause(try int) time.Duration {
	if try == 0 {
		return rand.N(ringDraw)
	}
	mean := min(200*time.Millisecond<<min(try-1, 8), time.Second)
	return mean*4/5 + rand.N(mean*2/5)
}

// pause waits for d, and reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
