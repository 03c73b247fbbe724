package proxy

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pillion/creds"
)

// fastConn is a client's connection in the hands of the fast engine, on the plain
// listener or inside a tunnel. One goroutine reads a request, asks the tool, and
// relays the answer; while nothing is under way it holds no buffer.
//
//	poll the client -> head -> match, authorize, inject -> poll the tool -> answer
//	      ^                                                                  |
//	      +------------------------------------------------------------------+
//
// Whatever is not in the engine's subset is handed over to net/http behind its
// gate, with the bytes that were read, before anything has come of them. It never
// comes back.
type fastConn struct {
	s      *Server
	sock   *socket
	conn   net.Conn // sock, or the TLS on it
	tunnel *tunnel  // nil on the plain listener
	bound  func() bool

	rq   *fastRequest // nil while idle
	next nextStep

	// Where requests of this connection go; on the plain listener the last one went
	// there.
	authority string // as the client writes it, besides name
	name      string // the Host field towards the tool
	target    creds.Target
	tool      *tool

	ctx    context.Context //nolint:containedctx // ends with the connection
	cancel context.CancelFunc

	watch
}

// nextStep is why a poll of the client ended.
type nextStep uint8

const (
	nextRequest nextStep = iota // go on
	nextUpload                  // a body has to be read beside the tool's answer
	nextHandOver
	nextConnect
	nextClose
	nextLinger // close, but let the client read the last answer first
)

// serveFast takes c over, and reports whether it did; if not, nothing was read.
func (s *Server) serveFast(conn net.Conn, sock *socket, t *tunnel) bool {
	if sock == nil || !s.takesFast(t) {
		return false
	}
	c := &fastConn{s: s, sock: sock, conn: conn, tunnel: t}
	if t != nil {
		c.target = creds.Target{Scheme: "https", Host: t.host, Port: t.port}
		c.authority, c.name = c.target.Authority(), hostField(c.target)
	}
	c.bound = c.step
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.enter(phaseFresh)
	if !s.sweeper.add(c) {
		c.cancel()
		return false
	}
	c.loop()
	return true
}

// acceptFast serves a connection of the listener.
func (s *Server) acceptFast(sock *socket) {
	if s.serveFast(sock, sock, nil) {
		return
	}
	g := &gate{Conn: sock, refuse: s.refuseRaw, times: &s.timeouts}
	if !s.frontHandoff.give(g) { // the configuration changed a moment ago, or the server has ended
		_ = sock.Close()
	}
}

// takesFast reports whether requests of such a connection go by the fast engine.
func (s *Server) takesFast(t *tunnel) bool {
	config := s.config.Load()
	return config.Fast && config.UpstreamProxy == nil && (t == nil || t.serverName == "" || sameHost(t.serverName, t.host))
}

func (c *fastConn) loop() {
	defer func() {
		if fault := recover(); fault != nil { // of the engine itself: a request's own are caught in exchange
			c.s.logFault(fault)
			_ = c.conn.Close()
		}
		c.s.sweeper.remove(c)
		c.cancel()
	}()
	for {
		c.next = nextRequest
		if err := c.sock.poll(c.bound); err != nil {
			c.pollEnded()
			return
		}
		next := c.next
		if next == nextUpload {
			next = c.exchange(c.rq)
		}
		switch next {
		case nextRequest:
			continue
		case nextHandOver:
			c.handOver()
		case nextConnect:
			c.connect()
		case nextLinger:
			c.enter(phaseLeaving)
			lingeringClose(c.conn)
			_ = c.conn.Close()
		default:
			c.enter(phaseLeaving)
			_ = c.conn.Close()
		}
		c.drop()
		return
	}
}

// pollEnded is for a wait that the sweeper has ended, or a connection that broke.
func (c *fastConn) pollEnded() {
	c.enter(phaseLeaving)
	if c.why() == cutHead {
		c.s.refuseRaw(c.gate(), badRequest("its header did not arrive in time"))
	}
	c.drop()
	_ = c.conn.Close()
}

func (c *fastConn) drop() {
	if c.rq != nil {
		c.rq.giveBack()
		c.rq = nil
	}
}

// step reads what has come, and serves what of it is whole. It reports whether the
// poll is over, for c.next.
func (c *fastConn) step() (over bool) {
	for {
		if c.rq == nil {
			c.rq = takeRequest()
			c.rq.conn = c
		}
		rq := c.rq
		if rq.r < rq.w {
			if c.next = c.request(rq); c.next != nextRequest {
				return true
			}
			if rq.r < rq.w && !rq.partial {
				continue
			}
		}
		if !rq.room() {
			c.next = nextHandOver
			return true
		}
		n, err := c.conn.Read(rq.in[rq.w:])
		rq.w += n
		switch {
		case n > 0:
		case err == errWouldBlock: //nolint:errorlint // the value itself, from below TLS
			switch {
			case rq.r == rq.w:
				c.drop()
			case c.sock.unsure():
				continue
			}
			return false
		default:
			c.next = nextClose // the client has left: amid a head, it does not matter
			return true
		}
	}
}

