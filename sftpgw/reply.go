package sftpgw

import "encoding/binary"

// replyStream is the position in what the server sends.
type replyStream struct {
	s    *scanner
	left uint32
	head head
}

// next returns how many bytes of p are to be forwarded. It stops at a border
// where an answer of our own is due; with n = 0 more must be read behind p,
// unless such an answer is due now.
func (q *replyStream) next(p []byte) (n int, err error) {
	s := q.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for n < len(p) {
		if q.left == 0 {
			if s.answerDue() {
				break
			}
			ok, err := parseHead(p[n:], 0, &q.head)
			if err != nil || !ok {
				if n > 0 {
					break
				}
				return 0, err
			}
			q.left = q.head.length
			s.answered(&q.head)
		}
		take := min(int(q.left), len(p)-n)
		n += take
		q.left -= uint32(take)
	}
	return n, nil
}

// answered takes in a reply. After the end nothing counts any more.
func (s *scanner) answered(h *head) {
	if s.ended {
		return
	}
	if !h.hasID {
		if h.kind == pktVersion && !h.malformed && s.version == 0 {
			s.version = max(h.id, 1)
		}
		return
	}
	if s.pending.total+s.refused.count() >= maxOutstanding {
		s.room.Signal()
	}
	r, ok := s.pending.take(h.id)
	if !ok {
		return
	}
	s.refused.answered(r.epoch)
	if r.kind == pktRead && h.kind == pktData && !h.malformed {
		s.totals.read += int64(h.size)
	}
	switch {
	case r.kind == pktWrite && h.kind == pktStatus && !h.malformed && h.code == statusOK:
		s.totals.written += int64(r.size)
	case r.file == nil:
		return
	}
	if r.file != nil {
		s.files.answered(&r, h)
	}
}

// answered takes in the reply to a request that belongs to a file.
func (fs *files) answered(r *request, h *head) {
	f := r.file
	switch {
	case r.kind == pktOpen && h.kind == pktHandle && !h.malformed:
		fs.opened(f, h.text)
		return
	case r.kind == pktOpen:
		fs.forget(f) // refused; nothing was written
		return
	case r.kind == pktClose:
		f.closed = true
	default:
		f.waiting--
	}
	switch {
	case r.kind == pktRead && h.kind == pktData && !h.malformed:
		if f.op == OpRead {
			f.bytes += int64(h.size)
		}
	case h.kind != pktStatus || h.malformed:
		f.untold = true
	case h.code == statusOK:
		if r.kind == pktWrite {
			f.bytes += int64(r.size)
		}
	case r.kind != pktRead || h.code != statusEOF:
		f.status(h.code)
	}
	fs.settle(f)
}

// denials are the requests that a policy refused, and whose answers wait for
// those of the requests before them: some clients take answers in order.
//
//	sent requests:  a b X c Y d     (X, Y refused)
//	queue:          X{before: 2} Y{before: 1}, before: 1
type denials struct {
	queue  []denial
	before int    // requests under way that were sent after the last refused one
	sent   uint64 // number of requests refused so far
}

type denial struct {
	id     uint32
	needed Policy
	before int // requests under way that were sent between the last refused one and this
}

func (r *denials) count() int { return len(r.queue) }

func (r *denials) add(id uint32, needed Policy) {
	r.queue = append(r.queue, denial{id, needed, r.before})
	r.before = 0
	r.sent++
}

// answered takes a request off, which was sent after epoch refused ones.
func (r *denials) answered(epoch uint64) {
	first := r.sent - uint64(len(r.queue))
	if epoch-first < uint64(len(r.queue)) && epoch >= first {
		r.queue[epoch-first].before--
		return
	}
	r.before--
}

// answerDue reports whether a refused request is next to be answered. Nothing is
// answered before the server's VERSION.
func (s *scanner) answerDue() bool {
	return len(s.refused.queue) > 0 && s.refused.queue[0].before == 0 && s.version != 0
}

// answers appends the answers that are due at a border of the server's packets.
func (s *scanner) answers(to []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replies.left > 0 {
		return to
	}
	for s.answerDue() {
		if s.pending.total+s.refused.count() >= maxOutstanding {
			s.room.Signal()
		}
		to = s.refused.queue[0].append(to, s.policy)
		s.refused.queue = s.refused.queue[1:]
	}
	return to
}

// append writes STATUS: id, code, message, language.
func (r denial) append(to []byte, p Policy) []byte {
	message := "refused by pillion: sftp.allow is " + p.String()
	if needed := (r.needed &^ p).String(); needed != "" {
		message = "refused by pillion: sftp.allow does not list " + needed
	}
	to = binary.BigEndian.AppendUint32(to, uint32(1+4+4+4+len(message)+4))
	to = append(to, pktStatus)
	to = binary.BigEndian.AppendUint32(to, r.id)
	to = binary.BigEndian.AppendUint32(to, statusPermissionDenied)
	to = binary.BigEndian.AppendUint32(to, uint32(len(message)))
	to = append(to, message...)
	return binary.BigEndian.AppendUint32(to, 0)
}
