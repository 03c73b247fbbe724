package proxy

import (
	"bytes"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"pillion/creds"
)

// h2Conn is a client's connection inside a tunnel that negotiated HTTP/2 (RFC 9113),
// in the hands of the fast engine. One goroutine reads frames; each stream has one of
// its own, which asks the tool by HTTP/1.1 and relays the answer; what streams have to
// write is gathered, and written by whichever comes first.
//
//	poll the client -> frames -> stream: match, authorize, inject -> poll the tool -> answer
//	      ^                |                                                            |
//	      +----------------+                    out <-----------------------------------+
//
// A request that is not in the engine's subset (h2head.go) is served by net/http's
// transport and the handler of all others, on its stream (h2odd.go).
type h2Conn struct {
	s         *Server
	sock      *socket
	conn      *tls.Conn
	tunnel    *tunnel
	target    creds.Target
	authority string // as a client may write it, besides name
	name      string

	// Of the goroutine that reads.
	in      *[]byte // nil while nothing is to be read
	r, w    int     // in[r:w] is not served yet
	begun   int     // of it, whole frames of a header block without its end
	served  bool    // a whole frame, since the last wait
	feed    bytes.Reader
	framer  *http2.Framer
	block   h2Block
	bound   func() bool
	greeted int // bytes of the client's preface seen
	settled bool
	waiting []*h2Stream // opened, not begun: their bodies may come with the next bytes
	leave   error       // why reading ended, if it was not the client

	watch       // of the reading side
	looked bool // the sweeper's: for the client, since it was heard last

	h2Out

	tool     atomic.Pointer[tool]
	streams  map[uint32]*h2Stream // open, by our count: the answer has not ended
	last     uint32               // highest number of a stream
	gone     [64]uint32           // ended a moment ago, in a ring
	goneAt   int
	credited int // bytes received and used up, that the client may send again
	room     int // what it may still send
	spare    []*h2Stream
	quiet    time.Time // since when no stream is open
	leaving  bool      // the connection ends with its last stream

	running sync.WaitGroup // goroutines of streams
}

const (
	h2MaxStreams = 250
	h2Window     = 1 << 20   // of a connection: a slow tool must not fill our memory with uploads
	h2StreamRoom = 256 << 10 // of a stream
	h2MaxFrame   = 16 << 10  // of what we read and write: what everybody takes, and a record of TLS holds
	h2Unwritten  = 256 << 10 // answers to frames that a client may leave unread
	h2Gathering  = 16        // streams that wait at most for more to be read
)

// Errors of a connection, by their codes (RFC 9113 section 7).
const (
	h2Protocol    = http2.ConnectionError(http2.ErrCodeProtocol)
	h2FlowControl = http2.ConnectionError(http2.ErrCodeFlowControl)
	h2Calm        = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	h2FrameSize   = http2.ConnectionError(http2.ErrCodeFrameSize)
)

// errH2Over ends a connection that nobody uses any more, in order.
var errH2Over = errors.New("no stream is left")

// serveH2 takes a tunnel over.
func (s *Server) serveH2(client *tunnelConn, conn *tls.Conn) {
	t := client.tunnel
	c := &h2Conn{
		s: s, sock: client.socket(), conn: conn, tunnel: t,
		target:  t.target(),
		streams: map[uint32]*h2Stream{}, room: h2Window,
	}
	c.authority, c.name = c.target.Authority(), hostField(c.target)
	c.bound = c.step
	c.framer = http2.NewFramer(nil, &c.feed)
	c.block.begin()
	c.framer.SetMaxReadFrameSize(h2MaxFrame)
	c.h2Out.begin()
	c.wroteAt = time.Now()
	c.enter(phaseFresh)
	if !s.sweeper.add(c) {
		_ = conn.Close()
		return
	}
	c.loop()
}

