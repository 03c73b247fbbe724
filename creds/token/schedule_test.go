package token

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The scheduler of the model. Processes run the real code, each look at the outside
// (store, token endpoint, journal) is a call that waits here, and the explorer says
// which one goes on, and how:
//
//	go        it takes place and is answered
//	lose      it takes place, at once, later or never, and the answer does not arrive
//	freeze    its process stands still, before or after it takes place, timers and all
//	kill      its process ends there, before or after it takes place, and starts again
//	outage    no look at the store is answered, by whomever
//	time      nothing goes on until the next timer of any process
//
// Each execution has a synctest bubble of its own: synctest.Wait says that every
// process waits for us or for a timer, and time begins and goes on as it did the last
// time.

// explorer walks all paths of choices, depth first, by running the world anew for
// each. States that were seen are not gone through again.
type explorer struct {
	path   []int
	widths []int
	keys   []stateKey
	seen   map[stateKey]struct{}

	executions, finished, deepest int
}

// stateKey is a digest of everything that decides what can still happen.
type stateKey [16]byte

// next prepares the next path. It returns false when all were walked.
func (e *explorer) next() bool {
	if e.seen == nil {
		e.seen = map[stateKey]struct{}{}
		return true
	}
	for len(e.path) > 0 {
		last := len(e.path) - 1
		if e.path[last]++; e.path[last] < e.widths[last] {
			return true
		}
		e.path, e.widths, e.keys = e.path[:last], e.widths[:last], e.keys[:last]
	}
	return false
}

// choose returns which of n options is taken at depth. It reports false where the
// state was seen before, so that the execution can end.
func (e *explorer) choose(depth, n int, key stateKey) (int, bool) {
	if depth < len(e.path) {
		if e.widths[depth] != n || e.keys[depth] != key {
			panic(fmt.Sprintf("the code under test is not deterministic: step %d differs when it is run again", depth))
		}
		return e.path[depth], true
	}
	if _, ok := e.seen[key]; ok {
		return 0, false
	}
	e.seen[key] = struct{}{}
	e.path, e.widths, e.keys = append(e.path, 0), append(e.widths, n), append(e.keys, key)
	e.deepest = max(e.deepest, len(e.path))
	return 0, true
}

// outcome is what a process hears of a call.
type outcome int

const (
	answered outcome = iota
	lost             // unknown whether it took place
	refused          // it did not take place, and the process knows
	killed
)

// call is a process's look at the outside that has not been answered.
type call struct {
	actor   *actor
	ctx     context.Context
	what    string
	kind    string // "get", "write", "token" or "journal"
	effect  func()
	reply   chan outcome
	applied bool
	stale   func() bool // nothing can come of it any more
	acted   bool        // the provider has taken a proof and given another
	frozen  time.Time   // zero: not
}

// actor is a process.
type actor struct {
	name    string
	index   int
	world   *world
	ctx     context.Context
	cancel  context.CancelFunc
	history [32]byte // a digest of all that it has seen: its state, since it is deterministic
	dead    bool     // its goroutines end at their next call
	done    bool
	down    time.Time // when it was killed, to be started again; zero: it runs
	starts  int
	body    func(*actor)
}

// see adds to the history.
func (a *actor) see(parts ...string) {
	a.world.mu.Lock()
	defer a.world.mu.Unlock()
	a.saw(parts...)
}

func (a *actor) saw(parts ...string) {
	h := sha256.New()
	h.Write(a.history[:])
	fmt.Fprintf(h, "%v", a.world.elapsed())
	for _, part := range parts {
		fmt.Fprintf(h, "\x00%s", part)
	}
	h.Sum(a.history[:0])
}

// step waits until the scheduler lets what happen. It does not return to a process
// that was killed.
func (a *actor) step(ctx context.Context, kind, what string, effect func()) outcome {
	return a.call(ctx, kind, what, effect).wait()
}

