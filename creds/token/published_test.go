package token

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/filestore"
)

// Of two looks at a grant the later one is told, whoever writes it first; what it says
// is of one edit of the credential, and holds no token.
func TestPublished(t *testing.T) {
	dir := t.TempDir()
	store, err := filestore.Open(filepath.Join(dir, "store.age"), filepath.Join(dir, "key.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx := t.Context()
	c := &creds.Credential{
		Name: "jira", Protocol: creds.HTTPS, URL: "https://jira.example/", Authorization: creds.ClientCredentials, ClientID: "id",
		ClientSecret: credstest.Canary("published-secret"), AccessTokenURL: "https://login.example/token",
	}
	purpose := purposeOf(c)
	now := time.Now().Truncate(time.Millisecond)
	look := func(at time.Time, change func(*tokenRecord)) publishedRecord {
		s := sighting{seen: at, record: tokenRecord{
			Schema: schema, Gen: 1, Status: StatusOK, AccessToken: &bound{purpose, credstest.Canary("published-token").Reveal()},
			IssuedAt: toMillis(now), ExpiresAt: toMillis(now.Add(time.Hour)), GrantEndsAt: toMillis(now.Add(100 * time.Hour)),
		}}
		if change != nil {
			change(&s.record)
		}
		return s.published(purpose)
	}
	put := func(p publishedRecord) (version int) {
		t.Helper()
		if err := putPublished(ctx, store, c.Name, p); err != nil {
			t.Fatal(err)
		}
		record, err := store.Get(ctx, creds.KeyStates+c.Name)
		if errors.Is(err, creds.ErrNotFound) {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		credstest.FindCanaries(t, []byte(record.Data.Reveal()))
		return record.Version
	}
	if version := put(look(now, nil)); version != 0 {
		t.Error("the state of a credential that is not there was written")
	}
	if err := creds.Save(ctx, store, c); err != nil {
		t.Fatal(err)
	}
	if _, err := Published(ctx, store, c); !errors.Is(err, ErrNotPublished) {
		t.Errorf("before anybody looked: %v", err)
	}
	if version := put(look(now, nil)); version != 1 {
		t.Errorf("version %d", version)
	}
	if version := put(look(now.Add(time.Minute), nil)); version != 1 {
		t.Error("the same was written again")
	}
	state, err := Published(ctx, store, c)
	if err != nil || state.Status != StatusOK || state.Expires.Sub(now.Add(time.Hour)).Abs() > 5*time.Second || state.GrantEnds.IsZero() || state.Token != "" {
		t.Errorf("it says %+v, %v", state, err)
	}
	lost := func(r *tokenRecord) {
		r.AccessToken, r.Status, r.Error = nil, StatusNeedsConsent, &recordError{Reason: ReasonInvalidGrant}
	}
	if version := put(look(now.Add(-time.Minute), lost)); version != 1 {
		t.Error("an older look took the place of a newer one")
	}
	if version := put(look(now.Add(2*time.Minute), lost)); version != 2 {
		t.Error("a newer look was not written")
	}
	if state, err = Published(ctx, store, c); err != nil || state.Status != StatusNeedsConsent || state.LastError == nil || !state.Expires.IsZero() {
		t.Errorf("it says %+v, %v", state, err)
	}
	c.ClientID = "another"
	if _, err := Published(ctx, store, c); !errors.Is(err, ErrNotPublished) {
		t.Errorf("after an edit: %v", err)
	}
	if err := creds.Remove(ctx, store, c.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(ctx, creds.KeyStates+c.Name); !errors.Is(err, creds.ErrNotFound) {
		t.Errorf("after the removal: %v", err)
	}
}
