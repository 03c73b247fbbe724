package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pillion/creds"
)

// readers is a store, a provider that ends a grant whose refresh token comes twice,
// and a table, under a clock of their own.
type readers struct {
	*testing.T
	store    *simStore
	provider *simProvider
	table    atomic.Pointer[creds.Table]
	http     atomic.Pointer[roundTrip] // nil: the provider
	events   atomic.Pointer[func(Event)]
	poll     time.Duration // of refreshers
}

// withReaders runs test in a bubble, in a world with a credential jira whose tokens live
// for an hour.
func withReaders(t *testing.T, test func(w *readers, jira *creds.Credential)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &readers{T: t, store: newSimStore(time.Now), provider: newSimProvider(time.Hour)}
		w.table.Store(creds.NewTable(nil))
		test(w, w.add("jira", creds.ClientCredentials))
		w.provider.mu.Lock()
		defer w.provider.mu.Unlock()
		if w.provider.reuse != 0 {
			t.Errorf("%d refresh tokens came twice", w.provider.reuse)
		}
	})
}

// add saves a credential and brings it into the table.
func (w *readers) add(name string, kind creds.AuthorizationType) *creds.Credential {
	w.Helper()
	c := w.provider.credential(name, kind)
	c.Version = 0
	if kind != creds.AuthorizationCode {
		c.AuthorizationURL = ""
	}
	w.save(c)
	return c
}

func (w *readers) save(c *creds.Credential) {
	w.Helper()
	if err := creds.Save(w.Context(), w.store, c); err != nil {
		w.Fatal(err)
	}
	all := []*creds.Credential{c}
	for _, old := range w.table.Load().All() {
		if old.Name != c.Name {
			all = append(all, old)
		}
	}
	w.table.Store(creds.NewTable(all))
}

func (w *readers) storeOf(string) creds.Store { return w.store }

// refresher starts one that ends with the test, or before by end.
func (w *readers) refresher() (r *Refresher, end func()) {
	r = w.idleRefresher()
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	end = func() {
		cancel()
		<-done
	}
	w.Cleanup(end)
	return r, end
}

func (w *readers) send(r *http.Request) (*http.Response, error) {
	if instead := w.http.Load(); instead != nil {
		return (*instead)(r)
	}
	return w.provider.RoundTrip(r)
}

// instead has token requests answered by another than the provider; nil ends that.
func (w *readers) instead(answer roundTrip) {
	if answer == nil {
		w.http.Store(nil)
		return
	}
	w.http.Store(&answer)
}

func (w *readers) idleRefresher() *Refresher {
	return &Refresher{
		HTTP: roundTrip(w.send),
		OnEvent: func(e Event) {
			if hear := w.events.Load(); hear != nil {
				(*hear)(e)
			}
		},
		Table: w.table.Load, Store: w.storeOf, Stores: []creds.Store{w.store}, Journal: w.TempDir(), Poll: w.poll,
	}
}

func (w *readers) reader() *Keeper {
	return &Keeper{Store: w.storeOf, Current: func(name string) (*creds.Credential, bool) { return w.table.Load().ByName(name) }}
}

// bearer returns the token that k gives, or ends the test.
func (w *readers) bearer(k *Keeper, c *creds.Credential) string {
	w.Helper()
	a, err := k.Authorize(w.Context(), c)
	if err != nil {
		w.Fatalf("Authorize: %v", err)
	}
	if !time.Now().Before(a.Expires) {
		w.Fatal("the token has expired")
	}
	return strings.TrimPrefix(value(a, "Authorization"), "Bearer ")
}

// refusal returns why k gives nothing.
func (w *readers) refusal(k *Keeper, c *creds.Credential) (*creds.TokenError, error) {
	w.Helper()
	a, err := k.Authorize(w.Context(), c)
	var refused *creds.TokenError
	if a != nil || !errors.As(err, &refused) {
		w.Fatalf("Authorize = %v, %v; want a TokenError and nothing else", a, err)
	}
	return refused, err
}

func (w *readers) calls() int {
	w.provider.mu.Lock()
	defer w.provider.mu.Unlock()
	return w.provider.calls
}

