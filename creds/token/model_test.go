package token

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pillion/creds"
)

// modelTimes are as long in relation to one another as timingsOf's, and shorter, so
// that waiting takes fewer steps.
func modelTimes(rules rules) timings {
	t := timings{request: 3 * time.Second, lease: 5 * time.Second, settle: 1500 * time.Millisecond, rescue: 8 * time.Second}
	if rules.noSettle {
		t.settle = 0
	}
	if rules.noDeadline {
		t.request = time.Minute
	}
	return t
}

// renewal is the real one of a process that starts.
func (f *fleet) renewal(a *actor, c *creds.Credential) *renewal {
	found, err := kindOf(c)
	if err != nil {
		panic(err) // a test's own mistake
	}
	provider := &steppedProvider{f.provider, a}
	store := &steppedStore{Store: f.store, actor: a, name: f.describe, fix: undrawn}
	r := &renewal{
		store: store, credential: c, holder: fmt.Sprintf("%s-%d", a.name, a.starts),
		grant: found.grant(c, endpoint{http: provider, now: time.Now}),
		now:   time.Now, timeout: 15 * time.Second,
		times: func(time.Duration) timings { return modelTimes(f.rules) },
		sleep: func(ctx context.Context, d time.Duration) error {
			return sleepFor(ctx, max(time.Second, undrawnPause(d)))
		},
	}
	if !f.rules.noJournal {
		r.journal = f.disk(a)
	}
	if f.rules.noWatch {
		store.read = func(record creds.Record) { r.watch = pretended(record) }
	}
	return r
}

// pretended is the watch of a process that trusts a lease's age.
func pretended(record creds.Record) watch {
	g, err := decodeGrant(record.Data)
	if err != nil || g.Lease == nil {
		return watch{}
	}
	return watch{lease: g.Lease.ID, since: record.Created, last: time.Now()}
}

// describe names what a process sees in a record.
func (f *fleet) describe(record creds.Record) string {
	if record.Version == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%d %v %s", record.Version, record.Created.Sub(f.world.start), f.namer.name(record.Data.Reveal()))
}

func sleepFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// undrawnPause makes of a drawn pause between two writes the longest one, so that a
// path can be taken again, and of the shorter ones between two looks a second, which
// is fewer steps.
func undrawnPause(d time.Duration) time.Duration {
	settle := modelTimes(rules{}).settle
	switch {
	case d > settle/3 && d < settle*2/3:
		return settle * 2 / 3
	case d > 0:
		return max(d, time.Second)
	}
	return d
}

// undrawn does so with the back-off in a record: of 0.25 to 0.5 s it makes 0.5 s, of
// 0.5 to 1 s it makes 1 s, and so on.
func undrawn(data creds.Secret) creds.Secret {
	var members map[string]json.RawMessage
	var g grantRecord
	if json.Unmarshal([]byte(data.Reveal()), &members) != nil || json.Unmarshal([]byte(data.Reveal()), &g) != nil {
		return data
	}
	var lease time.Duration
	if g.Lease != nil {
		lease = time.Duration(g.Lease.TTL) * time.Millisecond
	}
	left := time.Until(fromMillis(g.NotBefore)) - lease
	if members["not_before"] == nil || left <= 0 {
		return data
	}
	members["not_before"], _ = json.Marshal(toMillis(time.Now().Add(lease + undrawnBackoff(left))))
	text, _ := json.Marshal(members)
	return creds.NewSecret(string(text))
}

func undrawnBackoff(d time.Duration) time.Duration {
	whole := firstBackoff
	for whole <= d {
		whole *= 2
	}
	return whole
}

// renewed gets a token, and checks that it is one.
func (f *fleet) renewed(a *actor, r *renewal, w want) {
	var got tokenRecord
	var clock time.Time
	err := f.again(a, func() (err error) {
		got, clock, err = r.renew(a.ctx, w)
		return err
	})
	purpose := purposeOf(r.credential)
	switch {
	case errors.Is(err, creds.ErrNeedsConsent) && (f.excused || r.credential != f.current), f.removed:
	case err != nil:
		f.violate("%s gets no token: %v", a.name, err)
	case !got.usable(purpose, clock):
		f.violate("%s gets a token that is not usable", a.name)
	case !f.excused && !f.provider.accepts(f.family(r.credential), got.AccessToken.secret(purpose).Reveal()):
		f.violate("%s gets a token that the provider does not know", a.name)
	}
}

