package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

// sample is what one peer did under one load in one round. A figure that does not apply is NaN.
type sample struct {
	Round          int
	Scenario, Peer string
	Requests       int
	CPU            float64 // microseconds of the proxy a request
	Rate           float64 // requests a second
	P50, P99       float64 // microseconds
	RSS, Peak      float64 // bytes
	Allocations    float64 // objects a request
	Client         float64 // microseconds of the load generator a request
	Err            string
}

// beginning is how one peer started in one round.
type beginning struct {
	Round        int
	Peer         string
	First, Ready time.Duration
	IdleRSS      float64
}

// results is all that a run has seen.
type results struct {
	Samples    []sample
	Beginnings []beginning
	Tunnels    tunnels
	Missing    map[string]string // peer -> why it could not be started
}

// plan is what to run.
type plan struct {
	Rounds    int
	Measure   time.Duration
	Scenarios []scenario
	Peers     []*peer
	Tunnels   int // 0: as many as the open-files limit allows; negative: none
}

// any reports whether there is something to do.
func (p plan) any() bool { return len(p.Scenarios) > 0 && len(p.Peers) > 0 }

// lasts guesses how long a run takes, idle tunnels left out.
func (p plan) lasts() time.Duration {
	const start, overhead = 1500 * time.Millisecond, 400 * time.Millisecond // a peer's, and a load's
	var sum time.Duration
	for _, peer := range p.Peers {
		sum += start
		for _, s := range p.Scenarios {
			if peer.Not[s.Name] == "" {
				sum += overhead + s.lasts(p.Measure)*5/4
			}
		}
	}
	return sum * time.Duration(p.Rounds)
}

// bench carries a run.
type bench struct {
	lab     *lab
	plan    plan
	out     io.Writer
	results results
}

// run goes through all rounds: in each, every peer is started anew, and for every scenario the peers take turns in a new order, so that what the
// machine does meanwhile hits all of them alike.
func (b *bench) run(ctx context.Context) error {
	b.results.Missing = make(map[string]string)
	for round := 1; round <= b.plan.Rounds; round++ {
		if err := b.round(ctx, round); err != nil {
			return err
		}
	}
	if b.plan.Tunnels < 0 || b.results.Missing[peerPillion] != "" {
		return nil
	}
	return b.holdTunnels(ctx)
}

func (b *bench) round(ctx context.Context, round int) error {
	var field []*running
	defer func() {
		for _, r := range field {
			r.stop()
			_ = os.RemoveAll(b.lab.folder(r.peer.Name, round)) // a round's access logs are gigabytes
		}
	}()
	for _, i := range rand.Perm(len(b.plan.Peers)) {
		r, err := b.begin(ctx, round, b.plan.Peers[i])
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b.miss(b.plan.Peers[i], err)
			continue
		}
		field = append(field, r)
	}
	for _, s := range b.plan.Scenarios {
		for _, i := range rand.Perm(len(field)) {
			if field[i].peer.Not[s.Name] != "" {
				continue
			}
			sample := b.sample(ctx, s, field[i])
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			sample.Round = round
			b.results.Samples = append(b.results.Samples, sample)
			b.tell(sample)
		}
	}
	return nil
}

// miss leaves a peer that cannot be started out of the comparison, and says so once.
func (b *bench) miss(p *peer, err error) {
	if b.results.Missing[p.Name] == "" {
		fmt.Fprintf(b.out, "%-8s left out: %v\n", p.Name, err)
	}
	b.results.Missing[p.Name] = err.Error()
}

// begin starts a peer and measures it before any load.
func (b *bench) begin(ctx context.Context, round int, p *peer) (*running, error) {
	dir := b.lab.folder(p.Name, round)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	r, err := p.start(ctx, b.lab, dir)
	if err != nil {
		return nil, err
	}
	r.peer = p
	if r.process == nil {
		return r, nil
	}
	rss, err := settledRSS(ctx, r.process)
	if err != nil {
		r.stop()
		return nil, err
	}
	b.results.Beginnings = append(b.results.Beginnings, beginning{round, p.Name, r.First, r.Ready, rss})
	return r, nil
}

