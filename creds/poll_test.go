package creds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// clockStore is a memStore with a clock, so that leases have an age.
type clockStore struct {
	*memStore
	clock   func() time.Time
	denied  map[string]bool // "cas sweep": refused
	refuses error           // every call
	written map[string]time.Time
	mu      sync.Mutex
}

func newClockStore() *clockStore {
	return &clockStore{memStore: newMemStore(), clock: time.Now, denied: map[string]bool{}, written: map[string]time.Time{}}
}

func (s *clockStore) refusal(op, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuses != nil {
		return s.refuses
	}
	if s.denied[op+" "+key] {
		return fmt.Errorf("%w (%w): the policy needs %s on %s", ErrStoreUnavailable, ErrStoreDenied, op, key)
	}
	return nil
}

func (s *clockStore) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = err
}

func (s *clockStore) Get(ctx context.Context, key string) (Record, error) {
	if err := s.refusal("get", key); err != nil {
		return Record{}, err
	}
	r, err := s.memStore.Get(ctx, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Created = s.written[key]
	return r, err
}

func (s *clockStore) CAS(ctx context.Context, key string, data Secret, version int) (int, error) {
	if err := s.refusal("cas", key); err != nil {
		return 0, err
	}
	v, err := s.memStore.CAS(ctx, key, data, version)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written[key] = s.clock()
	return v, err
}

func (s *clockStore) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.refusal("list", prefix); err != nil {
		return nil, err
	}
	return s.memStore.List(ctx, prefix)
}

func (s *clockStore) Now(context.Context) (time.Time, error) { return s.clock(), nil }

func (s *clockStore) countReads() int {
	s.memStore.mu.Lock()
	defer s.memStore.mu.Unlock()
	n := 0
	for _, reads := range s.reads {
		n += reads
	}
	return n
}

func (s *clockStore) resetReads() {
	s.memStore.mu.Lock()
	defer s.memStore.mu.Unlock()
	s.reads = map[string]int{}
}

func password(live *Live, name string) string {
	c, ok := live.Table().ByName(name)
	if !ok {
		return ""
	}
	return c.Password.Reveal()
}

// While nothing changes a poll is one read, however many credentials there are.
func TestPollReadsTheIndexAlone(t *testing.T) {
	for _, n := range []int{1, 100} {
		store := newClockStore()
		for i := range n {
			c := *oneOfEach(t)[1]
			c.Name, c.URL = fmt.Sprintf("c%d", i), fmt.Sprintf("https://h%d.example/", i)
			mustSave(t, store, &c)
		}
		store.put(KeyCredentials+"broken", `{}`) // a bad record is not read again either
		mustAnnounce(t, store, "broken")
		live := &Live{Store: store}
		if err := live.Poll(context.Background()); err != nil || live.Table().Len() != n || len(live.Bad()) != 1 {
			t.Fatalf("%d credentials, %v", live.Table().Len(), err)
		}
		store.resetReads()
		store.before = func(op, key string) {
			if op == "list" {
				t.Error("it lists")
			}
		}
		for range 10 {
			if err := live.Poll(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if store.countReads() != 10 {
			t.Errorf("%d credentials: 10 polls made %v", n, store.reads)
		}
	}
}

func mustAnnounce(t *testing.T, store Store, name string) {
	t.Helper()
	if err := announce(context.Background(), store, name, 1); err != nil {
		t.Fatal(err)
	}
}

func TestPollSeesEditsCreationsAndRemovals(t *testing.T) {
	ctx, store := context.Background(), newClockStore()
	c := oneOfEach(t)[1]
	mustSave(t, store, c)
	live := &Live{Store: store}
	poll := func() {
		t.Helper()
		if err := live.Poll(ctx); err != nil {
			t.Fatal(err)
		}
	}
	poll()
	c.Password = NewSecret("second")
	mustSave(t, store, c)
	poll()
	if password(live, c.Name) != "second" {
		t.Error("an edit is missed")
	}
	d := *c
	d.Name, d.URL, d.Version = "new", "https://new.example/", 0
	mustSave(t, store, &d)
	poll()
	if live.Table().Len() != 2 {
		t.Error("a creation is missed")
	}
	if err := Remove(ctx, store, "new"); err != nil {
		t.Fatal(err)
	}
	poll()
	if live.Table().Len() != 1 {
		t.Error("a removal is missed")
	}
	// Who may write the index alone cannot take a credential away.
	if err := forget(ctx, store, c.Name); err != nil {
		t.Fatal(err)
	}
	poll()
	if live.Table().Len() != 1 {
		t.Error("an index that lost a name takes its credential away")
	}
}

// An edit by another tool, and a crash between a record and the index, reach
// every process within 12 minutes, one process sweeping for all.
func TestSweepFindsWhatTheIndexDoesNotTell(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := newClockStore()
			c := oneOfEach(t)[1]
			mustSave(t, store, c)
			var sweeps atomic.Int32
			store.before = func(op, key string) {
				if op == "cas" && key == KeySweep {
					sweeps.Add(1)
				}
			}
			if readOnly {
				store.denied["cas "+KeySweep], store.denied["cas "+KeyIndex] = true, true
			}
			ctx, cancel := context.WithCancel(context.Background())
			var lives []*Live
			var pollers sync.WaitGroup
			for range 10 {
				live := &Live{Store: store}
				mustReload(t, live)
				lives = append(lives, live)
				pollers.Go(func() { (&Poller{Live: live}).Run(ctx) })
			}
			time.Sleep(15 * time.Minute)
			store.edit(t, KeyCredentials+c.Name, `"username":"u"`, `"username":"by-another-tool"`)
			store.put(KeyCredentials+c.Name, store.text(KeyCredentials+c.Name)) // one version on
			time.Sleep(12 * time.Minute)
			for i, live := range lives {
				if got, _ := live.Table().ByName(c.Name); got.Username != "by-another-tool" {
					t.Errorf("process %d has not seen it after 12 minutes", i)
				}
			}
			time.Sleep(33 * time.Minute)
			cancel()
			pollers.Wait()
			// An hour is six to seven sweeps of two writes, whatever the number of processes.
			if n := sweeps.Load(); !readOnly && (n < 10 || n > 16) {
				t.Errorf("%d writes of the lease in an hour", n)
			}
		})
	}
}

