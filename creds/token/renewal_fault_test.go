package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// faults stands before what a process speaks to, and counts the steps.
type faults struct {
	creds.Store
	journal
	grant grant
	// step does one of them: do, or something worse.
	step func(what string, do func() error) error
}

// under puts faults before everything that r speaks to.
func under(r *renewal, step func(what string, do func() error) error) *renewal {
	f := &faults{r.store, r.journal, r.grant, step}
	r.store, r.journal, r.grant = f, f, f.ask
	return r
}

func (f *faults) Get(ctx context.Context, key string) (record creds.Record, err error) {
	err = f.step("get "+key, func() error { record, err = f.Store.Get(ctx, key); return err })
	return record, err
}

func (f *faults) CAS(ctx context.Context, key string, data creds.Secret, version int) (next int, err error) {
	err = f.step("cas "+key, func() error { next, err = f.Store.CAS(ctx, key, data, version); return err })
	return next, err
}

func (f *faults) Now(ctx context.Context) (now time.Time, err error) {
	err = f.step("now", func() error { now, err = f.Store.Now(ctx); return err })
	return now, err
}

func (f *faults) store(name string, gen int, data []byte) error {
	return f.step("journal", func() error { return f.journal.store(name, gen, data) })
}

func (f *faults) remove(name string, gen int) error {
	return f.step("journal away", func() error { return f.journal.remove(name, gen) })
}

func (f *faults) ask(ctx context.Context, p proof) (got answer, err error) {
	err = f.step("request", func() error { got, err = f.grant(ctx, p); return err })
	return got, err
}

// died is what a process dies of.
type died struct{ what string }

// deadly dies at the n-th step, before it or after it.
func deadly(n int, after bool) func(string, func() error) error {
	return func(what string, do func() error) error {
		n--
		if n >= 0 {
			return do()
		}
		if after {
			_ = do()
		}
		panic(died{what})
	}
}

// live runs a process until it ends or dies, and returns what it died of.
func live(run func()) (of string) {
	defer func() {
		switch end := recover().(type) {
		case nil:
		case died:
			of = end.what
		default:
			panic(end)
		}
	}()
	run()
	return ""
}

// A process dies before or after each of its steps. Restarted on its own disk,
// or replaced by another, the grant goes on; only a death between the provider's
// commit and the journal costs it, as it must.
func deathAtEveryStep(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 0; ; n++ {
			var of string
			overGrant(t, func(t *testing.T, g *rig) {
				g.gets(g.process("a"), want{}) // an access token is there, and ends in time
				time.Sleep(time.Hour)
				of = live(func() { g.gets(under(g.process("a"), deadly(n, after)), want{}) })
				again := g.process("a")
				if err := again.handIn(t.Context()); err != nil {
					t.Fatal(err)
				}
				if of == "request" && after || of == "journal" && !after {
					g.isLost(again)
					return
				}
				g.gets(again, want{})
				g.sound()
			})
			if t.Failed() {
				t.Fatalf("having died at step %d (%s), after it: %t", n, of, after)
			}
			if of == "" {
				if n < 8 {
					t.Errorf("only %d steps", n)
				}
				break
			}
		}
	}
}

// isLost checks that a grant is lost as a strict provider loses it: the refresh token
// came twice, after all the patience that there is, and a person is asked for.
func (g *rig) isLost(r *renewal) {
	g.t.Helper()
	begun := time.Now()
	if _, _, err := r.renew(g.t.Context(), want{}); !errors.Is(err, creds.ErrNeedsConsent) {
		g.t.Fatalf("%v", err)
	}
	if waited := time.Since(begun); waited < 60*time.Second {
		g.t.Errorf("it gave the holder up after %s", waited)
	}
	if counts := g.provider.Counts(); counts.Reuse != 1 || counts.Revocations != 1 {
		g.t.Errorf("%+v", counts)
	}
	if g.heard(EventBlindClaim) != 1 || g.token().Status != StatusNeedsConsent {
		g.t.Errorf("%d blind claims, status %s", g.heard(EventBlindClaim), g.token().Status)
	}
}

