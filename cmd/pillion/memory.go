package main

import (
	"os"
	"runtime"
	"sync"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// heapRoom is how much garbage the heap may hold beyond what lives. Go's own
// floor of 4 MiB means a collection every few hundred requests, and a quarter more
// CPU for each; a higher GOGC would cost as much again for every open tunnel.
const heapRoom = 4 << 20

// ballast counts as live, so that the next collection is that much further off.
// Nobody writes to it, so it never becomes resident; for that it must be the
// first large thing that the process allocates, and be held until its end. A
// GOGC in the environment stands for itself.
func ballast() []byte {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	return make([]byte, heapRoom)
}

// limitMemory tells Go's runtime of the memory that the container or the unit may
// use: nine tenths of it, the rest is for what is not Go's. Without it garbage piles
// up to twice what lives, and 64 MiB with 300 busy tunnels end in the kernel's kill.
// A GOMEMLIMIT in the environment stands for itself. How many processors there are
// the runtime finds out by itself.
func (d *daemon) limitMemory() {
	if _, err := memlimit.Set(memlimit.WithRatio(0.9)); err != nil {
		d.log.Debug("the memory limit of this process is unknown: GOMEMLIMIT sets one", "error", err.Error())
	}
}

// profileMemory ends the sampling of allocations where nobody can ask for it: its table
// grows with every path that allocates, to 3 MiB in half an hour of mixed load.
func (d *daemon) profileMemory() {
	if !d.config.Load().Admin.PProf {
		unprofiled.Do(func() { runtime.MemProfileRate = 0 })
	}
}

var unprofiled sync.Once // the rate is the whole process's
