package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// sink takes a tool's answer for a client, of whatever protocol. Its methods are
// called by one goroutine, which is inside the poll of the tool's socket.
type sink interface {
	// early passes a 1xx answer on, at once. a is valid until it returns.
	early(a *toolAnswer) error
	// begin takes the head. Nothing need be written before data is called.
	begin(a *toolAnswer)
	// data passes b[from:to] on, at once, and with last ends the answer, behind
	// a.trailers. The roomBefore bytes before from and roomAfter behind to may be
	// written over. It is called at least once, with last. Its error means that the
	// client is gone.
	data(b []byte, from, to int, last bool) error
}

const (
	relayBuffer = 64 << 10 // with both rooms
	roomBefore  = 512      // for what the client's head or a chunk's size needs beyond the tool's
	roomAfter   = 16
)

var relayBuffers = sync.Pool{New: func() any { b := make([]byte, relayBuffer); return &b }}

// toolAsk is one request to a tool and the answer to it, relayed as it comes: what
// has arrived goes on before the next wait, in as few writes as possible.
//
//	poll: stale? -> write -> wait -> head -> body -> ... -> outcome
//
// It is a machine of steps because it lives inside socket.poll.
type toolAsk struct {
	up     *toolConn
	sink   sink
	method string
	write  func() error             // sends the request, or begins to
	onHead func(a *toolAnswer) bool // sees the final head; true: it is not wanted, drop the answer
	answer toolAnswer
	bound  func() bool // step

	asked   bool
	heard   bool // the tool has sent something
	state   askState
	outcome askOutcome
	err     error // of askBroken: what broke
	headAt  time.Time
	begun   bool // sink has the head
	dropped bool // onHead said so
	heads   int  // 1xx so far
	dirty   bool // the connection cannot be used again

	buf      *[]byte // nil while nothing has come
	from, to int     // of the body, decoded, not passed on
	raw, w   int     // read, not decoded; a head begins at raw
	searched int     // of a head
	remain   int64
	chunks   chunkScanner
	trailer  []byte
}

type askState uint8

const (
	askHead askState = iota
	askLength
	askChunks
	askUntilClose
)

type askOutcome uint8

const (
	askBroken  askOutcome = iota // with err; begun tells whether the client has a head
	askDone                      // all is relayed
	askStale                     // nothing was sent: take another connection
	askOdd                       // the answer is one for net/http: unread has its beginning
	askDropped                   // as onHead wanted
	askGone                      // the client is
)

var (
	errChunks   = errors.New("the tool's chunks are malformed")
	errSwitched = &problem{kind: kindUnreachable, detail: "The tool switched protocols without being asked to."}
)

// run asks up, and returns when the answer is over, or lost. It takes the time of
// the head.
func (k *toolAsk) run(up *toolConn) {
	k.reset(up)
	if k.bound == nil {
		k.bound = k.step
	}
	if err := up.sock.poll(k.bound); err != nil {
		k.fail(err)
	}
	if k.outcome != askOdd {
		k.release()
	}
}

func (k *toolAsk) reset(up *toolConn) {
	k.release() // of an exchange that a fault ended
	k.up = up
	k.asked, k.heard, k.state, k.outcome, k.err, k.begun, k.dropped, k.heads, k.dirty = false, false, askHead, askBroken, nil, false, false, 0, false
	k.searched, k.headAt = 0, time.Time{}
}

// reusable reports whether the connection may serve another request.
func (k *toolAsk) reusable() bool {
	return (k.outcome == askDone || k.outcome == askDropped) && !k.dirty && !k.answer.closing
}

// silent reports whether the tool ended the connection without a byte.
func (k *toolAsk) silent() bool {
	return k.outcome == askBroken && !k.heard
}

func (k *toolAsk) fail(err error) { k.outcome, k.err = askBroken, err }

// unread is the beginning of an odd answer.
func (k *toolAsk) unread() []byte { return (*k.buf)[k.raw:k.w] }

func (k *toolAsk) release() {
	if k.buf != nil {
		relayBuffers.Put(k.buf)
		k.buf = nil
	}
}

func (k *toolAsk) step() (over bool) {
	if !k.asked {
		k.asked = true
		if k.up.reused && k.up.sock.isStale(k.peek) {
			k.outcome = askStale
			return true
		}
		if err := k.write(); err != nil {
			k.fail(err)
			return true
		}
		return false
	}
	for {
		if k.buf == nil {
			k.buf = relayBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
			k.rewind()
		}
		b := *k.buf
		n, err := k.up.conn.Read(b[k.w : len(b)-roomAfter])
		k.w += n
		k.heard = k.heard || n > 0
		switch {
		case n > 0 && k.consume():
			return true
		case err == nil || n > 0 && err == errWouldBlock: //nolint:errorlint // the value itself, from below TLS
			if k.w == len(b)-roomAfter && k.full() {
				return true
			}
		case err == errWouldBlock: //nolint:errorlint // as above
			if k.wait() {
				return true
			}
			if !k.up.sock.unsure() {
				if k.w == k.raw && k.state == askHead || k.to == k.from && k.state != askHead {
					k.release()
				}
				return false
			}
		default:
			k.end(err)
			return true
		}
	}
}

