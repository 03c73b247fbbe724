package token

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

func TestRefreshAhead(t *testing.T) {
	t.Run("before the drawn point nobody is asked", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		f.clock.pass(29 * time.Minute)
		f.bearer(t)
		f.wantCalls(t, 1)
	})

	t.Run("past it the old token serves while the new one is fetched", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		f.heard.next(t)
		release := make(chan struct{})
		f.provider.Next(credstest.ReplyAfter(release, credstest.ReplyToken("newer", 3600)))
		f.clock.pass(31 * time.Minute)
		for range 10 {
			if got := f.bearer(t); got != "Bearer token-1" {
				t.Fatalf("waited for, or got, %q", got)
			}
		}
		close(release)
		f.heard.next(t)
		if got := f.bearer(t); got != "Bearer newer" {
			t.Errorf("after the refresh: %q", got)
		}
		f.wantCalls(t, 2)
	})

	t.Run("the point is drawn between 35 and 60 percent of what is left", func(t *testing.T) {
		for range 100 {
			k := &Keeper{}
			if _, err := k.source(&creds.Credential{Name: "jira", Authorization: creds.ClientCredentials}); err != nil {
				t.Fatal(err)
			}
			if k.ahead < 0.35 || k.ahead > 0.60 {
				t.Fatalf("drawn: %v", k.ahead)
			}
		}
	})

	t.Run("the same token back waits until 60 s before its end", func(t *testing.T) {
		f := newFixture(t)
		f.provider.Next(credstest.ReplyToken("kept", 1800))
		f.bearer(t)
		f.heard.next(t)
		f.provider.Next(credstest.ReplyToken("kept", 1800-901), credstest.ReplyToken("kept", 58))
		f.clock.pass(901 * time.Second)
		f.bearer(t)
		f.heard.next(t)
		f.clock.pass(1739*time.Second - 901*time.Second)
		f.bearer(t)
		f.wantCalls(t, 2)
		f.clock.pass(3 * time.Second) // 58 s are left
		f.bearer(t)
		f.heard.next(t)
		for range 10 { // and no storm in its last minute
			f.bearer(t)
		}
		f.wantCalls(t, 3)
		f.clock.pass(54 * time.Second) // 4 s are left: not sent any more
		if got := f.bearer(t); got != "Bearer token-1" {
			t.Errorf("got %q", got)
		}
	})

	t.Run("a short life keeps a share of itself as margin", func(t *testing.T) {
		f := newFixture(t)
		f.provider.Next(credstest.ReplyToken("short", 10))
		f.bearer(t)
		f.heard.next(t)
		f.provider.Answer(credstest.Reply(500, "text/plain", ""))
		f.clock.pass(8900 * time.Millisecond)
		if got := f.bearer(t); got != "Bearer short" {
			t.Errorf("1.1 s before its end: %q", got)
		}
		f.heard.next(t)
		f.clock.pass(200 * time.Millisecond)
		f.refusal(t)
	})

	t.Run("a machine that slept", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		f.clock.mu.Lock()
		slept := f.clock.now.Round(0).Add(2 * time.Hour) // wall clock alone
		f.clock.now = slept
		f.clock.mu.Unlock()
		if got := f.bearer(t); got != "Bearer token-2" {
			t.Errorf("after the sleep: %q", got)
		}
	})
}

