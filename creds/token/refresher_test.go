package token

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pillion/creds"
)

// A day of twenty readers that use a token and two refreshers that renew it: one
// token call a rotation, and one read a reader and rotation.
func TestADayOfAFleet(t *testing.T) {
	withReaders(t, func(w *readers, _ *creds.Credential) {
		code := w.add("code", creds.AuthorizationCode)
		w.connect(code)
		w.refresher()
		w.refresher()
		fleet := make([]*Keeper, 20)
		for i := range fleet {
			fleet[i] = w.reader()
		}
		time.Sleep(time.Minute)
		begun := time.Now()
		for time.Since(begun) < 24*time.Hour {
			for _, k := range fleet {
				w.bearer(k, code)
			}
			time.Sleep(30 * time.Second)
		}
		rotations := w.calls() // and none was refused
		if rotations < 24 || rotations > 61 {
			w.Errorf("%d token calls in a day of tokens that live for an hour", rotations)
		}
		reads, _ := w.store.totals("tokens")
		refreshers := rotations * 6 // a renewal reads tokens/ to repair it
		if perRotation := float64(reads-refreshers) / float64(len(fleet)*rotations); perRotation > 1.1 {
			w.Errorf("%.2f reads of the token a reader and rotation", perRotation)
		}
		if _, rings := w.store.totals("requests"); rings > 10 {
			w.Errorf("%d writes of requests", rings)
		}
		if grants, _ := w.store.totals("grants"); grants > rotations*12 {
			w.Errorf("%d reads of the grant in %d rotations", grants, rotations)
		} else {
			w.Logf("%d rotations; reads: %d of tokens by %d readers and two refreshers, %d of grants", rotations, reads, len(fleet), grants)
		}
	})
}

// What is not used costs no token call, but for one a week that keeps a refresh
// token alive.
func TestIdleGrants(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		code := w.add("code", creds.AuthorizationCode)
		w.connect(code)
		w.poll = 12 * time.Second // weeks of the usual two seconds take their time here; a reader waits 15 s
		_, end := w.refresher()
		k := w.reader()
		w.bearer(k, jira)
		time.Sleep(time.Minute)
		w.bearer(k, code)
		time.Sleep(26 * time.Hour)
		after := w.calls()
		time.Sleep(5 * 24 * time.Hour)
		w.wantCalls(after)
		time.Sleep(3 * 7 * 24 * time.Hour)
		if weekly := w.calls() - after; weekly < 3 || weekly > 4 {
			w.Errorf("%d token calls in four idle weeks", weekly)
		}
		w.bearer(k, code) // and it works when somebody comes
		w.bearer(k, jira)
		// A refresher that starts again does not forget the week.
		end()
		after = w.calls()
		w.refresher()
		time.Sleep(time.Hour)
		if early := w.calls() - after; early > 4 { // both were used a moment ago
			w.Errorf("%d token calls at a start", early)
		}
	})
}

// With the refresher in the process the Keeper needs no other, and writes no ring.
func TestARefresherInTheProcess(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		r := w.idleRefresher() // Run is not needed for what is used
		k := w.reader()
		k.Refresher = r
		begun := time.Now()
		w.bearer(k, jira)
		if time.Since(begun) != 0 {
			w.Errorf("the first token took %s", time.Since(begun))
		}
		for time.Since(begun) < 24*time.Hour {
			w.bearer(k, jira)
			time.Sleep(10 * time.Second)
		}
		if n := w.calls(); n < 36 || n > 64 {
			w.Errorf("%d token calls in a day", n)
		}
		if _, rings := w.store.totals("requests"); rings != 0 {
			w.Errorf("%d rings", rings)
		}
		if s := k.State("jira"); s.Status != StatusOK {
			w.Errorf("state %+v", s)
		}
		old := w.bearer(k, jira)
		for before := old; old == before; old = w.bearer(k, jira) { // a new one: no renewal is under way, or due
			time.Sleep(10 * time.Second)
		}
		a, err := k.Refused(w.Context(), jira, creds.NewSecret(old).Fingerprint())
		if err != nil || value(a, "Authorization") == "Bearer "+old {
			w.Errorf("after a 401: %v", err)
		}
		_, err = k.Refused(w.Context(), jira, a.Token)
		if !errors.Is(err, creds.ErrNoProgress) {
			w.Errorf("after another at once: %v", err)
		}
		source, _ := k.source(jira)
		s := source.(*shared)
		s.mu.Lock()
		defer s.mu.Unlock()
		ctx := w.Context()
		if n := testing.AllocsPerRun(1000, func() { _, _ = k.Authorize(ctx, jira) }); n != 0 {
			w.Errorf("%v allocations", n)
		}
	})
}

