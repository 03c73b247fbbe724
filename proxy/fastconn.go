package proxy

import (
	"bytes"
	"context"
	"net"
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
	asker
	sock   *socket
	conn   net.Conn // sock, or the TLS on it
	tunnel *tunnel  // nil on the plain listener
	bound  func() bool

	rq   *fastRequest // nil while idle
	next nextStep

	// Where requests of this connection go; on the plain listener the last one went
	// there.
	authority string // as the client writes it, besides asker.name
	target    creds.Target

	peer error         // why this client may not use the proxy; nil when it may
	look time.Duration // the sweeper's: into the phase, when the client is looked for
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
	c := &fastConn{asker: asker{s: s}, sock: sock, conn: conn, tunnel: t}
	c.client = c
	if t != nil {
		c.target = t.target()
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
			c.rq.by = &c.asker
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