func TestEndpointDown(t *testing.T) {
	t.Run("35 the token still valid: used", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		f.heard.next(t)
		f.provider.Answer(credstest.Reply(503, "text/html", "<html>down"))
		f.clock.pass(40 * time.Minute)
		f.bearer(t)
		if e := f.heard.next(t); e.Result != Failure || e.Reason != ReasonServer5xx || e.Status != 503 {
			t.Errorf("event %+v", e)
		}
		if s := f.State("jira"); s.Status != StatusDegraded || s.Token == "" || s.LastError == nil {
			t.Errorf("state %+v", s)
		}
		f.clock.pass(20*time.Minute - 6*time.Second)
		if got := f.bearer(t); got != "Bearer token-1" {
			t.Errorf("6 s before its end: %q", got)
		}
		f.heard.next(t)
	})

	t.Run("35 expired: refused, never a stale header", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		f.provider.Answer(credstest.Reply(503, "text/html", "<html>down"))
		f.clock.pass(time.Hour - 5*time.Second)
		if got := f.refusal(t); got.Reason != ReasonServer5xx || got.Status != 503 || got.RetryAfter <= 0 {
			t.Errorf("%+v", got)
		}
		if s := f.State("jira"); s.Status != StatusDegraded || s.Token != "" {
			t.Errorf("state %+v", s)
		}
	})

	t.Run("40 back-off, not a storm", func(t *testing.T) {
		f := newFixture(t)
		f.provider.Answer(credstest.Reply(503, "text/html", ""))
		for range 600 {
			for range 20 {
				f.refusal(t)
			}
			f.clock.pass(time.Second)
		}
		// 12,000 requests in ten minutes; 0.5, 1, 2 ... 60 s apart, half of it drawn.
		if calls := f.provider.Calls(); calls < 12 || calls > 28 {
			t.Errorf("%d token requests", calls)
		}
	})

	t.Run("40 callers during the back-off fail at once, told when to come back", func(t *testing.T) {
		f := newFixture(t)
		f.provider.Next(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
		})
		f.refusal(t)
		f.clock.pass(20 * time.Second)
		if got := f.refusal(t); got.Reason != ReasonOther4xx || got.Status != 429 || got.RetryAfter != 100*time.Second {
			t.Errorf("%+v", got)
		}
		f.wantCalls(t, 1)
		f.clock.pass(100 * time.Second)
		if got := f.bearer(t); got != "Bearer token-1" {
			t.Errorf("afterwards: %q", got)
		}
	})

	t.Run("40 Retry-After is honoured up to 15 minutes", func(t *testing.T) {
		f := newFixture(t)
		f.provider.Next(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		if got := f.refusal(t).RetryAfter; got != 15*time.Minute {
			t.Errorf("RetryAfter %s", got)
		}
	})

	t.Run("40 what only an edit can mend is asked once a minute", func(t *testing.T) {
		for _, code := range []string{"invalid_client", "invalid_scope", "unauthorized_client"} {
			f := newFixture(t)
			f.provider.Answer(credstest.ReplyError(400, code, ""))
			if got := f.refusal(t); got.Code != code {
				t.Errorf("%+v", got)
			}
			f.clock.pass(59 * time.Second)
			f.refusal(t)
			f.wantCalls(t, 1)
			if s := f.State("jira"); s.Status != StatusConfigError {
				t.Errorf("%s: state %+v", code, s)
			}
			f.clock.pass(8 * time.Second)
			f.refusal(t)
			f.wantCalls(t, 2)
		}
	})
}

func TestBackoffGrowsToAMinute(t *testing.T) {
	want := firstBackoff
	for fails := range 40 {
		for range 20 {
			if got := backoff(fails, false); got < want/2 || got > want {
				t.Fatalf("after %d failures %s, want up to %s", fails, got, want)
			}
		}
		want = min(2*want, maxBackoff)
	}
}

