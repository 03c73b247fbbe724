package credstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"pillion/creds"
)

// TestStore is the contract of creds.Store as tests: every store passes it. Each
// call of open opens the same store anew, as another process would. The store may
// hold other records; those of the suite have "contract" in their names.
func TestStore(t *testing.T, open func(t *testing.T) creds.Store) {
	for _, promise := range []struct {
		name string
		test func(*testing.T, suite)
	}{
		{"what is written is read by everyone", testRoundTrip},
		{"a create needs that there is nothing", testCreate},
		{"a write over a version that is gone conflicts", testConflict},
		{"a version grows by one with every write", testVersions},
		{"patch creates", testPatchCreates},
		{"patch merges and null removes", testPatchMerges},
		{"list returns the keys below a prefix, sorted", testList},
		{"what is deleted is gone and can be created again", testDelete},
		{"data that is no object is refused", testNotAnObject},
		{"a context that has ended ends every call", testContext},
		{"eight writers at once lose no count", testCounting},
		{"the clock goes forward and is the one of created", testClock},
	} {
		t.Run(promise.name, func(t *testing.T) { promise.test(t, suite{open(t), open}) })
	}
}

type suite struct {
	store creds.Store
	open  func(t *testing.T) creds.Store
}

// clean removes what an earlier run left under the keys.
func (s suite) clean(t *testing.T, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := s.store.Delete(t.Context(), key); err != nil {
			t.Fatalf("deleting %s before the test: %v", key, err)
		}
	}
}

func mustCAS(t *testing.T, s creds.Store, key, data string, version int) int {
	t.Helper()
	next, err := s.CAS(t.Context(), key, creds.NewSecret(data), version)
	if err != nil {
		t.Fatalf("CAS of %s at version %d: %v", key, version, err)
	}
	return next
}

func mustPatch(t *testing.T, s creds.Store, key, data string) int {
	t.Helper()
	next, err := s.Patch(t.Context(), key, creds.NewSecret(data))
	if err != nil {
		t.Fatalf("Patch of %s: %v", key, err)
	}
	return next
}

func mustGet(t *testing.T, s creds.Store, key string) creds.Record {
	t.Helper()
	record, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get of %s: %v", key, err)
	}
	return record
}

