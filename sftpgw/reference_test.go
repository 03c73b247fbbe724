package sftpgw

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// reference does what the scanner does, whole packet by whole packet, with no
// thought of time or memory: every request is kept for ever in a list.
type reference struct {
	policy   Policy
	version  uint32
	requests []*refRequest
	files    []*refFile
	toServer []byte
	toClient []byte
	written  int64
	read     int64
	broken   bool
}

type refRequest struct {
	id       uint32
	kind     byte
	refused  bool
	answered bool
	shadow   bool // shares its id with one under way: nobody waits for it
	untold   bool
	size     uint32
	file     *refFile
}

type refFile struct {
	path, handle, op string
	isOpen, closed   bool
	waiting          int
	bytes            int64
	bad, untold      bool
	gone             bool
}

// packet is one that was split into its length and the rest.
type refPacket struct{ rest []byte }

func (p *refPacket) u32() (uint32, bool) {
	if len(p.rest) < 4 {
		return 0, false
	}
	n := binary.BigEndian.Uint32(p.rest)
	p.rest = p.rest[4:]
	return n, true
}

func (p *refPacket) text() (string, bool) {
	n, ok := p.u32()
	if !ok || n > maxText || int(n) > len(p.rest) {
		return "", false
	}
	text := string(p.rest[:n])
	p.rest = p.rest[n:]
	return text, true
}

func (p *refPacket) skip(n int) bool {
	if len(p.rest) < n {
		return false
	}
	p.rest = p.rest[n:]
	return true
}

// request takes in a whole packet of the client, its length included.
func (r *reference) request(packet []byte) {
	body := refPacket{packet[4:]}
	if len(body.rest) == 0 || len(body.rest) > packetLimit {
		r.broken = true
		return
	}
	kind := body.rest[0]
	body.skip(1)
	number, whole := body.u32()
	if !whole || kind == pktInit || kind == pktVersion {
		switch {
		case r.policy == 0:
		case kind != pktInit || !whole:
			r.broken = true
			return
		case number > 3:
			packet = bytes.Clone(packet)
			binary.BigEndian.PutUint32(packet[5:], 3)
		}
		r.toServer = append(r.toServer, packet...)
		return
	}
	q := &refRequest{id: number, kind: kind}
	text, flags, sound := r.fields(q, &body)
	q.refused = r.policy != 0 && (!sound || !r.allows(kind, text, flags))
	r.requests = append(r.requests, q)
	if q.refused {
		r.answerRefused()
		return
	}
	r.toServer = append(r.toServer, packet...)
	switch {
	case !sound:
		q.kind = 0
	case kind == pktOpen:
		q.file = &refFile{path: text, op: OpRead}
		if flags != flagRead && flags != 0 {
			q.file.op = OpWrite
		}
		r.files = append(r.files, q.file)
	case kind == pktRead || kind == pktWrite || kind == pktClose:
		for _, f := range r.files {
			if f.isOpen && f.handle == text {
				q.file = f
			}
		}
		if q.file != nil && kind == pktClose {
			q.file.isOpen = false
		} else if q.file != nil {
			q.file.waiting++
		}
	}
	r.shadows(q)
}

// shadows finds out whether the id is under way already.
func (r *reference) shadows(q *refRequest) {
	for _, other := range r.requests {
		if other == q || other.id != q.id || other.answered || other.refused || other.shadow {
			continue
		}
		q.shadow = true
		for _, one := range []*refRequest{other, q} {
			if one.file != nil && !one.untold {
				one.file.untold = true
				if one.kind == pktRead || one.kind == pktWrite {
					one.file.waiting--
				}
			}
			one.untold = true
		}
		return
	}
}

func (r *reference) fields(q *refRequest, body *refPacket) (text string, flags uint32, sound bool) {
	sound = true
	switch q.kind {
	case pktOpen:
		if text, sound = body.text(); !sound {
			return "", 0, false
		}
		if flags, sound = body.u32(); sound && r.version >= 5 {
			var disposition uint32
			if disposition, sound = body.u32(); disposition&7 != 2 {
				flags |= flagWrite
			}
		}
	case pktWrite, pktRead:
		if text, sound = body.text(); !sound || !body.skip(8) {
			return "", 0, false
		}
		if q.size, sound = body.u32(); sound && q.kind == pktWrite {
			sound = body.skip(int(q.size))
		}
	case pktClose, pktHandle, pktExtended:
		text, sound = body.text()
	case pktStatus, pktData: // a server's, sent by a client
		_, sound = body.u32()
	}
	return text, flags, sound
}