// sound is the judgement at the end of an execution: the grant lives and buys the
// next token, everybody sees what is there, and no more was asked than needed.
func (f *fleet) sound() string {
	if f.wrong != "" {
		return f.wrong
	}
	w := f.world
	w.free, w.outage = true, time.Time{}
	time.Sleep(time.Minute)
	before := f.provider.rotations
	f.process("auditor", f.current, func(a *actor, r *renewal) { f.renewed(a, r, want{force: true}) })
	w.run()
	if f.removed {
		return f.nothingLeft()
	}
	if f.wrong != "" || f.excused {
		return f.wrong
	}
	g, err := f.store.Get(context.Background(), creds.KeyGrants+modelName)
	grant, err2 := decodeGrant(g.Data)
	t, err3 := f.store.Get(context.Background(), creds.KeyTokens+modelName)
	token, err4 := decodeToken(t.Data)
	if err := cmp.Or(err, err2, err3, err4); err != nil {
		return fmt.Sprintf("the records cannot be read: %v", err)
	}
	if _, ok := f.provider.current(grant.Refresh.secret(purposeOf(f.current)).Reveal()); !ok {
		return "the stored refresh token buys nothing: a rotation is lost"
	}
	switch {
	case f.provider.rotations != before+1:
		return fmt.Sprintf("%d rotations for one more token", f.provider.rotations-before)
	case grant.Lease != nil:
		return "a lease stays behind"
	case token.Gen != grant.Gen || token.Status != StatusOK:
		return fmt.Sprintf("tokens/ has generation %d of %d, status %s", token.Gen, grant.Gen, token.Status)
	}
	return ""
}

// scenario is one exploration.
type scenario struct {
	name   string
	procs  int
	limits limits
	rules  rules
	extra  func(*fleet) // what one more process does
	slow   bool         // only where wholeModel is
	finds  string       // what is wrong where rules are left out
}

// explore runs it through; rotations counts those of all executions.
func (s scenario) explore(t *testing.T) (e *explorer, rotations int, problem string) {
	e = &explorer{}
	problem = explore(t, e, func(w *world) func() string {
		w.limits, w.alike = s.limits, s.extra == nil
		f := newFleet(w, time.Hour, s.rules)
		f.consented(0)
		for i := range s.procs {
			f.process(string(rune('A'+i)), f.current, func(a *actor, r *renewal) { f.renewed(a, r, want{}) })
		}
		if s.extra != nil {
			s.extra(f)
		}
		return func() string {
			rotations += f.provider.rotations
			if w.used == (limits{}) && s.extra == nil && f.provider.calls != 1 {
				f.violate("%d token calls for one token, with no fault", f.provider.calls)
			}
			return f.sound()
		}
	})
	return e, rotations, problem
}

const (
	// a process may stand still for less than others watch it and settle
	shortly = 9 * time.Second
	// for less than they watch it, since an outage may come on top
	briefly = 7 * time.Second
	// and for longer than both
	tooLong = 12 * time.Second
)

// The protocol holds, whatever happens when: here for faults of one process in the
// first steps, which end at once or as late as they may.
func TestModel(t *testing.T) {
	first := func(l limits) limits { l.steps, l.ends, l.by = modelSteps, true, "A"; return l }
	for _, s := range []scenario{
		{name: "no fault", procs: 2},
		{name: "a death", procs: 2, limits: first(limits{kills: 1, longest: shortly})},
		{name: "a lost answer", procs: 2, limits: first(limits{losses: 1}), slow: true},
		{name: "frozen", procs: 2, limits: first(limits{freezes: 1, longest: shortly}), slow: true},
		{name: "frozen for too long", procs: 2, limits: first(limits{freezes: 1, longest: tooLong}), slow: true},
		{name: "an outage", procs: 2, limits: first(limits{outages: 1, outage: shortly}), slow: true},
		{name: "a consent meanwhile", procs: 1, extra: (*fleet).consents, limits: limits{choices: modelChoices}},
		{name: "an edit meanwhile", procs: 1, extra: (*fleet).moves, limits: limits{choices: modelChoices}, slow: true},
		{name: "a removal meanwhile", procs: 1, extra: (*fleet).removes},
	} {
		if s.slow && !wholeModel {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.holds(t)
		})
	}
}

