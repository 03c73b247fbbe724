package sftpgw

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// result is how a session ended.
type result struct {
	in, out int64  // bytes from the client, and to it
	lost    string // "" in good order, else the sentence for the client: what it has no answer to is not done
	err     error  // the cause, where there is one
	totals  totals

	// again is not nil when the server ended the session before its first
	// packet, as it does for an expired password. Then the client has not been
	// told: refuse it on this channel, which reads what it sent from the start.
	again ssh.Channel
}

// relayLinger is how long an end may take without moving: the server's, when the
// client has gone, and the client's taking of what is meant for it.
const relayLinger = 5 * time.Second

// relay joins a client's channel and a session until one of them ends, and
// closes the session. In good order it closes the client's channel too, with the
// server's exit status. When the server is lost it tells the client so on
// stderr; TCP must then be closed, because clients resume or try again when that
// ends. Goroutines that wait for the client end with its connection.
//
//	client --requests--> up      read, scanned, written: nothing is held back but
//	client <--replies--- up      the head of a packet until it is whole
//	client <--stderr---- up
//
// Requests of either side about the channel (env, exec, window-change) are
// refused: all was asked that a session of SFTP asks.
func relay(ctx context.Context, client ssh.Channel, requests <-chan *ssh.Request, up *session, scan *scanner) result {
	r := &splice{client: client, up: up, scan: scan}
	for _, ch := range []ssh.Channel{client, up.ch} {
		if only, ok := ch.(*onlyChannel); ok {
			only.pacedBy(scan.open)
		}
	}
	go ssh.DiscardRequests(requests)
	repliesDone, stderrDone := make(chan struct{}), make(chan struct{})
	go r.requests()
	go func() { defer close(stderrDone); r.stderr() }()
	go func() { defer close(repliesDone); r.replies() }()
	defer up.close()
	r.wait(ctx, repliesDone)
	return r.result(ctx, stderrDone)
}

// splice is one session's relay.
type splice struct {
	client ssh.Channel
	up     *session
	scan   *scanner

	in, out atomic.Int64
	write   sync.Mutex // of the client's channel, and the position in its packets

	mu        sync.Mutex
	over      bool           // requests go to handover, if there is one, else nowhere
	early     []byte         // what the client sent before the server's first packet
	handover  *io.PipeWriter // what it sends afterwards
	finished  bool           // the client has sent its last request
	requested error          // why requests ended, if not for that
	replied   error          // why replies ended, if not at the server's end
	spoken    bool           // the server has sent something
	words     []byte         // the beginning of its stderr
}

// requests forwards what the client sends.
func (r *splice) requests() {
	var room room
	defer room.release()
	var kept []byte // the beginning of a head
	for used, dead := 0, false; ; {
		into := room.after(used, kept)
		n, err := r.client.Read(into[len(kept):])
		r.in.Add(int64(n))
		used = len(kept) + n
		if !r.afterwards(into[len(kept):used]) && !dead {
			var failed error
			kept, failed = r.forward(into[:used])
			var upstream *upstreamError
			if errors.As(failed, &upstream) {
				kept, dead = nil, true // read on: the client may have to be answered by us
			} else if failed != nil {
				err = failed
			}
		}
		if err != nil {
			r.endRequests(err)
			return
		}
	}
}

// maxEarly is how much is kept of what the client sends before the server's first
// packet: INIT has 9 bytes.
const maxEarly = 128 << 10

// afterwards hands over what is read after the session is over. Until the
// server's first packet it keeps what is read.
func (r *splice) afterwards(p []byte) bool {
	r.mu.Lock()
	if !r.over {
		if !r.spoken && len(r.early)+len(p) <= maxEarly {
			r.early = append(r.early, p...)
		}
		r.mu.Unlock()
		return false
	}
	handover := r.handover
	r.mu.Unlock()
	if handover != nil && len(p) > 0 {
		_, _ = handover.Write(p) // the other end is closed when nobody wants it
	}
	return true
}

// forward writes p as the scanner says. What is kept of it is a head that is not whole.
func (r *splice) forward(p []byte) (kept []byte, err error) {
	for len(p) > 0 {
		run, pass, err := r.scan.requests.next(p)
		if err != nil {
			return nil, err
		}
		if run == 0 {
			break
		}
		if pass {
			if _, err := r.up.ch.Write(p[:run]); err != nil {
				return nil, &upstreamError{err}
			}
		} else if err := r.answer(); err != nil {
			return nil, err
		}
		p = p[run:]
	}
	return p, nil
}

