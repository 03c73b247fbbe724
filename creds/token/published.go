package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pillion/creds"
)

// publishedRecord is the JSON of states/NAME: tokens/NAME without its token, for
// people who may not read tokens/ and want to know how they stand. Refreshers write it
// after a look at the grant; of two looks the later one counts.
type publishedRecord struct {
	Schema string      `json:"schema"`
	For    string      `json:"for"`     // the purpose: what it says is of no other edit of the credential
	SeenAt int64       `json:"seen_at"` // when the grant was looked at, by the store's clock
	State  tokenRecord `json:"state"`
}

// same reports whether two records say the same, whenever it was seen.
func (p publishedRecord) same(other publishedRecord) bool {
	p.SeenAt = other.SeenAt
	return p.encode().Equal(other.encode())
}

func (p publishedRecord) encode() creds.Secret { return creds.NewSecret(string(marshal(p))) }

// published is what a sighting says to people.
func (s sighting) published(purpose string) publishedRecord {
	p := publishedRecord{Schema: schema, For: purpose, SeenAt: toMillis(s.seen), State: s.record}
	if p.State.AccessToken.secret(purpose).IsZero() {
		p.State.IssuedAt, p.State.ExpiresAt, p.State.RenewAt = 0, 0, 0
	}
	p.State.AccessToken = nil
	return p
}

const (
	// publishEvery bounds what a store is written that many tokens change in.
	publishEvery = 2 * time.Second
	// publishPause follows a write that failed.
	publishPause = 15 * time.Second
)

// publish writes what has been seen and is not in states/ yet, until ctx ends.
func (r *Refresher) publish(ctx context.Context) {
	said := ""
	for wait := publishEvery; pause(ctx, wait); {
		wait = publishEvery
		for _, ch := range r.unpublished() {
			err := r.publishOne(ctx, ch)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if ctx.Err() == nil && text != "" && text != said && r.OnEvent != nil {
				r.OnEvent(Event{Kind: EventPublishFailed, Credential: ch.credential.Name, Grant: ch.credential.Authorization, Detail: text})
			}
			said = text
			if err != nil {
				wait = publishPause
				break
			}
		}
	}
}

// unpublished are the charges of which something was seen since it was published.
func (r *Refresher) unpublished() []*charge {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*charge
	for _, ch := range r.charges {
		if !ch.seen.Equal(ch.publishedAt) {
			all = append(all, ch)
		}
	}
	return all
}

func (r *Refresher) publishOne(ctx context.Context, ch *charge) error {
	r.mu.Lock()
	saw := ch.sighting
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	next := saw.published(purposeOf(ch.credential))
	err := putPublished(ctx, ch.store, ch.credential.Name, next)
	switch {
	case errors.Is(err, creds.ErrConflict):
		return nil // somebody else publishes: see what, the next time
	case err != nil:
		return fmt.Errorf("writing how the token of %s stands: %w", ch.credential.Name, err)
	}
	r.mu.Lock()
	ch.publishedAt = saw.seen
	r.mu.Unlock()
	return nil
}

// putPublished writes a record unless one stands there that says the same, or was
// seen later.
func putPublished(ctx context.Context, store creds.Store, name string, next publishedRecord) error {
	key := creds.KeyStates + name
	stored, err := store.Get(ctx, key)
	missing := errors.Is(err, creds.ErrNotFound)
	if err != nil && !missing {
		return err
	}
	var old publishedRecord
	if !missing && decode(stored.Data, &old) == nil && (old.SeenAt > next.SeenAt || old.same(next)) {
		return nil
	}
	exists := func() bool {
		_, err := store.Get(ctx, creds.KeyCredentials+name)
		return !errors.Is(err, creds.ErrNotFound)
	}
	if missing && !exists() {
		return nil // the state of a credential that is not there is nobody's
	}
	if _, err := store.CAS(ctx, key, next.encode(), stored.Version); err != nil {
		return err
	}
	if missing && !exists() { // removed at the same moment
		return store.Delete(ctx, key)
	}
	return nil
}

// ErrNotPublished says that no refresher has told yet how a token stands.
var ErrNotPublished = errors.New("no refresher has looked at it yet")

// Published tells how the token of c stands by what the refreshers tell people of it,
// who need not be allowed to read the token. It takes the public part of c.
func Published(ctx context.Context, store creds.Store, c *creds.Credential) (State, error) {
	state := State{Status: StatusNone}
	stored, err := store.Get(ctx, creds.KeyStates+c.Name)
	if errors.Is(err, creds.ErrNotFound) {
		return state, ErrNotPublished
	}
	if err != nil {
		return state, fmt.Errorf("looking how the token of %s stands: %w", c.Name, err)
	}
	clock, err := store.Now(ctx)
	if err != nil {
		return state, fmt.Errorf("looking how the token of %s stands: %w", c.Name, err)
	}
	var p publishedRecord
	if err := decode(stored.Data, &p); err != nil {
		return state, fmt.Errorf("looking how the token of %s stands: %w", c.Name, err)
	}
	if p.For != purposeOf(c) {
		return state, ErrNotPublished // it was edited since
	}
	now := time.Now()
	s := sighting{record: p.State, offset: now.Sub(clock)}
	if expires := fromMillis(p.State.ExpiresAt); p.State.ExpiresAt != 0 && clock.Before(expires.Add(-marginOf(p.State.life()))) {
		state.Status, state.Issued, state.Expires = StatusOK, s.local(p.State.IssuedAt), s.local(p.State.ExpiresAt)
	}
	s.tell(&state, c.Name, now)
	return state, nil
}
