package proxy

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// The phases of a client's connection, or stream, which bound its waits.
const (
	phaseFresh   uint32 = iota // nothing has come yet: timeouts.head
	phaseIdle                  // between requests: idleTimeout
	phaseHead                  // amid a head: timeouts.head, however much of it comes
	phaseAsk                   // the tool is asked: upstreamHead, and the client is watched
	phaseRelay                 // its answer comes: the client is watched
	phaseSend                  // the client is sent something: timeouts.stall
	phaseLeaving               // somebody else's, or closing
	phaseBits    = 3
)

// Why the sweeper ended a wait.
const (
	cutNot  uint32 = iota
	cutIdle        // nobody uses the connection
	cutHead        // a head did not arrive in time
	cutBody        // a body did not
	cutGone        // the client has left, or does not read
	cutTool        // the tool does not answer
	cutStop        // the server ends
)

// watched is a connection that the sweeper looks after.
type watched interface {
	// examine ends what takes too long. It reports whether it must be called again
	// soon.
	examine(now time.Time) (busy bool)
	busy() bool
	// end cuts what is idle, or with all whatever there is.
	end(all bool)
}

// sweeper looks after the connections of the fast engine: it ends waits that take
// too long and requests whose client has left. It looks at all of them a few times
// a second, while any has a request, which costs less than a deadline for each read
// and write, or a goroutine for each request; and seldom otherwise.
type sweeper struct {
	s    *Server
	pace time.Duration

	mu     sync.Mutex
	conns  map[watched]struct{}
	closed bool
	empty  chan struct{} // closed with the last connection, once closed

	used          bool // since trimmed
	calm, trimmed time.Time

	over  chan struct{} // nobody is left to look after
	awake atomic.Bool   // it will look again within pace
	wake  chan struct{} // it should
}

const (
	sweepPace = 100 * time.Millisecond
	sweepRest = 15 * time.Second // between looks where nothing is under way
	trimAfter = 500 * time.Millisecond
	trimEvery = 30 * time.Second
)

func newSweeper(s *Server) *sweeper {
	w := &sweeper{s: s, pace: sweepPace, conns: map[watched]struct{}{}, empty: make(chan struct{}), over: make(chan struct{}), wake: make(chan struct{}, 1)}
	w.pace = min(sweepPace, s.timeouts.head/8, s.timeouts.stall/8)
	return w
}

// add begins to watch c; false means that the server has ended.
func (w *sweeper) add(c watched) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.conns[c] = struct{}{}
	w.kick()
	return true
}

// remove ends that. It may be called twice.
func (w *sweeper) remove(c watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.conns[c]; !ok {
		return
	}
	delete(w.conns, c)
	if w.closed && len(w.conns) == 0 {
		close(w.empty)
	}
}

// kick sees to it that somebody looks soon. Nearly always somebody does already.
func (w *sweeper) kick() {
	if !w.awake.Load() && w.awake.CompareAndSwap(false, true) {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// run sweeps until shutdown has ended.
func (w *sweeper) run() {
	timer := time.NewTimer(sweepRest)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-w.wake:
		case <-w.over:
			w.s.workers.rest(true)
			return
		}
		w.awake.Store(true)
		now := time.Now()
		busy := w.sweep(now)
		if !busy {
			w.s.workers.rest(false)
		}
		if !w.trim(now, busy) && !busy {
			w.awake.Store(false)
			busy = w.anyBusy() // a request may have begun before it could see that nobody looks
		}
		timer.Reset(w.until(busy || w.awake.Load()))
	}
}

// trim gives memory back behind a burst, once nothing has been under way for a
// while: nobody else would, until the heap has grown as much again. It reports
// whether it waits for that.
func (w *sweeper) trim(now time.Time, busy bool) (waits bool) {
	switch {
	case busy:
		w.used, w.calm = true, now
		return true
	case !w.used || now.Sub(w.trimmed) < trimEvery:
		return false
	case now.Sub(w.calm) < trimAfter:
		return true
	}
	w.used, w.trimmed = false, now
	debug.FreeOSMemory()
	return false
}

func (w *sweeper) until(busy bool) time.Duration {
	if busy {
		return w.pace
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.conns) == 0 {
		return sweepRest
	}
	return min(sweepRest, max(w.pace, w.s.timeouts.head/4))
}

func (w *sweeper) anyBusy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if c.busy() {
			return true
		}
	}
	return false
}

func isBusy(phase uint32) bool {
	return phase == phaseHead || phase == phaseAsk || phase == phaseRelay || phase == phaseSend
}

// sweep looks at every connection once. It reports whether it must soon again.
func (w *sweeper) sweep(now time.Time) (busy bool) {
	w.mu.Lock()
	for c := range w.conns {
		if c.examine(now) {
			busy = true
		}
	}
	w.mu.Unlock()
	if config := w.s.config.Load(); config != nil && config.pool != nil {
		config.pool.expire(now.Add(-upstreamIdle))
	}
	return busy
}

// shutdown lets idle connections go, waits for the others until ctx ends, then cuts
// them.
func (w *sweeper) shutdown(ctx context.Context) error {
	if !w.close() {
		return nil
	}
	defer close(w.over)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		w.end(false)
		select {
		case <-w.empty:
			return nil
		case <-tick.C:
		case <-ctx.Done():
			w.end(true)
			return ctx.Err()
		}
	}
}

// close takes no more connections; it reports whether it is the first to.
func (w *sweeper) close() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.closed = true
	if len(w.conns) == 0 {
		close(w.empty)
	}
	return true
}

func (w *sweeper) end(all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.end(all)
	}
}
