package token

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pillion/creds"
)

// size is a fleet to simulate: the real Keepers, Refreshers and Pollers, all in one
// process, over a simulated store and a simulated provider, in fake time.
type size struct {
	sidecars, refreshers, credentials int
	warm, measured                    time.Duration
}

// load is what a size costs, in the time that was measured.
type load struct {
	size
	tokenCalls                   int
	readerReads, readerWrites    int // of the sidecars, at tokens/ and requests/
	refresherReads, refresherCAS int
	pollReads                    int // of the sidecars, at the index and credentials/: with or without tokens
	startReads, startWrites      int // the worst second, while all start within a minute
	requests, failed             int
}

const scaleLife = time.Hour

// meter is one role's way to the store: it counts, and refuses what the role's policy
// would.
type meter struct {
	creds.Store
	role *role
}

type role struct {
	mayWrite, mayRead func(kind string) bool

	mu            sync.Mutex
	reads, writes map[string]int
	second        int64
	now, worst    [2]int // reads and writes of one second
}

func newRole(mayRead, mayWrite func(kind string) bool) *role {
	return &role{mayRead: mayRead, mayWrite: mayWrite, reads: map[string]int{}, writes: map[string]int{}}
}

func (r *role) count(kind string, write int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if second := time.Now().Unix(); second != r.second {
		r.second, r.now = second, [2]int{}
	}
	r.now[write]++
	r.worst[write] = max(r.worst[write], r.now[write])
	counts, may := r.reads, r.mayRead
	if write == 1 {
		counts, may = r.writes, r.mayWrite
	}
	counts[kind]++
	if !may(kind) {
		return fmt.Errorf("%s: %w: %w", kind, creds.ErrStoreUnavailable, creds.ErrStoreDenied)
	}
	return nil
}

// take returns the counts so far and begins anew.
func (r *role) take() (reads, writes map[string]int, worst [2]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reads, writes, worst = r.reads, r.writes, r.worst
	r.reads, r.writes, r.worst = map[string]int{}, map[string]int{}, [2]int{}
	return reads, writes, worst
}

func (m *meter) Get(ctx context.Context, key string) (creds.Record, error) {
	if err := m.role.count(kindOfKey(key), 0); err != nil {
		return creds.Record{}, err
	}
	return m.Store.Get(ctx, key)
}

func (m *meter) List(ctx context.Context, prefix string) ([]string, error) {
	if err := m.role.count(kindOfKey(prefix), 0); err != nil {
		return nil, err
	}
	return m.Store.List(ctx, prefix)
}

func (m *meter) CAS(ctx context.Context, key string, data creds.Secret, version int) (int, error) {
	if err := m.role.count(kindOfKey(key), 1); err != nil {
		return 0, err
	}
	return m.Store.CAS(ctx, key, data, version)
}

func (m *meter) Patch(ctx context.Context, key string, data creds.Secret) (int, error) {
	if err := m.role.count(kindOfKey(key), 1); err != nil {
		return 0, err
	}
	return m.Store.Patch(ctx, key, data)
}

func (m *meter) Delete(ctx context.Context, key string) error {
	if err := m.role.count(kindOfKey(key), 1); err != nil {
		return err
	}
	return m.Store.Delete(ctx, key)
}

// plant is a simulation under way.
type plant struct {
	t        *testing.T
	size     size
	store    *simStore
	provider *simProvider
	sidecar  *role // tokens/ and requests/
	poller   *role // index and credentials/
	backend  *role // refreshers
	running  sync.WaitGroup

	mu               sync.Mutex
	requests, failed int
	lastFailure      error
}

// simulate runs a size and returns its load.
func simulate(t *testing.T, s size) (l load) {
	journal := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		is := func(kinds ...string) func(string) bool {
			return func(kind string) bool {
				for _, k := range kinds {
					if k == kind {
						return true
					}
				}
				return false
			}
		}
		p := &plant{
			t: t, size: s, store: newSimStore(time.Now), provider: newSimProvider(scaleLife),
			sidecar: newRole(is("tokens"), is("requests")),
			poller:  newRole(is("index", "credentials", "secrets", "sweep"), is()),
			backend: newRole(func(string) bool { return true }, func(string) bool { return true }),
		}
		p.fill()
		ctx, cancel := context.WithCancel(t.Context())
		for n := range s.refreshers {
			p.running.Go(func() { p.refresh(ctx, fmt.Sprintf("%s/%d", journal, n)) })
		}
		for n := range s.sidecars {
			p.running.Go(func() { p.serve(ctx, time.Duration(n)*time.Minute/time.Duration(s.sidecars)) })
		}
		time.Sleep(s.warm)
		l = p.measure()
		cancel()
		p.running.Wait()
		time.Sleep(time.Hour) // what still waits for an answer has none to wait for
	})
	return l
}