func (w *readers) wantCalls(want int) {
	w.Helper()
	if got := w.calls(); got != want {
		w.Errorf("the provider was asked %d times, want %d", got, want)
	}
}

func (w *readers) connect(c *creds.Credential) {
	w.Helper()
	_, err := PutConsent(w.Context(), w.store, c.Name, Consent{
		Code: creds.NewSecret(w.provider.consent(c.Name)), Verifier: creds.NewSecret("v"), RedirectURL: "http://127.0.0.1/",
	})
	if err != nil {
		w.Fatal(err)
	}
}

func answering(status int, body string) roundTrip {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
}

func TestReadersGetATokenFromARefresher(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		w.refresher()
		begun := time.Now()
		first, second := w.reader(), w.reader()
		token := w.bearer(first, jira)
		if took := time.Since(begun); took > 4*time.Second {
			w.Errorf("the first token took %s", took)
		}
		if got := w.bearer(second, jira); got != token {
			w.Errorf("another reader has %q, the first %q", got, token)
		}
		w.wantCalls(1)
		if s := first.State("jira"); s.Status != StatusOK || s.Token != creds.NewSecret(token).Fingerprint() || s.LastError != nil {
			w.Errorf("state %+v", s)
		}
	})
}

func TestAReadersHotPath(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		_, end := w.refresher()
		k := w.reader()
		w.bearer(k, jira)
		end()
		source, _ := k.source(jira)
		s := source.(*shared)
		s.mu.Lock() // who takes a lock waits for ever
		defer s.mu.Unlock()
		ctx := w.Context()
		if n := testing.AllocsPerRun(1000, func() { _, _ = k.Authorize(ctx, jira) }); n != 0 {
			w.Errorf("%v allocations", n)
		}
	})
}

// N callers, one refresh, in one process and over many.
func manyCallersOneTokenCall(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		w.refresher()
		got := make(chan error, 1000)
		for range 20 {
			k := w.reader()
			for range 50 {
				go func() {
					_, err := k.Authorize(w.Context(), jira)
					got <- err
				}()
			}
		}
		for range cap(got) {
			if err := <-got; err != nil {
				w.Error(err)
			}
		}
		w.wantCalls(1)
		reads, _ := w.store.totals("tokens")
		_, rings := w.store.totals("requests")
		if reads > 20*8 || rings > 22 {
			w.Errorf("%d reads of the token and %d writes of requests, by 20 readers", reads, rings)
		}
	})
}

// The first caller leaves, the others are served.
func theFirstCallerOfAReaderLeaves(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		k := w.reader()
		impatient, cancel := context.WithTimeout(w.Context(), 100*time.Millisecond)
		defer cancel()
		left := make(chan error)
		go func() {
			_, err := k.Authorize(impatient, jira)
			left <- err
		}()
		synctest.Wait()
		w.refresher()
		w.bearer(k, jira)
		if err := <-left; !errors.Is(err, context.DeadlineExceeded) {
			w.Error(err)
		}
		w.wantCalls(1)
	})
}