// peek reads what TLS sends for itself. A byte of HTTP would be out of turn.
func (k *toolAsk) peek() (int, error) {
	var one [1]byte
	return k.up.conn.Read(one[:])
}

func (k *toolAsk) rewind() { k.from, k.to, k.raw, k.w = roomBefore, roomBefore, roomBefore, roomBefore }

// wait passes on what there is before a wait. A head alone is kept back until it is
// sure that nothing has come with it.
func (k *toolAsk) wait() (over bool) {
	if k.state == askHead || k.to == k.from && k.up.sock.guessed {
		return false
	}
	return k.flush()
}

// full makes room in the buffer.
func (k *toolAsk) full() (over bool) {
	if k.state == askHead {
		k.outcome = askOdd // larger than the buffer: net/http has its own bound
		return true
	}
	return k.flush()
}

func (k *toolAsk) flush() (over bool) {
	if !k.dropped {
		if err := k.sink.data(*k.buf, k.from, k.to, false); err != nil {
			k.outcome, k.err = askGone, err
			return true
		}
	}
	k.rewind()
	return false
}

// consume looks at what was read. It reports whether the exchange is over.
func (k *toolAsk) consume() (over bool) {
	for k.state == askHead {
		if over, more := k.head(); over || more {
			return over
		}
	}
	switch k.state {
	case askLength:
		n := int(min(k.remain, int64(k.w-k.raw)))
		k.raw += n
		k.to = k.raw
		k.remain -= int64(n)
		if k.remain == 0 {
			return k.finish()
		}
	case askChunks:
		if err := k.dechunk(); err != nil {
			k.end(err)
			return true
		}
		if k.chunks.done() {
			k.answer.trailer(k.trailer)
			return k.finish()
		}
	default:
		k.raw = k.w
		k.to = k.w
	}
	return false
}

// head takes one head. more: it is not complete.
func (k *toolAsk) head() (over, more bool) {
	b := (*k.buf)[k.raw:k.w]
	i := bytes.Index(b[k.searched:], headEnd)
	if i < 0 {
		k.searched = max(0, len(b)-len(headEnd)+1)
		if !plausibleHead(b) {
			k.outcome = askOdd
			return true, false
		}
		return false, true
	}
	size := k.searched + i + len(headEnd)
	k.searched = 0
	a := &k.answer
	switch {
	case !a.parse(b[:size], k.method):
		k.outcome = askOdd
		return true, false
	case a.status == http.StatusSwitchingProtocols:
		k.fail(errSwitched)
		return true, false
	case a.status < 200:
		k.raw += size
		if k.heads++; k.heads > maxEarlyAnswers {
			k.fail(errEarlyAnswers)
			return true, false
		}
		if a.status != http.StatusContinue { // which nobody asked for
			if err := k.sink.early(a); err != nil {
				k.outcome, k.err = askGone, err
				return true, false
			}
		}
		return false, k.raw == k.w
	}
	k.raw += size
	k.from, k.to = k.raw, k.raw
	k.headAt = time.Now()
	return k.beginBody(), false
}

// plausibleHead finds what can never become a head of the subset: a line that ends
// in LF alone, or something that is no HTTP/1.
func plausibleHead(b []byte) bool {
	const version = "HTTP/1.1 "
	if n := min(len(b), len(version)); string(b[:n]) != version[:n] {
		return false
	}
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return true
		}
		if i < 1 || b[i-1] != '\r' {
			return false
		}
		b = b[i+1:]
	}
}

func (k *toolAsk) beginBody() (over bool) {
	a := &k.answer
	if k.onHead(a) {
		k.dropped = true
	} else {
		k.begun = true
		k.sink.begin(a)
	}
	switch {
	case a.bodyless || a.length == 0:
		return k.finish()
	case a.length > 0:
		k.state, k.remain = askLength, a.length
	case a.chunked:
		k.state, k.chunks, k.trailer = askChunks, chunkScanner{}, k.trailer[:0]
	default:
		k.state, a.closing = askUntilClose, true
	}
	if k.dropped && (a.length < 0 && !a.chunked || a.length > maxReplay) {
		k.dirty = true // cheaper to close than to read
		k.outcome = askDropped
		return true
	}
	return false
}

func (k *toolAsk) dechunk() (err error) {
	if k.to, k.raw, err = k.chunks.unframe(*k.buf, k.to, k.raw, k.w, &k.trailer); err != nil {
		return errChunks
	}
	return nil
}

// finish passes the last of an answer on.
func (k *toolAsk) finish() (over bool) {
	k.dirty = k.dirty || k.raw < k.w // bytes that belong to no answer
	if k.dropped {
		k.outcome = askDropped
		return true
	}
	if err := k.sink.data(*k.buf, k.from, k.to, true); err != nil {
		k.outcome, k.err = askGone, err
		k.dirty = true
		return true
	}
	k.outcome = askDone
	return true
}

// end takes the end of the connection: that of the answer as well, where nothing
// else delimits it, or else a break in it. The client gets what came before.
func (k *toolAsk) end(err error) {
	if k.state == askUntilClose && errors.Is(err, io.EOF) {
		k.finish()
		return
	}
	if k.begun && k.flush() {
		return
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	k.fail(err)
}
