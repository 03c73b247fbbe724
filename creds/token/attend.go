package token

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"pillion/creds"
)

const (
	// takenFor is how long an ask is its taker's alone.
	takenFor = time.Minute
	// answerFor is how long an answer stands.
	answerFor = 2 * time.Minute
	// askEvery bounds what somebody can do who may write requests/ and no more.
	askEvery = 5 * time.Second
)

// attendAll looks at the requests/ of all stores. One that does not answer is looked
// at again at the next poll.
func (r *Refresher) attendAll(ctx context.Context) {
	for _, store := range r.Stores {
		keys, err := listRequests(ctx, store)
		if err != nil {
			continue
		}
		for _, key := range keys {
			r.attend(ctx, store, strings.TrimPrefix(key, creds.KeyRequests))
		}
	}
}

func listRequests(ctx context.Context, store creds.Store) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	return store.List(ctx, creds.KeyRequests)
}

// attend begins to answer what is asked for a credential of that store, unless that
// is being done.
func (r *Refresher) attend(ctx context.Context, store creds.Store, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := r.charges[name]
	if ch == nil || ch.asked || ch.store != store {
		return
	}
	ch.asked = true
	r.work.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, refresherWait)
		defer cancel()
		_ = r.answer(ctx, ch) // what failed stands there still, at the next poll
		r.mu.Lock()
		defer r.mu.Unlock()
		ch.asked = false
	})
}

// answer takes what stands in requests/NAME, and does it.
func (r *Refresher) answer(ctx context.Context, ch *charge) error {
	key := creds.KeyRequests + ch.credential.Name
	stored, err := ch.store.Get(ctx, key)
	if err != nil {
		return err
	}
	clock, err := ch.store.Now(ctx)
	if err != nil {
		return err
	}
	record, err := decodeRequest(stored.Data)
	if err != nil {
		return ch.store.Delete(ctx, key) // nobody can make sense of it
	}
	switch {
	case record.Ask != nil:
		return r.takeAsk(ctx, ch, stored, record, clock)
	case record.Ring != nil:
		return r.takeRing(ctx, ch, stored.Version, record)
	case record.Answer == nil || clock.Sub(record.Answer.At) > answerFor:
		return ch.store.Delete(ctx, key)
	}
	return nil
}

// takeRing renews for a reader, after it has taken the ring away.
func (r *Refresher) takeRing(ctx context.Context, ch *charge, version int, record requestRecord) error {
	key := creds.KeyRequests + ch.credential.Name
	refused := record.Ring.Refused
	var err error
	if record.Answer == nil {
		err = ch.store.Delete(ctx, key)
	} else {
		record.Ring = nil
		_, err = ch.store.CAS(ctx, key, record.encode(), version)
	}
	if err != nil && !errors.Is(err, creds.ErrConflict) {
		return err
	}
	_, _, err = r.renew(ctx, ch.credential, want{refused: refused, ahead: true, wanted: usedFor})
	return err
}

// takeAsk claims an ask, so that one refresher does it, does it and answers.
func (r *Refresher) takeAsk(ctx context.Context, ch *charge, stored creds.Record, record requestRecord, clock time.Time) error {
	ask := *record.Ask
	if ask.Taken != "" && clock.Sub(stored.Created) < takenFor || ask.Op != OpExchange && !r.mayAsk(ch) {
		return nil
	}
	ask.Taken = r.holder
	record.Ask = &ask
	key := creds.KeyRequests + ch.credential.Name
	if _, err := ch.store.CAS(ctx, key, record.encode(), stored.Version); err != nil {
		return err // somebody else has it, or asks for something else
	}
	report := r.Do(ctx, ch.credential, ask)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storePatience) // whoever ends us has to wait for that
	defer cancel()
	for range requestTries {
		err := r.putAnswer(ctx, ch, ask.ID, report)
		if !errors.Is(err, creds.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("answering for %s: %w", ch.credential.Name, creds.ErrConflict)
}

// requestTries bounds the merging of requests/NAME with what others write there.
const requestTries = 20

func (r *Refresher) mayAsk(ch *charge) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if before(now, ch.quiet) {
		return false
	}
	ch.quiet = now.Add(askEvery)
	return true
}