// 30 an upstream 401: the refreshers are told, one of them refreshes, once.
func TestAReadersRefusedToken(t *testing.T) {
	refused := func(w *readers, k *Keeper, jira *creds.Credential, token string) (string, error) {
		a, err := k.Refused(w.Context(), jira, creds.NewSecret(token).Fingerprint())
		if err != nil {
			return "", err
		}
		return strings.TrimPrefix(value(a, "Authorization"), "Bearer "), nil
	}
	t.Run("30 twenty readers, one forced refresh", func(t *testing.T) {
		withReaders(t, func(w *readers, jira *creds.Credential) {
			w.refresher()
			w.refresher()
			readers := make([]*Keeper, 20)
			for i := range readers {
				readers[i] = w.reader()
				w.bearer(readers[i], jira)
			}
			old := w.bearer(readers[0], jira)
			got := make(chan string, len(readers))
			for _, k := range readers {
				go func() {
					token, err := refused(w, k, jira, old)
					if err != nil {
						w.Error(err)
					}
					got <- token
				}()
			}
			for range readers {
				if token := <-got; token == old {
					w.Error("the refused token came back")
				}
			}
			w.wantCalls(2)
		})
	})
	t.Run("30 no second forced refresh within 30 s", func(t *testing.T) {
		withReaders(t, func(w *readers, jira *creds.Credential) {
			w.refresher()
			k := w.reader()
			next, err := refused(w, k, jira, w.bearer(k, jira))
			if err != nil {
				w.Fatal(err)
			}
			for range 20 {
				if _, err := refused(w, k, jira, next); !errors.Is(err, creds.ErrNoProgress) {
					w.Errorf("%v", err)
				}
				time.Sleep(time.Second)
			}
			w.wantCalls(2)
			if got := w.bearer(k, jira); got != next {
				w.Errorf("afterwards %q", got)
			}
		})
	})
	t.Run("33 a newer token lies there already", func(t *testing.T) {
		withReaders(t, func(w *readers, jira *creds.Credential) {
			r, _ := w.refresher()
			k := w.reader()
			old := w.bearer(k, jira)
			if report := r.Do(w.Context(), jira, Ask{Op: OpRefresh}); !report.OK {
				w.Fatal(report)
			}
			begun := time.Now()
			if got, err := refused(w, k, jira, old); err != nil || got == old || time.Since(begun) > time.Second {
				w.Errorf("%q, %v after %s", got, err, time.Since(begun))
			}
			w.wantCalls(2)
		})
	})
	t.Run("30 no refresher: five seconds at most", func(t *testing.T) {
		withReaders(t, func(w *readers, jira *creds.Credential) {
			_, end := w.refresher()
			k := w.reader()
			old := w.bearer(k, jira)
			end()
			begun := time.Now()
			if _, err := refused(w, k, jira, old); !errors.Is(err, creds.ErrNoProgress) || time.Since(begun) > 5*time.Second {
				w.Errorf("%v after %s", err, time.Since(begun))
			}
			// It comes later: the next uses find it without another 401.
			w.refresher()
			time.Sleep(5 * time.Second)
			w.bearer(k, jira)
			synctest.Wait()
			if got := w.bearer(k, jira); got == old {
				w.Error("the token that came late is not used")
			}
		})
	})
}

func TestNoRefresher(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		k := w.reader()
		begun := time.Now()
		refused, _ := w.refusal(k, jira)
		if took := time.Since(begun); refused.Reason != ReasonNoRefresher || took != 15*time.Second {
			w.Errorf("%+v after %s", refused, took)
		}
		if _, _ = w.refusal(k, jira); time.Since(begun) != 15*time.Second {
			w.Error("the next caller waits as well")
		}
		for time.Since(begun) < 10*time.Minute {
			_, _ = w.refusal(k, jira)
			time.Sleep(100 * time.Millisecond)
		}
		if s := k.State("jira"); s.Detail != NoRefresher || s.Status != StatusDegraded {
			w.Errorf("state %+v", s)
		}
		reads, _ := w.store.totals("tokens")
		_, rings := w.store.totals("requests")
		if reads > 600 || rings > 8 {
			w.Errorf("%d reads and %d rings in ten minutes", reads, rings)
		}
		// Nobody asks any more: what a refresher would do now is not known.
		time.Sleep(lastRing + missedFor)
		if s := k.State("jira"); s.Detail != "" {
			w.Errorf("idle: state %+v", s)
		}
		// The ring still stands.
		w.refresher()
		time.Sleep(15 * time.Second)
		w.bearer(k, jira)
		if s := k.State("jira"); s.Detail != "" || s.Status != StatusOK {
			w.Errorf("state %+v", s)
		}
	})
}

func TestAReaderNeedsConsent(t *testing.T) {
	withReaders(t, func(w *readers, _ *creds.Credential) {
		code := w.add("code", creds.AuthorizationCode)
		w.refresher()
		k := w.reader()
		_, err := w.refusal(k, code)
		if !errors.Is(err, creds.ErrNeedsConsent) {
			w.Errorf("%v", err)
		}
		begun := time.Now()
		if _, err = w.refusal(k, code); !errors.Is(err, creds.ErrNeedsConsent) || time.Since(begun) > 0 {
			w.Errorf("%v after %s", err, time.Since(begun))
		}
		if s := k.State("code"); s.Status != StatusNeedsConsent {
			w.Errorf("state %+v", s)
		}
		w.connect(code)
		time.Sleep(15 * time.Second)
		w.bearer(k, code)
		if s := k.State("code"); s.Status != StatusOK {
			w.Errorf("state %+v", s)
		}
	})
}