// Polls go on every 60 s plus or minus 20 %; after errors after 1 to 8 s.
func TestPollerKeepsItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newClockStore()
		mustSave(t, store, oneOfEach(t)[1])
		live := &Live{Store: store}
		mustReload(t, live)
		var mu sync.Mutex
		var rounds []time.Time
		poller := &Poller{Live: live, OnRound: func(sweep bool, _ error) {
			mu.Lock()
			defer mu.Unlock()
			if !sweep {
				rounds = append(rounds, time.Now())
			}
		}}
		taken := func() []time.Time {
			mu.Lock()
			defer mu.Unlock()
			all := rounds
			rounds = nil
			return all
		}
		ctx, cancel := context.WithCancel(context.Background())
		var done sync.WaitGroup
		done.Go(func() { poller.Run(ctx) })
		time.Sleep(8 * time.Hour)
		polls := taken()
		for i := 1; i < len(polls); i++ {
			if gap := polls[i].Sub(polls[i-1]); gap > 72*time.Second {
				t.Fatalf("a gap of %v", gap)
			}
		}
		if mean := 8 * time.Hour / time.Duration(len(polls)); mean < 55*time.Second || mean > 62*time.Second {
			t.Errorf("the mean gap is %v", mean)
		}
		store.set(errCut)
		time.Sleep(2 * time.Minute)
		taken()
		time.Sleep(10 * time.Minute)
		polls = taken()
		for i := 1; i < len(polls); i++ {
			if gap := polls[i].Sub(polls[i-1]); gap < time.Second || gap > 8*time.Second {
				t.Fatalf("while the store is away, a gap of %v", gap)
			}
		}
		store.set(nil)
		time.Sleep(8 * time.Second)
		if live.Err() != nil {
			t.Errorf("8 s after the store is back: %v", live.Err())
		}
		cancel()
		done.Wait()
	})
}

// A sweeper that dies does not keep the others from sweeping for long.
func TestSweepLeaseOfADeadProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := context.Background(), newClockStore()
		if _, err := store.CAS(ctx, KeySweep, encode(sweepRecord{currentSchema, "dead", false}), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(sweepTime / 2)
		if done, _, err := sweep(ctx, store, 10*time.Minute); err != nil || done {
			t.Errorf("a running sweep is not waited for: %v, %v", done, err)
		}
		time.Sleep(sweepTime)
		if done, _, err := sweep(ctx, store, 10*time.Minute); err != nil || !done {
			t.Errorf("a dead sweeper's lease is not taken: %v, %v", done, err)
		}
		if done, _, err := sweep(ctx, store, 10*time.Minute); err != nil || done {
			t.Errorf("it is swept twice: %v, %v", done, err)
		}
	})
}