func (a *actor) call(ctx context.Context, kind, what string, effect func()) *call {
	return &call{actor: a, ctx: ctx, kind: kind, what: what, effect: effect, reply: make(chan outcome, 1)}
}

func (c *call) wait() outcome {
	if !c.actor.world.enter(c) {
		runtime.Goexit()
	}
	var o outcome
	select {
	case o = <-c.reply:
	case <-c.ctx.Done():
		o = c.actor.world.leave(c)
	}
	if o == killed {
		runtime.Goexit()
	}
	return o
}

// world is one execution.
type world struct {
	explorer *explorer
	limits   limits
	monitor  monitor
	trace    func(string) // of each step, if not nil

	start   time.Time
	mu      sync.Mutex
	calls   []*call
	arrived chan struct{}
	actors  []*actor
	acting  *actor // whose effect takes place
	delayed []*call
	used    limits
	outage  time.Time                // since when the store does not answer
	stood   map[string]time.Duration // for how long each process was frozen or dead
	depth   int
	steps   int
	free    bool // no choices any more: everything is answered at once
	alike   bool // all processes do the same: which one goes first makes no difference
}

// limits bound an exploration.
type limits struct {
	kills, losses, freezes, outages int
	// faults happen within so many steps; 0: at any
	steps int
	// what is held up goes on after no time or the longest; otherwise at any step
	ends bool
	// so many choices; what follows takes its first way; 0: without a bound
	choices int
	// faults happen to that process alone; if "", to any
	by string
	// and to its writes, however late
	writes bool
	// of a freeze, and of the time until a killed process runs again
	longest time.Duration
	outage  time.Duration // the longest
}

// monitor watches an execution. key is the part of its state that decides what it
// will say.
type monitor interface {
	happened(w *world, c *call, how string)
	key() string
}

func (w *world) elapsed() time.Duration { return time.Since(w.start) }

func (w *world) enter(c *call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.actor.dead {
		return false
	}
	w.calls = append(w.calls, c)
	// Two of one process may come in any order: what decides is what they want.
	slices.SortStableFunc(w.calls, func(c, d *call) int {
		return cmp.Or(cmp.Compare(c.actor.index, d.actor.index), strings.Compare(c.what, d.what))
	})
	w.wake()
	return true
}

// leave takes a call back whose process waits no longer. A process that is frozen
// does not know yet that its time is up.
func (w *world) leave(c *call) outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case c.actor.dead:
		return killed
	case !c.frozen.IsZero():
		w.mu.Unlock()
		o := <-c.reply
		w.mu.Lock()
		return o
	}
	w.drop(c)
	c.actor.saw(c.what, "given up")
	w.happened(c, "given up")
	w.wake()
	return lost
}

func (w *world) happened(c *call, how string) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%8v %-3s %-10s %s", w.elapsed(), c.actor.name, how, c.what))
	}
	if w.monitor != nil {
		w.monitor.happened(w, c, how)
	}
}

func (w *world) drop(c *call) {
	w.calls = slices.DeleteFunc(w.calls, func(d *call) bool { return d == c })
}

func (w *world) wake() {
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}

// launch starts a process, or starts it again.
func (w *world) launch(a *actor) {
	again := &actor{name: a.name, index: a.index, world: w, starts: a.starts + 1, body: a.body, history: a.history}
	again.ctx, again.cancel = context.WithCancel(context.Background())
	w.mu.Lock()
	w.actors[a.index] = again
	w.mu.Unlock()
	go func() {
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			again.done = true
			w.wake()
		}()
		again.body(again)
	}()
}

// add makes a process that runs body, from the start of the execution.
func (w *world) add(name string, body func(*actor)) {
	a := &actor{name: name, index: len(w.actors), body: body, world: w}
	w.actors = append(w.actors, a)
	w.launch(a)
}

// option is one way to go on.
type option struct {
	label string
	take  func()
}

// end is how a run ended.
type end int

