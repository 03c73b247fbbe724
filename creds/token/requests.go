package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"pillion/creds"
)

// requestRecord is the JSON of requests/NAME: what is asked of the refreshers.
//
//	ring    a reader misses a token, or upstream refused the one with that fingerprint
//	ask     a person wants something done, once
//	answer  what came of the last ask, for whoever asked
//
// Rings and asks are merged in by a patch, which needs no reading. A sidecar may
// write here and not read, and may not write grants/ at all: it can have a token
// renewed too early, which the protocol bounds, and never bring in a code of its own.
//
// A refresher takes a ring by deleting the record before it acts: what is rung for
// up to then is served by what it does. A ring that is deleted unseen all the same
// (for another refused token, in the same moment) is rung again.
type requestRecord struct {
	Schema string        `json:"schema"`
	Ring   *ring         `json:"ring,omitempty"`
	Ask    *Ask          `json:"ask,omitempty"`
	Answer *answerRecord `json:"answer,omitempty"`
}

type ring struct {
	Refused string `json:"refused,omitempty"` // fingerprint
	Nonce   string `json:"nonce"`
}

// Op is what a refresher can be asked to do.
type Op string

// The operations.
const (
	OpRefresh  Op = "refresh"  // bring a new token, although the old one may be good
	OpExchange Op = "exchange" // take the code that PutConsent left
	OpTest     Op = "test"     // say whether the provider gives a token
)

// Ask is a question to the refreshers.
type Ask struct {
	ID string    `json:"id"`
	Op Op        `json:"op"`
	By string    `json:"by,omitempty"` // who asks, for the log
	At time.Time `json:"at"`           // by the store's clock
	// Taken is the holder that works at it. After takenFor another may.
	Taken string `json:"taken,omitempty"`
}

type answerRecord struct {
	ID    string    `json:"id"`
	OK    bool      `json:"ok"`
	Lines []string  `json:"lines"`
	At    time.Time `json:"at"`
}

// AskFor asks the refreshers of a store to do op for a credential. Answer, given the
// returned id, says what came of it.
func AskFor(ctx context.Context, store creds.Store, name string, op Op, by string) (id string, err error) {
	id = newNonce()
	if err := putAsk(ctx, store, name, id, op, by); err != nil {
		return "", fmt.Errorf("asking for a %s of %s: %w", op, name, err)
	}
	return id, nil
}

func putAsk(ctx context.Context, store creds.Store, name, id string, op Op, by string) error {
	now, err := store.Now(ctx)
	if err != nil {
		return err
	}
	return patch(ctx, store, creds.KeyRequests+name, map[string]any{
		"ask": map[string]any{"id": id, "op": op, "by": by, "at": now.UTC(), "taken": nil},
	})
}

// Answer returns what came of an ask, and false while nothing has. One that
// somebody else's took the place of is answered by a report that says so.
func Answer(ctx context.Context, store creds.Store, name, id string) (Report, bool, error) {
	stored, err := store.Get(ctx, creds.KeyRequests+name)
	switch {
	case errors.Is(err, creds.ErrNotFound):
		return Report{Lines: []string{"the question is not in the store any more: ask again"}}, true, nil
	case err != nil:
		return Report{}, false, fmt.Errorf("reading the answer for %s: %w", name, err)
	}
	record, err := decodeRequest(stored.Data)
	switch {
	case err != nil:
		return Report{}, false, fmt.Errorf("reading the answer for %s: %w", name, err)
	case record.Answer != nil && record.Answer.ID == id:
		return Report{OK: record.Answer.OK, Lines: record.Answer.Lines}, true, nil
	case record.Ask == nil || record.Ask.ID != id:
		return Report{Lines: []string{"somebody else asked for something meanwhile, and this was left undone: ask again"}}, true, nil
	}
	return Report{}, false, nil
}

// Consent is what a provider sent back after a person consented.
type Consent struct {
	Code, Verifier creds.Secret
	RedirectURL    string // that the code was sent to
	Spare          bool   // keep it beside the present one, for the day that is lost
	By             string
}

