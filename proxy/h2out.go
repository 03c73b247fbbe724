package proxy

import (
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// h2Out is the writing half of a connection of HTTP/2. Small frames are gathered in
// out, and leave together as soon as nobody else who could add to them is about to;
// bodies leave out of the buffers that they were read to.
type h2Out struct {
	lock   sync.Mutex // of this and of all of h2Conn that is not the reading goroutine's
	turn   sync.Cond  // writing ended
	out    []byte
	idle   []byte // out's other half
	frames *http2.Framer

	writing bool
	turns   int    // streams that wait for theirs
	owed    int    // of out: answers to frames, that no flow control bounds
	writes  uint32 // so far
	broken  error  // the connection's end

	// The sweeper's.
	seenWrites uint32
	wroteAt    time.Time

	window  int64 // what the client takes of all streams
	initial int64 // and of a new one
	shrink  bool  // the client wants to hear that our table of fields is empty
}

const (
	h2InitialWindow = 65_535 // RFC 9113 section 6.9.2
	h2MaxWindow     = math.MaxInt32
	h2Direct        = 4 << 10 // bodies of this size are not copied
	// h2MaxData is the payload of the frames that bodies leave in: with its header each
	// fills a record of TLS.
	h2MaxData = h2MaxFrame - frameHeader
)

func (o *h2Out) begin() {
	o.turn.L = &o.lock
	o.frames = http2.NewFramer(o, nil)
	o.window, o.initial = h2InitialWindow, h2InitialWindow
}

// Write takes the frames of http2.Framer. The caller holds lock.
func (o *h2Out) Write(p []byte) (int, error) {
	o.out = append(o.out, p...)
	o.owed += len(p)
	return len(p), nil
}

// flush writes what there is, unless somebody does. The caller holds lock, which is
// given up meanwhile.
func (c *h2Conn) flush() {
	if c.writing || len(c.out) == 0 {
		return
	}
	c.writing = true
	c.lock.Unlock()
	runtime.Gosched() // streams whose answers have come as well add theirs
	c.lock.Lock()
	c.endWriting()
}

// endWriting writes what has come meanwhile, and lets others write: who waits for a
// turn takes the rest along, or small answers that follow each other without a pause
// would leave a large one none.
func (c *h2Conn) endWriting() {
	for len(c.out) > 0 && c.broken == nil {
		c.write(nil, nil, 0, 0, false)
		if c.turns > 0 {
			break
		}
	}
	c.writing = false
	c.turn.Broadcast()
	if len(c.streams) == 0 && cap(c.out)+cap(c.idle) > 8<<10 {
		c.out, c.idle = nil, nil
	}
}

// write sends out, and behind it b[from:to] as DATA of st, with whose last byte the
// stream may end. The caller holds lock, which is given up meanwhile, and has set
// writing.
func (c *h2Conn) write(st *h2Stream, b []byte, from, to int, end bool) {
	out := c.out
	c.out, c.owed = c.idle[:0], 0
	c.writes++
	err := c.writeUnlocked(func() error {
		if from == to {
			return c.sock.send(c.conn, out)
		}
		return c.writeData(st, out, b, from, to, end)
	})
	c.idle = out
	if cap(c.idle) > relayBuffer {
		c.idle = nil
	}
	if err != nil && c.broken == nil {
		c.broken = err
		c.sock.interrupt() // the reader has to end as well
		c.wakeAll()
	}
}

// writeUnlocked calls f without lock, and comes back with it even out of a panic.
func (c *h2Conn) writeUnlocked(f func() error) error {
	c.lock.Unlock()
	defer c.lock.Lock()
	return f()
}

func (c *h2Conn) writeData(st *h2Stream, out, b []byte, from, to int, end bool) error {
	c.sock.hold()
	_, err := c.conn.Write(out)
	for from < to && err == nil {
		n := min(to-from, h2MaxData)
		// The header stands on the end of the frame before, which has been sent.
		putFrameHeader(b[from-frameHeader:], n, http2.FrameData, dataFlags(end && from+n == to), st.id)
		_, err = c.conn.Write(b[from-frameHeader : from+n])
		from += n
	}
	return errors.Join(err, c.sock.release())
}

func dataFlags(end bool) http2.Flags {
	if end {
		return http2.FlagDataEndStream
	}
	return 0
}

func putFrameHeader(b []byte, n int, kind http2.FrameType, flags http2.Flags, id uint32) {
	b[0], b[1], b[2], b[3], b[4] = byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags)
	binary.BigEndian.PutUint32(b[5:], id)
}

func (c *h2Conn) appendFrame(payload []byte, kind http2.FrameType, flags http2.Flags, id uint32) {
	var head [frameHeader]byte
	putFrameHeader(head[:], len(payload), kind, flags, id)
	c.out = append(append(c.out, head[:]...), payload...)
}

