package proxy

import (
	"slices"
	"sync"

	"golang.org/x/net/http2"
)

// h2Body is what has come of a request's body, and nobody has taken: a queue of
// buffers.
type h2Body struct {
	queue []h2Piece
	size  int
}

// h2Piece is (*buf)[from:to], with room before and behind it.
type h2Piece struct {
	buf      *[]byte
	from, to int
}

func (b *h2Body) add(p []byte) {
	b.size += len(p)
	for len(p) > 0 {
		n := len(b.queue)
		if n == 0 || b.queue[n-1].full() {
			b.queue = append(b.queue, h2Piece{bufferFor(len(p)), roomBefore, roomBefore})
			n++
		}
		last := &b.queue[n-1]
		copied := copy((*last.buf)[last.to:len(*last.buf)-roomAfter], p)
		last.to += copied
		p = p[copied:]
	}
}

func (p *h2Piece) full() bool { return p.to == len(*p.buf)-roomAfter }

// take removes the first piece.
func (b *h2Body) take() (h2Piece, bool) {
	if len(b.queue) == 0 {
		return h2Piece{}, false
	}
	first := b.queue[0]
	n := copy(b.queue, b.queue[1:])
	b.queue[n] = h2Piece{}
	b.queue = b.queue[:n]
	b.size -= first.to - first.from
	return first, true
}

// whole returns all of a body that one piece holds.
func (b *h2Body) whole() []byte {
	if len(b.queue) != 1 {
		return nil
	}
	p := &b.queue[0]
	return (*p.buf)[p.from:p.to]
}

func (b *h2Body) release() {
	for i := range b.queue {
		recycle(b.queue[i].buf)
	}
	clear(b.queue)
	b.queue, b.size = b.queue[:0], 0
}

var smallBuffers = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

// bufferFor returns a buffer with both rooms for n bytes, or for a part of them: many
// streams may be amid small bodies.
func bufferFor(n int) *[]byte {
	pool := &relayBuffers
	if n <= 4<<10-roomBefore-roomAfter {
		pool = &smallBuffers
	}
	return pool.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
}

// recycle takes a buffer of either size back.
func recycle(b *[]byte) {
	if len(*b) == relayBuffer {
		relayBuffers.Put(b)
	} else {
		smallBuffers.Put(b)
	}
}

// receive takes the payload of a DATA frame of n bytes. The caller holds c.lock.
func (st *h2Stream) receive(payload []byte, n int, end bool) error {
	if st.room -= n; st.room < 0 {
		st.c.credit(len(payload))
		return st.fault(http2.ErrCodeFlowControl)
	}
	st.got += int64(len(payload))
	if st.declared >= 0 && (st.got > st.declared || end && st.got < st.declared) {
		st.c.credit(len(payload))
		return st.fault(http2.ErrCodeProtocol) // RFC 9113 section 8.1.1
	}
	if st.deaf {
		st.c.credit(len(payload))
	} else {
		st.body.add(payload)
		st.credit(n - len(payload))
	}
	st.ended = end
	st.wake.Broadcast()
	return nil
}

// credit lets the client send n bytes more. The caller holds c.lock.
func (st *h2Stream) credit(n int) {
	const enough = h2StreamRoom / 4
	st.used += n
	if st.used >= enough && !st.ended && !st.peerReset {
		_ = st.c.frames.WriteWindowUpdate(st.id, uint32(st.used)) //nolint:gosec // at most h2StreamRoom
		st.room += st.used
		st.used = 0
	}
}

// trailer ends the body. The caller holds c.lock.
func (st *h2Stream) trailer(f *h2Head, ended bool) error {
	switch {
	case st.ended:
		return st.fault(http2.ErrCodeStreamClosed)
	case !ended, f.pseudo > 0, f.truncated, st.declared >= 0 && st.got < st.declared:
		return st.fault(http2.ErrCodeProtocol)
	}
	st.trailers, st.ended = slices.Clone(f.fields), true
	st.wake.Broadcast()
	return nil
}

// next waits for more of the body, and lets the client send as much again. Of its end
// it says ended, once, with the last piece or without one. u is nil for net/http, which
// may wait as long as it likes.
func (st *h2Stream) next(u *upload) (p h2Piece, ended bool, err error) {
	c := st.c
	c.lock.Lock()
	defer c.lock.Unlock()
	for st.body.size == 0 && !st.ended && !st.deaf && st.cut.Load() == cutNot {
		if u != nil {
			u.moved(true) // the sweeper sees that it waits
		}
		st.wake.Wait()
	}
	if u != nil {
		u.moved(false)
	}
	if st.deaf || st.cut.Load() != cutNot {
		return p, false, errStreamCut
	}
	p, _ = st.body.take()
	c.credit(p.to - p.from)
	st.credit(p.to - p.from)
	ended = st.ended && st.body.size == 0
	c.flush()
	return p, ended, nil
}

// awaitsBody reports whether nothing of the body has come, and something will.
func (st *h2Stream) awaitsBody() bool {
	st.c.lock.Lock()
	defer st.c.lock.Unlock()
	return st.body.size == 0 && !st.ended
}

// readBody implements client.
func (st *h2Stream) readBody(u *upload) error {
	if st.awaitsBody() && !u.flush(false) { // the tool need not wait for more than the head
		return nil
	}
	for {
		p, ended, err := st.next(u)
		if err != nil {
			return err
		}
		n := p.to - p.from
		if n > 0 {
			recycle(u.buf)
			u.buf, u.from, u.to = p.buf, p.from, p.to
			st.rq.x.in.Add(int64(n))
			u.keep((*u.buf)[u.from:u.to])
		}
		if ended {
			u.read.Store(true)
			u.flush(true) // a tool that does not take it says so by its answer
			return nil
		}
		if !u.flush(false) {
			return nil
		}
	}
}

// stopBody implements client.
func (st *h2Stream) stopBody() {
	st.c.lock.Lock()
	defer st.c.lock.Unlock()
	st.deaf = true
	st.wake.Broadcast()
}