// The token endpoint down: a good token is used, an expired one never; 40 and it
// is asked seldom.
func aReaderWhileTheProviderIsDown(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		w.refresher()
		k := w.reader()
		w.bearer(k, jira)
		var asked atomic.Int32
		w.instead(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			return answering(503, "secret body").RoundTrip(r)
		})
		begun := time.Now()
		for time.Since(begun) < time.Hour-10*time.Second {
			w.bearer(k, jira)
			time.Sleep(5 * time.Second)
		}
		if s := k.State("jira"); s.Status != StatusDegraded || s.LastError == nil || s.LastError.Status != 503 {
			w.Errorf("state %+v", s)
		}
		time.Sleep(10 * time.Second)
		refused, _ := w.refusal(k, jira)
		if refused.Reason != ReasonServer5xx || refused.Status != 503 || refused.RetryAfter > time.Minute {
			w.Errorf("%+v", refused)
		}
		for range 600 {
			_, _ = w.refusal(k, jira)
			time.Sleep(100 * time.Millisecond)
		}
		if n := asked.Load(); n < 10 || n > 90 { // from 60 % of the life left on, once in 30 to 60 s
			w.Errorf("the provider was asked %d times in an hour", n)
		}
		w.instead(nil)
		time.Sleep(75 * time.Second)
		w.bearer(k, jira)
	})
}

func TestAReaderAtAConfigurationError(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		w.refresher()
		var asked atomic.Int32
		w.instead(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			return answering(401, `{"error":"invalid_client","error_description":"no"}`).RoundTrip(r)
		})
		k := w.reader()
		refused, _ := w.refusal(k, jira)
		if refused.Reason != ReasonInvalidClient {
			w.Errorf("%+v", refused)
		}
		begun := time.Now()
		for time.Since(begun) < time.Hour {
			_, _ = w.refusal(k, jira)
			time.Sleep(time.Second)
		}
		if s := k.State("jira"); s.Status != StatusConfigError {
			w.Errorf("state %+v", s)
		}
		if n := asked.Load(); n < 5 || n > 14 {
			w.Errorf("asked %d times in an hour", n)
		}
		_, rings := w.store.totals("requests")
		if rings > 60 { // half of them the refresher's
			w.Errorf("%d writes of requests", rings)
		}
	})
}

// The store away: tokens serve until they end, and reading is tried seldom.
func TestAReaderWhileTheStoreIsAway(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		w.refresher()
		var tries atomic.Int32
		away := atomic.Bool{}
		store := flaky{w.store, &away, &tries}
		k := &Keeper{Store: func(string) creds.Store { return store }}
		w.bearer(k, jira)
		away.Store(true)
		tries.Store(0)
		begun := time.Now()
		for time.Since(begun) < 59*time.Minute+50*time.Second {
			w.bearer(k, jira)
			time.Sleep(time.Second)
		}
		if n := tries.Load(); n > 20 {
			w.Errorf("%d tries in an hour", n)
		}
		if s := k.State("jira"); s.Detail == "" {
			w.Errorf("state %+v", s)
		}
		time.Sleep(10 * time.Second)
		if _, err := k.Authorize(w.Context(), jira); !errors.Is(err, creds.ErrStoreUnavailable) {
			w.Errorf("%v", err)
		}
		away.Store(false)
		time.Sleep(8 * time.Second)
		w.bearer(k, jira)
	})
}

// flaky is a store that can be away.
type flaky struct {
	creds.Store
	away  *atomic.Bool
	tries *atomic.Int32
}

func (s flaky) Get(ctx context.Context, key string) (creds.Record, error) {
	s.tries.Add(1)
	if s.away.Load() {
		return creds.Record{}, fmt.Errorf("reading %s: %w", key, creds.ErrStoreUnavailable)
	}
	return s.Store.Get(ctx, key)
}