// Case 42: what was read last serves for a bounded time, then nothing does.
func TestStoreErrBounds(t *testing.T) {
	now := time.Unix(1e9, 0)
	store := newClockStore()
	c := oneOfEach(t)[1]
	mustSave(t, store, c)
	live := &Live{Store: store, MaxStale: 12 * time.Hour, MaxDenied: 5 * time.Minute, Now: func() time.Time { return now }}
	if err := live.StoreErr(); !errors.Is(err, ErrStoreUnavailable) {
		t.Errorf("before the first reading: %v", err)
	}
	if until := live.ServesUntil(); !until.IsZero() {
		t.Errorf("before the first reading it serves until %v", until)
	}
	mustReload(t, live)
	wait := func(d time.Duration) { now = now.Add(d); _ = live.Poll(context.Background()) }
	serves := func(what string, want bool) {
		t.Helper()
		err := live.StoreErr()
		if (err == nil) != want || err != nil && !errors.Is(err, ErrStoreUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
		if live.Table().Len() != 1 {
			t.Errorf("%s: %d credentials", what, live.Table().Len())
		}
		if until := live.ServesUntil(); until.IsZero() || now.After(until) == want {
			t.Errorf("%s: at %v it serves until %v", what, now, until)
		}
	}
	serves("fresh", true)
	store.set(errCut)
	wait(time.Minute)
	if since, why := live.Stale(); since.IsZero() || !errors.Is(why, ErrStoreUnavailable) {
		t.Errorf("stale since %v, %v", since, why)
	}
	serves("away for a minute", true)
	wait(12*time.Hour - time.Minute)
	serves("away for 12 h", true)
	wait(time.Second)
	serves("away for longer", false)
	store.set(nil)
	wait(time.Second)
	serves("back", true)
	store.set(fmt.Errorf("%w: %w", ErrStoreUnavailable, ErrStoreDenied))
	wait(time.Minute)
	serves("refused", true)
	wait(5 * time.Minute)
	serves("refused for 5 minutes", true)
	store.set(errCut) // being away after a refusal does not lengthen it
	wait(time.Second)
	serves("refused for longer", false)
	store.set(nil)
	wait(time.Second)
	serves("allowed again", true)
	// Emptied from outside: a decision that may be a mistake.
	store.records = map[string]Record{}
	wait(time.Second)
	serves("emptied", true)
	wait(6 * time.Minute)
	serves("emptied for longer", false)
	if err := live.StoreErr(); !strings.Contains(err.Error(), "the index and every credential that it named are gone") {
		t.Error(err)
	}
}

// One record that the store refuses takes no other down, and serves on for a while.
func TestOneRefusedRecord(t *testing.T) {
	now := time.Unix(1e9, 0)
	store := newClockStore()
	all := oneOfEach(t)[:3]
	mustSave(t, store, all...)
	live := &Live{Store: store, MaxStale: time.Hour, MaxDenied: 5 * time.Minute, Now: func() time.Time { return now }}
	mustReload(t, live)
	name := all[1].Name
	store.denied["get "+KeySecrets+name] = true
	all[1].Password = NewSecret("second")
	mustSave(t, store, all[1])
	poll := func(after time.Duration, want int) {
		t.Helper()
		now = now.Add(after)
		if err := live.Poll(context.Background()); err != nil {
			t.Fatal(err)
		}
		if live.Table().Len() != want {
			t.Errorf("%d credentials, want %d: %v", live.Table().Len(), want, live.Bad())
		}
	}
	poll(time.Minute, 3)
	poll(4*time.Minute, 3)
	poll(2*time.Minute, 2)
	if bad := live.Bad(); len(bad) != 1 || !strings.Contains(bad[0].Problem, "the policy needs get on secrets/"+name) {
		t.Errorf("%v", bad)
	}
	store.resetReads()
	poll(time.Minute, 2)
	if store.countReads() != 1 {
		t.Errorf("what is refused is asked for again at once: %v", store.reads)
	}
	store.denied = map[string]bool{}
	poll(10*time.Minute, 3)
	if password(live, name) != "second" {
		t.Error("what is allowed again is not read")
	}
}

// Several parts of a store: the first that has a name wins, and the other shows.
func TestLiveOverSeveralStores(t *testing.T) {
	first, second := newClockStore(), newClockStore()
	a, b := *oneOfEach(t)[1], *oneOfEach(t)[1]
	mustSave(t, first, &a)
	b.Password, b.URL = NewSecret("of the second"), "https://b.example/"
	mustSave(t, second, &b)
	c := b
	c.Name, c.URL, c.Version = "only-second", "https://only.example/", 0
	mustSave(t, second, &c)
	live := &Live{Store: first, More: []Store{second}}
	mustReload(t, live)
	if live.Table().Len() != 2 || password(live, a.Name) != a.Password.Reveal() || password(live, "only-second") != "of the second" {
		t.Errorf("%d credentials, %v", live.Table().Len(), live.Bad())
	}
	if bad := live.Bad(); len(bad) != 1 || bad[0].Name != a.Name || !strings.Contains(bad[0].Problem, "rename") {
		t.Errorf("%v", bad)
	}
	for name, want := range map[string]Store{a.Name: first, "only-second": second, "nowhere": nil} {
		if got := live.StoreOf(name); got != want {
			t.Errorf("StoreOf(%s) is another one", name)
		}
	}
	named := &Live{Store: first, More: []Store{second}, Names: []string{"only-second", "nowhere"}}
	mustReload(t, named)
	if bad := named.Bad(); named.Table().Len() != 1 || len(bad) != 1 || bad[0].Name != "nowhere" {
		t.Errorf("%d credentials, %v", named.Table().Len(), bad)
	}
}

// A snapshot starts a new process while the store is away, and never for longer
// than the old one would have served.
func TestSnapshot(t *testing.T) {
	ctx, now := context.Background(), time.Unix(1e9, 0)
	clock := func() time.Time { return now }
	store := newClockStore()
	mustSave(t, store, oneOfEach(t)...)
	old := &Live{Store: store, Now: clock}
	if s, err := old.Snapshot(ctx); err != nil || !s.IsZero() {
		t.Errorf("a snapshot of nothing: %v, %v", s, err)
	}
	mustReload(t, old)
	snapshot, err := old.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	start := func(why error) (*Live, error) {
		live := &Live{Store: store, Now: clock, MaxStale: time.Hour, MaxDenied: time.Minute}
		return live, live.Restore(ctx, snapshot, why)
	}
	now = now.Add(59 * time.Minute)
	live, err := start(errCut)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range oneOfEach(t) {
		c.Version = 1
		if got, ok := live.Table().ByName(c.Name); !ok || !got.equal(c) {
			t.Errorf("%s is not restored", c.Name)
		}
	}
	if err := live.StoreErr(); err != nil || !live.Loaded() {
		t.Errorf("%v", err)
	}
	if since, why := live.Stale(); !since.Equal(time.Unix(1e9, 0)) || why == nil {
		t.Errorf("%v, %v", since, why)
	}
	before := live.Table()
	store.resetReads()
	if err := live.Poll(ctx); err != nil || live.Table() != before || store.countReads() != 1 {
		t.Errorf("the first poll reads %v (%v)", store.reads, err)
	}
	if err := live.Restore(ctx, snapshot, errCut); err == nil {
		t.Error("a snapshot replaces what was read")
	}
	if _, err := start(ErrStoreDenied); err == nil || !strings.Contains(err.Error(), "must not get round") {
		t.Errorf("a refusal: %v", err)
	}
	now = now.Add(2 * time.Minute)
	if _, err := start(errCut); err == nil || !strings.Contains(err.Error(), "longer ago") {
		t.Errorf("an old snapshot: %v", err)
	}
	now = now.Add(-3 * time.Hour)
	if _, err := start(errCut); err == nil || !strings.Contains(err.Error(), "future") {
		t.Errorf("a snapshot of the future: %v", err)
	}
}

// When the process dies that sweeps for all, another one that may does so in time:
// what the index does not tell is seen within 12 minutes everywhere, still.
func TestSweeperIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newClockStore()
		c := oneOfEach(t)[1]
		mustSave(t, store, c)
		ctx, cancel := context.WithCancel(context.Background())
		var pollers sync.WaitGroup
		start := func(ctx context.Context, store Store, onRound func(bool, error)) *Live {
			live := &Live{Store: store}
			mustReload(t, live)
			pollers.Go(func() { (&Poller{Live: live, OnRound: onRound}).Run(ctx) })
			return live
		}
		first, die := context.WithCancel(ctx)
		swept := make(chan struct{}, 100)
		start(first, store, func(sweep bool, _ error) {
			if sweep {
				swept <- struct{}{}
			}
		})
		<-swept // only the first may be the sweeper
		var lives []*Live
		var looks, all atomic.Int32
		for range 5 {
			lives = append(lives, start(ctx, store, nil), start(ctx, readerStore{store, &looks, &all}, nil))
		}
		for range 3 {
			<-swept
		}
		die()
		store.edit(t, KeyCredentials+c.Name, `"username":"u"`, `"username":"by-another-tool"`)
		store.put(KeyCredentials+c.Name, store.text(KeyCredentials+c.Name)) // one version on
		time.Sleep(12 * time.Minute)
		for i, live := range lives {
			if got, _ := live.Table().ByName(c.Name); got.Username != "by-another-tool" {
				t.Errorf("process %d has not seen it after 12 minutes", i)
			}
		}
		cancel()
		pollers.Wait()
	})
}

