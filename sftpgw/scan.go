package sftpgw

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// scanner follows an SFTP session beside its bytes: the borders of packets, the
// requests without an answer, the files that are open, and what the server
// confirmed. It holds no byte of a file back, changes none, and answers for
// nothing but what a policy refuses.
//
//	client --> requests.next --> server      a refused packet is left out, and
//	client <-- replies.next  <-- server      its answer put in at a border
//
// Each direction is used by one goroutine. Neither allocates for data.
type scanner struct {
	policy   Policy
	onFile   func(File)
	requests requestStream
	replies  replyStream

	reporting sync.Mutex // held while onFile runs

	mu      sync.Mutex
	room    *sync.Cond // less than maxOutstanding requests are waiting, or ended
	pending pending
	files   files
	refused denials
	version uint32 // that the server answered; 0 before
	ended   bool
	totals  totals
}

// totals are a session's sums.
type totals struct {
	written, read int64 // bytes of files: confirmed by the server, and sent by it
	requests      int64
	denied        int64
	filesWritten  int64 // complete
	filesFailed   int64 // opened for writing, and not complete
}

// newScanner returns a scanner for one session. onFile, if not nil, is called
// for each file that the client is done with, at the latest when the session
// ends; never by two goroutines at once.
func newScanner(p Policy, onFile func(File)) *scanner {
	s := &scanner{policy: p, onFile: onFile}
	s.requests.s, s.replies.s = s, s
	s.room = sync.NewCond(&s.mu)
	s.files.now = time.Now
	return s
}

// packetError says that a length is none of an SFTP packet. There is no way to
// find the next border, so the session ends.
type packetError struct{ length uint32 }

func (e *packetError) Error() string {
	return fmt.Sprintf("a packet of %d bytes, where 1 to %d are taken", e.length, packetLimit)
}

var errEnded = errors.New("the session has ended")

// requestStream is the position in what the client sends.
type requestStream struct {
	s    *scanner
	left uint32 // bytes of the present packet that are still to come
	drop bool   // it is refused
	head head
}

// next returns the first n bytes of p, which begins where the last call's bytes
// ended: a run to be forwarded, or one to be left out. With n = 0 the head of
// a packet is not whole: more must be read behind p. It waits while too many
// requests have no answer, never with a run in hand. With a policy it may lower
// the version in INIT, in place.
func (q *requestStream) next(p []byte) (n int, forward bool, err error) {
	s := q.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, false, errEnded
	}
	drop := q.drop
	for n < len(p) {
		if q.left == 0 {
			ok, err := parseHead(p[n:], s.version, &q.head)
			if err != nil || !ok || s.pending.total+s.refused.count() >= maxOutstanding {
				if n > 0 {
					break
				}
				if err != nil || !ok {
					return 0, false, err
				}
				if err := s.waitForRoom(); err != nil {
					return 0, false, err
				}
			}
			q.left = q.head.length
			q.drop, err = s.admit(&q.head, p[n:])
			if err != nil {
				return n, !drop, err
			}
			if n == 0 {
				drop = q.drop
			} else if drop != q.drop {
				break
			}
		}
		take := min(int(q.left), len(p)-n)
		n += take
		q.left -= uint32(take)
	}
	return n, !drop, nil
}

// waitForRoom returns when another request may be under way.
func (s *scanner) waitForRoom() error {
	for s.pending.total+s.refused.count() >= maxOutstanding && !s.ended {
		s.room.Wait()
	}
	if s.ended {
		return errEnded
	}
	return nil
}

// admit enters a request, or refuses it.
func (s *scanner) admit(h *head, packet []byte) (drop bool, err error) {
	if !h.hasID {
		if s.policy == 0 {
			return false, nil
		}
		if h.kind != pktInit || h.malformed {
			return false, errUnanswerable
		}
		lowerVersion(packet)
		return false, nil
	}
	s.totals.requests++
	if !s.policy.permits(h.needs()) {
		s.totals.denied++
		s.refused.add(h.id, h.needs())
		return true, nil
	}
	s.enter(h)
	return false, nil
}

// errUnanswerable is for packets that a policy cannot let pass, and that have no
// id to answer.
var errUnanswerable = errors.New("a packet that is none of SFTP version 3")

// lowerVersion makes INIT ask for version 3 at most, whose packets the policy
// knows. The whole number stands in the head.
func lowerVersion(packet []byte) {
	if version := packet[5:9]; version[0]|version[1]|version[2] != 0 || version[3] > 3 {
		copy(version, []byte{0, 0, 0, 3})
	}
}

// enter notes a request that goes to the server.
func (s *scanner) enter(h *head) {
	r := request{id: h.id, kind: h.kind, size: h.size, epoch: s.refused.sent}
	switch {
	case h.malformed:
		r.kind = 0
	case h.kind == pktOpen:
		r.file = s.files.open(h)
	case h.kind == pktWrite || h.kind == pktRead:
		if r.file = s.files.byHandle[string(h.text)]; r.file != nil {
			r.file.waiting++
		}
	case h.kind == pktClose:
		if r.file = s.files.byHandle[string(h.text)]; r.file != nil {
			delete(s.files.byHandle, string(h.text))
		}
	}
	first := s.pending.add(r)
	if first == nil {
		s.refused.before++
		return
	}
	s.untold(first)
	s.untold(&r)
}

// untold makes a request one that nothing is known of but its id.
func (s *scanner) untold(r *request) {
	if f := r.file; f != nil {
		f.untold = true
		if r.kind == pktWrite || r.kind == pktRead {
			f.waiting--
		}
	}
	r.kind, r.file = 0, nil
}

// open returns how many requests have no answer.
func (s *scanner) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending.total + s.refused.count()
}

// end stops waiting, and reports the files that are still open. Afterwards
// nothing more is reported.
func (s *scanner) end() totals {
	s.mu.Lock()
	s.ended = true
	s.files.finishAll()
	s.room.Broadcast()
	s.mu.Unlock()
	s.report()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.totals
}

// report calls onFile, without holding the scanner's lock.
func (s *scanner) report() {
	s.reporting.Lock()
	defer s.reporting.Unlock()
	s.mu.Lock()
	done := s.files.done
	s.files.done = nil
	for _, f := range done {
		switch {
		case f.Op == OpRead:
		case f.Error == "":
			s.totals.filesWritten++
		default:
			s.totals.filesFailed++
		}
	}
	s.mu.Unlock()
	if s.onFile != nil {
		for _, f := range done {
			s.onFile(f)
		}
	}
}
