// Package socket reads from TCP connections and writes to them at less CPU than
// package net, for those who move much:
//
//	c = socket.Quiet(c)
//	n, err := c.Read(p)
//
// Whatever goes by package syscall tells Go's scheduler that the thread may be held
// up. The first such call behind a pause wakes the runtime's monitor, a thread of its
// own, that then looks every 20 µs and gives the processor to another thread where
// a call takes longer: with large packets that is a third of a relay's CPU. What is
// read and written here cannot be held up (MSG_DONTWAIT), and is over in some
// microseconds; the waiting in between is the runtime's, as always.
package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// Conn is a TCP connection. Its methods are those of net.Conn, with the same errors.
type Conn struct {
	*net.TCPConn
	raw syscall.RawConn
	in  reading
	out writing
}

var _ net.Conn = (*Conn)(nil)

// Quiet returns c as a *Conn where it is plain TCP, or else c itself.
func Quiet(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c // closed: the first use will say so
	}
	quiet := &Conn{TCPConn: tcp, raw: raw}
	quiet.in.step, quiet.out.step = quiet.in.receive, quiet.out.send
	return quiet
}

// reading is a Read under way.
type reading struct {
	sync.Mutex
	step func(fd uintptr) (done bool) // receive, bound once
	p    []byte
	n    int
	err  error
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r := &c.in
	r.Lock()
	defer r.Unlock()
	r.p, r.n, r.err = p, 0, nil
	err := c.raw.Read(r.step)
	r.p = nil
	if err == nil {
		err = r.err
	}
	return r.n, c.failure("read", err)
}

// receive is called at once, and again whenever something has come.
func (r *reading) receive(fd uintptr) bool {
	for {
		switch n, err := Receive(fd, r.p); {
		case err == nil && n == 0:
			r.err = io.EOF
			return true
		case err == nil:
			r.n = n
			return true
		case errors.Is(err, syscall.EAGAIN):
			return false
		case !errors.Is(err, syscall.EINTR):
			r.err = os.NewSyscallError("read", err)
			return true
		}
	}
}

// writing is a Write under way.
type writing struct {
	sync.Mutex
	step func(fd uintptr) (done bool) // send, bound once
	p    []byte                       // what is left
	err  error
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	w := &c.out
	w.Lock()
	defer w.Unlock()
	w.p, w.err = p, nil
	err := c.raw.Write(w.step)
	n := len(p) - len(w.p)
	w.p = nil
	if err == nil {
		err = w.err
	}
	return n, c.failure("write", err)
}

// send is called at once, and again whenever there is room.
func (w *writing) send(fd uintptr) bool {
	for len(w.p) > 0 {
		n, err := Send(fd, w.p)
		w.p = w.p[n:]
		switch {
		case err == nil, errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return false
		default:
			w.err = os.NewSyscallError("write", err)
			return true
		}
	}
	return true
}

// failure makes of an error what package net makes of it.
func (c *Conn) failure(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // net.Conn's is the value itself
		return err
	}
	var raw *net.OpError
	if errors.As(err, &raw) {
		err = raw.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