// After a sweep that repaired something the sweeper polls at once, and otherwise not.
func TestOnlyARepairIsPolledFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := context.Background(), newClockStore()
		c := oneOfEach(t)[1]
		mustSave(t, store, c)
		live := &Live{Store: store}
		mustReload(t, live)
		polls, sweeps := 0, 0
		poller := &Poller{Live: live, Interval: 24 * time.Hour, OnRound: func(sweep bool, err error) {
			if err != nil {
				t.Error(err)
			}
			if sweep {
				sweeps++
			} else {
				polls++
			}
		}}
		rounds := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				time.Sleep(min(poller.Round(ctx), time.Minute))
			}
		}
		rounds(4 * time.Hour)
		if polls > 1 || sweeps < 25 { // the first turn, when it did not know yet that it may sweep
			t.Errorf("%d sweeps were followed by %d polls", sweeps, polls)
		}
		before := polls
		store.edit(t, KeyCredentials+c.Name, `"username":"u"`, `"username":"by-another-tool"`)
		store.put(KeyCredentials+c.Name, store.text(KeyCredentials+c.Name)) // one version on
		rounds(12 * time.Minute)
		if got, _ := live.Table().ByName(c.Name); polls != before+1 || got.Username != "by-another-tool" {
			t.Errorf("after a repair %d polls, and the user name is %q", polls-before, got.Username)
		}
	})
}

