package creds

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Poller keeps a Live in step with a store that tells nobody of changes.
//
//	every 60 s, plus or minus 20 %   one read of the index; more only for what changed
//	every 10 min                     a look whether somebody has swept; if not, a sweep
//	after an error                   again after 1, 2, 4, 8, 8 ... s, each drawn from its upper half
//
// So a change by pillion is seen within 72 s everywhere, and one that the index
// does not tell within 12 minutes. The zero value but for Live works.
type Poller struct {
	Live *Live
	// Interval is the mean time between two polls, SweepEvery the longest time
	// between two sweeps of the fleet. If zero, 60 s and 10 min.
	Interval, SweepEvery time.Duration
	// OnRound, if not nil, is called after every poll, and after every sweep or
	// look at one: with sweep true, and what went wrong.
	OnRound func(sweep bool, err error)
	// Now is the clock. If nil, time.Now.
	Now func() time.Time

	failures  int
	nextPoll  time.Time
	nextSweep time.Time
	whole     time.Time // when every credential was last looked at by ourselves
	readOnly  bool      // the store does not let us sweep
}

// Run polls until ctx ends. Only one goroutine may run it.
func (p *Poller) Run(ctx context.Context) {
	for {
		timer := time.NewTimer(min(p.Round(ctx), lookAgain))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// lookAgain is how often it looks whether a Reload of somebody else failed, which
// begins the retries as a failed poll does.
const lookAgain = 4 * time.Second

// Round does what is due by now, and returns how long nothing will be.
func (p *Poller) Round(ctx context.Context) time.Duration {
	now := p.clock()
	if p.nextSweep.IsZero() { // a start: spread the fleet, which may have started at once
		p.nextSweep = now.Add(spread(p.sweepEvery(), 0.05, 0.95))
		p.nextPoll, p.whole = now, now
		if p.Live.Loaded() && p.Live.Err() == nil {
			p.nextPoll = now.Add(spread(p.interval(), 0.2, 1.2))
		}
	}
	if p.failures == 0 && p.Live.Loaded() && p.Live.Err() != nil {
		p.nextPoll = now
	}
	if !now.Before(p.nextSweep) && p.failures == 0 {
		if p.sweepAll(ctx) {
			p.nextPoll = now // who brought something into the index sees it at once
		}
	}
	if !now.Before(p.nextPoll) {
		p.poll(ctx)
	}
	next := p.nextPoll
	if p.failures == 0 && p.nextSweep.Before(next) {
		next = p.nextSweep
	}
	return max(0, next.Sub(p.clock()))
}

func (p *Poller) poll(ctx context.Context) {
	err := p.Live.Poll(ctx)
	wait := spread(p.interval(), 0.8, 1.2)
	if err != nil {
		wait = spread(time.Second<<min(p.failures, 3), 0.5, 1)
		wait = max(wait, time.Second)
		p.failures++
	} else {
		p.failures = 0
	}
	p.nextPoll = p.clock().Add(wait)
	p.report(false, err)
}

// sweepAll sweeps every store, or where that is refused looks for itself. It
// reports whether it changed an index, so that a poll finds something.
//
// Who may not sweep comes a little later than those who may, so that one of them
// has done it and the look costs one read. Only where nobody sweeps does he look at
// every credential.
func (p *Poller) sweepAll(ctx context.Context) (found bool) {
	every := p.sweepEvery()
	var oldest time.Duration
	var failed error
	for _, store := range append([]Store{p.Live.Store}, p.Live.More...) {
		due := every * 85 / 100 // a little early, so that a look ahead of time does not skip a turn
		if p.readOnly {
			due = every * 105 / 100
		}
		age, repaired, err := sweep(ctx, store, due)
		if errors.Is(err, ErrStoreDenied) {
			age, err = p.recheck(ctx, age)
		}
		found = found || repaired
		oldest = max(oldest, age)
		failed = errors.Join(failed, err)
	}
	wait := spread(every, 0.9, 1) - oldest
	switch {
	case failed != nil:
		wait = spread(every/10, 0.9, 1) // the lease, if it is ours, is free again by then
	case p.readOnly:
		wait = max(spread(every, 1.06, 1.14)-oldest, every/50)
	}
	p.nextSweep = p.clock().Add(max(wait, time.Second))
	p.report(true, failed)
	return found
}

// recheck looks at every credential if nobody has for long enough, and returns how
// long ago that was. A start has looked at everything, too.
func (p *Poller) recheck(ctx context.Context, swept time.Duration) (age time.Duration, err error) {
	now := p.clock()
	age = min(swept, now.Sub(p.whole))
	if first := !p.readOnly; first || age < p.sweepEvery() {
		p.readOnly = true
		return age, nil
	}
	if err := p.Live.Recheck(ctx); err != nil {
		return age, err
	}
	p.whole = now
	return 0, nil
}

func (p *Poller) report(sweep bool, err error) {
	if p.OnRound != nil {
		p.OnRound(sweep, err)
	}
}

// spread draws from [from*d, to*d), so that a fleet that started as one does not
// come as one.
func spread(d time.Duration, from, to float64) time.Duration {
	return time.Duration(float64(d) * (from + rand.Float64()*(to-from))) //nolint:gosec // not a secret
}

func (p *Poller) interval() time.Duration {
	if p.Interval != 0 {
		return p.Interval
	}
	return time.Minute
}

func (p *Poller) sweepEvery() time.Duration {
	if p.SweepEvery != 0 {
		return p.SweepEvery
	}
	return 10 * time.Minute
}

func (p *Poller) clock() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}