// allows is the policy, written once more.
func (r *reference) allows(kind byte, text string, flags uint32) bool {
	has := func(name string) bool { return strings.Contains(", "+r.policy.String()+", ", ", "+name+", ") }
	switch kind {
	case 4, 7, 8, 16, 17:
		return true
	case 3:
		reads, writes := flags&1 == 1 || flags == 0, flags > 1
		return (!reads || has("read")) && (!writes || has("write"))
	case 5:
		return has("read")
	case 6, 9, 10, 14, 20:
		return has("write")
	case 11, 12, 19:
		return has("list")
	case 13, 15:
		return has("remove")
	case 18:
		return has("rename")
	case 200:
		switch text {
		case "posix-rename@openssh.com":
			return has("rename")
		case "hardlink@openssh.com", "fsync@openssh.com", "lsetstat@openssh.com":
			return has("write")
		case "copy-data", "copy-file":
			return has("read") && has("write")
		case "statvfs@openssh.com", "fstatvfs@openssh.com", "limits@openssh.com", "expand-path@openssh.com", "home-directory", "space-available", "vendor-id":
			return true
		case "users-groups-by-id@openssh.com":
			return has("list")
		}
		return (strings.HasPrefix(text, "check-file") || strings.HasPrefix(text, "md5-hash")) && slices.Contains(
			[]string{"md5-hash", "md5-hash-handle", "check-file", "check-file-handle", "check-file-name"}, text) && has("read")
	}
	return false
}

// reply takes in a whole packet of the server.
func (r *reference) reply(packet []byte) {
	body := refPacket{packet[4:]}
	if len(body.rest) == 0 || len(body.rest) > packetLimit {
		r.broken = true
		return
	}
	r.toClient = append(r.toClient, packet...)
	kind := body.rest[0]
	body.skip(1)
	number, whole := body.u32()
	switch {
	case !whole:
	case kind == pktVersion && r.version == 0:
		r.version = max(number, 1)
	case kind != pktInit && kind != pktVersion:
		r.replied(kind, number, &body)
	}
	r.answerRefused()
}

func (r *reference) replied(kind byte, id uint32, body *refPacket) {
	var first, shadow *refRequest
	for _, q := range r.requests {
		switch {
		case q.id != id || q.refused || q.answered:
		case q.shadow:
			shadow = q
		default:
			first = q
		}
	}
	if shadow != nil {
		shadow.answered = true // whichever: only their number counts
		return
	}
	if first == nil {
		return
	}
	first.answered = true
	if first.untold {
		return
	}
	r.outcome(first, kind, body)
}

func (r *reference) outcome(q *refRequest, kind byte, body *refPacket) {
	f := q.file
	if f == nil {
		f = &refFile{gone: true}
	}
	done := func(good bool) {
		f.untold = f.untold || !good
		if q.kind == pktClose {
			f.closed = true
		} else {
			f.waiting--
		}
	}
	handle, sound := "", true
	number := uint32(0)
	switch kind {
	case pktHandle, pktClose, pktExtended:
		handle, sound = body.text()
	case pktStatus:
		number, sound = body.u32()
	case pktData:
		if number, sound = body.u32(); sound {
			sound = body.skip(int(number))
		}
	case pktOpen, pktWrite, pktRead: // a client's, sent by a server
		sound = false
	}
	switch q.kind {
	case pktOpen:
		if kind == pktHandle && sound {
			for _, other := range r.files {
				if other.isOpen && other.handle == handle {
					other.isOpen, other.untold, f.untold = false, true, true
				}
			}
			f.isOpen, f.handle = true, handle
		} else {
			f.gone = true
		}
		return
	case pktWrite, pktRead, pktClose:
	default:
		return
	}
	switch {
	case kind == pktStatus && sound && number == statusOK:
		done(true)
		if q.kind == pktWrite {
			f.bytes += int64(q.size)
			r.written += int64(q.size)
		}
	case kind == pktStatus && sound:
		done(true)
		f.bad = f.bad || q.kind != pktRead || number != statusEOF
	case kind == pktData && sound && q.kind == pktRead:
		done(true)
		r.read += int64(number)
		if f.op == OpRead {
			f.bytes += int64(number)
		}
	default:
		done(false)
	}
}