// readerStore may read alone, and counts what it reads.
type readerStore struct {
	*clockStore
	looks, all *atomic.Int32 // of credentials; of anything, and refused writes
}

func (s readerStore) Get(ctx context.Context, key string) (Record, error) {
	s.all.Add(1)
	if strings.HasPrefix(key, KeyCredentials) {
		s.looks.Add(1)
	}
	return s.clockStore.Get(ctx, key)
}

func (s readerStore) CAS(context.Context, string, Secret, int) (int, error) {
	s.all.Add(1)
	return 0, fmt.Errorf("%w (%w)", ErrStoreUnavailable, ErrStoreDenied)
}

// Where one process may sweep, those that may not cost the store a read a minute
// each and nothing else, in every minute: their reads do not grow with the number
// of credentials, and the sweeps of the one do not set them all in motion.
func TestReadersLeaveSweepingToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newClockStore()
		mustSave(t, store, oneOfEach(t)...)
		ctx, cancel := context.WithCancel(context.Background())
		var pollers sync.WaitGroup
		var looks, all atomic.Int32
		start := func(store Store) {
			live := &Live{Store: store}
			mustReload(t, live)
			pollers.Go(func() { (&Poller{Live: live}).Run(ctx) })
		}
		const readers = 100
		for i := range readers {
			if i == readers/2 {
				start(store)
			}
			start(readerStore{store, &looks, &all})
			time.Sleep(100 * time.Millisecond)
		}
		looks.Store(0)
		time.Sleep(10 * time.Minute) // until each knows that it may not sweep
		var most, sum int32
		const minutes = 45
		for range minutes {
			all.Store(0)
			time.Sleep(time.Minute)
			most, sum = max(most, all.Load()), sum+all.Load()
		}
		if n := looks.Load(); n != 0 {
			t.Errorf("%d readers looked at %d credentials in three quarters of an hour", readers, n)
		}
		mean := float64(sum) / minutes
		t.Logf("%d readers make %.1f requests a second, at most %.1f in one minute", readers, mean/60, float64(most)/60)
		if mean > readers*1.05 || float64(most) > readers*1.3 {
			t.Errorf("%d readers make %.0f requests a minute, at most %d", readers, mean, most)
		}
		cancel()
		pollers.Wait()
	})
}