func (c *h2Conn) loop() {
	defer func() {
		if fault := recover(); fault != nil { // of the engine itself: a request's own are caught in its stream
			c.s.logFault(fault)
			c.leave = http2.ConnectionError(http2.ErrCodeInternal)
		}
		c.close()
		c.s.sweeper.remove(c)
	}()
	c.greet()
	_ = c.sock.poll(c.bound)
}

// greet sends the server's preface: what the client may do.
func (c *h2Conn) greet() {
	c.lock.Lock()
	defer c.lock.Unlock()
	_ = c.frames.WriteSettings( // into memory
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: h2MaxStreams},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2StreamRoom},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHead},
	)
	_ = c.frames.WriteWindowUpdate(0, h2Window-h2InitialWindow)
	c.flush()
}

// step reads what has come, and begins what came whole. It reports whether the
// connection is over.
func (c *h2Conn) step() (over bool) {
	for {
		if c.in == nil {
			c.in = relayBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
			c.r, c.w = 0, 0
		}
		n, err := c.conn.Read((*c.in)[c.w:])
		c.w += n
		switch {
		case n > 0:
			if c.leave = c.consume(); c.leave != nil {
				return true
			}
			if len(c.waiting) >= h2Gathering {
				c.beginWaiting()
			}
		case err == errWouldBlock: //nolint:errorlint // the value itself, from below TLS
			c.beginWaiting()
			c.answerControl()
			if c.r < c.w && c.sock.unsure() {
				continue // else the sweeper finds out whether the client has left
			}
			c.rest()
			return false
		default:
			return true // the client has left, or somebody wants an end
		}
	}
}

// rest prepares for a wait.
func (c *h2Conn) rest() {
	phase := phaseIdle
	switch {
	case c.greeted < len(http2.ClientPreface):
		phase = phaseFresh
	case c.r < c.w && c.amidHead():
		phase = phaseHead
	}
	if c.r == c.w {
		relayBuffers.Put(c.in)
		c.in = nil
	}
	if phase != c.now() || phase == phaseIdle || c.served { // a head that has begun since is another one
		c.enter(phase)
		c.s.sweeper.kick()
	}
	c.served = false
}

// consume takes whole frames out of what was read.
func (c *h2Conn) consume() error {
	for c.r < c.w {
		b := (*c.in)[c.r:c.w]
		if c.greeted < len(http2.ClientPreface) {
			n := min(len(b), len(http2.ClientPreface)-c.greeted)
			if string(b[:n]) != http2.ClientPreface[c.greeted:c.greeted+n] {
				return h2Protocol
			}
			c.greeted += n
			c.r += n
			continue
		}
		size, whole, err := frameSize(b, c.begun)
		if err != nil {
			return err
		}
		if !whole {
			c.begun = size
			return c.makeRoom()
		}
		c.begun, c.served = 0, true
		c.r += size
		if err := c.take(b[:size]); err != nil {
			return err
		}
	}
	c.r, c.w = 0, 0
	return nil
}

// makeRoom moves the beginning of a frame, or of a header block, to the front of the
// buffer.
func (c *h2Conn) makeRoom() error {
	if c.r > 0 {
		c.w = copy(*c.in, (*c.in)[c.r:c.w])
		c.r = 0
	}
	if c.w == len(*c.in) {
		return h2Calm // a header block that is larger than any list we take
	}
	return nil
}

const frameHeader = 9

// frameSize finds the end of the first frame of b, or of a header block with all its
// CONTINUATION frames, which http2.Framer reads in one go. What is out of order it
// leaves to http2.Framer to say. Where the end is not there yet, size is what whole
// frames of a block there are: the next call is told of them as begun.
func frameSize(b []byte, begun int) (size int, whole bool, err error) {
	size = begun
	for at := begun; len(b)-at >= frameHeader; {
		head := b[at : at+frameHeader]
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if length > h2MaxFrame {
			return 0, false, h2FrameSize
		}
		if at += frameHeader + length; at > len(b) {
			return size, false, nil
		}
		kind, flags := http2.FrameType(head[3]), http2.Flags(head[4])
		switch {
		case size > 0 && kind != http2.FrameContinuation, size == 0 && kind != http2.FrameHeaders:
			return at, true, nil
		case flags.Has(http2.FlagHeadersEndHeaders): // CONTINUATION has it at the same place
			return at, true, nil
		}
		size = at
	}
	return size, false, nil
}