// The same for faults at every step, and two of them at once. It takes long.
func TestModelSoak(t *testing.T) {
	if os.Getenv("PILLION_SOAK") == "" {
		return // make soak
	}
	for _, s := range []scenario{
		{name: "three without a fault", procs: 3},
		{name: "a death", procs: 2, limits: limits{kills: 1, longest: shortly}},
		{name: "a lost answer", procs: 2, limits: limits{losses: 1}},
		{name: "frozen", procs: 2, limits: limits{freezes: 1, longest: shortly}},
		{name: "frozen for too long", procs: 2, limits: limits{freezes: 1, longest: tooLong}},
		{name: "an outage", procs: 2, limits: limits{outages: 1, outage: shortly}},
		{name: "a death and a lost answer", procs: 2, limits: limits{kills: 1, losses: 1, longest: briefly, ends: true, by: "A", steps: 12}},
		{name: "frozen after an outage", procs: 2, limits: limits{freezes: 1, outages: 1, longest: briefly, outage: shortly, steps: 6, ends: true, by: "A", writes: true}},
		{name: "a consent meanwhile", procs: 1, extra: (*fleet).consents},
		{name: "a consent and a death", procs: 1, extra: (*fleet).consents, limits: limits{kills: 1, longest: shortly, ends: true, steps: 12, choices: 14}},
		{name: "an edit meanwhile", procs: 1, extra: (*fleet).moves},
		{name: "a removal meanwhile", procs: 2, extra: (*fleet).removes},
		{name: "two lost answers", procs: 2, limits: limits{losses: 2, by: "A", steps: 20}},
		{name: "frozen in an outage", procs: 2, limits: limits{freezes: 1, outages: 1, longest: briefly, outage: shortly, ends: true, by: "A", steps: 12}},
		{name: "a death in an outage", procs: 2, limits: limits{kills: 1, outages: 1, longest: briefly, outage: shortly, ends: true, by: "A", steps: 12}},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.holds(t)
		})
	}
}

// holds explores, and wants nothing to be wrong and something to have happened.
func (s scenario) holds(t *testing.T) {
	begun := time.Now()
	e, rotations, problem := s.explore(t)
	if problem != "" {
		t.Fatal(problem)
	}
	if e.finished < 25 || len(e.seen) < 50 || rotations < e.finished/2 {
		t.Errorf("%d executions and %d rotations: that says nothing", e.finished, rotations)
	}
	t.Logf("%d executions, %d to their end, %d states, at most %d choices; %d rotations; %v",
		e.executions, e.finished, len(e.seen), e.deepest, rotations, time.Since(begun).Round(time.Millisecond))
}

// Without any one of its rules it does not hold, and the model says so.
func TestModelFindsWhatARuleIsFor(t *testing.T) {
	for _, s := range []scenario{
		{name: "no journal", rules: rules{noJournal: true}, finds: "needs consent", limits: limits{kills: 1, longest: shortly, steps: 6}, slow: true},
		{name: "no settling", rules: rules{noSettle: true}, finds: "needs consent", limits: limits{freezes: 1, longest: shortly, steps: 6}},
		{name: "no deadline", rules: rules{noDeadline: true}, finds: "there was no blind claim since", limits: limits{freezes: 1, longest: tooLong, steps: 4}},
		{name: "no unbroken watch", rules: rules{noWatch: true}, finds: "needs consent", limits: limits{freezes: 1, outages: 1, longest: briefly, outage: shortly, steps: 6, by: "A", writes: true}, slow: true},
	} {
		if s.slow && !wholeModel {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.procs, s.limits.ends = 2, true
			e, _, problem := s.explore(t)
			if !strings.Contains(problem, s.finds) || e.executions < 2 {
				t.Fatalf("%d executions, and what is found is %q", e.executions, problem)
			}
			t.Logf("after %d executions: %s", e.executions, problem)
		})
	}
}
