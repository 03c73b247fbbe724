package main

import (
	"context"
	"testing"
	"time"
)

// More than one processor is used while one is not enough, and for some seconds
// afterwards.
func TestDemandForProcessors(t *testing.T) {
	var n demand
	after := func(share float64, all bool) {
		t.Helper()
		if got := n.after(share); got != all {
			t.Errorf("after an interval of %.2f: all %t", share, got)
		}
	}
	calm := func(all bool) {
		for range calmFor - 1 {
			after(0.1, all)
		}
	}
	for range 10 * calmFor {
		after(0.8, false)
	}
	after(0.95, true)
	calm(true)
	after(0.6, true) // too much for one to be enough
	calm(true)
	after(0.1, false)
	after(0.89, false)
	after(1.7, true)
}

// The scheduler is told when the demand changes, and then alone; how long an interval
// really was counts, not how long it should have been.
func TestFollowingTheLoad(t *testing.T) {
	begin := time.Unix(1e9, 0)
	type reading struct{ at, used time.Duration }
	readings := []reading{{0, 5 * time.Second}, {250 * time.Millisecond, 5100 * time.Millisecond},
		{1250 * time.Millisecond, 5500 * time.Millisecond}, // much for 250 ms, but they were a second
		{1500 * time.Millisecond, 5750 * time.Millisecond}, {1750 * time.Millisecond, 6 * time.Second}}
	for i := range calmFor {
		readings = append(readings, reading{2*time.Second + time.Duration(i)*loadInterval, 6 * time.Second})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ticks := make(chan time.Time)
	next := 0
	var told []bool
	var when []int
	done := make(chan struct{})
	go func() {
		defer close(done)
		follow(ctx, ticks, func() (time.Time, time.Duration) {
			r := readings[next]
			next++
			return begin.Add(r.at), r.used
		}, func(all bool) { told, when = append(told, all), append(when, next) })
	}()
	for range len(readings) - 1 {
		ticks <- time.Time{}
	}
	cancel()
	<-done
	if len(told) != 2 || !told[0] || told[1] || when[0] != 4 || when[1] != len(readings) {
		t.Errorf("told %v after readings %v, want true and false after 4 and %d", told, when, len(readings))
	}
}