const (
	ended   end = iota // all processes have
	known              // what follows was explored before
	endless            // it did not come to an end
)

// maxSteps is more than any execution of the protocol takes.
const maxSteps = 1500

// run goes on until all processes have ended.
func (w *world) run() end {
	for {
		synctest.Wait()
		options := w.options()
		if len(options) == 0 {
			return ended
		}
		if w.steps++; w.steps > maxSteps {
			return endless
		}
		chosen := 0
		if w.alike && w.steps == 1 {
			options = w.ofTheFirst()
		}
		if w.limits.choices > 0 && w.depth >= w.limits.choices {
			w.free = true
		}
		if len(options) > 1 && !w.free {
			var fresh bool
			if chosen, fresh = w.explorer.choose(w.depth, len(options), w.key()); !fresh {
				return known
			}
			w.depth++
		}
		options[chosen].take()
	}
}

// finish ends all processes and waits until they are gone.
func (w *world) finish() {
	for _, a := range slices.Clone(w.actors) {
		w.kill(a)
	}
	synctest.Wait()
	for w.alive() {
		time.Sleep(time.Minute)
		synctest.Wait()
	}
	// What a process has started on its own may outlive it by a timer.
	time.Sleep(time.Hour)
	synctest.Wait()
}

func (w *world) alive() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.actors {
		if !a.done {
			return true
		}
	}
	return false
}

// options lists the ways to go on; the first is the one without a fault.
func (w *world) options() []option {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []option
	var held []*call
	for _, c := range w.calls {
		switch {
		case !c.frozen.IsZero():
			held = append(held, c)
		case c.kind == "journal", !w.outage.IsZero() && c.kind != "token":
			// Nobody else sees it, so that it may as well come first.
			out = append([]option{{"go", func() { w.pass(c) }}}, w.faults(c)...)
			return append(out, w.outageEnds()...)
		default:
			out = append(out, option{"go", func() { w.pass(c) }})
		}
	}
	ready := len(out)
	for _, c := range held {
		if w.mayEnd(c.frozen, w.limits.longest) {
			out = append(out, option{"thaw", func() { w.thaw(c) }})
		}
	}
	for _, a := range w.actors {
		if !a.down.IsZero() && w.mayEnd(a.down, w.limits.longest) {
			out = append(out, option{"start", func() { w.restart(a) }})
		}
	}
	w.delayed = slices.DeleteFunc(w.delayed, func(c *call) bool { return c.stale() })
	for _, c := range w.delayed {
		out = append(out, option{"late", func() { w.applyLate(c) }})
	}
	out = append(out, w.outageEnds()...)
	if ready == 0 {
		if w.running() {
			// The first, unless something has been held up for as long as may be.
			out = append([]option{{"time", w.pause}}, out...)
			if w.overdue() {
				out = out[1:]
			}
		} else if len(w.delayed) == len(out) {
			return nil // all have ended; what is late changes nothing that anybody sees
		}
		return out
	}
	for _, c := range w.calls {
		if c.frozen.IsZero() {
			out = append(out, w.faults(c)...)
		}
	}
	if w.used.outages < w.limits.outages && w.outage.IsZero() && !w.late() {
		out = append(out, option{"outage", func() { w.used.outages++; w.outage = time.Now(); w.note("the store stops to answer") }})
	}
	return out
}

// ofTheFirst are the ways to go on with the first call alone.
func (w *world) ofTheFirst() []option {
	c := w.calls[0]
	return append([]option{{"go", func() { w.pass(c) }}}, w.faults(c)...)
}

func (w *world) outageEnds() []option {
	if w.outage.IsZero() || !w.mayEnd(w.outage, w.limits.outage) {
		return nil
	}
	return []option{{"outage ends", func() { w.outage = time.Time{}; w.note("the store answers again") }}}
}

// mayEnd reports whether what is held up since then may go on now.
func (w *world) mayEnd(since time.Time, longest time.Duration) bool {
	held := time.Since(since)
	return !w.limits.ends || held == 0 || held >= longest
}

