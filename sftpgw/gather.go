package sftpgw

import (
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// gatheredConn saves system calls, and wake-ups of whoever reads: x/crypto reads
// and writes through buffers of 4 KiB, so that each packet of 32 KiB takes two
// calls and more. What comes in large pieces is read into a large buffer, since more
// has come by the time that it is our turn again: with 64 KiB in its place a transfer
// took a fifth more CPU.
//
// A write of exactly 4 KiB is the beginning of a longer packet, and is held
// until the rest is there, in the same call of x/crypto's. That is only done
// where AES-GCM is in use, whose packets have their length in the clear and are
// never 4 KiB long: 4 + 16 n + 16 bytes (RFC 5647 section 7.3).
type gatheredConn struct {
	net.Conn
	gcm  atomic.Bool // our side encrypts by AES-GCM
	held []byte      // x/crypto writes one packet at a time

	room room
	left []byte // of it: read, and not taken

	// How far is read ahead of the one channel, while there is one; see readahead.go.
	alone  atomic.Bool
	ahead  atomic.Int64
	taken  chan struct{}
	pauses *time.Timer

	// When it is read again; see pace.go.
	open     atomic.Pointer[func() int]
	lastRead int // bytes
	readAt   time.Time
}

// The buffers of bufio, that x/crypto uses, and of ours for writing.
const (
	cryptoBuffer = 4096
	writeBuffer  = 36 << 10 // a packet of 32 KiB, its headers and its tag
)

func gather(c net.Conn) *gatheredConn {
	return &gatheredConn{Conn: c, taken: make(chan struct{}, 1)}
}

// begin looks at the ciphers, when they have been negotiated.
func (c *gatheredConn) begin(conn ssh.Conn) {
	if metadata, ok := conn.(ssh.AlgorithmsConnMetadata); ok {
		c.gcm.Store(strings.HasSuffix(metadata.Algorithms().Write.Cipher, "-gcm@openssh.com"))
	}
}

func (c *gatheredConn) Read(p []byte) (int, error) {
	if len(c.left) == 0 {
		c.pause()
		c.pace()
		runtime.Gosched() // what was read goes on its way first, and more will have come then
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	c.ahead.Add(int64(n))
	return n, nil
}

// fill reads once.
func (c *gatheredConn) fill() error {
	into := c.room.after(c.lastRead, nil)
	n, err := c.Conn.Read(into)
	c.left, c.lastRead, c.readAt = into[:n], n, time.Now()
	if n > 0 {
		return nil // an error comes again
	}
	c.room.release() // nothing more comes, as a rule
	return err
}

func (c *gatheredConn) Write(p []byte) (int, error) {
	if len(c.held) == 0 {
		if len(p) != cryptoBuffer || !c.gcm.Load() || !longer(p) {
			return c.Conn.Write(p)
		}
		if c.held == nil {
			c.held = make([]byte, 0, writeBuffer)
		}
		c.held = append(c.held, p...)
		return len(p), nil
	}
	c.held = append(c.held, p...)
	_, err := c.Conn.Write(c.held)
	c.held = c.held[:0]
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// longer reports whether the packet at the start of p ends behind p.
func longer(p []byte) bool {
	length := binary.BigEndian.Uint32(p)
	return length > cryptoBuffer && length <= packetLimit
}