// upstreamError tells a failing server from a failing client.
type upstreamError struct{ err error }

func (e *upstreamError) Error() string { return e.err.Error() }
func (e *upstreamError) Unwrap() error { return e.err }

// endRequests passes the client's end on, so that the server ends too. After
// anything else than its end nothing more may reach the server.
func (r *splice) endRequests(err error) {
	r.mu.Lock()
	handover := r.handover
	if r.finished = errors.Is(err, io.EOF); !r.finished && !r.over {
		r.requested = err
	}
	finished := r.finished
	r.mu.Unlock()
	if handover != nil {
		_ = handover.CloseWithError(err) // never fails
	}
	if finished {
		_ = r.up.ch.CloseWrite() // the server has ended already if that fails
		return
	}
	r.up.close()
}

// replies forwards what the server sends.
func (r *splice) replies() {
	var room room
	defer room.release()
	var kept []byte // the beginning of a head
	for used := 0; ; {
		into := room.after(used, kept)
		n, err := r.up.ch.Read(into[len(kept):])
		used = len(kept) + n
		if n > 0 && !r.spoken {
			r.mu.Lock()
			r.spoken, r.early = true, nil
			r.mu.Unlock()
		}
		var failed error
		kept, failed = r.reply(into[:used])
		r.scan.report()
		if failed != nil {
			r.mu.Lock()
			r.replied = failed
			r.mu.Unlock()
			return
		}
		if err != nil {
			return
		}
	}
}

// reply writes p to the client, and puts in the answers that are due between its
// packets. What is kept of it is a head that is not whole.
func (r *splice) reply(p []byte) (kept []byte, err error) {
	r.write.Lock()
	defer r.write.Unlock()
	for len(p) > 0 {
		run, err := r.scan.replies.next(p)
		if err != nil {
			return nil, err
		}
		if err := r.put(p[:run]); err != nil {
			return nil, err
		}
		p = p[run:]
		own := r.scan.answers(nil)
		if err := r.put(own); err != nil {
			return nil, err
		}
		if run == 0 && own == nil {
			break
		}
	}
	return p, nil
}

// answer writes the answers that are due now.
func (r *splice) answer() error {
	r.write.Lock()
	defer r.write.Unlock()
	return r.put(r.scan.answers(nil))
}

// errClientLeft says that the client does not take its answers.
var errClientLeft = errors.New("the client has left")

func (r *splice) put(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := r.client.Write(p)
	r.out.Add(int64(n))
	if err != nil {
		return fmt.Errorf("%w: %w", errClientLeft, err)
	}
	return nil
}

// stderr forwards what the server writes there, and keeps its beginning.
func (r *splice) stderr() {
	from, to := r.up.ch.Stderr(), r.client.Stderr()
	buffer := make([]byte, 1024)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			r.mu.Lock()
			r.words = append(r.words, buffer[:min(n, maxQuote-min(maxQuote, len(r.words)))]...)
			r.mu.Unlock()
			_, _ = to.Write(buffer[:n]) // drained all the same, or the server waits
		}
		if err != nil {
			return
		}
	}
}

// wait returns when the server's side has ended, or when what is left of the
// session does not move.
//
// The client's end is none of the session's: the server is still to answer, and
// ends when it has, since the end is passed on to it.
func (r *splice) wait(ctx context.Context, replies <-chan struct{}) {
	select {
	case <-replies:
	case <-r.up.up.ended: // the client may go on reading
	case <-ctx.Done(): // the server may have something to finish
	}
	timer := time.NewTicker(relayLinger)
	defer timer.Stop()
	for moved := r.out.Load(); ; moved = r.out.Load() {
		select {
		case <-replies:
			r.waitForReason()
			return
		case <-timer.C:
			if r.out.Load() == moved {
				return
			}
		}
	}
}

// waitForReason waits a moment for what follows a server's last packet: its exit
// status, or else the end of its connection.
func (r *splice) waitForReason() {
	r.mu.Lock()
	failed, finished := r.replied != nil, r.finished
	r.mu.Unlock()
	if failed {
		return
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-r.up.exited:
	case <-timer.C:
		return
	}
	if r.up.exit != nil || finished {
		return
	}
	select {
	case <-r.up.up.ended:
	case <-timer.C:
	}
}
