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
//	when nobody has swept for long   a sweep, or who may not looks at everything himself
//	after an error                   again after 1, 2, 4, 8, 8 ... s, each drawn from its upper half
//
// The index tells when somebody has swept. Who has done so sweeps again at 80 to 90 %
// of ten minutes; the others stand by until 94 to 104 %, so that in a fleet whose
// sweeper lives nobody else asks for anything. So a change by pillion is seen within
// 72 s everywhere, and one that the index does not tell within 12 minutes. The zero
// value but for Live works.
type Poller struct {
	Live *Live
	// Interval is the mean time between two polls, SweepEvery the longest time
	// between two sweeps of the fleet. If zero, 60 s and 10 min.
	Interval, SweepEvery time.Duration
	// OnRound, if not nil, is called after every poll, and with sweep true after
	// every sweep, or try at one: with what went wrong.
	OnRound func(sweep bool, err error)
	// Now is the clock. If nil, time.Now.
	Now func() time.Time

	failures  int
	nextPoll  time.Time
	nextSweep time.Time
	counted   time.Time // the sweep that nextSweep counts from
	whole     time.Time // when every credential was last looked at by ourselves
	sweeps    bool      // our last try at a sweep was let
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
		p.nextSweep = now.Add(spread(p.sweepEvery(), 0.05, 0.7))
		p.nextPoll, p.whole = now, now
		if p.Live.Loaded() && p.Live.Err() == nil {
			p.nextPoll = now.Add(spread(p.interval(), 0.2, 1.2))
			p.noticeSweep()
		}
	}
	if p.failures == 0 && p.Live.Loaded() && p.Live.Err() != nil {
		p.nextPoll = now
	}
	sweepIsDue := func() bool { return !now.Before(p.nextSweep) && p.failures == 0 }
	if !now.Before(p.nextPoll) || sweepIsDue() && !p.sweeps { // who stands by looks first
		p.poll(ctx)
	}
	if sweepIsDue() && p.sweepAll(ctx) {
		p.poll(ctx) // who brought something into the index sees it at once
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
		p.noticeSweep()
	}
	p.nextPoll = p.clock().Add(wait)
	p.report(false, err)
}

// noticeSweep puts our turn off when the index tells of a newer sweep.
func (p *Poller) noticeSweep() {
	if swept := p.Live.now().swept; swept.After(p.counted) {
		p.count(swept)
	}
}

// sweepAll sweeps every store, or where that is refused looks for itself. It
// reports whether it changed an index, so that a poll finds something.
func (p *Poller) sweepAll(ctx context.Context) (found bool) {
	now, busy := p.clock(), false
	var failed, denied error
	for _, store := range append([]Store{p.Live.Store}, p.Live.More...) {
		done, repaired, err := sweep(ctx, store, p.sweepEvery()*3/4)
		found = found || repaired
		busy = busy || err == nil && !done
		if errors.Is(err, ErrStoreDenied) {
			denied = err
		} else {
			failed = errors.Join(failed, err)
		}
	}
	p.sweeps = denied == nil
	if denied != nil && failed == nil {
		failed = p.recheck(ctx)
	}
	switch {
	case failed != nil:
		p.nextSweep = p.clock().Add(spread(p.sweepEvery()/10, 0.9, 1)) // a lease of ours is free again by then
	case denied != nil:
		p.count(p.whole)
	case busy:
		p.nextSweep = p.clock().Add(spread(sweepTime, 1, 1.5))
	default:
		p.count(now)
	}
	p.report(true, failed)
	return found
}

// recheck looks at every credential, unless that was done so lately that somebody
// else may yet sweep: a start has looked at everything, too.
func (p *Poller) recheck(ctx context.Context) error {
	now := p.clock()
	if now.Sub(p.whole) < p.sweepEvery()*9/10 {
		return nil
	}
	if err := p.Live.Recheck(ctx); err != nil {
		return err
	}
	p.whole = now
	return nil
}

// count sets the next turn, after a sweep at that time.
func (p *Poller) count(swept time.Time) {
	p.counted = swept
	age := spread(p.sweepEvery(), 0.94, 1.04)
	if p.sweeps {
		age = spread(p.sweepEvery(), 0.8, 0.9)
	}
	p.nextSweep = swept.Add(age)
	if now := p.clock(); p.nextSweep.Before(now) {
		p.nextSweep = now.Add(time.Second)
	}
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
