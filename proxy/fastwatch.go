package proxy

import "time"

// examine implements watched.
func (c *fastConn) examine(now time.Time) (busy bool) {
	if c.moves(now) {
		c.look = 0
		return true // even if idle: once more, to see that it stays so
	}
	phase, age := c.now(), now.Sub(c.since)
	t := &c.s.timeouts
	switch phase {
	case phaseFresh, phaseIdle:
		gone := c.look == 0 && c.sock.hasLeft() // what ended together with a request wakes nobody
		c.look = 1
		c.cutIf(gone || age > idleTimeout || phase == phaseFresh && age > t.head, cutIdle)
	case phaseHead:
		c.cutIf(age > t.head, cutHead)
	case phaseAsk, phaseRelay:
		if age >= c.look {
			c.look = age + min(age/2, time.Second)
			c.cutIf(c.sock.hasLeft(), cutGone)
		}
	}
	why := c.overdue(now, t)
	c.cutIf(why != cutNot, why)
	return isBusy(phase)
}

func (c *fastConn) busy() bool { return isBusy(c.now()) }

// end implements watched.
func (c *fastConn) end(all bool) {
	phase := c.now()
	c.cutIf(all || phase == phaseIdle || phase == phaseFresh, cutStop)
}

// cutIf ends, for good, whatever the connection waits for.
func (c *fastConn) cutIf(yes bool, why uint32) {
	if !yes || !c.cut.CompareAndSwap(cutNot, why) {
		return
	}
	c.mu.Lock()
	if c.up != nil {
		c.up.sock.interrupt()
	}
	c.mu.Unlock()
	c.cancel()
	switch why {
	case cutTool: // whose client is still to be told
	case cutBody, cutHead: // as here
		c.sock.interruptReads()
	default:
		c.sock.interrupt()
	}
}