// running reports whether a process will go on by itself, given time.
func (w *world) running() bool {
	for _, a := range w.actors {
		if !a.done && a.down.IsZero() || !a.down.IsZero() {
			return true
		}
	}
	return false
}

// late reports whether it is too late for a fault.
func (w *world) late() bool { return w.limits.steps > 0 && w.steps > w.limits.steps }

func (w *world) faults(c *call) []option {
	var out []option
	switch {
	case w.limits.by != "" && w.limits.by != c.actor.name,
		w.limits.writes && c.kind != "write",
		!w.limits.writes && w.late():
		return nil
	}
	add := func(label string, take func()) { out = append(out, option{label, take}) }
	if w.used.kills < w.limits.kills {
		add("kill before", func() { w.used.kills++; w.die(c, false) })
		if c.kind != "get" {
			add("kill after", func() { w.used.kills++; w.die(c, true) })
		}
	}
	if w.used.losses < w.limits.losses {
		switch c.kind {
		case "get":
			add("lose", func() { w.used.losses++; w.lose(c, false, lost) })
		case "write":
			add("lose before", func() { w.used.losses++; w.lose(c, false, lost) })
			add("lose after", func() { w.used.losses++; w.lose(c, true, lost) })
			add("lose for now", func() { w.used.losses++; w.delay(c) })
		case "token":
			add("refuse", func() { w.used.losses++; w.lose(c, false, refused) })
			add("lose before", func() { w.used.losses++; w.lose(c, false, lost) })
			add("lose after", func() { w.used.losses++; w.lose(c, true, lost) })
		}
	}
	if w.used.freezes < w.limits.freezes {
		add("freeze before", func() { w.used.freezes++; w.freeze(c, false) })
		if c.kind != "get" {
			add("freeze after", func() { w.used.freezes++; w.freeze(c, true) })
		}
	}
	return out
}

func (w *world) note(text string) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%8v     %s", w.elapsed(), text))
	}
}

// apply makes a call take place. Nobody holds mu but who chose.
func (w *world) apply(c *call) {
	if !c.applied {
		c.applied = true
		w.acting = c.actor
		c.effect()
		w.acting = nil
	}
}

func (w *world) pass(c *call) {
	if !w.outage.IsZero() && (c.kind == "get" || c.kind == "write") {
		w.lose(c, false, lost)
		return
	}
	w.apply(c)
	w.happened(c, "")
	w.answer(c, answered)
}

func (w *world) answer(c *call, o outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(c)
	c.reply <- o
}

func (w *world) lose(c *call, effect bool, o outcome) {
	how := "lost"
	if o == refused {
		how = "refused"
	}
	if effect {
		w.apply(c)
		how = "lost after"
	}
	w.happened(c, how)
	c.actor.see(c.what, how)
	w.answer(c, o)
}

// delay is a write that is given up and arrives all the same.
func (w *world) delay(c *call) {
	w.delayed = append(w.delayed, c)
	w.lose(c, false, lost)
}

func (w *world) freeze(c *call, effect bool) {
	how := "frozen"
	if effect {
		w.apply(c)
		how = "frozen after"
	}
	c.frozen = time.Now()
	w.happened(c, how)
}

// thaw lets a process go on. What it had not sent it does not send when its time is
// up.
func (w *world) thaw(c *call) {
	o := answered
	if !c.applied && c.ctx.Err() != nil {
		o = lost
		c.actor.see(c.what, "too late")
	} else {
		w.apply(c)
	}
	w.stood[c.actor.name] += time.Since(c.frozen)
	w.happened(c, "thawed")
	w.answer(c, o)
}

// stoodStill returns for how long a process has been frozen or dead by now.
func (w *world) stoodStill(name string) time.Duration {
	total := w.stood[name]
	for _, c := range w.calls {
		if c.actor.name == name && !c.frozen.IsZero() {
			total += time.Since(c.frozen)
		}
	}
	for _, a := range w.actors {
		if a.name == name && !a.down.IsZero() {
			total += time.Since(a.down)
		}
	}
	return total
}