// appendHeaders adds a header block, in as many frames as it takes. The caller holds
// lock.
func (c *h2Conn) appendHeaders(block []byte, end bool, id uint32) {
	kind, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	if c.shrink {
		c.shrink = false
		block = append([]byte{0x20}, block...) // RFC 7541 section 6.3: a table of size 0
	}
	for len(block) > h2MaxFrame {
		c.appendFrame(block[:h2MaxFrame], kind, flags, id)
		block, kind, flags = block[h2MaxFrame:], http2.FrameContinuation, 0
	}
	c.appendFrame(block, kind, flags|http2.FlagHeadersEndHeaders, id)
}

// tableSize obeys SETTINGS_HEADER_TABLE_SIZE. We put nothing in the table, but a client
// that makes it smaller wants to be told so (RFC 9113 section 4.3.1). The caller holds
// lock.
func (c *h2Conn) tableSize(size uint32) {
	if size < 4096 {
		c.shrink = true
	}
}

// initialWindow obeys SETTINGS_INITIAL_WINDOW_SIZE. The caller holds lock.
func (c *h2Conn) initialWindow(size int64) error {
	change := size - c.initial
	c.initial = size
	for _, st := range c.streams {
		if st.window += change; st.window > h2MaxWindow {
			return h2FlowControl
		}
		st.wake.Broadcast()
	}
	return nil
}

// windowUpdate lets us send more. The caller holds lock.
func (c *h2Conn) windowUpdate(id uint32, n int64) error {
	if id == 0 {
		if c.window += n; c.window > h2MaxWindow {
			return h2FlowControl
		}
		c.wakeAll()
		return nil
	}
	if id > c.last {
		return h2Protocol
	}
	st := c.streams[id]
	if st == nil {
		return nil
	}
	if st.window += n; st.window > h2MaxWindow {
		return st.fault(http2.ErrCodeFlowControl)
	}
	st.wake.Broadcast()
	return nil
}

// dead reports whether nothing more can be said on the stream. The caller holds c.lock.
func (st *h2Stream) dead() bool {
	return st.c.broken != nil || st.why() == cutGone
}

// send writes the answer's head, unless it is written, b[from:to], and with last the
// end, behind the trailers of that block. It waits for the client to take it.
func (st *h2Stream) send(b []byte, from, to int, last bool, trailers []byte) error {
	st.enter(phaseSend)
	defer st.enter(phaseRelay)
	c := st.c
	c.lock.Lock()
	defer c.lock.Unlock()
	end := last && len(trailers) == 0
	for c.writing && len(c.out) > relayBuffer && !st.dead() {
		c.awaitTurn() // heads are not under flow control
	}
	if len(st.block) > 0 && !st.dead() {
		st.closed = end && from == to
		c.appendHeaders(st.block, st.closed, st.id)
		st.block = st.block[:0]
	}
	for from < to && !st.dead() {
		n := st.piece(b, from, to, end)
		from += n
		st.closed = end && from == to
	}
	switch {
	case st.closed && c.broken == nil: // whoever has all of it may leave
	case st.dead():
		return errClientGone
	case len(trailers) > 0:
		c.appendHeaders(trailers, true, st.id)
		st.closed = true
	case end && !st.closed:
		c.appendFrame(nil, http2.FrameData, http2.FlagDataEndStream, st.id)
		st.closed = true
	}
	c.flush()
	if c.broken != nil {
		return errClientGone
	}
	return nil
}

// piece writes as much of b[from:to] as the client takes now, or waits. It returns how
// much. The caller holds c.lock.
func (st *h2Stream) piece(b []byte, from, to int, end bool) int {
	c := st.c
	n := int(min(int64(to-from), c.window, st.window))
	switch {
	case n <= 0 && len(c.out) > 0 && !c.writing:
		c.flush() // which lets go of the lock
		return 0
	case n <= 0:
		st.wake.Wait()
		return 0
	case c.writing && (n >= h2Direct || len(c.out) > relayBuffer):
		c.awaitTurn()
		return 0
	case n < h2Direct:
		c.appendFrame(b[from:from+n], http2.FrameData, dataFlags(end && from+n == to), st.id)
	}
	c.window -= int64(n)
	st.window -= int64(n)
	if n >= h2Direct {
		c.writing = true
		c.write(st, b, from, from+n, end && from+n == to)
		c.writing = false // what is left of out goes with the next piece, or by send's flush
		c.turn.Broadcast()
	}
	return n
}

// awaitTurn waits until nobody writes. The caller holds lock.
func (c *h2Conn) awaitTurn() {
	c.turns++
	c.turn.Wait()
	c.turns--
}

// wakeAll lets every stream look at its state again. The caller holds lock.
func (c *h2Conn) wakeAll() {
	for _, st := range c.streams {
		st.wake.Broadcast()
	}
	c.turn.Broadcast()
}
