package token

import (
	"context"
	"math/rand/v2"
	"net/http"
	"reflect"
	"sync"
	"time"

	"pillion/creds"
)

// Keeper is the one entry to this package: it has the authorization of every
// credential. Its fields are set before first use; its methods are safe for
// concurrent use.
type Keeper struct {
	// HTTP sends token requests. Its dial guard applies: an error in whose chain
	// something has the method Forbidden() bool, and answers true, is reported as
	// ReasonForbiddenTarget. If nil no token can be had: any default would reach
	// round the guard, and could take a proxy from the environment.
	HTTP http.RoundTripper

	// Now is the clock. If nil, time.Now.
	Now func() time.Time

	// Timeout bounds a token request from its first byte to its last. If 0, 15 s.
	Timeout time.Duration

	// OnEvent hears of every token request that has ended, if not nil. It is
	// called by several goroutines at once, and before those who wait for the
	// token get it: it should be quick.
	OnEvent func(Event)

	// Current returns the credential that now has a name, if not nil. A request
	// that was matched before an edit or a removal, and comes here after it, is
	// then refused with ReasonChanged, instead of bringing the old one back. It
	// must not call the Keeper.
	Current func(name string) (*creds.Credential, bool)

	// Store returns the store that holds the records of the credential called name,
	// and so its token, which all processes over that store share. If nil, this
	// process asks for tokens of its own and keeps them to itself.
	Store func(name string) creds.Store

	// Refresher renews what is shared. If nil, this process only reads it, and
	// rings for one that renews.
	Refresher *Refresher

	// entries finds an entry by its *creds.Credential: the hot path, without a
	// lock. names, under mu, holds the same entries and keeps them to one a name.
	entries sync.Map

	mu    sync.Mutex
	names map[string]*entry

	// Drawn once a process, so that a fleet does not come as one: the share of a
	// token's life that is left when it is renewed here, or read.
	ahead, reread float64
}

// entry is a credential and its Source.
type entry struct {
	credential *creds.Credential
	source     Source
}

// Authorize returns what a request for c carries. It waits for a token request
// only where there is no token that is still good, and no longer than ctx.
//
// The error is a *creds.TokenError where there is no token, a *creds.InvalidError
// for a credential that cannot be sent, or ctx's.
func (k *Keeper) Authorize(ctx context.Context, c *creds.Credential) (*creds.Authorization, error) {
	source, err := k.source(c)
	if err != nil {
		return nil, err
	}
	return source.Authorization(ctx)
}

// Refused is for an upstream's 401 to a request that carried the token with that
// fingerprint (Authorization.Token): it returns an authorization to try once
// more. It is the token that somebody has fetched meanwhile, or that of one
// forced refresh, of which there is at most one in 30 seconds.
//
// creds.ErrNoProgress, alone or around the reason, means that there is none: the
// client gets the 401. Do not call it for a 403 or 429.
func (k *Keeper) Refused(ctx context.Context, c *creds.Credential, fingerprint string) (*creds.Authorization, error) {
	source, err := k.source(c)
	if err != nil {
		return nil, err
	}
	return source.Refused(ctx, fingerprint)
}

// State tells how the token of the credential called name stands. It asks nobody.
func (k *Keeper) State(name string) State {
	k.mu.Lock()
	e := k.names[name]
	k.mu.Unlock()
	if e == nil {
		return State{Status: StatusNone}
	}
	return e.source.State()
}

// Forget drops the tokens of credentials that were removed, or replaced by an
// edit: by pointer, so that it never hits a newer one of the same name. Whoever
// waits for one of them gets ReasonChanged.
func (k *Keeper) Forget(gone ...*creds.Credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range gone {
		if e := k.names[c.Name]; e != nil && e.credential == c {
			k.drop(e)
		}
	}
}

func (k *Keeper) source(c *creds.Credential) (Source, error) {
	if e, ok := k.entries.Load(c); ok {
		return e.(*entry).source, nil
	}
	return k.admit(c)
}