// settledRSS waits until the resident memory has stayed within one per cent for a second, and returns it; after a minute it takes what there is.
func settledRSS(ctx context.Context, p *process) (float64, error) {
	const every, window, patience = 50 * time.Millisecond, 20, 1200
	tick := time.NewTicker(every)
	defer tick.Stop()
	var seen []float64
	for range patience {
		rss, _, err := memory(p.pids())
		if err != nil {
			return 0, err
		}
		seen = append(seen, float64(rss))
		if n := len(seen); n >= window {
			last := seen[n-window:]
			if slices.Max(last)-slices.Min(last) <= 0.01*slices.Max(last) {
				return float64(rss), nil
			}
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return 0, fmt.Errorf("%s ended: %s", p.Name, p.lastWords())
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return seen[len(seen)-1], nil
}

// sample puts one load on one peer. A failure is part of the sample: one peer that cannot serve a load must not end the comparison of the others.
func (b *bench) sample(ctx context.Context, s scenario, r *running) sample {
	taken := sample{Scenario: s.Name, Peer: r.peer.Name}
	if err := b.measure(ctx, s, r, &taken); err != nil {
		taken.Err = err.Error()
	}
	return taken
}

func (b *bench) measure(ctx context.Context, s scenario, r *running, taken *sample) error {
	d := s.lasts(b.plan.Measure)
	ctx, cancel := context.WithTimeoutCause(ctx, 3*d+time.Minute, errors.New("the load generator did not end in time"))
	defer cancel()
	to := r.aim(b.lab, s)
	to.Measure, to.Warm = d, max(d/4, 200*time.Millisecond)
	generator, err := startTalking(b.lab.dir, "load", b.lab.self, "load")
	if err != nil {
		return err
	}
	defer func() {
		generator.stop()
		_ = os.Remove(generator.errFile)
	}()
	if err := generator.tell(to); err != nil {
		return err
	}
	if _, err := generator.line(ctx); err != nil {
		return err
	}
	before, err := b.look(ctx, r, true)
	if err != nil {
		return err
	}
	if err := generator.tell("go"); err != nil {
		return err
	}
	line, err := generator.line(ctx)
	if err != nil {
		return err
	}
	after, err := b.look(ctx, r, false)
	if err != nil {
		return err
	}
	var result loadResult
	if err := json.Unmarshal(line, &result); err != nil {
		return fmt.Errorf("reading the load generator's result: %w", err)
	}
	return taken.fill(result, before, after)
}

// view is the state of a peer and of the origin at one moment.
type view struct {
	cpu       time.Duration
	rss, peak int64
	mallocs   float64
	counts    counts
}

// look takes a view. The order keeps what looking costs out of what is measured: CPU is read last before a load and first after it.
func (b *bench) look(ctx context.Context, r *running, before bool) (view, error) {
	v := view{mallocs: math.NaN()}
	var err error
	if r.process == nil {
		v.counts, err = askCounts(b.lab.addrs.Control)
		return v, err
	}
	pids := r.process.pids()
	if before {
		resetPeak(pids)
	} else if v.cpu, err = cpuTime(pids); err != nil {
		return v, err
	}
	if v.rss, v.peak, err = memory(pids); err != nil {
		return v, err
	}
	if n, ok := mallocs(ctx, r.metrics); ok {
		v.mallocs = n
	}
	if v.counts, err = askCounts(b.lab.addrs.Control); err != nil {
		return v, err
	}
	if before {
		v.cpu, err = cpuTime(pids)
	}
	return v, err
}

// fill computes the figures and refuses a run in which anything was wrong.
func (t *sample) fill(r loadResult, before, after view) error {
	arrived := after.counts.Requests - before.counts.Requests
	switch {
	case r.Err != "":
		return errors.New(r.Err)
	case r.Requests == 0:
		return errors.New("no request was answered")
	case after.counts.Unauthorized != before.counts.Unauthorized:
		return fmt.Errorf("%d requests arrived without the right Authorization, the last a %s", after.counts.Unauthorized-before.counts.Unauthorized, after.counts.Last)
	case arrived < int64(r.Requests):
		return fmt.Errorf("%d answers for %d requests that arrived: something cached", r.Requests, arrived)
	}
	n := float64(r.Requests)
	t.Requests = r.Requests
	t.Rate = n / r.Elapsed.Seconds()
	t.P50, t.P99 = microseconds(r.P50), microseconds(r.P99)
	t.Client = microseconds(r.Client) / n
	t.CPU, t.RSS, t.Peak = math.NaN(), math.NaN(), math.NaN()
	if after.rss > 0 {
		t.CPU = microseconds(after.cpu-before.cpu) / n
		t.RSS, t.Peak = float64(after.rss), float64(after.peak)
	}
	t.Allocations = (after.mallocs - before.mallocs) / n
	return nil
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// tell prints a line a sample, for those who watch.
func (b *bench) tell(s sample) {
	if s.Err != "" {
		fmt.Fprintf(b.out, "round %d  %-16s %-8s FAILED: %s\n", s.Round, s.Scenario, s.Peer, s.Err)
		return
	}
	fmt.Fprintf(b.out, "round %d  %-16s %-8s %8s µs CPU  %8.0f/s  p50 %7.0f µs  p99 %7.0f µs  RSS %5s MiB  client %4.0f µs\n",
		s.Round, s.Scenario, s.Peer, number(s.CPU), s.Rate, s.P50, s.P99, mebibytes(s.RSS), s.Client)
}
