package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// watch is what the sweeper sees of a connection, and how it ends its waits.
type watch struct {
	phase  atomic.Uint32 // a count of changes, and in its low bits the phase
	count  uint32
	upload atomic.Uint32 // the same for an upload: odd while the client is waited for
	cut    atomic.Uint32

	mu sync.Mutex
	up *toolConn // asked now

	// The sweeper's own.
	seen, seenUpload uint32
	since, moved     time.Time
}

// moves reports whether the phase is another than when it was looked at last.
func (c *watch) moves(now time.Time) bool {
	v := c.phase.Load()
	if v == c.seen {
		return false
	}
	c.seen, c.since = v, now
	return true
}

// now is the phase.
func (c *watch) now() uint32 { return c.phase.Load() & (1<<phaseBits - 1) }

// overdue judges the waits of a request, as cutIf puts it.
func (c *watch) overdue(now time.Time, t *timeouts) (why uint32) {
	phase, age := c.now(), now.Sub(c.since)
	switch {
	case phase == phaseSend && age > t.stall:
		return cutGone
	case phase != phaseAsk && phase != phaseRelay:
		return cutNot
	}
	if v := c.upload.Load(); v != c.seenUpload {
		c.seenUpload, c.moved = v, now
	} else if v&1 == 1 && now.Sub(c.moved) > t.stall { // a client that has to send is silent
		return cutBody
	}
	asked := c.since // or since the upload's end
	if c.moved.After(asked) {
		asked = c.moved
	}
	if phase == phaseAsk && c.seenUpload == 0 && now.Sub(asked) > upstreamHead {
		return cutTool
	}
	return cutNot
}

// enter begins a phase. Only the connection's own goroutine calls it.
func (c *watch) enter(phase uint32) {
	c.count++
	c.phase.Store(c.count<<phaseBits | phase)
}

// why tells the reason for which the sweeper ended a wait, or cutNot.
func (c *watch) why() uint32 { return c.cut.Load() }

// attach names the connection to the tool that ends with the client's; it reports
// whether that still stands.
func (c *watch) attach(up *toolConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = up
	return up == nil || c.cut.Load() == cutNot
}