// admit makes the entry of a credential that is seen for the first time. One
// whose content is the same as before, read again, keeps its token.
func (k *Keeper) admit(c *creds.Credential) (Source, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.isCurrent(c) {
		return nil, &creds.TokenError{Credential: c.Name, Reason: ReasonChanged, RetryAfter: time.Second}
	}
	old := k.names[c.Name]
	if old != nil && reflect.DeepEqual(old.credential, c) {
		k.entries.Delete(old.credential)
		k.keep(&entry{c, old.source})
		return old.source, nil
	}
	source, err := k.wrap(c)
	if err != nil {
		return nil, err
	}
	if old != nil {
		k.drop(old)
	}
	k.keep(&entry{c, source})
	return source, nil
}

func (k *Keeper) isCurrent(c *creds.Credential) bool {
	if k.Current == nil {
		return true
	}
	current, ok := k.Current(c.Name)
	return ok && (current == c || reflect.DeepEqual(current, c))
}

func (k *Keeper) keep(e *entry) {
	if k.names == nil {
		k.names = map[string]*entry{}
	}
	k.names[e.credential.Name] = e
	k.entries.Store(e.credential, e)
}

func (k *Keeper) drop(e *entry) {
	delete(k.names, e.credential.Name)
	k.entries.Delete(e.credential)
	e.source.Close()
}

// wrap makes c's Source: the one place that knows how tokens are kept. The caller
// holds mu.
func (k *Keeper) wrap(c *creds.Credential) (Source, error) {
	found, err := kindOf(c)
	if err != nil {
		return nil, err
	}
	if found.static != nil {
		authorization := withHeaders(c, found.static(c))
		if err := checkFields(c, authorization); err != nil {
			return nil, err
		}
		return static{authorization}, nil
	}
	p := &pocket{
		credential: c.Name,
		now:        k.now,
		build:      func(token creds.Secret) creds.Authorization { return *withHeaders(c, tokenField(c, token)) },
		gone:       make(chan struct{}),
	}
	// The prefix and the extra headers cannot change under a token: check them now.
	probe := p.build(creds.Secret{})
	if err := checkFields(c, &probe); err != nil {
		return nil, err
	}
	k.draw()
	if k.Store == nil || c.Unshared {
		return k.newCache(p, c, found), nil
	}
	return k.newShared(p, c)
}

// draw draws where this process renews ahead, and where it reads. The caller holds mu.
func (k *Keeper) draw() {
	if k.ahead == 0 {
		k.ahead = 0.35 + 0.25*rand.Float64()
	}
	if k.reread == 0 {
		k.reread = 0.08 + 0.22*rand.Float64()
	}
}

func (k *Keeper) newCache(p *pocket, c *creds.Credential, found kind) *cache {
	s := &cache{
		pocket:  p,
		kind:    c.Authorization,
		grant:   found.grant(c, k.endpoint()),
		timeout: k.timeout(),
		ahead:   k.ahead,
		onEvent: k.OnEvent,
	}
	s.run = s.request
	return s
}

func (k *Keeper) newShared(p *pocket, c *creds.Credential) (*shared, error) {
	store := k.Store(c.Name)
	if store == nil { // it was removed since it was matched
		return nil, p.changed()
	}
	s := &shared{pocket: p, purpose: purposeOf(c), share: k.ahead}
	s.run, s.recorded = s.fly, true
	if k.Refresher != nil {
		s.fetch, s.limit = k.Refresher.fetcher(c), refresherLimit
		return s, nil
	}
	r := &reader{credential: c.Name, purpose: s.purpose, store: store, bell: &bell{store: store, credential: c.Name, now: k.now}}
	s.share, s.fetch, s.limit, s.silence = k.reread, r.fetch, readerLimit, r.bell.silence
	return s, nil
}

func (k *Keeper) endpoint() endpoint { return endpoint{http: k.HTTP, now: k.now} }

func (k *Keeper) now() time.Time {
	if k.Now == nil {
		return time.Now()
	}
	return k.Now()
}

func (k *Keeper) timeout() time.Duration {
	if k.Timeout == 0 {
		return 15 * time.Second
	}
	return k.Timeout
}