// fill stores the credentials: half of each kind, the grants with a consent.
func (p *plant) fill() {
	for n := range p.size.credentials {
		kind := creds.ClientCredentials
		if n%2 == 1 {
			kind = creds.AuthorizationCode
		}
		c := p.provider.credential(fmt.Sprintf("tool-%d", n), kind)
		c.Version = 0
		if err := creds.Save(p.t.Context(), p.store, c); err != nil {
			p.t.Fatal(err)
		}
		if kind == creds.AuthorizationCode {
			grant := map[string]any{"schema": schema, "gen": 1, "refresh_token": bound{purposeOf(c), p.provider.granted(c.Name)}}
			if _, err := p.store.Patch(p.t.Context(), creds.KeyGrants+c.Name, creds.NewSecret(string(marshal(grant)))); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

func (p *plant) refresh(ctx context.Context, journal string) {
	store := &meter{p.store, p.backend}
	live := &creds.Live{Store: store}
	if err := live.Reload(ctx); err != nil {
		p.t.Error(err)
	}
	r := &Refresher{
		HTTP: p.provider, Table: live.Table, Journal: journal,
		Store: func(string) creds.Store { return store }, Stores: []creds.Store{store},
	}
	p.running.Go(func() { poll(ctx, live) })
	r.Run(ctx)
}

// serve is a sidecar: a request a minute for each credential.
func (p *plant) serve(ctx context.Context, after time.Duration) {
	if !pause(ctx, after) {
		return
	}
	live := &creds.Live{Store: &meter{p.store, p.poller}, WithoutGrants: true}
	if err := live.Reload(ctx); err != nil {
		p.t.Error(err)
		return
	}
	p.running.Go(func() { poll(ctx, live) })
	tokens := &meter{p.store, p.sidecar}
	keeper := &Keeper{Store: func(string) creds.Store { return tokens }, Current: func(name string) (*creds.Credential, bool) { return live.Table().ByName(name) }}
	for {
		for _, c := range live.Table().All() {
			_, err := keeper.Authorize(ctx, c)
			if ctx.Err() != nil {
				return
			}
			p.count(err)
		}
		if !pause(ctx, time.Minute) {
			return
		}
	}
}

// poll is Poller.Run without its looks every four seconds at what nobody does here,
// since they are most of the time that a large fleet takes to simulate.
func poll(ctx context.Context, live *creds.Live) {
	poller := &creds.Poller{Live: live}
	for pause(ctx, poller.Round(ctx)) {
	}
}

func (p *plant) count(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	if err != nil {
		p.failed++
		p.lastFailure = err
	}
}

// measure takes the counts of the time that counts.
func (p *plant) measure() load {
	l := load{size: p.size}
	_, _, worst := p.sidecar.take()
	l.startReads, l.startWrites = worst[0], worst[1]
	p.poller.take()
	p.backend.take()
	before := p.provider.asked()
	time.Sleep(p.size.measured)
	l.tokenCalls = p.provider.asked() - before
	reads, writes, _ := p.sidecar.take()
	l.readerReads, l.readerWrites = sum(reads), sum(writes)
	reads, _, _ = p.poller.take()
	l.pollReads = sum(reads)
	reads, writes, _ = p.backend.take()
	l.refresherReads, l.refresherCAS = sum(reads), sum(writes)
	p.mu.Lock()
	defer p.mu.Unlock()
	l.requests, l.failed = p.requests, p.failed
	if p.failed > 0 {
		p.t.Errorf("%d of %d requests had no token, the last one because: %v", p.failed, p.requests, p.lastFailure)
	}
	p.provider.mu.Lock()
	defer p.provider.mu.Unlock()
	if p.provider.reuse+p.provider.refused+p.provider.revocations > 0 {
		p.t.Errorf("refresh tokens sent twice: %d, refused: %d", p.provider.reuse, p.provider.refused)
	}
	return l
}

func sum(counts map[string]int) (total int) {
	for _, n := range counts {
		total += n
	}
	return total
}

func (l load) perSecond(n int) float64 { return float64(n) / l.measured.Seconds() }
func (l load) perHour(n int) float64   { return float64(n) / l.measured.Hours() }

// readsARotation is how often a sidecar reads a token between two renewals of it.
func (l load) readsARotation() float64 {
	return float64(l.readerReads) / float64(l.sidecars) / float64(l.tokenCalls)
}

// Token calls do not grow with the fleet, and a sidecar reads a token once a
// rotation at most. `make scale` runs it large.
func TestScale(t *testing.T) {
	small := simulate(t, size{sidecars: 1, refreshers: 3, credentials: 4, warm: time.Hour, measured: 4 * time.Hour})
	large := simulate(t, size{sidecars: 12, refreshers: 3, credentials: 4, warm: time.Hour, measured: 4 * time.Hour})
	t.Logf("%+v", small)
	t.Logf("%+v", large)
	checkScale(t, []load{small, large})
}

func checkScale(t *testing.T, loads []load) {
	for _, l := range loads {
		each := l.perHour(l.tokenCalls) / float64(l.credentials)
		if each < 1 || each > 2.7 { // every 24 to 39 minutes
			t.Errorf("%d sidecars: %.1f token calls an hour and credential", l.sidecars, each)
		}
		if reads := l.readsARotation(); reads > 1.05 || reads < 0.5 {
			t.Errorf("%d sidecars: %.2f reads a sidecar and rotation", l.sidecars, reads)
		}
		if l.requests < l.sidecars*l.credentials*60*int(l.measured.Hours()) {
			t.Errorf("%d sidecars: only %d requests", l.sidecars, l.requests)
		}
	}
}

// TestScaleTable writes docs/tokens.md and docs/tokens.svg: make scale.
func TestScaleTable(t *testing.T) {
	docs := os.Getenv("PILLION_SCALE")
	if docs == "" {
		return // make scale runs it, and writes docs/tokens.md
	}
	var loads []load
	for _, sidecars := range []int{1, 10, 100, 1000, 10000} {
		begun := time.Now()
		l := simulate(t, size{sidecars: sidecars, refreshers: 3, credentials: 20, warm: time.Hour, measured: 3 * time.Hour})
		t.Logf("%v: %+v", time.Since(begun).Round(time.Second), l)
		loads = append(loads, l)
	}
	checkScale(t, loads)
	if t.Failed() {
		return
	}
	if err := publish(docs, loads); err != nil {
		t.Fatal(err)
	}
}
