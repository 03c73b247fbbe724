package sftpgw

import (
	"errors"
	"net"
	"sync/atomic"
)

// halfConn can say its last word and listen on. SSH goes on writing for as long
// as it reads: it opens windows, and answers. Once CloseWrite has been called
// that would fail, and end a connection whose client has not read the word yet.
type halfConn struct {
	net.Conn
	said atomic.Bool
}

// Write drops what comes behind the last word.
func (c *halfConn) Write(p []byte) (int, error) {
	if c.said.Load() {
		return len(p), nil
	}
	n, err := c.Conn.Write(p)
	if err != nil && c.said.Load() {
		return len(p), nil
	}
	return n, err
}

// CloseWrite tells the client that nothing more will come, where it can be told.
func (c *halfConn) CloseWrite() error {
	c.said.Store(true)
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}
