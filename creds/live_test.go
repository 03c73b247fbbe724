package creds

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func mustReload(t *testing.T, live *Live) {
	t.Helper()
	if err := live.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestLiveBeforeTheFirstReload(t *testing.T) {
	live := &Live{Store: newMemStore()}
	if live.Table() == nil || live.Table().Len() != 0 || live.Loaded() || live.Err() != nil || live.Bad() != nil || !live.LastSuccess().IsZero() {
		t.Error("the zero value is not empty")
	}
	mustReload(t, live)
	if live.Table().Len() != 0 || !live.Loaded() {
		t.Error("an empty store is not an empty table")
	}
}

func TestLiveReadsOnlyWhatChanged(t *testing.T) {
	store := newMemStore()
	all := oneOfEach(t)
	mustSave(t, store, all...)
	var changes int
	live := &Live{Store: store, Now: func() time.Time { return time.Unix(7, 0) }, OnChange: func(old, new *Table) { changes++ }}
	mustReload(t, live)
	if live.Table().Len() != len(all) || live.LastSuccess() != time.Unix(7, 0) || changes != 1 {
		t.Fatalf("%d credentials, %d changes, %v", live.Table().Len(), changes, live.Bad())
	}
	first := live.Table()
	store.reads = map[string]int{}
	mustReload(t, live)
	if len(store.reads) != 1 || live.Table() != first || changes != 1 {
		t.Errorf("nothing changed, but it read %v", store.reads)
	}
	all[1].Password = NewSecret("second")
	mustSave(t, store, all[1])
	store.reads = map[string]int{}
	mustReload(t, live)
	if store.reads[KeyCredentials+"c-basic"] != 1 || len(store.reads) != 3 || changes != 2 {
		t.Errorf("one credential changed, but it read %v", store.reads)
	}
	if c, _ := live.Table().ByName("c-basic"); c.Password.Reveal() != "second" {
		t.Error("the old password is used")
	}
	for _, name := range []string{"c-none", "c-sftp"} {
		before, _ := first.ByName(name)
		if after, _ := live.Table().ByName(name); after != before {
			t.Errorf("%s did not change, but is another pointer", name)
		}
	}
}

func TestLiveSeesRemovalAndRecreation(t *testing.T) {
	ctx, store := context.Background(), newMemStore()
	c := oneOfEach(t)[1]
	mustSave(t, store, c)
	live := &Live{Store: store}
	mustReload(t, live)
	if err := Remove(ctx, store, c.Name); err != nil {
		t.Fatal(err)
	}
	again := *c
	again.Version, again.Password = 0, NewSecret("second")
	mustSave(t, store, &again)
	mustReload(t, live)
	if got, ok := live.Table().ByName(c.Name); !ok || got.Password.Reveal() != "second" || got.Version != 1 {
		t.Errorf("the removed credential is used: %v", got)
	}
	if err := Remove(ctx, store, c.Name); err != nil {
		t.Fatal(err)
	}
	mustReload(t, live)
	if live.Table().Len() != 0 {
		t.Error("a removed credential stays")
	}
}

func TestLiveFindsWhatTheIndexLacks(t *testing.T) {
	store := newMemStore()
	all := oneOfEach(t)[:2]
	mustSave(t, store, all...)
	delete(store.records, KeyIndex)
	live := &Live{Store: store}
	mustReload(t, live)
	first := live.Table()
	if first.Len() != 2 {
		t.Fatal("credentials that are not in the index are missed")
	}
	mustReload(t, live)
	if live.Table() != first {
		t.Error("reading them again counts as a change")
	}
	store.edit(t, KeyCredentials+all[1].Name, `"username":"u"`, `"username":"v"`)
	mustReload(t, live)
	if c, _ := live.Table().ByName(all[1].Name); c.Username != "v" {
		t.Error("a change of what is not in the index is missed")
	}
}

// Case 43: one bad record takes no other down, and is shown.
func TestLiveSkipsBadRecords(t *testing.T) {
	store := newMemStore()
	all := oneOfEach(t)
	mustSave(t, store, all...)
	live := &Live{Store: store}
	mustReload(t, live)
	store.put(KeyCredentials+"aaa", `{"schema":"1.0","name":"aaa","protocol":"https","url":"https://z.example/","authorization":"magic"}`)
	store.put(KeyCredentials+"bbb", `{`)
	store.put(KeyCredentials+"Bad_Name", `{}`)
	mustReload(t, live)
	var names []string
	for _, bad := range live.Bad() {
		names = append(names, bad.Name)
	}
	if !slices.Equal(names, []string{"Bad_Name", "aaa", "bbb"}) || live.Table().Len() != len(all) || live.Err() != nil {
		t.Errorf("bad %v, %d good, %v", live.Bad(), live.Table().Len(), live.Err())
	}
	if !strings.Contains(live.Bad()[1].Problem, "authorization is not a known type: use one of none, basic") {
		t.Error(live.Bad()[1].Problem)
	}
	// A good one that turns bad is not used any more.
	store.put(KeyCredentials+all[0].Name, `{}`)
	store.put(KeyIndex, `{"schema":"1.0"}`)
	mustReload(t, live)
	if _, ok := live.Table().ByName(all[0].Name); ok || live.Table().Len() != len(all)-1 {
		t.Error("a credential whose record is bad is still used")
	}
	store.put(KeyCredentials+"bbb", `{"schema":"1.0","name":"bbb","protocol":"https","url":"https://z.example/","authorization":"none"}`)
	mustReload(t, live)
	if _, ok := live.Table().ByName("bbb"); !ok {
		t.Error("a repaired record is not used")
	}
}

func TestLiveKeepsTheTableOnErrors(t *testing.T) {
	store := newMemStore()
	mustSave(t, store, oneOfEach(t)...)
	live := &Live{Store: store}
	mustReload(t, live)
	table := live.Table()
	store.down = true
	if err := live.Reload(context.Background()); !errors.Is(err, ErrStoreUnavailable) || live.Err() != err {
		t.Errorf("got %v, then %v", err, live.Err())
	}
	if live.Table() != table || !live.Loaded() {
		t.Error("the last table is lost")
	}
	store.down = false
	mustReload(t, live)
	if live.Err() != nil {
		t.Error(live.Err())
	}
}

func TestLiveReadsOnlyTheNamed(t *testing.T) {
	store := newMemStore()
	mustSave(t, store, oneOfEach(t)...)
	store.reads = map[string]int{}
	store.before = func(op, key string) {
		if op == "list" {
			t.Error("the list is read")
		}
	}
	live := &Live{Store: store, Names: []string{"c-sftp", "c-basic", "c-missing", "c-basic"}}
	mustReload(t, live)
	if live.Table().Len() != 2 || store.reads[KeyCredentials+"c-none"] != 0 {
		t.Errorf("%d credentials, reads %v", live.Table().Len(), store.reads)
	}
	if bad := live.Bad(); len(bad) != 1 || bad[0].Name != "c-missing" {
		t.Errorf("bad: %v", bad)
	}
}

func TestLiveWithoutGrants(t *testing.T) {
	store := newMemStore()
	mustSave(t, store, oneOfEach(t)...)
	store.reads = map[string]int{}
	live := &Live{Store: store, WithoutGrants: true}
	mustReload(t, live)
	if live.Table().Len() != len(oneOfEach(t)) {
		t.Errorf("bad: %v", live.Bad())
	}
	for key := range store.reads {
		if strings.HasPrefix(key, KeyGrants) {
			t.Errorf("%s is read", key)
		}
	}
	if c, _ := live.Table().ByName("c-client"); !c.ClientSecret.IsZero() || c.Headers[0].Value.IsZero() {
		t.Error("the wrong secrets are left out")
	}
}

// An edit between the reading of a credential and that of its secrets.
func TestLoadSurvivesAnEditBetweenItsReads(t *testing.T) {
	store := newMemStore()
	c := oneOfEach(t)[1]
	mustSave(t, store, c)
	store.before = func(op, key string) {
		if op == "get" && strings.HasPrefix(key, KeySecrets) {
			store.before = nil
			c.Password = NewSecret("second")
			mustSave(t, store, c)
		}
	}
	got, err := LoadCredential(context.Background(), store, c.Name)
	if err != nil || got.Password.Reveal() != "second" {
		t.Errorf("%v, %v", got, err)
	}
}

// Callers that come while a Reload runs share the next one.
func TestReloadIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		var indexReads atomic.Int32
		release := make(chan struct{})
		store.before = func(op, key string) {
			if key == KeyIndex {
				indexReads.Add(1)
				<-release
			}
		}
		live := &Live{Store: store}
		var all sync.WaitGroup
		all.Go(func() { mustReload(t, live) })
		synctest.Wait() // the first one reads
		ctx, cancel := context.WithCancel(context.Background())
		for range 10 {
			all.Go(func() { mustReload(t, live) })
		}
		left := make(chan error, 1)
		go func() { left <- live.Reload(ctx) }()
		synctest.Wait() // the others wait
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that left: %v", err)
		}
		close(release)
		all.Wait()
		if n := indexReads.Load(); n != 2 {
			t.Errorf("%d reloads, want 2", n)
		}
	})
}