// answerRefused answers the refused requests that have no older one under way.
func (r *reference) answerRefused() {
	if r.version == 0 {
		return
	}
	for _, q := range r.requests {
		switch {
		case q.answered || q.shadow:
		case !q.refused:
			return
		default:
			q.answered = true
			r.toClient = append(r.toClient, fmt.Sprintf("refused %d;", q.id)...)
		}
	}
}

// report lists the files, sorted: bytes, path, and how each ended.
func (r *reference) report() []string {
	var list []string
	for _, f := range r.files {
		if f.gone {
			continue
		}
		end := "open"
		switch {
		case f.bad:
			end = "bad"
		case f.untold:
			end = "untold"
		case f.closed && f.waiting == 0:
			end = "good"
		}
		list = append(list, fmt.Sprintf("%s %q %d %s", f.op, f.path, f.bytes, end))
	}
	slices.Sort(list)
	return list
}

// recorder is a channel that keeps what is written to it.
type recorder struct {
	ssh.Channel
	written bytes.Buffer
}

func (c *recorder) Write(p []byte) (int, error) { return c.written.Write(p) }
func (c *recorder) Close() error                { return nil }

// scannerUnder drives the scanner through the relay's own code, in pieces.
type scannerUnder struct {
	splice         *splice
	client, server recorder
	rooms          [2]room
	used           [2]int
	kept           [2][]byte
	files          []string
}

func newScannerUnder(p Policy) *scannerUnder {
	u := &scannerUnder{}
	scan := newScanner(p, func(f File) {
		end := "good"
		switch {
		case strings.HasPrefix(f.Error, "the server answered"):
			end = "bad"
		case strings.HasPrefix(f.Error, "the answers"):
			end = "untold"
		case f.Error != "":
			end = "open"
		}
		u.files = append(u.files, fmt.Sprintf("%s %q %d %s", f.Op, f.Path, f.Bytes, end))
	})
	scan.files.now = func() time.Time { return time.Time{} }
	u.splice = &splice{client: &u.client, up: &session{ch: &u.server}, scan: scan}
	return u
}

// feed sends p in pieces of the given sizes, over and over.
func (u *scannerUnder) feed(toServer bool, p []byte, cuts []byte) error {
	direction := 0
	if !toServer {
		direction = 1
	}
	for i := 0; len(p) > 0; i++ {
		n := len(p)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[i%len(cuts)]))
		}
		kept := u.kept[direction]
		into := u.rooms[direction].after(u.used[direction], kept)
		n = copy(into[len(kept):], p[:n])
		if n == 0 {
			return io.ErrShortBuffer
		}
		p = p[n:]
		used := len(kept) + n
		var err error
		if toServer {
			kept, err = u.splice.forward(into[:used])
		} else {
			kept, err = u.splice.reply(into[:used])
			u.splice.scan.report()
		}
		if err != nil {
			return err
		}
		u.used[direction], u.kept[direction] = used, kept
	}
	return nil
}

// clientSaw is what the client got, with our own answers in short.
func (u *scannerUnder) clientSaw(t *testing.T) []byte {
	var out []byte
	for rest := u.client.written.Bytes(); len(rest) > 0; {
		if len(rest) < 4 || len(rest)-4 < int(binary.BigEndian.Uint32(rest)) {
			t.Fatalf("the client's stream ends inside a packet: %x", rest)
		}
		packet := rest[:4+binary.BigEndian.Uint32(rest)]
		rest = rest[len(packet):]
		if bytes.Contains(packet, []byte("refused by pillion")) {
			out = fmt.Appendf(out, "refused %d;", binary.BigEndian.Uint32(packet[5:]))
			if code := binary.BigEndian.Uint32(packet[9:]); packet[4] != pktStatus || code != statusPermissionDenied {
				t.Fatalf("an answer of our own is %x", packet)
			}
			continue
		}
		out = append(out, packet...)
	}
	return out
}