// amidHead reports whether a header block has begun, and not ended.
func (c *h2Conn) amidHead() bool {
	b := (*c.in)[c.r:c.w]
	return len(b) > 3 && http2.FrameType(b[3]) == http2.FrameHeaders
}

// take serves one frame. A fault of one stream ends that alone.
func (c *h2Conn) take(frame []byte) error {
	if http2.FrameType(frame[3]) == http2.FrameData && c.settled {
		return c.streamFault(c.data(frame))
	}
	c.feed.Reset(frame)
	f, err := c.framer.ReadFrame()
	switch {
	case errors.Is(err, http2.ErrFrameTooLarge):
		return h2FrameSize
	case err != nil && http2.FrameType(frame[3]) == http2.FrameHeaders:
		return h2Protocol // nobody has decoded the block: the next would be read wrongly
	case err != nil:
		return c.streamFault(err)
	}
	if !c.settled {
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			return h2Protocol // RFC 9113 section 3.4
		}
		c.settled = true
	}
	if f, ok := f.(*http2.HeadersFrame); ok {
		return c.streamFault(c.headers(f))
	}
	return c.streamFault(c.frame(f))
}

// streamFault ends the stream that err is of; any other error it returns, as one of
// the connection.
func (c *h2Conn) streamFault(err error) error {
	if err == nil || err == errH2Over { //nolint:errorlint // the value itself
		return err
	}
	if whole, ok := errors.AsType[http2.ConnectionError](err); ok {
		return whole
	}
	fault, ok := errors.AsType[http2.StreamError](err)
	if !ok {
		return h2Protocol
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	if fault.StreamID > c.last {
		return http2.ConnectionError(fault.Code) // nothing may be said on an idle stream
	}
	if c.owed > h2Unwritten {
		return h2Calm
	}
	if st := c.streams[fault.StreamID]; st != nil {
		st.reset(fault.Code)
	} else if !c.isGone(fault.StreamID) {
		_ = c.frames.WriteRSTStream(fault.StreamID, fault.Code) // into memory
		c.forget(fault.StreamID)
	}
	return nil
}

// close ends the connection: behind what its streams have still to say, where the end
// is an orderly one.
func (c *h2Conn) close() {
	if c.in != nil {
		relayBuffers.Put(c.in)
		c.in = nil
	}
	c.enter(phaseLeaving)
	code := http2.ErrCodeNo
	if whole, ok := errors.AsType[http2.ConnectionError](c.leave); ok {
		code = http2.ErrCode(whole)
	}
	c.lock.Lock()
	told := c.leave != nil || c.leaving || c.why() == cutIdle || c.why() == cutHead || c.why() == cutStop
	if told {
		last := c.last
		if len(c.waiting) > 0 {
			last = c.waiting[0].id - 1 // the others can be sent again without harm
		}
		_ = c.frames.WriteGoAway(last, code, nil) // into memory
	}
	for _, st := range c.waiting {
		st.remove()
	}
	c.waiting = nil
	for _, st := range c.streams {
		st.cutIf(true, cutGone)
	}
	_ = c.sock.SetWriteDeadline(time.Now().Add(time.Second))
	c.lock.Unlock()
	c.running.Wait()
	if told {
		c.lock.Lock()
		c.flush()
		c.lock.Unlock()
		_ = c.sock.SetReadDeadline(time.Time{})
		lingeringClose(c.conn)
	}
	_ = c.conn.Close()
}
