package sftpgw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// notStored ends every sentence about a lost session: nobody but the server
// confirms anything, and it cannot any more.
const notStored = "; what it has not confirmed is not stored"

// result sorts the end, tells the client, and closes its channel in good order.
func (r *splice) result(ctx context.Context, stderr <-chan struct{}) result {
	r.up.close()
	quiet := true
	select {
	case <-stderr:
	case <-time.After(time.Second): // a client that does not read
		quiet = false
	}
	r.mu.Lock()
	out := r.sort(ctx)
	r.over = true
	r.mu.Unlock()
	out.totals = r.scan.end()
	out.in, out.out = r.in.Load(), r.out.Load()
	switch {
	case out.again != nil:
	case out.lost != "" && quiet && ctx.Err() == nil:
		r.tell(out.lost)
	case out.lost == "" && out.err == nil:
		r.closeClient()
	}
	return out
}

// sort finds out who ended the session and why. The lock is held.
//
//	the client sent what cannot be relayed     lost
//	the server did                             lost
//	the client's connection has ended          its own affair
//	the client sent its end                    in good order, if every request is answered
//	the server ended first                     lost, or refused if it had not begun
func (r *splice) sort(ctx context.Context) result {
	addr := r.up.up.addr
	open := r.scan.open()
	var garbage *packetError
	switch {
	case errors.Is(r.requested, errClientLeft):
		return result{err: r.requested}
	case r.requested != nil:
		return result{lost: full("the client sent " + r.requested.Error() + ": the session is ended"), err: r.requested}
	case errors.As(r.replied, &garbage):
		return result{lost: full(addr + " sent " + garbage.Error() + ": the session is ended" + notStored), err: garbage}
	case r.replied != nil || ctx.Err() != nil:
		if open == 0 && r.finished {
			return result{}
		}
		return result{err: fmt.Errorf("%w with %d requests unanswered", errClientLeft, open)}
	case r.finished && open == 0:
		return result{}
	}
	out := result{lost: full(addr + " " + r.serverEnd() + notStored)}
	if !r.spoken && !r.finished && len(r.early) > 0 {
		out.lost = full(addr + " " + r.serverEnd() + r.beforeBegin())
		out.again = r.handOver()
	}
	return out
}

// beforeBegin ends the sentence about a server that took the login, and has no
// session for it. OpenSSH drops what its sftp-server says there, and an expired
// password is the usual cause.
func (r *splice) beforeBegin() string {
	if len(r.words) > 0 {
		return ""
	}
	if said := quote(r.up.up.banner, r.up.up.account.password); said != "" {
		return " before it began (at the login it said: " + said + ")"
	}
	return " before it began: perhaps the password has expired, or the account may not use SFTP"
}

// serverEnd says how the server ended the session, and what it said.
func (r *splice) serverEnd() string {
	end := "ended the session"
	select {
	case <-r.up.up.ended:
		end = r.up.up.reason()
	default:
		if !r.gone() {
			end = "does not answer any more"
		} else if status := r.up.status(); status != "" {
			end += " with " + status
		}
	}
	if said := quote(string(r.words), r.up.up.account.password); said != "" {
		end += " (it says: " + said + ")"
	}
	return end
}

// gone waits for the server's last request, or for the end of its connection,
// whose reason comes a moment after its channels end.
func (r *splice) gone() bool {
	select {
	case <-r.up.exited:
		return true
	default:
		return false
	}
}

// handOver begins to keep what the client sends for whoever answers it.
func (r *splice) handOver() ssh.Channel {
	reader, writer := io.Pipe()
	r.handover = writer
	return &replayed{Channel: r.client, input: io.MultiReader(bytes.NewReader(r.early), reader), pipe: reader}
}

// replayed is a client's channel that is read once more from the start.
type replayed struct {
	ssh.Channel
	input io.Reader
	pipe  *io.PipeReader
}

func (c *replayed) Read(p []byte) (int, error) { return c.input.Read(p) }

func (c *replayed) Close() error {
	_ = c.pipe.Close() // never fails
	return c.Channel.Close()
}

// tell writes the sentence to the client's stderr. A client that does not read
// is not waited for.
func (r *splice) tell(sentence string) {
	told := make(chan struct{})
	go func() {
		defer close(told)
		_, _ = io.WriteString(r.client.Stderr(), say(sentence)+"\n")
	}()
	select {
	case <-told:
	case <-time.After(time.Second):
	}
}

// closeClient passes the server's exit on, and closes the channel.
func (r *splice) closeClient() {
	if r.gone() && r.up.exit != nil {
		_, _ = r.client.SendRequest(r.up.exit.Type, false, r.up.exit.Payload) // it has gone if that fails
	}
	_ = r.client.Close()
}

// status is the server's exit in words, "" if it gave none. It must have exited.
func (s *session) status() string {
	if s.exit == nil {
		return ""
	}
	if s.exit.Type == "exit-status" {
		var status struct{ Code uint32 }
		if ssh.Unmarshal(s.exit.Payload, &status) == nil {
			return fmt.Sprintf("exit status %d", status.Code)
		}
	}
	var signal struct {
		Name    string
		Core    bool
		Message string
		Lang    string
	}
	if s.exit.Type == "exit-signal" && ssh.Unmarshal(s.exit.Payload, &signal) == nil {
		return "signal " + quote(signal.Name, creds.Secret{})
	}
	return ""
}
