package creds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// policed is a store that hides some records, and says so when it is asked.
type policed struct {
	*memStore
	hidden map[string]bool // keys
	mute   bool            // it does not say what may be read
}

func (s *policed) Get(ctx context.Context, key string) (Record, error) {
	if s.hidden[key] {
		return Record{}, fmt.Errorf("%w (%w)", ErrStoreUnavailable, ErrStoreDenied)
	}
	return s.memStore.Get(ctx, key)
}

func (s *policed) rights(context.Context) (string, error) {
	if s.mute {
		return "", errors.New("it does not say")
	}
	return fmt.Sprint(s.hidden), nil
}

// read returns the names that are shown, and how many reads of credentials it took.
func (s *policed) read(t *testing.T, l *Listing) (names []string, reads int) {
	t.Helper()
	before := s.credentialReads()
	listed, err := l.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range listed.Credentials {
		names = append(names, c.Name)
	}
	if hidden := 3 - len(names) - len(listed.Bad); listed.Hidden != hidden {
		t.Errorf("%d are said to be hidden, of %d that are", listed.Hidden, hidden)
	}
	return names, s.credentialReads() - before
}

func (s *policed) credentialReads() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, reads := range s.reads {
		if key != KeyIndex {
			n += reads
		}
	}
	return n
}

// What was read once is read again only when the index says that it changed, and is
// shown only while the store would show it.
func TestListing(t *testing.T) {
	store := &policed{memStore: newMemStore(), hidden: map[string]bool{}}
	var saved []*Credential
	for _, name := range []string{"a", "b", "c"} {
		c := &Credential{Name: name, Protocol: HTTPS, URL: "https://" + name + ".example/", Authorization: None}
		mustSave(t, store, c)
		saved = append(saved, c)
	}
	now := time.Now()
	l := &Listing{Store: store, Rights: store.rights, Now: func() time.Time { return now }}
	want := func(reads int, names ...string) {
		t.Helper()
		if got, n := store.read(t, l); !slices.Equal(got, names) || n != reads {
			t.Errorf("it lists %v after %d reads; want %v after %d", got, n, names, reads)
		}
	}
	want(3, "a", "b", "c")
	want(0, "a", "b", "c")
	saved[1].URL = "https://b2.example/"
	mustSave(t, store, saved[1])
	before := store.credentialReads()
	listed, err := l.Read(t.Context())
	if err != nil || listed.Credentials[1].URL != "https://b2.example/" || store.credentialReads()-before != 1 {
		t.Errorf("after an edit: %+v, %v", listed, err)
	}

	// A policy that is taken away counts at once, and so does one that is given.
	store.hidden[KeyCredentials+"a"] = true
	want(2, "b", "c")
	want(0, "b", "c")
	delete(store.hidden, KeyCredentials+"a")
	want(3, "a", "b", "c")

	// Where the store does not say what may be read, nothing that was kept is shown.
	store.mute = true
	store.hidden[KeyCredentials+"c"] = true
	want(2, "a", "b")
	want(2, "a", "b")
	store.mute = false
	want(2, "a", "b")

	// Another login's listing has nothing of this one's.
	if got, n := store.read(t, &Listing{Store: store, Rights: store.rights}); n != 2 || len(got) != 2 {
		t.Errorf("another one lists %v after %d reads", got, n)
	}

	// An index that may not be read costs reads, and shows what may be seen.
	store.hidden[KeyIndex] = true
	want(2, "a", "b")
	want(2, "a", "b")
	delete(store.hidden, KeyIndex)
	want(2, "a", "b")
	want(0, "a", "b")

	// Whatever the rights are said to be, everything is read again now and then.
	now = now.Add(keptListing + time.Second)
	want(2, "a", "b")
	want(0, "a", "b")

	store.down = true
	if _, err := l.Read(t.Context()); !errors.Is(err, ErrStoreUnavailable) || errors.Is(err, ErrStoreDenied) {
		t.Errorf("of a store that is away: %v", err)
	}
}

func TestListingOfBadRecords(t *testing.T) {
	store := &policed{memStore: newMemStore(), hidden: map[string]bool{}}
	for key, text := range map[string]string{KeyCredentials + "a": `{"schema":"9.0"}`, KeyCredentials + "b": "[]", KeyCredentials + "c/": "{}"} {
		if _, err := store.CAS(t.Context(), key, NewSecret(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	l := &Listing{Store: store, Rights: store.rights}
	if names, _ := store.read(t, l); len(names) != 0 {
		t.Errorf("it lists %v", names)
	}
}
