package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// fixture is a Keeper with a clock that stands still, an honest provider and a
// credential of it.
type fixture struct {
	*Keeper
	provider *credstest.Provider
	clock    *clock
	heard    *heard
	jira     *creds.Credential
}

func newFixture(t *testing.T) *fixture {
	provider := credstest.NewProvider(t)
	f := &fixture{
		provider: provider,
		clock:    &clock{now: time.Now()},
		heard:    &heard{events: make(chan Event, 1000)},
		jira:     provider.Credential("jira"),
	}
	f.Keeper = &Keeper{HTTP: provider.Transport(), Now: f.clock.Now, OnEvent: f.heard.add, ahead: 0.5}
	return f
}

// bearer returns the header value that Authorize gives, and fails without one.
func (f *fixture) bearer(t *testing.T) string {
	t.Helper()
	authorization, err := f.Authorize(t.Context(), f.jira)
	if err != nil {
		t.Fatalf("Authorize: %v", err)
	}
	return value(authorization, "Authorization")
}

// refusal returns the reason why Authorize gives nothing.
func (f *fixture) refusal(t *testing.T) *creds.TokenError {
	t.Helper()
	authorization, err := f.Authorize(t.Context(), f.jira)
	var refused *creds.TokenError
	if authorization != nil || !errors.As(err, &refused) {
		t.Fatalf("Authorize = %v, %v; want a TokenError and nothing else", authorization, err)
	}
	return refused
}

func (f *fixture) wantCalls(t *testing.T, want int) {
	t.Helper()
	if got := f.provider.Calls(); got != want {
		t.Fatalf("the provider was asked %d times, want %d", got, want)
	}
}

// clock is a clock that only a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// heard collects events.
type heard struct{ events chan Event }

func (h *heard) add(e Event) { h.events <- e }

// next waits for an event: that a refresh behind the scenes has landed.
func (h *heard) next(t *testing.T) Event {
	t.Helper()
	select {
	case e := <-h.events:
		return e
	case <-t.Context().Done():
		t.Fatal("no event came")
		return Event{}
	}
}

func value(a *creds.Authorization, name string) string {
	for _, field := range append(append([]creds.AuthorizationField{}, a.Headers...), a.Query...) {
		if field.Name == name {
			return field.Value.Reveal()
		}
	}
	return ""
}

// printed is everything that fmt can get out of values, and of their error chains.
func printed(values ...any) string {
	var b strings.Builder
	for _, v := range values {
		fmt.Fprintf(&b, "%v\n%+v\n%#v\n%q\n", v, v, v, v)
		if err, ok := v.(error); ok {
			for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
				fmt.Fprintf(&b, "%v\n%+v\n%#v\n", inner, inner, inner)
			}
		}
	}
	return b.String()
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestKeeperGivesAToken(t *testing.T) {
	f := newFixture(t)
	f.jira.Headers = []creds.Header{{Name: "x-4me-account", Value: creds.NewSecret("acme")}}
	authorization, err := f.Authorize(t.Context(), f.jira)
	if err != nil {
		t.Fatal(err)
	}
	if got := value(authorization, "Authorization"); got != "Bearer token-1" {
		t.Errorf("Authorization: %q", got)
	}
	if got := value(authorization, "X-4me-Account"); got != "acme" {
		t.Errorf("an OAuth credential's extra header: %q", got)
	}
	want := creds.NewSecret("token-1").Fingerprint()
	if authorization.Token != want || !authorization.Expires.Equal(f.clock.Now().Add(time.Hour)) {
		t.Errorf("fingerprint %s, expires %s", authorization.Token, authorization.Expires)
	}
	event := f.heard.next(t)
	if event.Credential != "jira" || event.Grant != creds.ClientCredentials || event.Result != Success ||
		event.Token != want || !event.Expires.Equal(authorization.Expires) {
		t.Errorf("event %+v", event)
	}
	if s := f.State("jira"); s.Status != StatusOK || s.Token != want || s.LastError != nil {
		t.Errorf("state %+v", s)
	}
	f.bearer(t)
	f.wantCalls(t, 1)
}

func TestHeaderPrefix(t *testing.T) {
	for prefix, want := range map[string]string{"": "token-1", "AR-JWT": "AR-JWT token-1", "rest_api_key=": "rest_api_key=token-1"} {
		f := newFixture(t)
		f.jira.HeaderPrefix = &prefix
		if got := f.bearer(t); got != want {
			t.Errorf("prefix %q: %q", prefix, got)
		}
	}
}

func TestCallers(t *testing.T) {
	t.Run("28 a hundred callers, one request", func(t *testing.T) {
		f := newFixture(t)
		release := make(chan struct{})
		f.provider.Next(credstest.ReplyAfter(release, credstest.ReplyToken("shared", 3600)))
		var started, done sync.WaitGroup
		for range 100 {
			started.Add(1)
			done.Go(func() {
				started.Done()
				authorization, err := f.Authorize(t.Context(), f.jira)
				if err != nil || value(authorization, "Authorization") != "Bearer shared" {
					t.Errorf("Authorize: %v, %v", authorization, err)
				}
			})
		}
		started.Wait()
		close(release)
		done.Wait()
		f.wantCalls(t, 1)
	})

	t.Run("29 the first caller leaves, the others are served", func(t *testing.T) {
		f := newFixture(t)
		release := make(chan struct{})
		arrived := make(chan struct{})
		f.provider.Next(func(w http.ResponseWriter, r *http.Request) {
			close(arrived)
			credstest.ReplyAfter(release, credstest.ReplyToken("shared", 3600))(w, r)
		})
		ctx, leave := context.WithCancel(t.Context())
		first := make(chan error)
		go func() {
			_, err := f.Authorize(ctx, f.jira)
			first <- err
		}()
		<-arrived
		second := make(chan error)
		go func() {
			_, err := f.Authorize(t.Context(), f.jira)
			second <- err
		}()
		leave()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		close(release)
		if err := <-second; err != nil {
			t.Errorf("who stayed got %v", err)
		}
		f.wantCalls(t, 1)
	})
}

