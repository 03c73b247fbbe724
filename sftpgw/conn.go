package sftpgw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
	"pillion/proxy/socket"
)

// conn is a client's connection: TCP, a CONNECT tunnel, or the channel of a jump.
type conn struct {
	server   *Server
	net      *halfConn
	target   Target
	via      string
	begin    time.Time
	ctx      context.Context //nolint:containedctx // ends with the client
	cancel   context.CancelFunc
	ssh      *ssh.ServerConn // from the handshake on; set under mu
	gathered *gatheredConn   // below it

	mu       sync.Mutex
	channels int  // sessions and jumps that are open
	used     bool // one was opened
	idle     *time.Timer
	up       *upstream         // the last one that was dialled
	upFor    *creds.Credential // whose it is
	ups      []*upstream       // to be closed with the connection
	sessions sync.WaitGroup
}

func newConn(ctx context.Context, s *Server, c net.Conn, target Target, via string) *conn {
	n := &conn{server: s, net: &halfConn{Conn: socket.Quiet(c)}, target: target, via: via, begin: s.now()}
	n.ctx, n.cancel = context.WithCancel(ctx)
	return n
}

// serve returns when the client has gone and nothing is left of its sessions.
func (n *conn) serve() {
	defer n.settle()
	defer n.close()
	defer n.recovered()
	timer := time.AfterFunc(n.server.handshakeTimeout(), n.close) // over the whole handshake, whatever the client sends
	gathered, sshConn, channels, requests, err := handshake(n.net, n.server.config)
	if !timer.Stop() && err == nil {
		err = errors.New("it took too long")
	}
	if err != nil {
		n.handshakeFailed(err)
		return
	}
	n.mu.Lock()
	n.ssh, n.gathered = sshConn, gathered
	n.mu.Unlock()
	go ssh.DiscardRequests(requests) // keepalives are answered, forwarding is refused; ends with the connection
	n.rest()
	for channel := range channels {
		n.take(channel)
	}
}

// settle waits for what is left of a connection that is closed.
func (n *conn) settle() {
	n.sessions.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.idle != nil {
		n.idle.Stop()
	}
	for _, up := range n.ups {
		up.close()
	}
}

// handshakeFailed is silent about who only looked whether the port is open.
func (n *conn) handshakeFailed(err error) {
	if errors.Is(err, io.EOF) {
		return
	}
	n.finish(n.entry(), &refusal{kindBadRequest, "the SSH handshake failed.", "the SSH handshake failed: " + err.Error()})
}

// take starts what a client asks for: a session, or a jump.
func (n *conn) take(channel ssh.NewChannel) {
	serve := n.session
	switch channel.ChannelType() {
	case "session":
	case "direct-tcpip":
		serve = n.jump
	default:
		_ = channel.Reject(ssh.UnknownChannelType, say("only SFTP is served here."))
		return
	}
	if !n.enter() {
		_ = channel.Reject(ssh.ResourceShortage, say("too many sessions are open on this connection."))
		return
	}
	n.sessions.Go(func() {
		defer n.leave()
		defer n.recovered()
		serve(channel)
	})
}

// recovered keeps one session's fault from ending all others.
func (n *conn) recovered() {
	if fault := recover(); fault != nil {
		n.close()
		n.finish(n.entry(), &refusal{kindInternal, "pillion has a fault.", fmt.Sprintf("panic: %v\n%s", fault, debug.Stack())})
	}
}

// enter counts a channel, unless there are too many.
func (n *conn) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.channels >= n.server.maxSessions() {
		return false
	}
	if n.channels++; n.channels > 1 {
		n.gathered.share()
	}
	n.used = true
	if n.idle != nil {
		n.idle.Stop()
	}
	return true
}

func (n *conn) leave() {
	n.mu.Lock()
	n.channels--
	n.mu.Unlock()
	n.rest()
}

// rest waits for the next session, for a while. A server that drains waits for
// the first one only.
func (n *conn) rest() {
	draining := n.server.isDraining()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.ssh == nil, n.channels > 0:
		return
	case draining && n.used:
		n.close()
		return
	}
	wait := n.server.idleTimeout()
	if draining {
		wait = min(wait, drainWait)
	}
	if n.idle == nil {
		n.idle = time.AfterFunc(wait, n.endIfIdle)
	} else {
		n.idle.Reset(wait)
	}
}

// drainWait is what a client may take from its login to its session while the
// server drains.
const drainWait = 2 * time.Second

// endIfIdle ends a connection on which nothing is open.
func (n *conn) endIfIdle() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.channels == 0 {
		n.close()
	}
}

// close ends the connection at once. It may be called again.
func (n *conn) close() {
	n.cancel()
	n.net.Close()
}

// lingeringClose ends it so that the client reads what was sent last: closing a
// socket with unread bytes resets it, and an upload has always more of them. A
// client that cannot be told the end is given a moment to read.
func (n *conn) lingeringClose(linger time.Duration) {
	if n.net.CloseWrite() != nil {
		linger = min(linger, untoldLinger)
	}
	timer := time.AfterFunc(linger, n.close)
	defer timer.Stop()
	if n.ssh != nil {
		_ = n.ssh.Wait() // its own goroutine reads on
	} else {
		_, _ = io.CopyN(io.Discard, n.net, 1<<20)
	}
	n.close()
}