// Processes that each have a refresher of their own make one token call.
func manyRefreshersOneTokenCall(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		var keepers []*Keeper
		for range 10 {
			r, _ := w.refresher()
			k := w.reader()
			k.Refresher = r
			keepers = append(keepers, k)
		}
		got := make(chan string, 10)
		for _, k := range keepers {
			go func() {
				a, err := k.Authorize(w.Context(), jira)
				if err != nil {
					w.Error(err)
					got <- ""
					return
				}
				got <- a.Token
			}()
		}
		all := map[string]bool{}
		for range keepers {
			all[<-got] = true
		}
		if len(all) != 1 {
			w.Errorf("%d tokens", len(all))
		}
		w.wantCalls(1)
	})
}

// In the process, too: a failing endpoint gets back-off, however many ask.
func aFailingEndpointInTheProcess(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		var asked atomic.Int32
		w.instead(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			return answering(503, "").RoundTrip(r)
		})
		k := w.reader()
		k.Refresher = w.idleRefresher()
		for range 600 {
			for range 20 {
				refused, _ := w.refusal(k, jira)
				if refused.Reason != ReasonServer5xx || refused.Status != 503 {
					w.Fatalf("%+v", refused)
				}
			}
			time.Sleep(time.Second)
		}
		if n := asked.Load(); n < 12 || n > 28 {
			w.Errorf("asked %d times in ten minutes", n)
		}
		if reads, _ := w.store.totals("grants"); reads > 600 {
			w.Errorf("%d reads of the grant in ten minutes", reads)
		}
		if s := k.State("jira"); s.Status != StatusDegraded || s.LastError == nil || s.Failures == 0 {
			w.Errorf("state %+v", s)
		}
	})
}

// A secret that was edited brings a new token soon, while the old one serves.
func TestAnEditedSecretIsUsedSoon(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		w.refresher()
		k := w.reader()
		old := w.bearer(k, jira)
		edited := *jira
		edited.ClientSecret = creds.NewSecret("another")
		w.save(&edited)
		if got := w.bearer(k, &edited); got != old {
			w.Error("the token that is good is not used")
		}
		time.Sleep(5 * time.Second)
		w.wantCalls(2)
	})
}

// ask asks and waits for the answer.
func (w *readers) ask(name string, op Op) Report {
	w.Helper()
	id, err := AskFor(w.Context(), w.store, name, op, "somebody")
	if err != nil {
		w.Fatal(err)
	}
	return w.answer(name, id)
}

