package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"pillion/creds"
	"pillion/creds/token"
)

// keeping is a sidecar as we ship it: package token over its own login at Vault.
type keeping struct {
	keeper     *token.Keeper
	credential *creds.Credential
}

// newKeeping starts one: the credential read from Vault, a Keeper, and in a refresher
// what renews for all.
func newKeeping(ctx context.Context, w *worker, i int) (sidecar, error) {
	refreshes := i < w.Refreshers
	l := w.Reader
	if refreshes {
		l = w.Refresher
	}
	vault, err := w.store(l)
	if err != nil {
		return nil, err
	}
	store := &mortal{Store: vault, worker: w}
	live := &creds.Live{Store: store, WithoutGrants: !refreshes}
	for live.Reload(ctx) != nil { // Vault may be frozen just now
		if pause(ctx, time.Second); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	c, ok := live.Table().ByName(w.Credential)
	if !ok {
		return nil, fmt.Errorf("the credential cannot be used: %v", live.Bad())
	}
	storeOf := func(string) creds.Store { return store }
	k := &token.Keeper{Store: storeOf, OnEvent: w.event}
	if refreshes {
		dir, err := w.state(i)
		if err != nil {
			return nil, err
		}
		k.HTTP = deadly{w.Provider.Transport(), w}
		k.Refresher = &token.Refresher{HTTP: k.HTTP, OnEvent: w.event, Table: live.Table, Store: storeOf, Stores: []creds.Store{store}}
		if !w.NoJournal {
			k.Refresher.Journal = filepath.Join(dir, "journal")
		}
		go k.Refresher.Run(ctx)
	}
	go (&creds.Poller{Live: live}).Run(ctx)
	return &keeping{k, c}, nil
}

func (s *keeping) token(ctx context.Context) (bearer, error) {
	return bearerOf(s.keeper.Authorize(ctx, s.credential))
}

func (s *keeping) refused(ctx context.Context, b bearer) (bearer, bool) {
	again, err := bearerOf(s.keeper.Refused(ctx, s.credential, b.fingerprint))
	return again, err == nil
}

func bearerOf(a *creds.Authorization, err error) (bearer, error) {
	if err != nil {
		return bearer{}, err
	}
	return bearer{a.Headers[0].Value.Reveal(), a.Token}, nil
}

var eventNames = map[token.EventKind]string{
	token.EventRequest: "request", token.EventLeaseConflict: "lease conflict", token.EventRescue: "rescue",
	token.EventUnknownOutcome: "unknown outcome", token.EventBlindClaim: "blind claim", token.EventState: "state",
}

// event counts what package token tells.
func (w *worker) event(e token.Event) {
	name := eventNames[e.Kind]
	switch {
	case e.Kind == token.EventRequest && e.Result == token.Failure:
		name = fmt.Sprintf("request failed: %s %d %s", e.Reason, e.Status, e.Code)
	case e.Kind == token.EventState:
		name += " " + string(e.State)
	}
	w.count(func(t *tally) { t.Events = addCounts(t.Events, map[string]int{name: 1}) })
}

// shipped is the administrator of our own rows.
type shipped struct{ *ground }

func (a *shipped) prepare() {
	if err := creds.Save(a.t.Context(), a.store, a.provider.Credential(credential)); err != nil {
		a.t.Fatal(err)
	}
}

// begin consents, and waits until a refresher has exchanged the code and every
// sidecar has heard of it.
func (a *shipped) begin() {
	a.connect(false, func(s standing) bool { return s.Status == token.StatusOK })
	if a.spare {
		a.connect(true, func(s standing) bool { return s.Spare })
	}
	deadline := time.Now().Add(time.Minute)
	for a.without(2*time.Second) && time.Now().Before(deadline) {
	}
}

// without reports whether a request had no token in the next while.
func (a *shipped) without(while time.Duration) bool {
	a.mu.Lock()
	before := a.counted
	a.mu.Unlock()
	pause(a.t.Context(), while)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counted.Without > before.Without || a.counted.OK < before.OK+a.sidecars
}

// standing is what tokens/NAME says.
type standing struct {
	Status token.Status `json:"status"`
	Spare  bool         `json:"spare"`
}

// connect consents until the record stands as it should: a process that dies while it
// exchanges a code takes the code with it.
func (a *shipped) connect(spare bool, stands func(standing) bool) {
	for range 5 {
		a.consent(spare)
		for range 200 {
			if s, err := a.standing(); err == nil && stands(s) {
				return
			}
			pause(a.t.Context(), 50*time.Millisecond)
		}
	}
	a.t.Fatal("the grant cannot be connected")
}

func (a *shipped) standing() (s standing, err error) {
	record, err := a.store.Get(a.t.Context(), creds.KeyTokens+credential)
	if err == nil {
		err = json.Unmarshal([]byte(record.Data.Reveal()), &s)
	}
	return s, err
}

func (a *shipped) tend(ctx context.Context) {
	s, err := a.standing()
	switch {
	case err != nil: // Vault may be frozen just now
	case s.Status == token.StatusNeedsConsent:
		a.lose(ctx, func() { a.consent(false) })
		pause(ctx, 2*time.Second) // until it is exchanged
	case a.spare && !s.Spare:
		if pause(ctx, noticedAfter); ctx.Err() != nil {
			return
		}
		if s, err = a.standing(); err == nil && s.Status != token.StatusNeedsConsent {
			a.consent(true)
			pause(ctx, 2*time.Second)
		}
	}
}

// consent does what the page and `pillion credential connect` do.
func (a *shipped) consent(spare bool) {
	ctx := a.t.Context()
	pending, err := token.BeginConsent(a.provider.Credential(credential), "http://127.0.0.1:1/oauth/callback")
	if err != nil {
		a.t.Fatal(err)
	}
	back := a.provider.Consent(a.t, pending.URL)
	code, err := pending.Code(back.Query(), time.Now())
	if err != nil {
		a.t.Fatal(err)
	}
	consent := token.Consent{Code: code, Verifier: pending.Verifier, RedirectURL: pending.RedirectURL, Spare: spare, By: "the test"}
	for try := 0; ; try++ {
		if _, err = token.PutConsent(ctx, a.store, credential, consent); err == nil {
			return
		}
		if try > 20 {
			a.t.Fatal(err)
		}
		pause(ctx, 500*time.Millisecond) // Vault may be frozen just now
	}
}

// stored implements administrator: every token that was given counts one up in gen.
func (a *shipped) stored() bool {
	for range 200 {
		record, err := a.store.Get(a.t.Context(), creds.KeyGrants+credential)
		given := a.provider.Stats(a.t).Granted
		if err == nil && readGrant(record.Data).Gen == given["refresh_token"]+given["authorization_code"] {
			return true
		}
		pause(a.t.Context(), 100*time.Millisecond)
	}
	return false
}
