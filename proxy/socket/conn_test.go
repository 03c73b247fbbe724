package socket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// pair returns both ends of a connection: one of ours, and one of package net.
func pair(t *testing.T) (ours *Conn, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return Quiet(dialled).(*Conn), accepted.(*net.TCPConn) //nolint:forcetypeassert // a test
}

// A Conn does all that Go's own test expects of a net.Conn.
func TestIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		ours, theirs := pair(t)
		return ours, Quiet(theirs), func() { ours.Close(); theirs.Close() }, nil
	})
}

// More than the kernel takes at once arrives whole, in both directions together.
func TestMuchArrivesWhole(t *testing.T) {
	ours, theirs := pair(t)
	much := make([]byte, 16<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(much)
	wrote := make(chan error, 2)
	for _, c := range []net.Conn{ours, theirs} {
		go func() {
			n, err := c.Write(much)
			if err == nil && n != len(much) {
				err = errors.New("a short write without an error")
			}
			wrote <- err
		}()
	}
	read := make(chan []byte, 2)
	for _, c := range []net.Conn{ours, theirs} {
		go func() {
			got := make([]byte, len(much))
			n, _ := io.ReadFull(c, got)
			read <- got[:n]
		}()
	}
	for range 2 {
		if err := <-wrote; err != nil {
			t.Error(err)
		}
		if !bytes.Equal(<-read, much) {
			t.Error("something else arrived")
		}
	}
}

// Errors read as those of package net, and are found by the same tests.
func TestErrorsAreThoseOfNet(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(c net.Conn, peer *net.TCPConn) error
		is   error
	}{
		{"the end", func(c net.Conn, peer *net.TCPConn) error {
			peer.Close()
			_, err := c.Read(make([]byte, 1))
			return err
		}, io.EOF},
		{"a closed connection, read", func(c net.Conn, _ *net.TCPConn) error {
			c.Close()
			_, err := c.Read(make([]byte, 1))
			return err
		}, net.ErrClosed},
		{"a closed connection, written", func(c net.Conn, _ *net.TCPConn) error {
			c.Close()
			_, err := c.Write([]byte("x"))
			return err
		}, net.ErrClosed},
		{"a deadline", func(c net.Conn, _ *net.TCPConn) error {
			_ = c.SetReadDeadline(time.Unix(1, 0))
			_, err := c.Read(make([]byte, 1))
			return err
		}, os.ErrDeadlineExceeded},
		{"a reset", func(c net.Conn, peer *net.TCPConn) error {
			_ = peer.SetLinger(0)
			peer.Close()
			_, err := io.ReadFull(c, make([]byte, 1))
			return err
		}, nil},
		{"a half-closed one, written", func(c net.Conn, _ *net.TCPConn) error {
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
			_, err := c.Write([]byte("x"))
			return err
		}, nil},
	} {
		ours, peer := pair(t)
		got := row.do(ours, peer)
		other, peer := pair(t)
		want := row.do(other.TCPConn, peer)
		text := func(c net.Conn, err error) string {
			return strings.NewReplacer(c.LocalAddr().String(), "HERE", c.RemoteAddr().String(), "THERE").Replace(err.Error())
		}
		if got == nil || want == nil || text(ours, got) != text(other, want) || row.is != nil && !errors.Is(got, row.is) {
			t.Errorf("%s: %v; of package net: %v", row.name, got, want)
		}
	}
}

// What is no plain TCP stays what it is.
func TestQuietLeavesOthersAlone(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Quiet(a) != a {
		t.Error("a pipe was changed")
	}
	ours, _ := pair(t)
	if Quiet(ours) != net.Conn(ours) {
		t.Error("a quiet connection was changed")
	}
}

// Reading and writing allocate nothing.
func TestNothingIsAllocated(t *testing.T) {
	ours, theirs := pair(t)
	go func() { _, _ = io.Copy(theirs, theirs) }()
	p := make([]byte, 1024)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = ours.Write(p)
		_, _ = io.ReadFull(ours, p)
	}); n > 0 {
		t.Errorf("%v objects a round trip", n)
	}
}

// A read that waits ends when somebody else closes the connection.
func TestCloseEndsARead(t *testing.T) {
	ours, _ := pair(t)
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	read := make(chan error, 1)
	go func() {
		_, err := ours.Read(make([]byte, 1))
		read <- err
	}()
	ours.Close()
	select {
	case err := <-read:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("it reads on")
	}
}