func TestTableIsReadWithoutALock(t *testing.T) {
	store := newMemStore()
	all := oneOfEach(t)
	mustSave(t, store, all...)
	live := &Live{Store: store}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					loaded := live.Loaded()
					if _, err := live.Table().Match(Target{"https", "a.example", 443, "/"}); err != nil && loaded {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	mustReload(t, live)
	for range 50 {
		mustSave(t, store, all[0])
		mustReload(t, live)
	}
	close(stop)
	readers.Wait()
}

// The index only saves reading: a broken one costs reads, and is written anew.
func TestBrokenIndex(t *testing.T) {
	for _, c := range []struct {
		index string
		heals bool
	}{{"nonsense", true}, {`{"schema":"1.0","revisions":7}`, true}, {`{"schema":"2.0"}`, false}} {
		store := newMemStore()
		all := oneOfEach(t)
		mustSave(t, store, all...)
		store.put(KeyIndex, c.index)
		live := &Live{Store: store}
		mustReload(t, live)
		if live.Table().Len() != len(all) {
			t.Errorf("%s: %d credentials, %v", c.index, live.Table().Len(), live.Bad())
		}
		err := Save(context.Background(), store, all[0])
		if _, repair := RepairIndex(context.Background(), store); (err == nil) != c.heals || (repair == nil) != c.heals {
			t.Errorf("%s: %v, %v", c.index, err, repair)
		}
		if err != nil && (!strings.Contains(err.Error(), "it is saved, but") || !strings.Contains(err.Error(), "newer pillion")) {
			t.Errorf("%s: %v", c.index, err)
		}
		mustReload(t, live)
		store.reads = map[string]int{}
		mustReload(t, live)
		if c.heals != (len(store.reads) == 1) {
			t.Errorf("%s: afterwards it reads %v", c.index, store.reads)
		}
	}
}

func TestManyWritersShareTheIndex(t *testing.T) {
	store := newMemStore()
	var writers sync.WaitGroup
	for _, c := range oneOfEach(t) {
		writers.Go(func() {
			for range 5 {
				if err := Save(context.Background(), store, c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	index, _, err := readIndex(context.Background(), store)
	revisions := index.Revisions
	if err != nil || len(revisions) != len(oneOfEach(t)) {
		t.Errorf("%v, %v", revisions, err)
	}
	for name, revision := range revisions {
		if !strings.HasPrefix(revision, "5.") {
			t.Errorf("%s: %s", name, revision)
		}
	}
}
