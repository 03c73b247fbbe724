package main

import (
	"fmt"
	"os"
	"time"
)

// anonymous is the memory of a process tree in bytes that no file holds as well. The pages of a program's file are not among it: they are mapped when they
// are used, are the page cache's, and go whenever it needs them for something else.
func anonymous(pids []int) (sum int64) {
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue // it has ended, and holds nothing
		}
		sum += statusBytes(status, "RssAnon:")
	}
	return sum
}

// followAnonymous looks at the anonymous memory of a process all the time, since the kernel keeps no peak of it, until the returned function is called, which
// returns the most that was seen.
func followAnonymous(p *process) (most func() float64) {
	const every = 10 * time.Millisecond // a hundredth of a processor's time
	pids := p.pids()
	stop, done := make(chan struct{}), make(chan float64)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		peak := anonymous(pids)
		for {
			select {
			case <-tick.C:
				peak = max(peak, anonymous(pids))
			case <-stop:
				done <- float64(max(peak, anonymous(pids)))
				return
			}
		}
	}()
	return func() float64 { close(stop); return <-done }
}
