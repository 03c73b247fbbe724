package proxy

import (
	"io"
	"net/http"
	"time"
)

// SSH comes through CONNECT as well: from nc, ncat, curl -x, rclone. Whose it is
// shows in one of two ways.
//
//	an sftp credential has the target, no https one    SSH, before anybody speaks
//	both have it, or neither                           the first bytes: "SSH-", or TLS
//
// A target that an sftp credential has is never passed on blindly: its client
// would reach the server without a password, and without the pin.

// sshVersion is how both sides of SSH begin (RFC 4253 section 4.2).
const sshVersion = "SSH-"

// connectSSH answers the CONNECT to a target that sftp credentials alone have,
// without waiting for bytes: SSH lets either side speak first.
func (s *Server) connectSSH(client *tunnelConn, x *exchange) {
	if s.SSH == nil {
		s.answerRaw(client, x, errNoSSH)
		_ = client.Close()
		return
	}
	_ = client.SetDeadline(time.Now().Add(s.timeouts.handshake))
	if _, err := client.Write(established); err != nil {
		_ = client.Close()
		return
	}
	s.handOver(client, x)
}

var errNoSSH = &problem{kind: kindBadRequest, detail: "SSH comes through CONNECT, and pillion runs without its SFTP gateway: sftp.listen is off in its configuration."}

// handOver gives a connection that is past its CONNECT to the gateway, which logs
// what comes of it.
func (s *Server) handOver(client *tunnelConn, x *exchange) {
	defer client.Close()
	if s.SSH == nil {
		s.refuseSSH(client, x)
		return
	}
	_ = client.SetDeadline(time.Time{})
	s.spliced.Add(1)
	s.handedOver.Add(1)
	defer func() {
		s.lastUsed.Store(time.Now().UnixNano())
		s.handedOver.Add(-1)
		s.spliced.Done()
	}()
	t := client.tunnel
	s.SSH(s.sshCut, client, t.host, t.port, t.chosen)
}

// refuseSSH answers in a line as servers may send it before their version: a
// problem document is none of those that SSH clients show.
func (s *Server) refuseSSH(client *tunnelConn, x *exchange) {
	x.fail(errNoSSH)
	x.entry.Status = http.StatusOK                                     // the CONNECT's
	n, _ := io.WriteString(client, "pillion: "+errNoSSH.detail+"\r\n") // the client may be gone: the log says the same
	x.entry.Out = int64(n)
	x.entry.Duration = time.Since(x.entry.Time)
	s.Metrics.count(&x.entry, 0)
	s.log(&x.entry, time.Now())
	lingeringClose(client)
}