func TestRefused(t *testing.T) {
	again := func(f *fixture, token string) (string, error) {
		authorization, err := f.Refused(t.Context(), f.jira, creds.NewSecret(token).Fingerprint())
		if err != nil {
			return "", err
		}
		return value(authorization, "Authorization"), nil
	}

	t.Run("30 one forced refresh", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		if got, err := again(f, "token-1"); got != "Bearer token-2" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		f.wantCalls(t, 2)
	})

	t.Run("30 a newer token is there already", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		_, _ = again(f, "token-1")
		if got, err := again(f, "token-1"); got != "Bearer token-2" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		f.wantCalls(t, 2)
	})

	t.Run("30 fifty refused at once, one refresh", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		results := make(chan string, 50)
		for range 50 {
			go func() {
				got, err := again(f, "token-1")
				if err != nil {
					got = err.Error()
				}
				results <- got
			}()
		}
		for range 50 {
			if got := <-results; got != "Bearer token-2" {
				t.Errorf("got %q", got)
			}
		}
		f.wantCalls(t, 2)
	})

	t.Run("31 at most one forced refresh in 30 s", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		_, _ = again(f, "token-1")
		if _, err := again(f, "token-2"); !errors.Is(err, creds.ErrNoProgress) {
			t.Errorf("a second one: %v", err)
		}
		f.wantCalls(t, 2)
		f.clock.pass(31 * time.Second)
		if got, err := again(f, "token-2"); got != "Bearer token-3" || err != nil {
			t.Errorf("half a minute later: %q, %v", got, err)
		}
	})

	t.Run("31 the same token back is no progress, and goes on serving", func(t *testing.T) {
		f := newFixture(t)
		f.provider.Answer(credstest.ReplyToken("stuck", 1800))
		f.bearer(t)
		if _, err := again(f, "stuck"); err != creds.ErrNoProgress {
			t.Errorf("%v", err)
		}
		if got := f.bearer(t); got != "Bearer stuck" {
			t.Errorf("%q", got)
		}
	})

	t.Run("31 a refresh that fails is no progress", func(t *testing.T) {
		f := newFixture(t)
		f.bearer(t)
		f.provider.Answer(credstest.Reply(500, "text/plain", ""))
		_, err := again(f, "token-1")
		var refused *creds.TokenError
		if !errors.Is(err, creds.ErrNoProgress) || !errors.As(err, &refused) {
			t.Errorf("%v", err)
		}
		_, err = again(f, "token-1") // in the back-off
		if !errors.Is(err, creds.ErrNoProgress) {
			t.Errorf("%v", err)
		}
		f.wantCalls(t, 2)
	})

	t.Run("31 static kinds have no newer token", func(t *testing.T) {
		_, err := (&Keeper{}).Refused(t.Context(), &creds.Credential{Name: "s", Authorization: creds.Basic}, "")
		if err != creds.ErrNoProgress {
			t.Errorf("%v", err)
		}
	})
}

// In a bubble of synctest the time of the deadline passes as soon as all wait.
func TestDeadlineIsOursAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		k := &Keeper{HTTP: roundTrip(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}
		c := &creds.Credential{Name: "slow", Authorization: creds.ClientCredentials, AccessTokenURL: "https://slow.example/token"}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := k.Authorize(impatient, c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's own deadline: %v", err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("who had one second waited %s", waited)
		}
		_, err := k.Authorize(t.Context(), c)
		var refused *creds.TokenError
		if !errors.As(err, &refused) || refused.Reason != ReasonTimeout {
			t.Errorf("%v", err)
		}
		if waited := time.Since(start); waited != 15*time.Second || asked.Load() != 1 {
			t.Errorf("the token request took %s, %d of them", waited, asked.Load())
		}
	})
}

// A month of one credential with a request every ten seconds, in a bubble.
func TestAMonthOfUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		k := &Keeper{HTTP: roundTrip(func(*http.Request) (*http.Response, error) {
			n := calls.Add(1)
			time.Sleep(300 * time.Millisecond) // of the bubble's clock
			answer := httptest.NewRecorder()
			credstest.ReplyToken("t"+strings.Repeat("x", int(n%1000)), 3600)(answer, nil)
			return answer.Result(), nil
		})}
		c := &creds.Credential{Name: "month", Authorization: creds.ClientCredentials, AccessTokenURL: "https://t.example/"}
		start := time.Now()
		for time.Since(start) < 30*24*time.Hour {
			a, err := k.Authorize(t.Context(), c)
			if err != nil || !time.Now().Before(a.Expires) {
				t.Fatalf("after %s: %v, %v", time.Since(start), a, err)
			}
			time.Sleep(10 * time.Second)
		}
		hours := int32(30 * 24)
		if n := calls.Load(); n < hours*3/2 || n > hours*26/10 {
			t.Errorf("%d token requests in %d hours", n, hours)
		}
	})
}
