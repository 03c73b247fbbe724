package console

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/filestore"
)

// late is a store whose clock is ahead.
type late struct {
	creds.Store
	by time.Duration
}

func (s late) Now(ctx context.Context) (time.Time, error) {
	now, err := s.Store.Now(ctx)
	return now.Add(s.by), err
}

// However many replicas a browser comes back to, one of them ends the consent; and
// none after ten minutes.
func consentEndsOnce(t *testing.T) {
	dir := t.TempDir()
	store, err := filestore.Open(filepath.Join(dir, "store.age"), filepath.Join(dir, "key.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	begin := func(states ...string) {
		t.Helper()
		for _, state := range states {
			if err := beginConsent(t.Context(), store, "jira", state); err != nil {
				t.Fatal(err)
			}
		}
	}
	begin("first", "second", "third")
	var ended atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			was, err := endConsent(t.Context(), store, "jira", "first")
			if err != nil {
				t.Error(err)
			}
			if was {
				ended.Add(1)
			}
		})
	}
	all.Wait()
	if ended.Load() != 1 {
		t.Errorf("it ended %d times", ended.Load())
	}
	for _, row := range []struct {
		name, state string
		later       time.Duration
		was         bool
	}{
		{"jira", "guessed", 0, false}, {"bmc", "second", 0, false}, {"jira", "second", 9 * time.Minute, true}, {"jira", "second", 0, false},
		{"jira", "third", 11 * time.Minute, false},
	} {
		if was, err := endConsent(t.Context(), late{store, row.later}, row.name, row.state); was != row.was || err != nil {
			t.Errorf("%s of %s after %v: %v, %v", row.state, row.name, row.later, was, err)
		}
	}
	// A record that nobody can make sense of is made anew.
	record, err := store.Get(t.Context(), creds.KeyConsents+"jira")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.CAS(t.Context(), creds.KeyConsents+"jira", creds.NewSecret(`{"pending": 7}`), record.Version); err != nil {
		t.Fatal(err)
	}
	begin("fourth")
	if was, err := endConsent(t.Context(), store, "jira", "fourth"); !was || err != nil {
		t.Errorf("after a broken record: %v, %v", was, err)
	}
}