// The same, and the dead one's disk never comes back: another takes over. What only
// the disk knew is lost then.
func deathAndReplacement(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 0; ; n++ {
			var of string
			overGrant(t, func(t *testing.T, g *rig) {
				bought := false
				of = live(func() {
					step := deadly(n, after)
					g.gets(under(g.process("a"), func(what string, do func() error) error {
						return step(what, func() error {
							err := do()
							bought = bought || what == "request"
							return err
						})
					}), want{})
				})
				written := g.record().Gen == 2
				b := g.process("b")
				if bought && !written {
					g.isLost(b)
					return
				}
				g.gets(b, want{})
				g.sound()
			})
			if t.Failed() {
				t.Fatalf("having died at step %d (%s), after it: %t", n, of, after)
			}
			if of == "" {
				break
			}
		}
	}
}

var errLost = fmt.Errorf("the answer is lost: %w", creds.ErrStoreUnavailable)

// Any one answer of the store is lost, whether it had done what it was told or not:
// one token call, and nothing is lost.
func TestLostAnswerAtEveryStep(t *testing.T) {
	for _, done := range []bool{false, true} {
		for n := 0; ; n++ {
			var what string
			overGrant(t, func(t *testing.T, g *rig) {
				left := n
				r := under(g.process("a"), func(step string, do func() error) error {
					if left--; left != -1 || step == "request" || step == "journal" || step == "journal away" {
						return do()
					}
					what = step
					if done {
						_ = do()
					}
					return errLost
				})
				for {
					_, _, err := r.renew(t.Context(), want{})
					if err == nil {
						break
					}
					if !errors.Is(err, creds.ErrStoreUnavailable) {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				if left >= 0 {
					what = ""
				}
				if err := g.process("repairs").repair(t.Context()); err != nil {
					t.Fatal(err)
				}
				if calls := g.provider.Calls(); calls != 1 || g.heard(EventBlindClaim) != 0 {
					t.Errorf("%d token calls, %d blind claims", calls, g.heard(EventBlindClaim))
				}
				g.sound()
			})
			if t.Failed() {
				t.Fatalf("the answer to step %d (%s) was lost, done: %t", n, what, done)
			}
			if what == "" && n > 10 {
				break
			}
		}
	}
}

// The store goes away for any time at any step, for all; others wait meanwhile. Who
// holds an answer writes it before anybody may call it dead.
func TestOutageAtEveryStep(t *testing.T) {
	for _, outage := range []time.Duration{6 * time.Second, 50 * time.Second, 10 * time.Minute} {
		for n := range 10 {
			overGrant(t, func(t *testing.T, g *rig) {
				var mu sync.Mutex
				var until time.Time
				away := func(what string, do func() error) error {
					mu.Lock()
					out := time.Now().Before(until)
					mu.Unlock()
					if out && what != "request" && what != "journal" && what != "journal away" {
						time.Sleep(time.Second) // a request's time-out
						return errLost
					}
					return do()
				}
				steps := 0
				a := under(g.process("a"), func(what string, do func() error) error {
					if steps++; steps == n+1 {
						mu.Lock()
						until = time.Now().Add(outage)
						mu.Unlock()
					}
					return away(what, do)
				})
				var wg sync.WaitGroup
				for _, r := range []*renewal{a, under(g.process("b"), away), under(g.process("c"), away)} {
					wg.Go(func() {
						if r != a {
							time.Sleep(time.Millisecond)
						}
						for {
							if _, _, err := r.renew(t.Context(), want{}); err == nil {
								return
							} else if !errors.Is(err, creds.ErrStoreUnavailable) {
								t.Error(err)
								return
							}
							time.Sleep(4 * time.Second)
						}
					})
				}
				wg.Wait()
				if calls := g.provider.Calls(); calls != 1 {
					t.Errorf("%d token calls", calls)
				}
				g.sound()
			})
			if t.Failed() {
				t.Fatalf("outage of %s at step %d", outage, n)
			}
		}
	}
}

// A store that answers too slowly: the request is not sent at a time when others may
// take the holder for dead.
func TestSlowClaim(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		slow := true
		a := under(g.process("a"), func(what string, do func() error) error {
			err := do()
			if what == "cas "+creds.KeyGrants+"jira" && slow {
				slow = false
				time.Sleep(14 * time.Second)
			}
			return err
		})
		if _, _, err := a.renew(t.Context(), want{}); !errors.Is(err, creds.ErrStoreUnavailable) || g.provider.Calls() != 0 {
			t.Fatalf("%v after %d calls", err, g.provider.Calls())
		}
		if g.record().Lease != nil {
			t.Error("the lease is still there")
		}
		g.gets(a, want{})
		g.sound()
	})
}

