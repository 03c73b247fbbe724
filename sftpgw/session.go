package sftpgw

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// session serves one channel from its request for the subsystem to its end: the
// product in a few lines.
func (n *conn) session(channel ssh.NewChannel) {
	ch, requests, err := channel.Accept()
	if err != nil {
		return // the client has gone
	}
	defer ch.Close()
	ch = n.alone(ch)
	n.server.sessionBegins()
	defer n.server.sessionEnds()
	if !n.awaitSubsystem(ch, requests) {
		return
	}
	e := n.entry()
	up, err := n.connect(&e)
	if err != nil {
		go ssh.DiscardRequests(requests) // ends with the channel
		n.refuse(ch, e, refusalOf(err))
		return
	}
	n.relay(ch, requests, up, e)
}

// alone holds up who sends more than is taken, unless others would have to wait.
func (n *conn) alone(ch ssh.Channel) ssh.Channel {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.channels > 1 {
		return ch
	}
	return n.gathered.only(ch)
}

// connect finds the credential and opens a session with it.
func (n *conn) connect(e *Entry) (*session, error) {
	c, err := n.resolve(e)
	if err != nil {
		return nil, err
	}
	e.Credential = c.Name
	if t, err := c.Instance(); err == nil {
		e.Host = t.Authority()
	}
	begin := n.server.now()
	up, err := n.open(n.ctx, c)
	e.Upstream = n.server.now().Sub(begin)
	if err != nil && n.ctx.Err() != nil {
		return nil, &refusal{kindClientGone, "the client left before the server was reached.", err.Error()}
	}
	return up, err
}

func (n *conn) resolve(e *Entry) (*creds.Credential, error) {
	if n.server.StoreErr != nil {
		if err := n.server.StoreErr(); err != nil {
			return nil, storeRefusal(err)
		}
	}
	if n.target.Host != "" {
		e.Host = creds.Target{Host: n.target.Host, Port: n.target.Port}.Authority()
	}
	return n.server.names.find(n.server.Table(), n.target, n.ssh.User())
}

func storeRefusal(err error) error {
	sentence := "the credential store does not answer, so no credential may be used."
	if errors.Is(err, creds.ErrStoreDenied) {
		sentence = "the credential store refuses, so no credential may be used."
	}
	return &refusal{kindStoreUnavailable, sentence, err.Error()}
}

// open opens a session on the upstream of this connection's earlier sessions, or
// dials: servers allow some ten sessions a connection, and end idle ones.
func (n *conn) open(ctx context.Context, c *creds.Credential) (*session, error) {
	n.mu.Lock()
	up := n.up
	if n.upFor != c {
		up = nil
	}
	n.mu.Unlock()
	if up != nil {
		if opened, err := up.open(ctx); err == nil {
			return opened, nil
		}
	}
	up, err := n.server.dialer.dial(ctx, c)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.up, n.upFor = up, c
	n.ups = append(n.ups, up)
	n.mu.Unlock()
	return up.open(ctx)
}

// relay joins the client's channel and the upstream's until one of them ends.
func (n *conn) relay(ch ssh.Channel, requests <-chan *ssh.Request, up *session, e Entry) {
	unfinished := false
	scan := newScanner(n.server.policy(), func(f File) {
		e.Files++
		unfinished = unfinished || f.Op == OpWrite && f.Error == unfinishedFile
		n.server.logFile(&e, f)
	})
	r := relay(n.ctx, ch, requests, up, scan)
	e.In, e.Out = r.in, r.out
	if r.again != nil { // lost before its first word: an expired password, most often
		n.refuse(r.again, e, &refusal{kindLost, r.lost, causeOf(r.err)})
		return
	}
	switch {
	case r.lost == "" && r.err == nil && !unfinished:
		n.finish(e, nil)
		return
	case r.lost == "":
		n.finish(e, &refusal{kindClientGone, "the client left before it had all answers, or closed its files.", causeOf(r.err)})
		return
	}
	// Clients that resume or try again do so when TCP ends, and only then; an
	// ended channel makes curl wait forever.
	n.lingeringClose(lostLinger)
	n.finish(e, &refusal{kindLost, r.lost, causeOf(r.err)})
}

// causeOf is the detail of a log line.
func causeOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// refuse tells the client why there is no session.
func (n *conn) refuse(ch ssh.Channel, e Entry, r *refusal) {
	n.finish(e, r)
	timer := time.AfterFunc(n.server.handshakeTimeout(), n.close) // for who does not even ask
	defer timer.Stop()
	if !refuse(ch, r.sentence) {
		n.lingeringClose(lostLinger)
	}
}

// awaitSubsystem returns when the client has asked for sftp, or reports that it
// never did. Everything else that a session may ask for is refused, and of no
// interest to the log: rclone asks for a shell half a dozen times each time.
func (n *conn) awaitSubsystem(ch ssh.Channel, requests <-chan *ssh.Request) bool {
	timer := time.AfterFunc(n.server.handshakeTimeout(), func() { ch.Close() })
	defer timer.Stop()
	for r := range requests {
		var subsystem struct{ Name string }
		isSFTP := r.Type == "subsystem" && ssh.Unmarshal(r.Payload, &subsystem) == nil && subsystem.Name == "sftp"
		_ = r.Reply(isSFTP, nil) // if the client has gone, requests ends
		if isSFTP {
			return timer.Stop()
		}
		n.server.Log.LogAttrs(n.ctx, slog.LevelDebug, "sftp: only the subsystem sftp is served here",
			slog.String("asked", short(r.Type)), slog.String("client", short(string(n.ssh.ClientVersion()))))
	}
	return false
}
