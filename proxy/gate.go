package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// gate stands between a client's HTTP/1 connection and net/http and lets only
// requests through that checkHead and chunkScanner accept: a head is held back
// until it is complete and judged; a body is followed to its end beside the
// reader, without a copy. It exists because net/http repairs what an
// intermediary must refuse (a folded line, Content-Length beside
// Transfer-Encoding, a bare LF) and has forgotten it by the time that a handler
// runs; and because it answers malformed requests without asking us.
//
// It also bounds stalls: a head must arrive within times.head, and a body or an
// answer must move within times.stall.
//
// Read is called by one goroutine at a time, as net/http does.
type gate struct {
	net.Conn
	tunnel *tunnel // what CONNECT asked for; nil on the plain listener
	peer   error   // why this client may not use the proxy; nil when it may
	times  *timeouts

	// refuse answers a malformed head, when no answer is under way.
	refuse func(g *gate, err error)

	buf     []byte // read from Conn, not yet given out: buf[r:]
	r       int
	judged  int // bytes of buf[r:] that have been judged and may be given out
	state   gateState
	length  int64 // of the body, still to come
	chunks  chunkScanner
	pending error // what the next Read returns

	// busy is set from when net/http has a head until its answer is out: between
	// them nobody else may write.
	busy atomic.Bool

	// broken is why a body ended early. Handlers look here: net/http cancels
	// their request as soon as a read fails, and so often before its body's
	// reader has come to the error.
	broken atomic.Pointer[problem]

	headDeadline bool
	sendUntil    time.Time

	deadline    sync.Mutex // net/http interrupts a Read from another goroutine
	readUntil   time.Time
	interrupted bool // by a deadline of net/http's that is past: ours must not undo it
}

type gateState uint8

const (
	gateHead gateState = iota
	gateLength
	gateChunked
	gateOpaque
	gateClosed
)

// headBuffers lends what a head is collected in. An idle connection holds none.
var headBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

func (g *gate) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if g.judged > 0 {
			return g.give(p), nil
		}
		if g.pending != nil {
			return 0, g.takePending()
		}
		switch g.state {
		case gateHead:
			if n, err := g.readHead(p); n > 0 || err != nil {
				return n, err
			}
		case gateOpaque:
			if g.r < len(g.buf) {
				g.judged = len(g.buf) - g.r
				continue
			}
			return g.Conn.Read(p)
		case gateClosed:
			return 0, io.EOF
		default:
			return g.readBody(p)
		}
	}
}

// give hands out judged bytes, and the buffer back once it is empty.
func (g *gate) give(p []byte) int {
	g.busy.Store(true) // now, and not in the handler: net/http reads ahead before it calls that
	n := copy(p, g.buf[g.r:g.r+g.judged])
	g.r += n
	g.judged -= n
	g.release()
	return n
}

func (g *gate) release() {
	if g.r < len(g.buf) || g.buf == nil {
		return
	}
	if cap(g.buf) <= 4<<10 {
		b := g.buf[:0]
		headBuffers.Put(&b)
	}
	g.buf, g.r = nil, 0
}

// readHead collects one head and judges it; when the caller's buffer took all of
// it in one read, there and without a copy. n is 0 when the head went to g.buf:
// look again.
func (g *gate) readHead(p []byte) (n int, err error) {
	if g.buf == nil {
		if n, err = g.Conn.Read(p); n == 0 {
			return 0, err
		}
		if i := bytes.Index(p[:n], headEnd); i >= 0 && i+len(headEnd) <= maxHead {
			return g.judgeInPlace(p[:n], i+len(headEnd))
		}
		g.buf = append(*headBuffers.Get().(*[]byte), p[:n]...) //nolint:forcetypeassert // nothing else is put there
	}
	searched := 0
	for {
		unread := g.buf[g.r:]
		if i := bytes.Index(unread[searched:], headEnd); i >= 0 {
			return 0, g.judge(searched + i + len(headEnd))
		}
		if err := checkPartialHead(unread); err != nil {
			return 0, g.reject(err)
		}
		searched = max(0, len(unread)-len(headEnd)+1)
		if err := g.fill(); err != nil {
			return 0, err
		}
	}
}

// judgeInPlace takes a whole head from the front of b and puts back the rest.
func (g *gate) judgeInPlace(b []byte, n int) (int, error) {
	if f, err := checkHead(b[:n]); err == nil {
		g.begin(f)
		g.busy.Store(true)
		if n < len(b) {
			g.unread(b[n:])
		}
		return n, nil
	}
	g.unread(b)
	return 0, g.judge(n)
}

var headEnd = []byte("\r\n\r\n")

// checkPartialHead finds early what no further byte can mend, so that garbage is
// answered at once and does not wait for a time-out.
func checkPartialHead(b []byte) error {
	if len(b) > maxHead {
		return &problem{kind: kindHeadTooLarge, detail: "The request's header is larger than 64 KiB."}
	}
	if bytes.Contains(b, []byte("\n\n")) || bytes.HasPrefix(b, []byte("\n")) {
		return badRequest("a line does not end in CR LF")
	}
	if len(b) > 0 && !isToken(b[:1]) {
		return badRequest("the request line does not begin with a method")
	}
	return nil
}

