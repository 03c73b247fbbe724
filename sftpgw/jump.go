package sftpgw

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// direct is what a client asks for to reach another host through this one
// (RFC 4254 section 7.2): ssh -J does, and -L.
type direct struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

// jump ends the connection to a credential's target in the gateway itself: the
// client's SSH runs inside the channel, to us. Nothing else is ever reached, so
// it is no port forwarding.
func (n *conn) jump(channel ssh.NewChannel) {
	var asked direct
	if n.via == viaJump {
		_ = channel.Reject(ssh.Prohibited, say("one jump is enough: each target is reached from the gateway itself."))
		return
	}
	if ssh.Unmarshal(channel.ExtraData(), &asked) != nil {
		_ = channel.Reject(ssh.ConnectionFailed, say("the jump names no host and port."))
		return
	}
	host, port, err := creds.ParseAuthority(net.JoinHostPort(asked.Host, itoa(asked.Port)), 0)
	if err != nil || !n.server.Table().HasOrigin(string(creds.SFTP), host, port) {
		r := &refusal{kindNoCredential, "no credential is for the host and port that the jump asks for.", "asked for " + quoted(asked.Host) + " port " + itoa(asked.Port)}
		n.finish(n.entry(), r)
		_ = channel.Reject(ssh.Prohibited, say(r.sentence))
		return
	}
	ch, requests, err := channel.Accept()
	if err != nil {
		return // the client has gone
	}
	go ssh.DiscardRequests(requests) // ends with the channel
	inner := newConn(n.ctx, n.server, &channelConn{ch, n.net}, Target{Host: host, Port: port}, viaJump)
	if err := n.server.enter(inner); err != nil {
		inner.turnAway(refusalOf(err))
		return
	}
	defer n.server.leave(inner)
	inner.serve()
}

// channelConn is a channel as a net.Conn. It has no deadlines: all time limits
// of a connection close it.
type channelConn struct {
	ssh.Channel
	under net.Conn
}

var _ net.Conn = (*channelConn)(nil)

// CloseWrite does nothing: ssh -W, which is at the other end, takes the end of
// one direction for the end of both, and its client then fails to send before it
// has read what came last.
func (c *channelConn) CloseWrite() error { return errors.ErrUnsupported }

// LocalAddr is that of the connection that the channel runs in.
func (c *channelConn) LocalAddr() net.Addr { return c.under.LocalAddr() }

// RemoteAddr is that of the connection that the channel runs in.
func (c *channelConn) RemoteAddr() net.Addr { return c.under.RemoteAddr() }

// SetDeadline cannot.
func (c *channelConn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline cannot.
func (c *channelConn) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline cannot.
func (c *channelConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
