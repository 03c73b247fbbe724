package token

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pillion/creds"
)

// A refresher that serves no request knows how each token stands.
func TestStateOfARefresher(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		code := w.add("code", creds.AuthorizationCode)
		r, end := w.refresher()
		defer end()
		time.Sleep(2 * time.Second) // its first look
		if s := r.State("code"); s.Status != StatusNeedsConsent {
			t.Errorf("of one that nobody connected: %+v", s)
		}
		if s := r.State("jira"); s.Status != StatusNone || s.LastError != nil {
			t.Errorf("of one that nobody uses: %+v", s)
		}
		if s := r.State("nobody"); s.Status != StatusNone {
			t.Errorf("of one that is not there: %+v", s)
		}
		w.connect(code)
		time.Sleep(10 * time.Second)
		token := w.bearer(w.reader(), jira)
		s := r.State("jira")
		if s.Status != StatusOK || s.Token != creds.NewSecret(token).Fingerprint() || time.Until(s.Expires) < 59*time.Minute || s.Issued.After(time.Now()) {
			t.Errorf("%+v", s)
		}
		if s := r.State("code"); s.Status != StatusOK || s.Expires.IsZero() {
			t.Errorf("after the consent: %+v", s)
		}
		// Another refresher sees it at its start, and a refusal as well.
		other, end := w.refresher()
		defer end()
		time.Sleep(2 * time.Second)
		if s := other.State("code"); s.Status != StatusOK {
			t.Errorf("at the start of another: %+v", s)
		}
		w.instead(answering(400, `{"error":"invalid_grant"}`))
		if report := other.Do(w.Context(), code, Ask{Op: OpRefresh}); report.OK {
			t.Errorf("%+v", report)
		}
		if s := other.State("code"); s.Status != StatusNeedsConsent || s.LastError == nil || s.LastError.Reason != ReasonInvalidGrant {
			t.Errorf("after invalid_grant: %+v", s)
		}
		third, end := w.refresher()
		defer end()
		time.Sleep(2 * time.Second)
		if s := third.State("code"); s.Status != StatusNeedsConsent {
			t.Errorf("at the start of a third: %+v", s)
		}
	})
}

// Of two refreshers one is asked to take a consent: the other one ceases to say that
// it is missing as well.
func TestStateAfterAConsentThatAnotherTook(t *testing.T) {
	withReaders(t, func(w *readers, _ *creds.Credential) {
		code := w.add("code", creds.AuthorizationCode)
		a, _ := w.refresher()
		b, _ := w.refresher()
		time.Sleep(2 * time.Second)
		if a, b := a.State("code"), b.State("code"); a.Status != StatusNeedsConsent || b.Status != StatusNeedsConsent {
			t.Errorf("before: %+v, %+v", a, b)
		}
		w.connect(code)
		time.Sleep(unconsentedFor + 5*time.Second)
		if a, b := a.State("code"), b.State("code"); a.Status != StatusOK || b.Status != StatusOK {
			t.Errorf("after: %+v, %+v", a, b)
		}
	})
}

// A record that nobody can read is not a store that is away: the state says what to do.
func TestStateOfARecordThatCannotBeRead(t *testing.T) {
	withReaders(t, func(w *readers, jira *creds.Credential) {
		r, end := w.refresher()
		defer end()
		k := w.reader()
		k.Refresher = r
		w.bearer(k, jira)
		for data, want := range map[string]string{`{"schema":"1.0","gen":"many"}`: "restore", `{"schema":"2.0"}`: "update this pillion"} {
			stored, err := w.store.Get(w.Context(), creds.KeyGrants+"jira")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.store.CAS(w.Context(), creds.KeyGrants+"jira", creds.NewSecret(data), stored.Version); err != nil {
				t.Fatal(err)
			}
			k := w.reader()
			k.Refresher = r
			refused, err := w.refusal(k, jira)
			if refused.Reason != ReasonBadRecord || errors.Is(err, creds.ErrStoreUnavailable) {
				t.Errorf("%v", err)
			}
			for _, s := range []State{k.State("jira"), r.State("jira")} {
				if s.LastError == nil || s.LastError.Reason != ReasonBadRecord || !strings.Contains(s.Detail, want) {
					t.Errorf("%+v", s)
				}
			}
			if s := k.State("jira"); s.Status != StatusConfigError {
				t.Errorf("status %s", s.Status)
			}
		}
	})
}

