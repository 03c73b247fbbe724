package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	tcp "pillion/proxy/socket"
)

// socket is a TCP connection, below TLS or without it, for the fast engine. It
// saves system calls where net.Conn spends them:
//
//	poll    waits without having to read in vain first, as net.Conn does for
//	        every answer and every request: some 0.7 µs each
//	gather  puts the records that crypto/tls writes one by one into one write
//
// and reads and writes without waking the runtime's monitor, as package socket does:
// an eighth of a request's CPU in a busy process, a sixth in one that is not.
//
// Outside poll and gather it is the connection that it holds.
type socket struct {
	net.Conn
	raw   syscall.RawConn
	ready func(fd uintptr) bool // s.isReady, bound once

	// Of the goroutine inside poll.
	step    func() bool
	fd      uintptr
	polling bool
	drained bool // nothing was left behind the last read: the next one would block
	guessed bool // that is known from the read being short alone

	mu        sync.Mutex // a read of TLS may write: an alert, or a change of keys
	gathering bool
	gathered  *[]byte
}

// newSocket returns nil for a connection that has no descriptor.
func newSocket(c net.Conn) *socket {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{Conn: tcp.Quiet(c), raw: raw}
	s.ready = s.isReady
	return s
}

// errWouldBlock is what Read returns inside poll when nothing has come. TLS
// remembers no error that is temporary: it goes on where it was.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read yet" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// poll calls step at once, and again whenever there is something to read, until
// step returns true. While it runs, Read does not block. A deadline ends it with
// os.ErrDeadlineExceeded.
//
// The descriptor is held meanwhile: nobody may call Close, step least of all, but
// SetDeadline ends a wait from anywhere. The runtime reports each arrival once,
// and none is lost between two calls of step.
func (s *socket) poll(step func() bool) error {
	s.step, s.polling = step, true
	err := s.raw.Read(s.ready)
	s.step, s.polling = nil, false
	return err
}

func (s *socket) isReady(fd uintptr) bool {
	s.fd, s.drained = fd, false
	return s.step()
}

// Read implements net.Conn; inside poll it returns errWouldBlock where it would.
func (s *socket) Read(p []byte) (int, error) {
	if !s.polling {
		return s.Conn.Read(p)
	}
	if s.drained {
		return 0, errWouldBlock
	}
	for {
		switch n, err := tcp.Receive(s.fd, p); {
		case n > 0:
			s.drained = n < len(p)
			s.guessed = s.drained
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, syscall.EAGAIN):
			s.drained, s.guessed = true, false
			return 0, errWouldBlock
		case !errors.Is(err, syscall.EINTR):
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// unsure reports whether the other side's end may have come together with the
// last bytes: then the wait for it would not be woken. The caller reads once more.
func (s *socket) unsure() bool {
	if !s.guessed {
		return false
	}
	s.drained, s.guessed = false, false
	return true
}

// isStale reports, inside poll, whether a connection that was idle has ended, or
// has something to say out of turn. read takes what TLS itself sends behind a
// handshake.
func (s *socket) isStale(read func() (int, error)) bool {
	var one [1]byte
	for {
		switch n, err := tcp.Peek(s.fd, one[:]); {
		case errors.Is(err, syscall.EAGAIN):
			return false
		case errors.Is(err, syscall.EINTR):
		case err != nil || n == 0:
			return true
		default:
			n, err := read()
			return n > 0 || err != errWouldBlock //nolint:errorlint // the value itself, from below TLS
		}
	}
}

// interrupt ends every wait on the connection, now and from now on.
func (s *socket) interrupt() { _ = s.Conn.SetDeadline(longAgo) }

// interruptReads does so for reads alone.
func (s *socket) interruptReads() { _ = s.Conn.SetReadDeadline(longAgo) }

var longAgo = time.Unix(1, 0)

// maxRecord is the most that one record of TLS holds.
const maxRecord = 16 << 10

var gatherBuffers = sync.Pool{New: func() any { b := make([]byte, 0, relayBuffer+2<<10); return &b }}

// send writes p by conn, which is the socket or the TLS on it, in one system call.
func (s *socket) send(conn net.Conn, p []byte) error {
	if len(p) <= maxRecord || conn == net.Conn(s) {
		_, err := conn.Write(p)
		return err
	}
	s.hold()
	_, err := conn.Write(p)
	return errors.Join(err, s.release())
}

// hold keeps back what is written from now on, until release.
func (s *socket) hold() {
	s.mu.Lock()
	s.gathering, s.gathered = true, gatherBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
	s.mu.Unlock()
}

// release writes it, in one system call.
func (s *socket) release() error {
	s.mu.Lock()
	s.gathering = false
	all := s.gathered
	s.gathered = nil
	_, err := s.Conn.Write(*all)
	s.mu.Unlock()
	*all = (*all)[:0]
	gatherBuffers.Put(all)
	return err
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	if s.gathering {
		*s.gathered = append(*s.gathered, p...)
		s.mu.Unlock()
		return len(p), nil
	}
	s.mu.Unlock()
	return s.Conn.Write(p)
}

// CloseWrite ends one direction.
func (s *socket) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
