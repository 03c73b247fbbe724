package sftpgw

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// How a client named its target: the log's field via.
const (
	viaUser     = "user"
	viaConnect  = "connect"
	viaJump     = "jump"
	viaListener = "listener"
)

// Serve answers connections of l, whose users name the target, until Shutdown,
// then returns nil.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, Target{}, viaUser) }

// ServeFor is Serve for a listener of one credential, whoever the user is.
func (s *Server) ServeFor(l net.Listener, name string) error {
	return s.serve(l, Target{Name: name}, viaListener)
}

// ServeConn answers a connection that has already asked for its target, by
// CONNECT, and returns when it has ended. Whoever calls has admitted the client:
// Allow is not asked again.
func (s *Server) ServeConn(ctx context.Context, c net.Conn, target Target) {
	s.begin()
	s.handle(ctx, c, target, viaConnect, nil)
}

func (s *Server) serve(l net.Listener, target Target, via string) error {
	s.begin()
	if !s.listen(l) {
		l.Close()
		return nil
	}
	defer s.forget(l)
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			// Asked now: the socket's owner can be looked up while it is connected.
			peer := s.admit(c)
			go s.handle(context.Background(), c, target, via, peer)
		case s.isClosed():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case !s.pause(): // out of descriptors, most often: it passes
			return nil
		}
	}
}

// acceptPause keeps a listener without descriptors from a busy loop.
const acceptPause = 100 * time.Millisecond

func (s *Server) pause() bool {
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closed:
		return false
	}
}

func (s *Server) listen(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) forget(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

func (s *Server) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

func (s *Server) admit(c net.Conn) error {
	if s.Allow == nil {
		return nil
	}
	if err := s.Allow(c); err != nil {
		return &refusal{kindForbiddenClient, "this client may not use the gateway.", err.Error()}
	}
	return nil
}

// handle serves one connection to its end, refused ones too.
func (s *Server) handle(ctx context.Context, c net.Conn, target Target, via string, peer error) {
	n := newConn(ctx, s, c, target, via)
	defer n.cancel()
	defer context.AfterFunc(ctx, n.close)()
	if peer == nil {
		peer = s.enter(n)
	}
	if peer != nil {
		n.turnAway(refusalOf(peer))
		return
	}
	defer s.leave(n)
	n.serve()
}

// enter counts a connection, unless there are too many.
func (s *Server) enter(n *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() || len(s.conns) >= s.maxConns() {
		return &refusal{kindOverloaded, "too many connections are open: try again later.", ""}
	}
	s.conns[n] = struct{}{}
	s.running.Add(1) // never beside Shutdown's Wait: it closed s.closed under the lock
	return nil
}

func (s *Server) leave(n *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, n)
	s.running.Done()
}

// turnAway says why before any cryptography, in a line as servers may send it
// before their version (RFC 4253 section 4.2). OpenSSH shows it with -v, others
// not at all; answering better would cost a key exchange.
func (n *conn) turnAway(r *refusal) {
	timer := time.AfterFunc(turnedAwayLinger, n.close)
	defer timer.Stop()
	_, _ = io.WriteString(n.net, say(r.sentence)+"\r\n") // the client may be gone: the log says the same
	n.lingeringClose(turnedAwayLinger)
	n.finish(n.entry(), r)
}

// How long a client may take to read the last words and go. One that reads goes
// at once: it sees the end of the connection behind them.
const (
	turnedAwayLinger = 500 * time.Millisecond
	lostLinger       = 5 * time.Second
	untoldLinger     = time.Second // behind a jump
)