// Close waits for a token request under way, whoever began it, and lets none begin.
func TestClose(t *testing.T) {
	withReaders(t, func(w *readers, _ *creds.Credential) {
		code := w.add("code", creds.AuthorizationCode)
		w.connect(code)
		r, end := w.refresher()
		k := w.reader()
		k.Refresher = r
		time.Sleep(20 * time.Second)
		w.bearer(k, code)
		time.Sleep(2 * time.Hour)
		w.instead(func(q *http.Request) (*http.Response, error) {
			response, err := w.provider.RoundTrip(q)
			time.Sleep(10 * time.Second)
			return response, err
		})
		before := w.calls()
		go func() { _, _ = k.Authorize(w.Context(), code) }()
		time.Sleep(time.Second)
		end()
		synctest.Wait()
		begun := time.Now()
		hurried, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		if err := r.Close(hurried); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if err := r.Close(w.Context()); err != nil || time.Since(begun) < 8*time.Second || time.Since(begun) > 12*time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		if n := w.calls() - before; n != 1 {
			t.Errorf("%d token calls", n)
		}
		w.instead(nil)
		if report := r.Do(w.Context(), code, Ask{Op: OpRefresh}); report.OK || w.calls() != before+1 {
			t.Errorf("a closed one renews: %+v", report)
		}
		if report := w.idleRefresher().Do(w.Context(), code, Ask{Op: OpRefresh}); !report.OK {
			t.Errorf("something is lost: %+v", report)
		}
	})
}

// Close does not wait for a lease that another holds.
func TestCloseEndsTheWaiting(t *testing.T) {
	withReaders(t, func(w *readers, _ *creds.Credential) {
		code := w.add("code", creds.AuthorizationCode)
		w.connect(code)
		r, end := w.refresher()
		time.Sleep(20 * time.Second)
		end()
		err := patch(w.Context(), w.store, creds.KeyGrants+"code", map[string]any{"lease": lease{ID: "another", Holder: "another", TTL: 25000}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan Report, 1)
		go func() { done <- r.Do(w.Context(), code, Ask{Op: OpRefresh}) }()
		time.Sleep(time.Second)
		begun := time.Now()
		if err := r.Close(w.Context()); err != nil || time.Since(begun) > 2*time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		if report := <-done; report.OK {
			t.Errorf("%+v", report)
		}
	})
}

// What nobody will hand in any more is swept at a start, and nothing else.
func TestSweepJournal(t *testing.T) {
	withReaders(t, func(w *readers, _ *creds.Credential) {
		r := w.idleRefresher()
		d := directory{r.Journal}
		hidden := w.add("hidden", creds.AuthorizationCode)
		table, _ := w.table.Load().ByName("jira")
		w.table.Store(creds.NewTable([]*creds.Credential{table}))
		_ = hidden
		now := time.Now()
		for name, age := range map[string]time.Duration{
			"jira.1.journal": 40 * 24 * time.Hour, "hidden.1.journal": 20 * 24 * time.Hour, "hidden.2.journal": 40 * 24 * time.Hour,
			"gone.1.journal": 0, ".writing-1": 0, ".writing-2": 2 * time.Hour, "README": 40 * 24 * time.Hour,
		} {
			path := filepath.Join(r.Journal, name)
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
		r.sweepJournal(w.Context())
		left := map[string]bool{}
		entries, err := os.ReadDir(d.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			left[entry.Name()] = true
		}
		for _, name := range []string{"jira.1.journal", "hidden.1.journal", ".writing-1", "README"} {
			if !left[name] {
				t.Errorf("%s was removed", name)
			}
		}
		if len(left) != 4 {
			t.Errorf("left: %v", left)
		}
		// A store that does not answer may have it.
		if err := os.WriteFile(filepath.Join(r.Journal, "gone.1.journal"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r.Stores = []creds.Store{w.store, awayStore{w.store}}
		r.sweepJournal(w.Context())
		if _, err := os.Stat(filepath.Join(r.Journal, "gone.1.journal")); err != nil {
			t.Error("removed although a store was away")
		}
	})
}

type awayStore struct{ creds.Store }

func (awayStore) Get(context.Context, string) (creds.Record, error) {
	return creds.Record{}, creds.ErrStoreUnavailable
}
