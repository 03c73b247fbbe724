package proxy

import (
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// upload carries a request's body to the tool beside the goroutine that waits for
// the answer, which may come at any time. It decodes chunks and makes its own, so
// that the tool sees one framing whatever the client's was.
type upload struct {
	c  *asker
	up *toolConn
	rq *fastRequest

	buf      *[]byte
	headed   bool // the head has been sent
	from, to int  // of the body, decoded, not sent
	raw, w   int  // read, not decoded
	remain   int64
	chunks   chunkScanner
	moves    uint32
	kept     []byte
	keeps    bool
	sock     *socket // of the client, over HTTP/1.1
	conn     net.Conn
	bound    func() bool
	running  bool

	read   atomic.Bool             // all of it was read of the client
	broken atomic.Pointer[problem] // why it will not be
	done   chan struct{}           // the goroutine has ended
}

// prepare takes over what was read behind the head. keep asks for the body to be
// kept for a second try, unless it turns out to be large.
func (u *upload) prepare(c *asker, rq *fastRequest, keep bool) {
	u.c, u.rq = c, rq
	u.headed, u.running, u.moves = false, false, 0
	u.remain, u.chunks = rq.length, chunkScanner{}
	u.kept, u.keeps = nil, keep
	u.read.Store(false)
	u.broken.Store(nil)
	u.buf = relayBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
	behind := rq.in[rq.r+rq.size : rq.w]
	u.from = roomBefore + len(rq.out)
	if u.from+len(behind)+maxRecord > len(*u.buf) { // a head that was padded by its credential
		u.from = roomBefore
	}
	u.to, u.raw = u.from, u.from
	u.w = u.from + copy((*u.buf)[u.from:], behind)
}

// start runs the upload to up. It is called inside the poll of up's socket, which
// then cannot miss the answer.
func (u *upload) start(up *toolConn) {
	u.up, u.running = up, true
	u.rq.w = u.rq.r + u.rq.size // the rest is here
	c := u.c
	go func() {
		defer func() {
			if fault := recover(); fault != nil {
				c.s.logFault(fault)
				u.stop(faultProblem())
			}
			c.watch.upload.Store(0)
			u.done <- struct{}{}
		}()
		if err := c.client.readBody(u); err != nil {
			u.stop(c.bodyProblem())
		}
	}()
}

// readBody implements client.
func (c *fastConn) readBody(u *upload) error {
	u.sock, u.conn = c.sock, c.conn
	if u.bound == nil {
		u.bound = u.step
	}
	return c.sock.poll(u.bound)
}

// stopBody implements client.
func (c *fastConn) stopBody() { c.sock.interruptReads() }

// bodyProblem is why a client's body ended early.
func (c *asker) bodyProblem() *problem {
	if c.why() == cutBody {
		return problemOf(badRequest("its body did not arrive in time"))
	}
	return clientLeft()
}

// stop ends the request: nothing can come of it without its body.
func (u *upload) stop(p *problem) {
	u.broken.CompareAndSwap(nil, p)
	u.up.sock.interrupt()
}

// moved tells the sweeper that the body goes on, and whether the client is waited
// for.
func (u *upload) moved(waiting bool) {
	u.moves++
	v := u.moves << 1
	if waiting {
		v |= 1
	}
	u.c.watch.upload.Store(v)
}

// step reads what has come of the body, and sends it on before each wait.
func (u *upload) step() (over bool) {
	u.moved(false)
	for {
		if err := u.decode(); err != nil {
			u.stop(problemOf(err))
			return true
		}
		if u.whole() {
			u.putBack()
			u.read.Store(true)
			u.flush(true) // a tool that does not take it says so by its answer
			return true
		}
		b := *u.buf
		limit := len(b) - roomAfter
		if u.w == limit {
			if !u.flush(false) {
				return true
			}
			continue
		}
		if !u.rq.chunked {
			limit = int(min(int64(limit), int64(u.w)+u.remain))
		}
		n, err := u.conn.Read(b[u.w:limit])
		u.w += n
		switch {
		case n > 0:
		case err == errWouldBlock: //nolint:errorlint // the value itself, from below TLS
			if (u.to > u.from || !u.headed) && !u.flush(false) {
				return true
			}
			if !u.sock.unsure() {
				u.moved(true)
				return false
			}
		default:
			u.stop(clientLeft())
			return true
		}
	}
}

func (u *upload) whole() bool {
	if u.rq.chunked {
		return u.chunks.done()
	}
	return u.remain == 0
}

// decode takes the framing out of what was read, in place.
func (u *upload) decode() error {
	before := u.to
	if u.rq.chunked {
		if err := u.dechunk(); err != nil {
			return err
		}
	} else {
		n := int(min(u.remain, int64(u.w-u.raw)))
		u.raw += n
		u.to += n
		u.remain -= int64(n)
	}
	if n := u.to - before; n > 0 {
		u.rq.x.in.Add(int64(n))
		u.keep((*u.buf)[before:u.to])
	}
	return nil
}

// dechunk ends at trailers that no Trailer announced.
func (u *upload) dechunk() (err error) {
	u.to, u.raw, err = u.chunks.unframe(*u.buf, u.to, u.raw, u.w, nil)
	return err
}

func (u *upload) keep(b []byte) {
	if !u.keeps {
		return
	}
	if len(u.kept)+len(b) > maxReplay {
		u.keeps, u.kept = false, nil
		return
	}
	u.kept = append(u.kept, b...)
}

// flush sends what there is, with the head before the first of it.
func (u *upload) flush(last bool) bool {
	b, rq := *u.buf, u.rq
	from, to := u.from, u.to
	if rq.chunked {
		from, to = frame(b, from, to, last)
	}
	if !u.headed {
		u.headed = true
		if from < len(rq.out) {
			if u.up.sock.send(u.up.conn, rq.out) != nil {
				return false
			}
		} else {
			from -= len(rq.out)
			copy(b[from:], rq.out)
		}
	}
	err := error(nil)
	if from < to {
		err = u.up.sock.send(u.up.conn, b[from:to])
	}
	if !last {
		u.from, u.to, u.raw, u.w = roomBefore, roomBefore, roomBefore, roomBefore
	}
	u.moved(false)
	return err == nil
}

// frame makes b[from:to] a chunk, in the room before and behind it.
func frame(b []byte, from, to int, last bool) (int, int) {
	if n := to - from; n > 0 {
		to += copy(b[to:], "\r\n")
		var size [18]byte
		text := append(strconv.AppendInt(size[:0], int64(n), 16), '\r', '\n')
		from -= len(text)
		copy(b[from:], text)
	}
	if last {
		to += copy(b[to:], "0\r\n\r\n")
	}
	return from, to
}

// putBack returns what the client sent behind the body: its next request. It comes
// before flush, whose last chunk may need the place.
func (u *upload) putBack() {
	rq := u.rq
	rq.in = append(rq.in[:rq.w], (*u.buf)[u.raw:u.w]...)
	rq.w = len(rq.in)
	rq.in = rq.in[:cap(rq.in)]
}

// lateWrite is how long a tool that has answered may take for the end of a body.
const lateWrite = time.Second

// end waits for the goroutine, which is told to end unless it is about to. orderly
// says whether the answer is complete. It reports whether both connections may go
// on.
func (u *upload) end(orderly bool) bool {
	orderly = orderly && u.running
	if u.running {
		orderly = u.await(orderly && u.read.Load())
		u.running = false
	}
	recycle(u.buf)
	u.buf = nil
	return orderly
}

func (u *upload) await(orderly bool) bool {
	if orderly {
		timer := time.NewTimer(lateWrite)
		defer timer.Stop()
		select {
		case <-u.done:
			return true
		case <-timer.C:
		}
	}
	u.c.client.stopBody()
	u.up.sock.interrupt()
	<-u.done
	return false
}