// An edit is what the next request carries; the token of before goes nowhere new.
func anEditedCredentialOfAReader(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		w.refresher()
		k := w.reader()
		old := w.bearer(k, jira)
		edited := *jira
		edited.URL = "https://elsewhere.example/"
		w.save(&edited)
		if got := w.bearer(k, &edited); got == old {
			w.Error("the token of another place")
		}
		refused, _ := w.refusal(k, jira)
		if refused.Reason != ReasonChanged {
			w.Errorf("a request that was matched before the edit: %+v", refused)
		}
		w.wantCalls(2)
		prefix := "Token"
		again := edited
		again.HeaderPrefix = &prefix
		w.save(&again)
		a, err := k.Authorize(w.Context(), &again)
		if err != nil || !strings.HasPrefix(value(a, "Authorization"), "Token ") {
			w.Errorf("%v", err)
		}
		w.wantCalls(2) // the token is still for that place
	})
}

// A credential that is removed while its token is asked for stays removed.
func aRemovedCredentialIsNotBroughtBack(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		w.refresher()
		release := make(chan struct{})
		asked := make(chan struct{})
		w.instead(func(r *http.Request) (*http.Response, error) {
			close(asked)
			<-release
			return w.provider.RoundTrip(r)
		})
		k := w.reader()
		waits := make(chan error)
		go func() {
			_, err := k.Authorize(w.Context(), jira)
			waits <- err
		}()
		<-asked
		if err := creds.Remove(w.Context(), w.store, "jira"); err != nil {
			w.Fatal(err)
		}
		w.table.Store(creds.NewTable(nil))
		k.Forget(jira)
		var refused *creds.TokenError
		if err := <-waits; !errors.As(err, &refused) || refused.Reason != ReasonChanged {
			w.Errorf("%v", err)
		}
		close(release)
		time.Sleep(5 * time.Minute)
		for _, prefix := range []string{creds.KeyGrants, creds.KeyTokens, creds.KeyRequests, creds.KeyCredentials} {
			if keys, _ := w.store.List(w.Context(), prefix); len(keys) != 0 {
				w.Errorf("still there: %v", keys)
			}
		}
		if s := k.State("jira"); s.Status != StatusNone {
			w.Errorf("state %+v", s)
		}
	})
}

// A record that something else wrote: the token's is written anew, the grant's stops
// that credential and no other.
func TestRecordsThatNobodyCanRead(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		put := func(key string) {
			old, _ := w.store.Get(w.Context(), key)
			if _, err := w.store.CAS(w.Context(), key, creds.NewSecret(`{"schema":"1.0","gen":"many","access_token":"x"}`), old.Version); err != nil {
				w.Fatal(err)
			}
		}
		w.refresher()
		token := w.bearer(w.reader(), jira)
		put(creds.KeyTokens + "jira")
		time.Sleep(20 * time.Second)
		if got := w.bearer(w.reader(), jira); got != token {
			w.Error("another token")
		}
		other := w.add("other", creds.ClientCredentials)
		put(creds.KeyGrants + "other")
		if _, err := w.reader().Authorize(w.Context(), other); err == nil {
			w.Error("a token without a grant")
		}
		k := w.reader()
		k.Refresher = w.idleRefresher()
		if refused, err := w.refusal(k, other); refused.Reason != ReasonBadRecord || errors.Is(err, creds.ErrStoreUnavailable) {
			w.Errorf("%v", err)
		}
		w.bearer(w.reader(), jira)
	})
}

func TestAnUnsharedTokenStaysInTheProcess(t *testing.T) {
	withReaders(t, func(w *readers, _ *creds.Credential) {
		alone := w.provider.credential("alone", creds.ClientCredentials)
		alone.Unshared, alone.Version, alone.AuthorizationURL = true, 0, ""
		w.save(alone)
		for range 2 {
			k := w.reader()
			k.HTTP = w.provider
			w.bearer(k, alone)
		}
		w.wantCalls(2)
		if reads, writes := w.store.totals("tokens", "requests"); reads+writes != 0 {
			w.Errorf("%d reads and %d writes of records", reads, writes)
		}
	})
}