func (w *world) applyLate(c *call) {
	w.delayed = slices.DeleteFunc(w.delayed, func(d *call) bool { return d == c })
	w.apply(c)
	w.happened(c, "late")
}

// die ends the process of a call there.
func (w *world) die(c *call, effect bool) {
	how := "killed"
	if effect {
		w.apply(c)
		how = "killed after"
	}
	w.happened(c, how)
	a := c.actor
	a.down = time.Now()
	a.see("killed")
	w.kill(a)
}

func (w *world) kill(a *actor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a.dead = true
	for _, c := range slices.Clone(w.calls) {
		if c.actor == a {
			w.drop(c)
			c.reply <- killed
		}
	}
	a.cancel()
}

func (w *world) restart(a *actor) {
	w.stood[a.name] += time.Since(a.down)
	a.down = time.Time{}
	w.note(a.name + " starts again")
	w.launch(a)
}

// pause lets time pass until something happens, or something was held up for as long
// as may be.
func (w *world) pause() {
	select {
	case <-w.arrived:
	default:
	}
	limit := time.Hour
	w.mu.Lock()
	for _, until := range w.holds() {
		limit = min(limit, time.Until(until))
	}
	w.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-w.arrived:
	case <-timer.C:
	}
}

// holds returns until when things may be held up.
func (w *world) holds() []time.Time {
	var out []time.Time
	for _, c := range w.calls {
		if !c.frozen.IsZero() {
			out = append(out, c.frozen.Add(w.limits.longest))
		}
	}
	for _, a := range w.actors {
		if !a.down.IsZero() {
			out = append(out, a.down.Add(w.limits.longest))
		}
	}
	if !w.outage.IsZero() {
		out = append(out, w.outage.Add(w.limits.outage))
	}
	return out
}

func (w *world) overdue() bool {
	for _, until := range w.holds() {
		if !time.Now().Before(until) {
			return true
		}
	}
	return false
}

// key digests the state.
func (w *world) key() stateKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%v %v %v\n", w.elapsed(), w.used, w.outage)
	for _, a := range w.actors {
		fmt.Fprintf(&b, "%s %x %v %v %v\n", a.name, a.history, a.done, a.down, a.starts)
	}
	for _, c := range w.calls {
		fmt.Fprintf(&b, "%s %s %v %v\n", c.actor.name, c.what, c.applied, c.frozen)
	}
	for _, c := range w.delayed {
		fmt.Fprintf(&b, "late %s %s\n", c.actor.name, c.what)
	}
	if w.monitor != nil {
		b.WriteString(w.monitor.key())
	}
	sum := sha256.Sum256([]byte(b.String()))
	return stateKey(sum[:16])
}

// explore runs the world that build makes along all paths, each to its end, where
// check judges it. It returns the first thing that is wrong, with the steps that led
// there.
func explore(t *testing.T, e *explorer, build func(w *world) (check func() string)) string {
	for e.next() {
		if problem := e.execute(t, build, nil); problem != "" {
			var steps strings.Builder
			again := e.execute(t, build, func(step string) { steps.WriteString("\n\t" + step) })
			return again + steps.String()
		}
	}
	return ""
}

func (e *explorer) execute(t *testing.T, build func(w *world) (check func() string), trace func(string)) (problem string) {
	e.executions++
	synctest.Test(t, func(*testing.T) {
		w := &world{explorer: e, start: time.Now(), arrived: make(chan struct{}, 1), stood: map[string]time.Duration{}, trace: trace}
		check := build(w)
		switch w.run() {
		case ended:
			e.finished++
			problem = check()
		case endless:
			problem = fmt.Sprintf("it does not end: %d steps, and processes still run", maxSteps)
		}
		w.finish()
	})
	return problem
}
