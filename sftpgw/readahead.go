package sftpgw

import (
	"time"

	"golang.org/x/crypto/ssh"
)

// x/crypto grants each channel a window of 2 MiB, and reads that much ahead of
// whoever is slower. With all that is collected only later it is 6 MiB a session.
// So a connection with one channel is not read while maxAhead of it has not been
// taken: the rest waits with the kernel, and with the client.
//
// What else comes over the connection, such as room in the other direction, comes
// later by as much; at most by maxPause for each largeRoom, so that two
// directions cannot wait for each other, and an end is not overlooked. It is long
// enough for everybody's turn on a busy machine: with a fifth of it sixteen uploads
// took twice the memory there. The count is of encrypted bytes, and right again
// whenever the channel has been emptied.
const (
	maxAhead = 256 << 10
	maxPause = 250 * time.Millisecond
)

// only returns a channel whose reading lets the connection be read on. It is the
// connection's only one, until share is called.
func (c *gatheredConn) only(ch ssh.Channel) ssh.Channel {
	c.alone.Store(true)
	c.ahead.Store(0)
	c.resume() // what was counted before is none of this channel's
	return &onlyChannel{Channel: ch, conn: c}
}

// share is called when there are several channels: none may hold the others up.
func (c *gatheredConn) share() {
	c.alone.Store(false)
	c.resume()
}

type onlyChannel struct {
	ssh.Channel
	conn *gatheredConn
}

func (c *onlyChannel) Read(p []byte) (int, error) {
	n, err := c.Channel.Read(p)
	switch {
	case n < len(p): // nothing is left
		c.conn.ahead.Store(0)
		c.conn.resume()
	case c.conn.ahead.Add(-int64(n)) < maxAhead/2:
		c.conn.resume()
	}
	return n, err
}

func (c *gatheredConn) resume() {
	select {
	case c.taken <- struct{}{}:
	default:
	}
}

// pause waits until so much has been taken that it is worth reading on.
func (c *gatheredConn) pause() {
	if !c.alone.Load() || c.ahead.Load() < maxAhead {
		return
	}
	if c.pauses == nil {
		c.pauses = time.NewTimer(maxPause)
	} else {
		c.pauses.Reset(maxPause)
	}
	defer c.pauses.Stop()
	for c.alone.Load() && c.ahead.Load() >= maxAhead/2 {
		select {
		case <-c.taken:
		case <-c.pauses.C:
			return
		}
	}
}