// PutConsent leaves a code for the refreshers and asks them to exchange it. It needs
// to write grants/NAME, and not to read it.
func PutConsent(ctx context.Context, store creds.Store, name string, c Consent) (id string, err error) {
	id = newNonce()
	err = putConsent(ctx, store, name, id, c)
	if err == nil {
		err = putAsk(ctx, store, name, id, OpExchange, c.By)
	}
	if err != nil {
		return "", fmt.Errorf("handing over the consent for %s: %w", name, err)
	}
	return id, nil
}

func putConsent(ctx context.Context, store creds.Store, name, id string, c Consent) error {
	now, err := store.Now(ctx)
	if err != nil {
		return err
	}
	return patch(ctx, store, creds.KeyGrants+name, map[string]any{"consent": consentRecord{
		ID: id, Code: c.Code.Reveal(), Verifier: c.Verifier.Reveal(), RedirectURL: c.RedirectURL, Spare: c.Spare, At: toMillis(now),
	}})
}

func patch(ctx context.Context, store creds.Store, key string, members map[string]any) error {
	members["schema"] = schema
	_, err := store.Patch(ctx, key, creds.NewSecret(string(marshal(members))))
	return err
}

func decodeRequest(data creds.Secret) (requestRecord, error) {
	var record requestRecord
	err := decode(data, &record)
	return record, err
}

func (r requestRecord) encode() creds.Secret {
	r.Schema = schema
	return creds.NewSecret(string(marshal(r)))
}

// bell rings at requests/NAME for one credential of one reader.
type bell struct {
	store      creds.Store
	credential string
	now        func() time.Time

	mu      sync.Mutex
	version int       // of tokens/NAME, when it rang
	refused string    // that it rang for last
	rung    int       // times, with that version
	first   time.Time // of them
	next    time.Time // not before
	err     error     // of the last
}

const (
	firstRing = 15 * time.Second // until the next, then twice that, and so on
	lastRing  = 5 * time.Minute
	// unansweredFor is how long a ring stands before State says that no refresher
	// answers.
	unansweredFor = 30 * time.Second
	// missedFor is how long after the next ring's time State goes on to say so, without
	// one: who rings waits readerWait first.
	missedFor = time.Minute
)

// ring rings, but not often for the same: a ring stands until a refresher takes it.
func (b *bell) ring(ctx context.Context, refused string, version int) {
	if !b.due(refused, version) {
		return
	}
	ringing := map[string]any{"nonce": newNonce()}
	if refused != "" {
		ringing["refused"] = refused
	}
	err := patch(ctx, b.store, creds.KeyRequests+b.credential, map[string]any{"ring": ringing})
	if errors.Is(err, creds.ErrConflict) {
		err = nil // so many others ring that one more makes no difference
	}
	b.mu.Lock()
	b.err = err
	b.mu.Unlock()
}

func (b *bell) due(refused string, version int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if b.version != version { // somebody is at work
		b.version, b.rung = version, 0
	}
	if before(now, b.next) && (refused == "" || refused == b.refused) {
		return false
	}
	if b.rung == 0 {
		b.first = now
	}
	b.next = now.Add(min(firstRing<<min(b.rung, 10), lastRing))
	b.rung++
	if refused != "" {
		b.refused = refused
	}
	return true
}

// answered notes that there is what it rang for.
func (b *bell) answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rung, b.err, b.next = 0, nil, time.Time{}
}

// silence says, for State, that nobody answers; "" if there is no sign of it.
func (b *bell) silence(now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.rung == 0:
		return ""
	case before(b.next.Add(missedFor), now):
		return "" // nobody has missed a token since: whether one would come is not known
	case errors.Is(b.err, creds.ErrStoreDenied):
		return RingDenied
	case !before(now, b.first.Add(unansweredFor)):
		return NoRefresher
	}
	return ""
}

// What State.Detail says of a reader that cannot get a token renewed.
const (
	NoRefresher = "no refresher answers: see that one runs (refresher.enabled: true), that it uses this credential, and what its log says"
	RingDenied  = "the store does not let this process ask the refreshers for a token: its policy needs create and patch on requests/"
)