// wantRecord compares as JSON: a store may write it in its own way.
func wantRecord(t *testing.T, s creds.Store, key, data string, version int) {
	t.Helper()
	record := mustGet(t, s, key)
	var got, want any
	if json.Unmarshal([]byte(record.Data.Reveal()), &got) != nil || json.Unmarshal([]byte(data), &want) != nil {
		t.Fatalf("%s is not JSON", key)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s holds %v, want %v", key, got, want)
	}
	if record.Version != version {
		t.Errorf("%s has version %d, want %d", key, record.Version, version)
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func testRoundTrip(t *testing.T, s suite) {
	const key = "credentials/contract-round-trip"
	s.clean(t, key)
	_, err := s.store.Get(t.Context(), key)
	wantError(t, "Get of what is not there", err, creds.ErrNotFound)
	data := `{"text":"<ü> & \"quoted\" \u0001 \u2028","number":12345678901,"float":0.1,"nothing":null,"list":[1,{"a":[]}],"":{}}`
	version := mustCAS(t, s.store, key, data, 0)
	wantRecord(t, s.store, key, data, version)
	wantRecord(t, s.open(t), key, data, version)
}

func testCreate(t *testing.T, s suite) {
	const key = "credentials/contract-create"
	s.clean(t, key)
	version := mustCAS(t, s.store, key, `{"n":1}`, 0)
	if version < 1 {
		t.Errorf("the first version is %d", version)
	}
	_, err := s.open(t).CAS(t.Context(), key, creds.NewSecret(`{"n":2}`), 0)
	wantError(t, "CAS 0 over a record", err, creds.ErrConflict)
	wantRecord(t, s.store, key, `{"n":1}`, version)
}

func testConflict(t *testing.T, s suite) {
	const key = "credentials/contract-conflict"
	s.clean(t, key)
	other := s.open(t)
	_, err := s.store.CAS(t.Context(), key, creds.NewSecret(`{}`), 3)
	wantError(t, "CAS 3 over nothing", err, creds.ErrConflict)
	first := mustCAS(t, s.store, key, `{"n":1}`, 0)
	second := mustCAS(t, other, key, `{"n":2}`, first)
	_, err = s.store.CAS(t.Context(), key, creds.NewSecret(`{"n":3}`), first)
	wantError(t, "CAS over a version that is gone", err, creds.ErrConflict)
	_, err = s.store.CAS(t.Context(), key, creds.NewSecret(`{"n":3}`), second+1)
	wantError(t, "CAS over a version to come", err, creds.ErrConflict)
	wantRecord(t, s.store, key, `{"n":2}`, second)
}

func testVersions(t *testing.T, s suite) {
	const key = "credentials/contract-versions"
	s.clean(t, key)
	version := mustCAS(t, s.store, key, `{"n":0}`, 0)
	for n := range 4 {
		var next int
		if n%2 == 0 {
			next = mustCAS(t, s.open(t), key, `{"n":1}`, version)
		} else {
			next = mustPatch(t, s.open(t), key, `{"n":2}`)
		}
		if next != version+1 {
			t.Errorf("version %d follows %d", next, version)
		}
		version = next
	}
}

func testPatchCreates(t *testing.T, s suite) {
	const key = "grants/contract-patch-create"
	s.clean(t, key)
	version := mustPatch(t, s.store, key, `{"secrets":{"a":{"value":"1"},"b":null},"c":null}`)
	wantRecord(t, s.open(t), key, `{"secrets":{"a":{"value":"1"}}}`, version)
	_, err := s.store.CAS(t.Context(), key, creds.NewSecret(`{}`), 0)
	wantError(t, "CAS 0 over what Patch created", err, creds.ErrConflict)
}

func testPatchMerges(t *testing.T, s suite) {
	const key = "grants/contract-patch-merge"
	s.clean(t, key)
	mustCAS(t, s.store, key, `{"keep":"k","big":12345678901,"secrets":{"old":{"value":"1"},"stay":{"value":"2"}},"list":[1,2]}`, 0)
	version := mustPatch(t, s.open(t), key, `{"secrets":{"old":null,"new":{"value":"3"}},"list":[3],"absent":null}`)
	wantRecord(t, s.store, key, `{"keep":"k","big":12345678901,"secrets":{"stay":{"value":"2"},"new":{"value":"3"}},"list":[3]}`, version)
}

func testList(t *testing.T, s suite) {
	keys := []string{"requests/contract-list-a", "requests/contract-list-b", "requests/contract-list-c"}
	s.clean(t, append(keys, "tokens/contract-list-a")...)
	for _, n := range []int{2, 0, 1} {
		mustCAS(t, s.store, keys[n], `{}`, 0)
	}
	mustCAS(t, s.store, "tokens/contract-list-a", `{}`, 0)
	got, err := s.open(t).List(t.Context(), creds.KeyRequests)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(got) {
		t.Errorf("the list is not sorted: %q", got)
	}
	if slices.Contains(got, "tokens/contract-list-a") {
		t.Errorf("the list has a key of another prefix: %q", got)
	}
	for _, key := range keys {
		if !slices.Contains(got, key) {
			t.Errorf("the list lacks %s: %q", key, got)
		}
	}
	got, err = s.store.List(t.Context(), "contract-nothing-here/")
	if err != nil || len(got) != 0 {
		t.Errorf("the list of nothing is %q, %v", got, err)
	}
}

func testDelete(t *testing.T, s suite) {
	const key = "secrets/contract-delete"
	s.clean(t, key)
	stale := mustCAS(t, s.store, key, `{"n":2}`, mustCAS(t, s.store, key, `{"n":1}`, 0))
	if err := s.open(t).Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	_, err := s.store.Get(t.Context(), key)
	wantError(t, "Get of what was deleted", err, creds.ErrNotFound)
	if keys, err := s.store.List(t.Context(), creds.KeySecrets); err != nil || slices.Contains(keys, key) {
		t.Errorf("the list has what was deleted: %q, %v", keys, err)
	}
	if err := s.store.Delete(t.Context(), key); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	_, err = s.store.CAS(t.Context(), key, creds.NewSecret(`{"n":3}`), stale)
	wantError(t, "CAS over what was deleted", err, creds.ErrConflict)
	version := mustCAS(t, s.store, key, `{"n":4}`, 0)
	_, err = s.store.CAS(t.Context(), key, creds.NewSecret(`{"n":5}`), stale)
	wantError(t, "CAS of who has slept through delete and create", err, creds.ErrConflict)
	wantRecord(t, s.open(t), key, `{"n":4}`, version)
}

func testNotAnObject(t *testing.T, s suite) {
	const key = "secrets/contract-not-an-object"
	s.clean(t, key)
	canary := Canary("record").Reveal()
	for _, data := range []string{"", "null", "[]", "12", `"` + canary + `"`, `{"a":"` + canary, canary, `{"` + canary + "\xff\":1}"} {
		_, err := s.store.CAS(t.Context(), key, creds.NewSecret(data), 0)
		if err == nil || errors.Is(err, creds.ErrConflict) {
			t.Errorf("CAS of data that is no JSON object: %v", err)
			continue
		}
		FindCanaries(t, []byte(err.Error()))
	}
	_, err := s.store.Get(t.Context(), key)
	wantError(t, "Get of what was refused", err, creds.ErrNotFound)
}

func testContext(t *testing.T, s suite) {
	const key = "secrets/contract-context"
	s.clean(t, key)
	version := mustCAS(t, s.store, key, `{"n":1}`, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	data := creds.NewSecret(`{"n":2}`)
	_, err := s.store.Get(ctx, key)
	wantError(t, "Get", err, context.Canceled)
	_, err = s.store.CAS(ctx, key, data, version)
	wantError(t, "CAS", err, context.Canceled)
	_, err = s.store.Patch(ctx, key, data)
	wantError(t, "Patch", err, context.Canceled)
	_, err = s.store.List(ctx, creds.KeySecrets)
	wantError(t, "List", err, context.Canceled)
	wantError(t, "Delete", s.store.Delete(ctx, key), context.Canceled)
	_, err = s.store.Now(ctx)
	wantError(t, "Now", err, context.Canceled)
	wantRecord(t, s.open(t), key, `{"n":1}`, version)
}

func testCounting(t *testing.T, s suite) {
	const key, openers = "tokens/contract-counting", 8
	each := Often(50)
	s.clean(t, key)
	start := mustCAS(t, s.store, key, `{"n":0}`, 0)
	var wg sync.WaitGroup
	for range openers {
		store := s.open(t)
		wg.Go(func() {
			if err := Count(t.Context(), store, key, each); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantRecord(t, s.store, key, fmt.Sprintf(`{"n":%d}`, openers*each), start+openers*each)
}

// Count adds one to the member n of the record under key, times times, each by
// CAS and again after a conflict: several who count at once lose no addition.
func Count(ctx context.Context, store creds.Store, key string, times int) error {
	for done := 0; done < times; {
		record, err := store.Get(ctx, key)
		if err != nil {
			return err
		}
		var counter struct {
			N int `json:"n"`
		}
		if err := json.Unmarshal([]byte(record.Data.Reveal()), &counter); err != nil {
			return fmt.Errorf("decoding %s: %w", key, err)
		}
		next := creds.NewSecret(fmt.Sprintf(`{"n":%d}`, counter.N+1))
		_, err = store.CAS(ctx, key, next, record.Version)
		if errors.Is(err, creds.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		done++
	}
	return nil
}

func testClock(t *testing.T, s suite) {
	const key = "tokens/contract-clock"
	s.clean(t, key)
	// A store may tell its time in whole seconds, as in an HTTP Date, and each of its
	// users then goes on from another moment of that second.
	const tick = time.Second
	var now, created time.Time
	for n := range 6 {
		store := s.open(t)
		version := mustPatch(t, store, key, fmt.Sprintf(`{"n":%d}`, n))
		record := mustGet(t, s.store, key)
		if record.Version != version {
			t.Fatalf("version %d is read after %d was written", record.Version, version)
		}
		next, err := store.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if next.Before(now.Add(-tick)) {
			t.Errorf("the clock went back from %v to %v", now, next)
		}
		if record.Created.Before(created) {
			t.Errorf("a later write has an earlier time: %v after %v", record.Created, created)
		}
		if age := next.Sub(record.Created); age < -tick || age > time.Minute {
			t.Errorf("a record that was just written is %v old", age)
		}
		now, created = next, record.Created
	}
}
