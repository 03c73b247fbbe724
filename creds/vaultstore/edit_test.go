package vaultstore

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// simulated is the time of a test: it passes when the test says so.
type simulated struct {
	mu     sync.Mutex
	passed time.Duration
	begun  time.Time
}

func (s *simulated) since() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passed
}

func (s *simulated) now() time.Time { return s.begun.Add(s.since()) }

func (s *simulated) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed += d
}

// inTime is a store whose clock is the test's: a version is as old as it would be
// if Vault had lived through the time that passed.
type inTime struct {
	creds.Store
	time  *simulated
	ahead *sync.Map // KEY VERSION to what had passed when it was written
}

// Get implements creds.Store.
func (s inTime) Get(ctx context.Context, key string) (creds.Record, error) {
	r, err := s.Store.Get(ctx, key)
	if passed, ok := s.ahead.Load(fmt.Sprint(key, " ", r.Version)); ok {
		r.Created = r.Created.Add(passed.(time.Duration))
	}
	return r, err
}

// CAS implements creds.Store.
func (s inTime) CAS(ctx context.Context, key string, data creds.Secret, version int) (int, error) {
	next, err := s.Store.CAS(ctx, key, data, version)
	if err == nil {
		s.ahead.Store(fmt.Sprint(key, " ", next), s.time.since())
	}
	return next, err
}

// Now implements creds.Store.
func (s inTime) Now(ctx context.Context) (time.Time, error) {
	now, err := s.Store.Now(ctx)
	return now.Add(s.time.since()), err
}

// process is one pillion: a Live, and the Poller that keeps it.
type process struct {
	live   *creds.Live
	poller *creds.Poller
	next   time.Time
}

// fleetOver is a sidecar, another, and a process that may repair the index.
func fleetOver(t *testing.T, vault *credstest.Vault, mount string, clock *simulated) []*process {
	t.Helper()
	policy := mount + "-sidecar"
	vault.Policy(t, policy, sidecarPolicy(mount))
	var ahead sync.Map
	var fleet []*process
	for _, token := range []string{vault.Token(t, policy), vault.Token(t, policy), vault.Root} {
		store := inTime{client(t, Config{Address: vault.Addr, Mount: mount}, getenvToken(token)).Store(""), clock, &ahead}
		live := &creds.Live{Store: store, Now: clock.now, MaxStale: time.Hour, MaxDenied: time.Minute}
		mustReload(t, live)
		fleet = append(fleet, &process{live, &creds.Poller{Live: live, Now: clock.now}, clock.now()})
	}
	return fleet
}

// passes lets time pass, in which every process does what is due.
func passes(t *testing.T, fleet []*process, clock *simulated, d time.Duration) {
	t.Helper()
	for end := clock.now().Add(d); ; {
		next := end
		for _, p := range fleet {
			if !p.next.After(clock.now()) {
				p.next = clock.now().Add(max(time.Millisecond, p.poller.Round(t.Context())))
				if err := p.live.Err(); err != nil {
					t.Fatal(err)
				}
			}
			if p.next.Before(next) {
				next = p.next
			}
		}
		if !clock.now().Before(end) {
			return
		}
		clock.pass(max(0, next.Sub(clock.now())))
	}
}

func usersOf(fleet []*process, name string) string {
	var all []string
	for _, p := range fleet {
		user := "none"
		if c, ok := p.live.Table().ByName(name); ok {
			user = c.Username
		}
		all = append(all, user)
	}
	return strings.Join(all, " ")
}

// What pillion writes is used within one poll by everybody, and at once by the
// process that wrote it; what another tool writes, and what a writer left that died
// before the index, within 12 minutes.
func TestEditsAreSeenInTime(t *testing.T) {
	const onePoll, oneSweep = 72 * time.Second, 12 * time.Minute
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	admin := rooted(t, vault, vault.Addr, mount)
	edited, other := basic("edited"), basic("other")
	mustSave(t, admin, edited, other)
	clock := &simulated{begun: time.Now()}
	fleet := fleetOver(t, vault, mount, clock)
	sees := func(what, name, want string, after time.Duration) {
		t.Helper()
		passes(t, fleet, clock, after)
		if got := usersOf(fleet, name); got != want {
			t.Errorf("%s: after %v the processes use %s", what, after, got)
		}
	}
	passes(t, fleet, clock, 25*time.Minute) // whoever may sweep has done so

	edited.Username = "second"
	mustSave(t, fleet[2].live.Store, edited)
	mustReload(t, fleet[2].live)
	sees("the writer of an edit", "edited", "u u second", 0)
	sees("an edit", "edited", "second second second", onePoll)
	if err := creds.Remove(t.Context(), admin, "edited"); err != nil {
		t.Fatal(err)
	}
	sees("a removal", "edited", "none none none", onePoll)

	// Another tool, which knows neither index nor check-and-set of ours; and the same
	// is what a crash between the credential and the index leaves.
	record, err := admin.Get(t.Context(), "credentials/other")
	if err != nil {
		t.Fatal(err)
	}
	mustCAS(t, admin, "credentials/other", strings.Replace(record.Data.Reveal(), `"u"`, `"by-another-tool"`, 1), record.Version)
	sees("an edit by another tool", "other", "by-another-tool by-another-tool by-another-tool", oneSweep)
	vault.Do(t, vault.Root, "DELETE", mount+"/metadata/credentials/other", nil)
	sees("a removal by another tool", "other", "none none none", oneSweep)
	if len(fleet[0].live.Bad()) != 0 {
		t.Errorf("skipped: %v", fleet[0].live.Bad())
	}
}