func (w *readers) answer(name, id string) Report {
	w.Helper()
	for range 300 {
		report, done, err := Answer(w.Context(), w.store, name, id)
		if err != nil {
			w.Fatal(err)
		}
		if done {
			return report
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.Fatal("no answer within 30 s")
	return Report{}
}

func TestAsks(t *testing.T) {
	t.Run("a refresh, by one of two refreshers", func(t *testing.T) {
		withReaders(t, func(w *readers, jira *creds.Credential) {
			w.refresher()
			w.refresher()
			old := w.bearer(w.reader(), jira)
			report := w.ask("jira", OpRefresh)
			if !report.OK || len(report.Lines) == 0 {
				w.Errorf("%+v", report)
			}
			w.wantCalls(2)
			if got := w.bearer(w.reader(), jira); got == old {
				w.Error("the old token is served")
			}
		})
	})
	t.Run("a test changes nothing for client credentials", func(t *testing.T) {
		withReaders(t, func(w *readers, jira *creds.Credential) {
			w.refresher()
			old := w.bearer(w.reader(), jira)
			if report := w.ask("jira", OpTest); !report.OK {
				w.Errorf("%+v", report)
			}
			if got := w.bearer(w.reader(), jira); got != old {
				w.Error("the token has changed")
			}
		})
	})
	t.Run("a consent is exchanged once, and the token lies there", func(t *testing.T) {
		withReaders(t, func(w *readers, _ *creds.Credential) {
			code := w.add("code", creds.AuthorizationCode)
			w.refresher()
			w.refresher()
			id, err := PutConsent(w.Context(), w.store, "code", Consent{
				Code: creds.NewSecret(w.provider.consent("code")), Verifier: creds.NewSecret("v"), RedirectURL: "http://127.0.0.1/",
			})
			if err != nil {
				w.Fatal(err)
			}
			if report := w.answer("code", id); !report.OK {
				w.Errorf("%+v", report)
			}
			w.wantCalls(1)
			w.bearer(w.reader(), code)
			stored, err := w.store.Get(w.Context(), creds.KeyGrants+"code")
			if err != nil || strings.Contains(stored.Data.Reveal(), "code/") {
				w.Errorf("the code is still stored, or %v", err)
			}
		})
	})
	t.Run("a consent that two processes exchange at once", func(t *testing.T) {
		withReaders(t, func(w *readers, _ *creds.Credential) {
			code := w.add("code", creds.AuthorizationCode)
			w.instead(func(r *http.Request) (*http.Response, error) {
				time.Sleep(3 * time.Second)
				return w.provider.RoundTrip(r)
			})
			w.connect(code)
			stored, _ := w.store.Get(w.Context(), creds.KeyRequests+"code")
			asked, err := decodeRequest(stored.Data)
			if err != nil {
				w.Fatal(err)
			}
			got := make(chan Report, 3)
			for range cap(got) {
				go func() { got <- w.idleRefresher().Do(w.Context(), code, *asked.Ask) }()
			}
			for range cap(got) {
				if report := <-got; !report.OK {
					w.Errorf("%+v", report)
				}
			}
			w.wantCalls(1)
		})
	})
	t.Run("a consent that the provider refuses", func(t *testing.T) {
		withReaders(t, func(w *readers, _ *creds.Credential) {
			w.add("code", creds.AuthorizationCode)
			w.refresher()
			id, err := PutConsent(w.Context(), w.store, "code", Consent{Code: creds.NewSecret("made up"), Verifier: creds.NewSecret("v")})
			if err != nil {
				w.Fatal(err)
			}
			if report := w.answer("code", id); report.OK || !strings.Contains(strings.Join(report.Lines, " "), "invalid_grant") {
				w.Errorf("%+v", report)
			}
		})
	})
	t.Run("a consent whose ask was never written", func(t *testing.T) {
		withReaders(t, func(w *readers, _ *creds.Credential) {
			code := w.add("code", creds.AuthorizationCode)
			w.connect(code)
			if err := w.store.Delete(w.Context(), creds.KeyRequests+"code"); err != nil {
				w.Fatal(err)
			}
			w.refresher()
			time.Sleep(time.Minute)
			w.bearer(w.reader(), code)
		})
	})
	t.Run("a refusal is told without what the provider wrote", func(t *testing.T) {
		withReaders(t, func(w *readers, jira *creds.Credential) {
			w.refresher()
			w.instead(answering(400, `{"error":"invalid_client","error_description":"the secret is hunter2"}`))
			for _, op := range []Op{OpRefresh, OpTest} {
				report := w.ask("jira", op)
				if text := strings.Join(report.Lines, "\n"); report.OK || !strings.Contains(text, "invalid_client") || strings.Contains(text, "hunter2") {
					w.Errorf("%s: %+v", op, report)
				}
				time.Sleep(askEvery)
			}
		})
	})
	t.Run("who is overtaken is told", func(t *testing.T) {
		withReaders(t, func(w *readers, _ *creds.Credential) {
			first, err := AskFor(w.Context(), w.store, "jira", OpRefresh, "a")
			if err != nil {
				w.Fatal(err)
			}
			if _, err = AskFor(w.Context(), w.store, "jira", OpRefresh, "b"); err != nil {
				w.Fatal(err)
			}
			if report := w.answer("jira", first); report.OK || !strings.Contains(report.Lines[0], "ask again") {
				w.Errorf("%+v", report)
			}
		})
	})
	t.Run("an ask whose taker died is done by another", func(t *testing.T) {
		withReaders(t, func(w *readers, _ *creds.Credential) {
			id, err := AskFor(w.Context(), w.store, "jira", OpRefresh, "a")
			if err != nil {
				w.Fatal(err)
			}
			if err := patch(w.Context(), w.store, creds.KeyRequests+"jira", map[string]any{"ask": map[string]any{"taken": "dead"}}); err != nil {
				w.Fatal(err)
			}
			begun := time.Now()
			w.refresher()
			time.Sleep(takenFor)
			if report := w.answer("jira", id); !report.OK || time.Since(begun) < takenFor {
				w.Errorf("%+v after %s", report, time.Since(begun))
			}
		})
	})
	t.Run("an answer goes after two minutes, and what nobody can read at once", func(t *testing.T) {
		withReaders(t, func(w *readers, _ *creds.Credential) {
			w.refresher()
			w.ask("jira", OpTest)
			time.Sleep(answerFor + 5*time.Second)
			if keys, _ := w.store.List(w.Context(), creds.KeyRequests); len(keys) != 0 {
				w.Errorf("%v", keys)
			}
			if _, err := w.store.CAS(w.Context(), creds.KeyRequests+"jira", creds.NewSecret(`{"schema":"9"}`), 0); err != nil {
				w.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			if keys, _ := w.store.List(w.Context(), creds.KeyRequests); len(keys) != 0 {
				w.Errorf("%v", keys)
			}
		})
	})
	t.Run("many asks cost few token calls", func(t *testing.T) {
		withReaders(t, func(w *readers, _ *creds.Credential) {
			w.refresher()
			for range 600 {
				if _, err := AskFor(w.Context(), w.store, "jira", OpRefresh, "a"); err != nil {
					w.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if n := w.calls(); n < 8 || n > 13 {
				w.Errorf("%d token calls in a minute", n)
			}
		})
	})
}

// A refresher over several stores answers the requests of each there, and a name in
// the wrong one not at all.
func TestRequestsOfSeveralStores(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		other := newSimStore(time.Now)
		r := w.idleRefresher()
		r.Stores = []creds.Store{other, w.store}
		ctx, cancel := context.WithCancel(w.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		if _, err := AskFor(w.Context(), other, "jira", OpRefresh, "a"); err != nil {
			w.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		w.wantCalls(0)
		w.bearer(w.reader(), jira)
		w.wantCalls(1)
		cancel()
		<-done
	})
}

// Run ends when it is told to, also while a provider does not answer; what it asked
// for is kept.
func TestARefresherEnds(t *testing.T) {
	withReaders(t, func(w *readers, _ *creds.Credential) {
		code := w.add("code", creds.AuthorizationCode)
		w.connect(code)
		var slow atomic.Bool
		w.instead(func(r *http.Request) (*http.Response, error) {
			if slow.Load() {
				time.Sleep(5 * time.Second)
			}
			return w.provider.RoundTrip(r)
		})
		_, end := w.refresher()
		k := w.reader()
		time.Sleep(30 * time.Second)
		w.bearer(k, code)
		slow.Store(true)
		if _, err := AskFor(w.Context(), w.store, "code", OpRefresh, "a"); err != nil {
			w.Fatal(err)
		}
		time.Sleep(4 * time.Second) // by now it waits for the provider
		end()
		synctest.Wait()
		slow.Store(false)
		w.refresher()
		if report := w.ask("code", OpRefresh); !report.OK {
			w.Errorf("%+v", report)
		}
	})
}

func TestWhatARecordAsksFor(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := newSimProvider(time.Hour).credential("jira", creds.AuthorizationCode)
	purpose := purposeOf(c)
	at := func(d time.Duration) int64 { return toMillis(now.Add(d)) }
	token := func(issued, life time.Duration) *tokenRecord {
		return &tokenRecord{
			AccessToken: &bound{purpose, "at"}, IssuedAt: at(issued), ExpiresAt: at(issued + life), RenewAt: at(issued + life*4/10),
		}
	}
	base := grantRecord{Refresh: &bound{purpose, "rt"}, Asked: askedOf(c), RotatedAt: at(0), Token: token(0, time.Hour)}
	week := idleEvery - 12*time.Hour
	for _, row := range []struct {
		name   string
		change func(*grantRecord)
		want   plan
	}{
		{"idle", func(*grantRecord) {}, plan{in: week}},
		{"idle for a week", func(g *grantRecord) { g.RotatedAt = at(-week) }, plan{renew: true}},
		{"wanted", func(g *grantRecord) { g.WantedUntil = at(time.Hour) }, plan{in: 30 * time.Minute}},
		{"wanted, half its life gone", func(g *grantRecord) { g.WantedUntil, g.Token = at(time.Hour), token(-30*time.Minute, time.Hour) }, plan{renew: true}},
		{"wanted, not to be renewed yet", func(g *grantRecord) { g.WantedUntil, g.Token.RenewAt = at(time.Hour), at(59*time.Minute) }, plan{in: 59 * time.Minute}},
		{"wanted, expired", func(g *grantRecord) { g.WantedUntil, g.Token = at(time.Hour), token(-2*time.Hour, time.Hour) }, plan{renew: true}},
		{"wanted, expired, in its back-off", func(g *grantRecord) {
			g.WantedUntil, g.Token, g.NotBefore = at(time.Hour), token(-2*time.Hour, time.Hour), at(10*time.Second)
		}, plan{in: 10 * time.Second}},
		{"edited", func(g *grantRecord) { g.Asked = "another" }, plan{renew: true}},
		{"edited, in the back-off of a provider's trouble", func(g *grantRecord) {
			g.Asked, g.NotBefore, g.LastError, g.Tried = "another", at(time.Minute), &recordError{Reason: ReasonServer5xx}, "another"
		}, plan{in: time.Minute}},
		{"edited, in a back-off that only an edit could end", func(g *grantRecord) {
			g.Asked, g.NotBefore, g.LastError, g.Tried = "another", at(time.Minute), &recordError{Reason: ReasonInvalidClient}, "another"
		}, plan{renew: true}},
		{"not edited since it failed", func(g *grantRecord) {
			g.Asked, g.NotBefore, g.LastError, g.Tried = "another", at(time.Minute), &recordError{Reason: ReasonInvalidClient}, askedOf(c)
		}, plan{in: time.Minute}},
		{"a back-off that a clock which was set back has left", func(g *grantRecord) {
			g.WantedUntil, g.Token, g.NotBefore = at(time.Hour), token(-2*time.Hour, time.Hour), at(20*time.Hour)
		}, plan{renew: true}},
		{"never connected", func(g *grantRecord) { g.Refresh, g.WantedUntil = nil, at(time.Hour) }, plan{in: unconsentedFor}},
		{"connected for another purpose", func(g *grantRecord) { g.Refresh = &bound{"other", "rt"} }, plan{in: unconsentedFor}},
		{"a code just left", func(g *grantRecord) { g.Consent = &consentRecord{ID: "1", Code: "c", At: at(-time.Second)} }, plan{in: unaskedFor}},
		{"a code that nobody asked for", func(g *grantRecord) { g.Consent = &consentRecord{ID: "1", Code: "c", At: at(-time.Minute)} }, plan{exchange: true}},
		{"a code that is being exchanged", func(g *grantRecord) {
			g.Consent = &consentRecord{ID: "1", Code: "c", At: at(-time.Minute), Taken: "1 x"}
		}, plan{in: week}},
	} {
		g := base
		copied := *base.Token
		g.Token = &copied
		row.change(&g)
		r := &Refresher{ahead: 0.5}
		ch := &charge{credential: c, kind: kinds[c.Authorization]}
		if got := r.planFor(ch, g, now); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
}