func TestEdits(t *testing.T) {
	// inFlight starts an Authorize whose token request waits for release.
	inFlight := func(t *testing.T, f *fixture) (result chan error, release chan struct{}) {
		arrived := make(chan struct{})
		result, release = make(chan error, 1), make(chan struct{})
		f.provider.Next(func(w http.ResponseWriter, r *http.Request) {
			close(arrived)
			credstest.ReplyAfter(release, credstest.ReplyToken("stale", 3600))(w, r)
		})
		old := f.jira
		go func() {
			_, err := f.Authorize(t.Context(), old)
			result <- err
		}()
		<-arrived
		return result, release
	}
	wantChanged := func(t *testing.T, err error) {
		t.Helper()
		var refused *creds.TokenError
		if !errors.As(err, &refused) || refused.Reason != ReasonChanged {
			t.Errorf("who waited for the old credential's token got %v", err)
		}
	}

	t.Run("34 removed during a refresh: not resurrected", func(t *testing.T) {
		f := newFixture(t)
		current := true
		f.Current = func(string) (*creds.Credential, bool) { return f.jira, current }
		result, release := inFlight(t, f)
		current = false
		f.Forget(f.jira)
		wantChanged(t, <-result)
		close(release)
		if s := f.State("jira"); s.Status != StatusNone || s.Token != "" {
			t.Errorf("state %+v", s)
		}
		if got := f.refusal(t).Reason; got != ReasonChanged {
			t.Errorf("a request that was matched before: %s", got)
		}
		if _, err := f.Refused(t.Context(), f.jira, "0"); err == nil {
			t.Error("Refused brought it back")
		}
		f.wantCalls(t, 1)
	})

	t.Run("34 edited during a refresh: the old answer is dropped", func(t *testing.T) {
		f := newFixture(t)
		result, release := inFlight(t, f)
		edited := *f.jira
		edited.Version++
		f.jira = &edited
		if got := f.bearer(t); got != "Bearer token-1" {
			t.Errorf("the edited credential got %q", got)
		}
		wantChanged(t, <-result)
		close(release)
		if got := f.bearer(t); got != "Bearer token-1" {
			t.Errorf("after the old answer: %q", got)
		}
	})

	t.Run("39 an edited secret is used by the next request", func(t *testing.T) {
		f := newFixture(t)
		right := f.jira.ClientSecret
		f.jira.ClientSecret = creds.NewSecret("wrong")
		if got := f.refusal(t); got.Reason != ReasonInvalidClient || f.State("jira").Status != StatusConfigError {
			t.Errorf("%v, %+v", got, f.State("jira"))
		}
		edited := *f.jira
		edited.ClientSecret, edited.Version = right, 2
		f.jira = &edited
		if got := f.bearer(t); got != "Bearer token-1" {
			t.Errorf("got %q", got)
		}
		password := &creds.Credential{Name: "static", Authorization: creds.Basic, Username: "u", Password: creds.NewSecret("1")}
		before, _ := f.Authorize(t.Context(), password)
		edited = *password
		edited.Password = creds.NewSecret("2")
		after, _ := f.Authorize(t.Context(), &edited)
		if value(before, "Authorization") == value(after, "Authorization") {
			t.Error("the old password is still sent")
		}
	})

	t.Run("39 the same record read again keeps its token", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		again := *f.jira
		f.jira = &again
		f.bearer(t)
		f.wantCalls(t, 1)
	})

	t.Run("39 Forget of the old one leaves the new one alone", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		old, edited := f.jira, *f.jira
		edited.Version++
		f.jira = &edited
		f.bearer(t)
		f.Forget(old)
		f.bearer(t)
		f.wantCalls(t, 2)
	})
}

func TestUnsupportedKinds(t *testing.T) {
	k := &Keeper{}
	for _, kind := range []creds.AuthorizationType{"", "voodoo"} {
		_, err := k.Authorize(t.Context(), &creds.Credential{Name: "later", Authorization: kind})
		var refused *creds.TokenError
		if !errors.As(err, &refused) || refused.Reason != ReasonUnsupported {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestWithoutTransportNothingIsSent(t *testing.T) {
	f := newFixture(t)
	f.HTTP = nil
	if got := f.refusal(t).Reason; got != ReasonNetwork {
		t.Errorf("reason %s", got)
	}
	f.wantCalls(t, 0)
}

func TestKeeperUnderRace(t *testing.T) {
	f := newFixture(t)
	var done sync.WaitGroup
	for worker := range 8 {
		done.Go(func() {
			c := *f.jira
			for i := range 50 {
				edited := c
				edited.Version = worker*1000 + i
				authorization, err := f.Authorize(t.Context(), &edited)
				if err == nil {
					_, _ = f.Refused(t.Context(), &edited, authorization.Token)
				}
				f.State("jira")
				f.Forget(&edited)
			}
		})
	}
	done.Wait()
	left := 0
	f.entries.Range(func(any, any) bool { left++; return true })
	if left != len(f.names) || left > 1 {
		t.Errorf("%d entries and %d names are left of one credential", left, len(f.names))
	}
}
