package main

import (
	"context"
	"os"
	"runtime"
	"syscall"
	"time"
)

// followLoad keeps Go's scheduler on one processor while that is enough. With more
// of them, each packet that arrives and each goroutine that hands it on may wake
// another thread: at the load of a sidecar, far below one processor, the waking
// costs a fifth of the CPU. When one is nearly used up there are all that the
// container or the machine gives, until one would do again for a while. A GOMAXPROCS
// in the environment stands for itself.
func followLoad(ctx context.Context) {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return
	}
	useProcessors(false)
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	follow(ctx, tick.C, processorTime, useProcessors)
}

// follow calls use when the demand changes. used is asked at each tick for the
// processor time until then.
func follow(ctx context.Context, ticks <-chan time.Time, used func() (time.Time, time.Duration), use func(all bool)) {
	var demand demand
	last, lastUsed := used()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		now, nowUsed := used()
		share := float64(nowUsed-lastUsed) / float64(now.Sub(last))
		last, lastUsed = now, nowUsed
		if before := demand.all; demand.after(share) != before {
			use(demand.all)
		}
	}
}

// demand is whether more than one processor is needed.
type demand struct {
	all  bool
	calm int // intervals for which one would have been enough
}

const (
	loadInterval = 250 * time.Millisecond
	nearlyOne    = 0.9 // of a processor in an interval: another one may help
	lessThan     = 0.5 // for so many intervals, which are ten seconds: one is enough again
	calmFor      = 40
)

// after takes the share of a processor that was used in the last interval.
func (d *demand) after(share float64) (all bool) {
	switch {
	case share > nearlyOne:
		d.all, d.calm = true, 0
	case share > lessThan:
		d.calm = 0
	default:
		if d.calm++; d.calm >= calmFor {
			d.all = false
		}
	}
	return d.all
}

// useProcessors tells the scheduler. All is what Go chooses by itself: as many as the
// quota of the container allows, two of them at least.
func useProcessors(all bool) {
	if all {
		runtime.SetDefaultGOMAXPROCS()
		return
	}
	runtime.GOMAXPROCS(1)
}

// processorTime is what the process has used until now, in its code and in the
// kernel for it.
func processorTime() (now time.Time, used time.Duration) {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // it cannot fail for ourselves
	return time.Now(), time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