// A page edits the grant's secrets while a token is asked for: both stay.
func TestPatchDuringARequest(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		r := g.process("a")
		ask := r.grant
		r.grant = func(ctx context.Context, p proof) (answer, error) {
			g.patch(map[string]any{"secrets": map[string]any{"0123": []string{"https://x.example:443", "canary"}}})
			return ask(ctx, p)
		}
		g.gets(r, want{})
		if n := len(g.record().rest["secrets"]); n == 0 {
			t.Error("the secret is gone")
		}
		g.sound()
	})
}

// A holder that was taken for dead hands in its answer while the one who claimed
// over it still settles: one token call.
func TestRescueDuringABlindClaim(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		var cut atomic.Bool
		cut.Store(true)
		a := under(g.process("a"), func(what string, do func() error) error {
			if what != "request" && what != "journal" && cut.Load() && g.provider.Calls() > 0 {
				return errLost
			}
			return do()
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, _, err := a.renew(t.Context(), want{}); err == nil {
					return
				}
				time.Sleep(time.Second)
			}
		})

		time.Sleep(time.Millisecond)
		b := g.process("b")
		b.sleep = func(_ context.Context, d time.Duration) error {
			if d == 3*time.Second { // b settles: the network is back
				cut.Store(false)
			}
			time.Sleep(d)
			return nil
		}
		g.gets(b, want{})
		wg.Wait()
		if g.heard(EventRescue) != 1 || g.heard(EventBlindClaim) != 1 || g.provider.Calls() != 1 {
			t.Errorf("%d rescues, %d blind claims, %d calls", g.heard(EventRescue), g.heard(EventBlindClaim), g.provider.Calls())
		}
		g.sound()
	})
}

// The disk of a dead process comes back after the grant was given up. Where the
// provider did not revoke what the used token had brought, that heals it.
func TestJournalOfALostGrant(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		if of := live(func() {
			g.gets(under(g.process("a"), func(what string, do func() error) error {
				err := do()
				if what == "journal" {
					panic(died{what})
				}
				return err
			}), want{})
		}); of != "journal" {
			t.Fatalf("it died of %q", of)
		}
		g.provider.Next(credstest.ReplyError(400, "invalid_grant", ""))
		if _, _, err := g.process("b").renew(t.Context(), want{}); !errors.Is(err, creds.ErrNeedsConsent) {
			t.Fatal(err)
		}
		again := g.process("a")
		if err := again.handIn(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.gets(again, want{})
		g.sound()
	})
}

// An answer that comes whole is taken however late: the machine may have slept.
func TestLateAnswer(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		r := g.process("a")
		late := roundTrip(func(request *http.Request) (*http.Response, error) {
			response, err := g.provider.Direct().RoundTrip(request)
			time.Sleep(20 * time.Second)
			return response, err
		})
		found, err := kindOf(g.c)
		if err != nil {
			t.Fatal(err)
		}
		r.grant = found.grant(g.c, endpoint{http: late, now: time.Now})
		g.gets(r, want{})
		if g.provider.Calls() != 1 {
			t.Errorf("%d calls", g.provider.Calls())
		}
		g.sound()
	})
}

// No event and no error holds a token, a code, or what a provider wrote.
func renewalsTellNoSecret(t *testing.T) {
	overGrant(t, func(t *testing.T, g *rig) {
		var told []any
		r := g.process("a")
		for _, reply := range []http.HandlerFunc{
			credstest.ReplyError(503, "canary", "canary"), credstest.ReplyError(401, "invalid_client", "canary"),
			credstest.Reply(200, "text/html", "<canary>"), nil, credstest.ReplyError(400, "invalid_grant", "canary"),
		} {
			if reply != nil {
				g.provider.Next(reply)
			}
			_, _, err := r.renew(t.Context(), want{force: true})
			told = append(told, err)
			time.Sleep(2 * time.Minute)
		}
		g.consent(false)
		g.provider.Next(credstest.ReplyError(400, "invalid_request", "canary"))
		told = append(told, r.exchange(t.Context()))
		for _, e := range g.events {
			told = append(told, e)
		}
		if text := printed(told...); strings.Contains(text, "canary") || !strings.Contains(text, ReasonInvalidGrant) {
			t.Error(text)
		}
	})
}
