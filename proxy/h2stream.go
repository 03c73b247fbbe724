package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Stream is one request of a connection of HTTP/2, and the answer to it.
type h2Stream struct {
	asker
	c        *h2Conn
	id       uint32
	rq       *fastRequest
	head     h2Head
	bodyless bool     // the head ended it
	odd      bool     // it is one for net/http
	bad      *problem // what is wrong with its head

	// Under c.lock.
	wake      sync.Cond // a window, a body, or the end
	window    int64     // what the client takes
	room      int       // what it may still send
	body      h2Body
	declared  int64 // Content-Length; -1: it said none
	got       int64
	used      int  // of it, what the client may send again
	ended     bool // the client has sent all of its body
	deaf      bool // nobody reads its body any more
	begun     bool // a goroutine serves it
	closed    bool // its end is written
	peerReset bool // the client gave it up
	trailers  []hpack.HeaderField

	block []byte // the answer's header block, until it is written
}

// open makes a stream of the head that was decoded. The caller holds c.lock.
func (c *h2Conn) open(id uint32, ended bool) error {
	st := c.newStream()
	st.id, st.ended, st.bodyless = id, ended, ended
	st.head, c.block.fields = c.block.h2Head, st.head.fields
	st.window, st.room = c.initial, h2StreamRoom
	if err := st.parse(); err != nil {
		st.giveBack()
		return err
	}
	c.streams[st.id] = st
	c.waiting = append(c.waiting, st)
	return nil
}

// newStream returns one that has been used before, if there is one.
func (c *h2Conn) newStream() *h2Stream {
	var st *h2Stream
	if n := len(c.spare); n > 0 {
		st, c.spare = c.spare[n-1], c.spare[:n-1]
	} else {
		st = &h2Stream{c: c}
		st.s, st.client, st.name = c.s, st, c.name
		st.wake.L = &c.lock
	}
	if st.ctx == nil || st.ctx.Err() != nil {
		st.ctx, st.cancel = context.WithCancel(context.Background())
	}
	st.rq = takeRequest()
	st.rq.by = &st.asker
	st.rq.begin()
	return st
}

// h2Spare is how many streams a connection keeps for its next requests.
const h2Spare = 16

// giveBack keeps st for another request, unless a goroutine of net/http may still know
// it. The caller holds c.lock.
func (st *h2Stream) giveBack() {
	c := st.c
	st.rq.giveBack()
	st.body.release()
	if st.odd || len(c.spare) >= h2Spare || st.ctx.Err() != nil {
		st.cancel()
		return
	}
	st.rq, st.trailers, st.bad, st.tool = nil, nil, nil, nil
	clear(st.head.fields)
	st.ended, st.deaf, st.begun, st.closed, st.peerReset = false, false, false, false, false
	st.got, st.used = 0, 0
	st.cut.Store(cutNot)
	st.enter(phaseIdle)
	c.spare = append(c.spare, st)
}

// beginWaiting gives the streams that have been opened a goroutine each.
func (c *h2Conn) beginWaiting() {
	if len(c.waiting) == 0 {
		return
	}
	c.lock.Lock()
	for _, st := range c.waiting {
		if st.cut.Load() != cutNot {
			st.remove()
			continue
		}
		st.begun = true
		c.running.Add(1)
		st.enter(phaseAsk)
		c.s.workers.serve(st)
	}
	c.lock.Unlock()
	clear(c.waiting)
	c.waiting = c.waiting[:0]
	c.s.sweeper.kick()
}

// remove takes the stream out of the connection's account. The caller holds c.lock.
func (st *h2Stream) remove() {
	c := st.c
	delete(c.streams, st.id)
	c.forget(st.id)
	c.credit(st.body.size)
	st.giveBack()
}

// serve answers the request, on a goroutine of its own.
func (st *h2Stream) serve() {
	c := st.c
	defer c.running.Done()
	defer func() {
		if fault := recover(); fault != nil { // of the engine itself: a request's own are caught in exchange
			st.s.logFault(fault)
		}
		c.lock.Lock()
		defer c.lock.Unlock()
		st.finish()
		c.flush()
	}()
	if st.bad != nil || st.isFast() {
		st.exchange()
	} else {
		st.odd = true
		st.serveOdd()
	}
}

