package token

import (
	"context"
	"math/rand/v2"
	"net/http"
	"reflect"
	"sync"
	"time"

	"pillion/creds"
)

// Refresher renews the tokens of a table's credentials, for every process that reads
// the same stores. Any number of refreshers may run over one store; the protocol lets
// one of them at a time ask a provider.
//
// What one refresher costs its store:
//
//	every Poll          LIST requests/, for each of Stores
//	a start             grants/ and tokens/ of every credential twice, spread out
//	a rotation          grants/ once; three times, tokens/ once, and three writes, by the
//	                    one that renews
//	a ring or an ask    requests/ and grants/ once, and one delete
//	a consent missed    grants/ once a minute
//	what changed         states/ once, by each; and a write, by the first (with Publish)
//	a token that is not used, or whose provider does not answer before its back-off is
//	over: nothing
//
// Its fields are set before first use; its methods are safe for concurrent use.
type Refresher struct {
	HTTP    http.RoundTripper // as in Keeper
	Now     func() time.Time  // if nil, time.Now
	Timeout time.Duration     // of a token request, at most; if 0, 15 s
	OnEvent func(Event)       // as in Keeper

	// Table returns the credentials that it looks after. It must not call the
	// Refresher.
	Table func() *creds.Table
	// Store returns the store that holds the records of the credential called name.
	Store func(name string) creds.Store
	// Stores are all of them, for their requests/.
	Stores []creds.Store
	// Journal is the directory that keeps answers which the store does not have yet.
	// If "", a death between a provider's answer and its writing loses the grant.
	Journal string
	// Publish tells people in states/ how tokens stand, who may not read tokens/: of a
	// store that not everybody reads who asks.
	Publish bool
	// Poll is the mean time between two looks at requests/. If 0, 2 s.
	Poll time.Duration

	mu      sync.Mutex
	charges map[string]*charge // by credential name
	table   *creds.Table       // that charges follow
	holder  string             // this process in leases
	ahead   float64            // share of a token's life left when it is renewed, drawn
	work    sync.WaitGroup     // of Run
	life    context.Context    // ends with Close
	end     context.CancelFunc // of life
	uses    sync.WaitGroup     // of charges
}

const (
	// refresherWait bounds one attempt: a silent holder of a lease is watched for a
	// minute.
	refresherWait = 2 * time.Minute
	// The first looks at many credentials are spread over startEvery for each, and no
	// more than startSpread.
	startEvery, startSpread = 250 * time.Millisecond, 10 * time.Second
	// idleEvery is how often a refresh token is used that nothing else uses: providers
	// end one after 30 to 100 days.
	idleEvery = 7 * 24 * time.Hour
)

func refresherLimit(*flight) time.Duration { return refresherWait }

// Run renews, answers requests and repairs until ctx ends, and returns when all that
// it began has ended too.
func (r *Refresher) Run(ctx context.Context) {
	defer r.work.Wait()
	r.work.Go(func() { r.sweepJournal(ctx) })
	if r.Publish {
		r.work.Go(func() { r.publish(ctx) })
	}
	var look time.Time // the next at requests/
	for {
		now := r.now()
		r.follow(now)
		if !before(now, look) {
			r.work.Go(func() { r.attendAll(ctx) })
			look = now.Add(r.poll())
		}
		next := r.tendDue(ctx, now)
		if next.IsZero() || look.Before(next) {
			next = look
		}
		if !pause(ctx, max(next.Sub(r.now()), 10*time.Millisecond)) {
			return
		}
	}
}

// follow makes charges of the table's credentials. What is new is looked at within
// a moment, and at a start with many within startSpread.
func (r *Refresher) follow(now time.Time) {
	table := r.Table()
	r.mu.Lock()
	defer r.mu.Unlock()
	if table == r.table {
		return
	}
	spread := time.Second
	if r.table == nil {
		spread = between(spread, time.Duration(table.Len())*startEvery, startSpread)
	}
	kept := map[string]*charge{}
	for _, c := range table.All() {
		if !isShared(c) {
			continue
		}
		ch := r.charges[c.Name]
		if ch == nil || !ch.is(c) {
			if ch = r.newCharge(c); ch == nil {
				continue
			}
			ch.due = now.Add(rand.N(spread))
		}
		kept[c.Name] = ch
	}
	r.charges, r.table = kept, table
}

// isShared reports whether c has a token that lies in records.
func isShared(c *creds.Credential) bool {
	found, err := kindOf(c)
	return err == nil && found.grant != nil && !c.Unshared
}

// tendDue starts on what is due, and returns when the next is.
func (r *Refresher) tendDue(ctx context.Context, now time.Time) (next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ch := range r.charges {
		switch {
		case ch.busy || ch.due.IsZero():
		case !before(now, ch.due):
			ch.busy = true
			r.work.Go(func() { r.tend(ctx, ch) })
		case next.IsZero() || ch.due.Before(next):
			next = ch.due
		}
	}
	return next
}

// charge is the credential in our care; nil when it was edited or removed.
func (r *Refresher) charge(c *creds.Credential) *charge {
	current, ok := r.Table().ByName(c.Name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if ch := r.charges[c.Name]; ch != nil && ch.is(c) {
		return ch
	}
	if !ok || current != c && !reflect.DeepEqual(current, c) {
		return nil
	}
	ch := r.newCharge(c)
	if ch == nil {
		return nil
	}
	if r.charges == nil {
		r.charges = map[string]*charge{}
	}
	ch.due = r.now()
	r.charges[c.Name] = ch
	return ch
}

// newCharge makes a charge. The caller holds mu.
func (r *Refresher) newCharge(c *creds.Credential) *charge {
	store := r.Store(c.Name)
	found, err := kindOf(c)
	if store == nil || err != nil {
		return nil
	}
	if r.holder == "" {
		r.holder, r.ahead = newNonce(), 0.35+0.25*rand.Float64()
	}
	ch := &charge{credential: c, store: store, kind: found, gate: make(chan struct{}, 1)}
	ch.renewal = &renewal{
		store: store, credential: c, grant: found.grant(c, endpoint{http: r.HTTP, now: r.now}), holder: r.holder,
		now: r.now, timeout: r.timeout(), onEvent: r.OnEvent,
	}
	if r.Journal != "" {
		ch.renewal.journal = directory{r.Journal}
	}
	return ch
}

func (r *Refresher) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

func (r *Refresher) timeout() time.Duration {
	if r.Timeout == 0 {
		return 15 * time.Second
	}
	return r.Timeout
}

// poll is the time to the next look at requests/, drawn so that refreshers do not
// come together.
func (r *Refresher) poll() time.Duration {
	mean := r.Poll
	if mean == 0 {
		mean = 2 * time.Second
	}
	return mean*9/10 + rand.N(mean/5)
}

// is reports whether c is the same credential, perhaps read again.
func (ch *charge) is(c *creds.Credential) bool {
	return ch.credential == c || reflect.DeepEqual(ch.credential, c)
}