// request looks at the next head, and serves its request if it is whole.
func (c *fastConn) request(rq *fastRequest) nextStep {
	b := rq.in[rq.r:rq.w]
	i := bytes.Index(b, headEnd)
	if i < 0 {
		if checkPartialHead(b) != nil {
			return nextHandOver // which says why
		}
		if !rq.partial {
			rq.partial = true
			c.enter(phaseHead)
			c.s.sweeper.kick()
		}
		return nextRequest
	}
	rq.partial, rq.body = false, nil
	if bytes.HasPrefix(b, []byte("CONNECT ")) {
		if c.tunnel != nil || !c.isConnect(b[:i+len(headEnd)]) {
			return nextHandOver
		}
		return nextConnect
	}
	if !rq.parse(b[:i+len(headEnd)]) || !c.aim(rq) {
		return nextHandOver
	}
	if !c.probe(rq) {
		return nextHandOver
	}
	if rq.chunked || rq.length > int64(len(b)-rq.size) {
		return nextUpload
	}
	rq.body = b[rq.size : rq.size+int(rq.length)]
	return c.exchange(rq)
}

// aim finds out where a request goes. It returns false for what the engine leaves
// to net/http: nothing has come of the request then.
func (c *fastConn) aim(rq *fastRequest) bool {
	config := c.s.config.Load()
	if !config.Fast || config.UpstreamProxy != nil {
		return false
	}
	rq.config = config
	rq.x = exchange{entry: Entry{Time: time.Now(), Method: rq.requestHead.method, Protocol: "HTTP/1.1"}}
	x := &rq.x
	target := string(rq.target)
	x.path, x.query, _ = strings.Cut(target, "?")
	x.entry.Path = x.path
	if c.tunnel == nil {
		if !c.aimPlain(rq) {
			return false
		}
	} else {
		if rq.authority != nil || !equalFold(rq.host, c.name) && !equalFold(rq.host, c.authority) {
			return false
		}
		x.chosen = c.tunnel.chosen
	}
	x.target = c.target
	x.target.Path = x.path
	x.entry.Host = c.name
	if c.tool == nil || c.tool.pool != config.pool {
		c.tool = config.pool.of(&c.target)
	}
	return true
}

// probe finds out whether the tool speaks HTTP/1.1 before anything comes of the
// first request to it. It returns false for one that does not. What has no
// credential is not dialled: it will be refused.
func (c *fastConn) probe(rq *fastRequest) bool {
	rq.first, rq.firstErr = nil, nil
	known, http2Only := c.tool.protocol(rq.x.entry.Time)
	if known || http2Only {
		return !http2Only
	}
	if _, err := c.s.Table().Match(rq.x.target); err != nil {
		return true
	}
	c.enter(phaseAsk)
	c.s.sweeper.kick()
	rq.first, rq.firstErr = c.tool.get(c.ctx, false)
	_, http2Only = errors.AsType[errHTTP2Only](rq.firstErr)
	return !http2Only
}

// aimPlain takes the absolute form http://, which means https:// wherever a
// credential asks for it.
func (c *fastConn) aimPlain(rq *fastRequest) bool {
	if rq.authority == nil || !bytes.EqualFold(rq.host, rq.authority) || c.peer != nil {
		return false
	}
	if string(rq.authority) != c.authority {
		host, port, err := creds.ParseAuthority(string(rq.authority), 80)
		if err != nil {
			return false
		}
		if port == 80 {
			port = 443
		}
		c.authority, c.tool = string(rq.authority), nil
		c.target = creds.Target{Scheme: "https", Host: host, Port: port}
		c.name = hostField(c.target)
	}
	if rq.config.Tunnel && !c.s.Table().HasOrigin(c.target.Scheme, c.target.Host, c.target.Port) {
		return false // passed on in the clear
	}
	chosen, err := c.s.chosen(string(rq.proxyAuth))
	rq.x.chosen = chosen
	return err == nil
}

// isConnect holds a CONNECT to the whole grammar: it is rare, and as any other.
func (c *fastConn) isConnect(head []byte) bool {
	f, err := checkHead(head)
	return err == nil && f.opaque && c.peer == nil
}

// connect answers a CONNECT, with what the client sent right behind it.
func (c *fastConn) connect() {
	b := c.rq.in[c.rq.r:c.rq.w]
	size := bytes.Index(b, headEnd) + len(headEnd)
	r := connectRequest(b[:size])
	client := &tunnelConn{Conn: c.sock}
	if size < len(b) {
		client.early = bytes.Clone(b[size:])
	}
	c.drop()
	c.leave()
	c.s.connect(r, client, nil)
}