// finish closes the stream. The caller holds c.lock.
func (st *h2Stream) finish() {
	c := st.c
	switch {
	case st.peerReset:
	case !st.closed:
		_ = c.frames.WriteRSTStream(st.id, http2.ErrCodeInternal) // into memory
	case !st.ended:
		_ = c.frames.WriteRSTStream(st.id, http2.ErrCodeNo) // RFC 9113 section 8.1: the rest is not wanted
	}
	st.remove()
	if len(c.streams) == 0 {
		c.quiet = time.Now()
		if c.leaving {
			c.sock.interruptReads()
		}
	}
}

// fault is an error that ends the stream alone.
func (st *h2Stream) fault(code http2.ErrCode) error {
	return http2.StreamError{StreamID: st.id, Code: code}
}

// reset ends a stream for a fault of the client's. The caller holds c.lock.
func (st *h2Stream) reset(code http2.ErrCode) {
	if st.peerReset {
		return
	}
	_ = st.c.frames.WriteRSTStream(st.id, code) // into memory
	st.peerReset = true                         // nothing more is said on it
	st.cutIf(true, cutGone)
}

// cutIf ends, for good, whatever the stream waits for. One whose client is to be told
// why may be cut again, once it does not listen. The caller holds c.lock.
func (st *h2Stream) cutIf(yes bool, why uint32) {
	if before := st.why(); !yes || before != cutNot && (before == cutGone || why != cutGone) {
		return
	}
	st.cut.Store(why)
	st.watch.mu.Lock()
	if st.up != nil {
		st.up.sock.interrupt()
	}
	st.watch.mu.Unlock()
	st.cancel()
	st.wake.Broadcast()
}

// errStreamCut is what waiting for a client comes to that gave the stream up, or was
// given up.
var errStreamCut = errors.New("the stream has ended")

// examine implements watched.
func (c *h2Conn) examine(now time.Time) (busy bool) {
	moved := c.moves(now)
	if !moved && !c.looked {
		c.cutIf(c.sock.hasLeft(), cutGone) // what ended together with its last bytes wakes nobody
	}
	c.looked = !moved
	c.lock.Lock()
	defer c.lock.Unlock()
	c.examineWriting(now)
	t := &c.s.timeouts
	for _, st := range c.streams {
		if st.begun && !st.moves(now) {
			why := st.overdue(now, t)
			st.cutIf(why != cutNot, why)
		}
	}
	phase, age := c.now(), now.Sub(c.since)
	switch {
	case phase == phaseHead: // nothing else may come before its end, for no stream
		c.cutIf(age > t.head, cutHead)
		return true
	case len(c.streams) > 0 || moved:
		return true
	case phase == phaseFresh:
		c.cutIf(age > t.head, cutIdle)
	case phase == phaseIdle:
		c.cutIf(age > idleTimeout && now.Sub(c.quiet) > idleTimeout, cutIdle)
	}
	return false
}

// examineWriting ends a connection whose client does not read. The caller holds lock.
func (c *h2Conn) examineWriting(now time.Time) {
	switch {
	case !c.writing || c.writes != c.seenWrites:
		c.seenWrites, c.wroteAt = c.writes, now
	case now.Sub(c.wroteAt) > c.s.timeouts.stall:
		c.cutIf(true, cutGone)
	}
}

// cutIf ends the connection: its reading, and with cutGone its writing as well.
func (c *h2Conn) cutIf(yes bool, why uint32) {
	if !yes || !c.cut.CompareAndSwap(cutNot, why) {
		return
	}
	if why == cutGone {
		c.sock.interrupt()
	} else {
		c.sock.interruptReads()
	}
}

func (c *h2Conn) busy() bool {
	c.lock.Lock()
	defer c.lock.Unlock()
	return len(c.streams) > 0 || c.now() == phaseHead
}

// end implements watched. A client with streams open is told to open no more, which
// it may have done before it hears that: they are served as well.
func (c *h2Conn) end(all bool) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.cutIf(all || len(c.streams) == 0, cutStop)
	if len(c.streams) > 0 && !c.leaving {
		c.leaving = true
		_ = c.frames.WriteGoAway(h2MaxWindow, http2.ErrCodeNo, nil) // into memory
		c.flushAside()
	}
}