// fill reads more of a head. A time-out while a handler answers keeps what has
// arrived: net/http interrupts reads of its own, and comes back.
func (g *gate) fill() error {
	if g.r > 0 { // or requests without a pause between them would never let the buffer go
		g.buf, g.r = g.buf[:copy(g.buf, g.buf[g.r:])], 0
	}
	if len(g.buf) == cap(g.buf) {
		g.buf = append(g.buf, 0)[:len(g.buf)]
	}
	if !g.headDeadline && !g.busy.Load() {
		g.headDeadline = true
		g.readBy(time.Now().Add(g.times.head))
	}
	n, err := g.Conn.Read(g.buf[len(g.buf):cap(g.buf)])
	g.buf = g.buf[:len(g.buf)+n]
	switch {
	case n > 0:
		return nil
	case isTimeout(err) && !g.busy.Load():
		return g.reject(badRequest("its header did not arrive in time"))
	}
	return err
}

// judge looks at the head in the first n unread bytes.
func (g *gate) judge(n int) error {
	if n > maxHead {
		return g.reject(checkPartialHead(g.buf[g.r : g.r+n]))
	}
	f, err := checkHead(g.buf[g.r : g.r+n])
	if err != nil {
		return g.reject(err)
	}
	g.judged = n
	g.begin(f)
	return nil
}

// begin arranges for what follows a head.
func (g *gate) begin(f framing) {
	g.headDeadline = false
	switch {
	case f.opaque:
		g.state = gateOpaque
	case f.chunked:
		g.state, g.chunks = gateChunked, chunkScanner{}
	case f.length > 0:
		g.state, g.length = gateLength, f.length
	}
}

// reject ends the connection over a head. While a handler still answers the
// request before it, net/http reads one byte ahead to see whether the client is
// there: it gets one, and the refusal follows when that answer is out.
func (g *gate) reject(err error) error {
	if g.busy.Load() {
		g.judged = 1
		g.pending = err
		return nil
	}
	g.pending = err
	return g.takePending()
}

func (g *gate) takePending() error {
	err := g.pending
	g.pending, g.state = nil, gateClosed
	g.buf, g.r, g.judged = nil, 0, 0
	g.refuse(g, err)
	return io.EOF
}

// readBody reads of a body whose end is known by its length or its chunks.
func (g *gate) readBody(p []byte) (int, error) {
	n, err := g.readRaw(p)
	var used int
	var malformed error
	if g.state == gateLength {
		used = int(min(int64(n), g.length))
		g.length -= int64(used)
	} else {
		used, malformed = g.chunks.scan(p[:n])
	}
	if used < n {
		g.unread(p[used:n])
	}
	switch {
	case malformed != nil:
	case g.state == gateLength && g.length == 0, g.state == gateChunked && g.chunks.done():
		g.state = gateHead
		g.endStall()
		return used, err
	case err == nil, g.isInterrupted():
		return used, err
	case isTimeout(err):
		malformed = badRequest("its body did not arrive in time")
	default:
		g.state = gateClosed // the client has left amid its body
		return used, err
	}
	g.state = gateClosed
	g.broken.Store(problemOf(malformed))
	return used, malformed
}

// readRaw takes what is buffered, else reads the connection straight into p: of
// a body with a length no further than its end.
func (g *gate) readRaw(p []byte) (int, error) {
	if g.r < len(g.buf) {
		n := copy(p, g.buf[g.r:])
		g.r += n
		g.release()
		return n, nil
	}
	if g.state == gateLength && int64(len(p)) > g.length {
		p = p[:g.length]
	}
	g.limitStall()
	return g.Conn.Read(p)
}

// unread puts back what belongs to the next request.
func (g *gate) unread(b []byte) {
	g.buf = append(append([]byte(nil), b...), g.buf[g.r:]...)
	g.r = 0
}

// limitStall keeps a read deadline ahead, moved only now and then: setting one
// for every read would cost more than the read's own bookkeeping.
func (g *gate) limitStall() {
	g.deadline.Lock()
	defer g.deadline.Unlock()
	now := time.Now()
	if !g.interrupted && g.readUntil.Sub(now) < g.times.stall/2 {
		g.readUntil = now.Add(g.times.stall)
		_ = g.Conn.SetReadDeadline(g.readUntil)
	}
}

func (g *gate) endStall() {
	g.deadline.Lock()
	defer g.deadline.Unlock()
	if !g.interrupted && !g.readUntil.IsZero() {
		g.readUntil = time.Time{}
		_ = g.Conn.SetReadDeadline(time.Time{})
	}
}

func (g *gate) isInterrupted() bool {
	g.deadline.Lock()
	defer g.deadline.Unlock()
	return g.interrupted
}

// readBy sets a deadline of our own.
func (g *gate) readBy(t time.Time) {
	g.deadline.Lock()
	defer g.deadline.Unlock()
	if !g.interrupted {
		_ = g.Conn.SetReadDeadline(t)
	}
}

// SetReadDeadline is net/http's; it takes the place of ours.
func (g *gate) SetReadDeadline(t time.Time) error {
	g.deadline.Lock()
	defer g.deadline.Unlock()
	g.readUntil = time.Time{}
	g.interrupted = !t.IsZero() && t.Before(time.Now())
	return g.Conn.SetReadDeadline(t)
}

// Write bounds how long a client may leave an answer unread.
func (g *gate) Write(p []byte) (int, error) {
	now := time.Now()
	if g.sendUntil.Sub(now) < g.times.stall/2 {
		g.sendUntil = now.Add(g.times.stall)
		_ = g.Conn.SetWriteDeadline(g.sendUntil)
	}
	return g.Conn.Write(p)
}

// SetWriteDeadline is net/http's, which clears it behind each answer: nothing to
// pass on, since Write sets its own before it needs one.
func (g *gate) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	g.sendUntil = t
	return g.Conn.SetWriteDeadline(t)
}

// CloseWrite lets net/http end an answer before it stops reading.
func (g *gate) CloseWrite() error {
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout()
}