func (r *Refresher) putAnswer(ctx context.Context, ch *charge, id string, report Report) error {
	key := creds.KeyRequests + ch.credential.Name
	stored, err := ch.store.Get(ctx, key)
	if errors.Is(err, creds.ErrNotFound) {
		return nil // removed with its credential, say: nobody waits
	}
	if err != nil {
		return err
	}
	clock, err := ch.store.Now(ctx)
	if err != nil {
		return err
	}
	record, err := decodeRequest(stored.Data)
	if err != nil {
		return err
	}
	if record.Ask != nil && record.Ask.ID == id {
		record.Ask = nil
	}
	record.Answer = &answerRecord{ID: id, OK: report.OK, Lines: report.Lines, At: clock.UTC()}
	_, err = ch.store.CAS(ctx, key, record.encode(), stored.Version)
	return err
}

// Do does what ask asks for here and now, past requests/, and reports it in lines
// for a person.
func (r *Refresher) Do(ctx context.Context, c *creds.Credential, ask Ask) Report {
	var report Report
	found, err := kindOf(c)
	switch {
	case err != nil:
		report.say("%v", err)
	case found.grant == nil:
		report.OK = true
		report.say("%s needs no token: its type is %s", c.Name, c.Authorization)
	case c.Unshared && ask.Op == OpRefresh:
		report.say("%s has a token of its own in each process (share: false), and none that could be refreshed for all; to try it out: pillion credential test %s", c.Name, c.Name)
	case ask.Op == OpTest && !found.consent:
		k := &Keeper{HTTP: r.HTTP, Now: r.Now, Timeout: r.Timeout}
		report.OK = true
		k.checkGrant(ctx, c, found, &report)
	case ask.Op == OpExchange:
		r.doExchange(ctx, c, ask, &report)
	case ask.Op == OpRefresh, ask.Op == OpTest: // a refresh token is tried out by using it, and the new one kept
		r.doRefresh(ctx, c, want{force: true, wanted: usedFor}, &report)
	default:
		report.say("this refresher does not know the operation: update it")
	}
	return report
}

func (r *Refresher) doExchange(ctx context.Context, c *creds.Credential, ask Ask, report *Report) {
	ch := r.charge(c)
	if ch == nil {
		report.say("%s was edited or removed meanwhile", c.Name)
		return
	}
	spare, err := r.exchange(ctx, ch, ask.ID)
	if err != nil {
		r.sayError(report, err)
		return
	}
	report.say("%s is connected", c.Name)
	if spare {
		report.say("a spare lies beside the consent: it serves when that is lost")
	}
	r.doRefresh(ctx, c, want{wanted: usedFor}, report)
}

// exchange spends the code that waits, or sees that another refresher has: over one
// store several may have heard of it. It reports whether there is a spare now.
func (r *Refresher) exchange(ctx context.Context, ch *charge, id string) (spare bool, err error) {
	ctx, end, err := r.begin(ctx, ch)
	if err != nil {
		return false, err
	}
	defer end()
	if err := ch.start(ctx); err != nil {
		return false, err
	}
	failed := ch.renewal.exchange(ctx)
	defer func() { r.show(ch, nil) }()
	for try := 0; failed == nil || errors.Is(failed, errNoConsent) || errors.Is(failed, errConsentTaken); try++ {
		s, err := ch.renewal.look(ctx)
		if err != nil {
			return false, err
		}
		g := s.record
		switch {
		case failed == nil:
			return g.Spare != nil, nil
		case g.Consent != nil && g.Consent.ID == id:
			if try == 30 || !pause(ctx, time.Second) {
				return false, failed
			}
		case g.Spare != nil || s.now.Sub(fromMillis(g.ConsentedAt)) <= takenFor:
			return g.Spare != nil, nil
		default:
			return false, failed
		}
	}
	return false, failed
}

func (r *Refresher) doRefresh(ctx context.Context, c *creds.Credential, w want, report *Report) {
	record, clock, err := r.renew(ctx, c, w)
	if err != nil {
		r.sayError(report, err)
		return
	}
	report.OK = true
	left := fromMillis(record.ExpiresAt).Sub(clock).Round(time.Second)
	report.say("the token %s of %s is good for %s, until %s", record.fingerprint(), c.Name, left, fromMillis(record.ExpiresAt).UTC().Format(time.RFC3339))
	if record.Status == StatusDegraded && record.Error != nil {
		report.say("%s: %s", record.Status, record.Error.failure().words())
	}
}

func (r *Refresher) sayError(report *Report, err error) {
	unavailable, ok := errors.AsType[*creds.TokenError](err)
	report.say("%v", err)
	if !ok {
		return
	}
	if advice := Advice(unavailable.Reason, unavailable.Code); advice != "" {
		report.say("%s", advice)
	}
}