// connectRequest is as much of a CONNECT request as Server.connect looks at.
func connectRequest(head []byte) *http.Request {
	line, rest, _ := cutLine(head)
	parts := bytes.Split(line, []byte(" "))
	r := &http.Request{Method: http.MethodConnect, RequestURI: string(parts[1]), Proto: string(parts[2]), ProtoMajor: 1, Header: http.Header{}}
	for {
		var ok bool
		if line, rest, ok = cutLine(rest); !ok || len(line) == 0 {
			return r
		}
		if name, value, ok := splitField(line); ok && equalFold(name, "proxy-authorization") {
			r.Header["Proxy-Authorization"] = append(r.Header["Proxy-Authorization"], string(value))
		}
	}
}

// leave ends the sweeper's watch over a connection that goes on elsewhere.
func (c *fastConn) leave() {
	c.enter(phaseLeaving)
	c.s.sweeper.remove(c)
}

// gate is the connection as net/http gets it, with what was read of it.
func (c *fastConn) gate() *gate {
	g := &gate{Conn: c.conn, tunnel: c.tunnel, peer: c.peer, refuse: c.s.refuseRaw, times: &c.s.timeouts}
	if c.rq != nil && c.rq.r < c.rq.w {
		g.buf = bytes.Clone(c.rq.in[c.rq.r:c.rq.w])
	}
	return g
}

// handOver gives the connection to net/http.
func (c *fastConn) handOver() {
	g := c.gate()
	c.leave()
	to := &c.s.handoff
	if c.tunnel == nil {
		to = &c.s.frontHandoff
	}
	if !to.give(g) {
		_ = c.conn.Close()
	}
}

// errClientGone is what sending to a client that left comes to.
var errClientGone = errors.New("the client has left")

// fastRequest is what one request needs. Connections borrow it for as long as one
// is under way.
type fastRequest struct {
	requestHead
	x      exchange
	config *running

	first    *toolConn // what the probe of a tool's protocol came to
	firstErr error

	in      []byte // read of the client: in[r:w] is not served yet
	r, w    int
	partial bool // in[r:w] is the beginning of a head

	body   []byte // all of it, where it came with the head
	out    []byte // the head, and the body, as the tool gets them
	ask    toolAsk
	upload upload

	answerHead []byte // as the client gets it, until it is written
	chunking   bool   // the client gets chunks
	last       bool   // it is told that the connection ends
	retry      *creds.Authorization

	conn                   *fastConn
	sendWhole, beginUpload func() error // bound once, as toolAsk asks for
	onHead                 func(*toolAnswer) bool

	small  [4 << 10]byte
	memory [maxFields]field
}

// maxFastHead is the most that is collected of a head, with what comes behind it.
const maxFastHead = 16 << 10

var requests = sync.Pool{New: func() any {
	rq := &fastRequest{}
	rq.in = rq.small[:]
	rq.fields = rq.memory[:0]
	rq.out = make([]byte, 0, 2<<10)
	rq.answerHead = make([]byte, 0, 1<<10)
	rq.ask.answer.fields = make([]field, 0, 32)
	rq.upload.done = make(chan struct{}, 1)
	rq.sendWhole = func() error { return rq.ask.up.sock.send(rq.ask.up.conn, rq.out) }
	rq.beginUpload = func() error {
		rq.upload.start(rq.ask.up)
		return nil
	}
	rq.onHead = func(a *toolAnswer) bool { return rq.conn.onHead(a) }
	return rq
}}

func takeRequest() *fastRequest {
	return requests.Get().(*fastRequest) //nolint:forcetypeassert // nothing else is put there
}

// giveBack drops what is large or points elsewhere.
func (rq *fastRequest) giveBack() {
	rq.in, rq.r, rq.w, rq.partial = rq.small[:], 0, 0, false
	rq.x, rq.config, rq.body, rq.retry, rq.first, rq.firstErr = exchange{}, nil, nil, nil, nil, nil
	rq.ask.up, rq.ask.sink, rq.conn, rq.upload.kept = nil, nil, nil, nil
	if cap(rq.out) > 16<<10 {
		rq.out = make([]byte, 0, 2<<10)
	}
	requests.Put(rq)
}

// room makes space behind w; it reports false when a head is too long for it.
func (rq *fastRequest) room() bool {
	if rq.r == rq.w {
		rq.r, rq.w = 0, 0
	}
	if rq.w < len(rq.in) {
		return true
	}
	if rq.r > 0 {
		rq.w = copy(rq.in, rq.in[rq.r:rq.w])
		rq.r = 0
		return true
	}
	if len(rq.in) >= maxFastHead {
		return false
	}
	rq.in = append(rq.in, make([]byte, len(rq.in))...)
	return true
}

// watch is what the sweeper sees of a connection, and how it ends its waits.
type watch struct {
	peer   error         // why this client may not use the proxy; nil when it may
	phase  atomic.Uint32 // a count of changes, and in its low bits the phase
	count  uint32
	upload atomic.Uint32 // the same for an upload: odd while the client is waited for
	cut    atomic.Uint32

	mu sync.Mutex
	up *toolConn // asked now

	// The sweeper's own.
	seen, seenUpload uint32
	since, moved     time.Time
	look             time.Duration // into the phase, when the client is looked for
}
