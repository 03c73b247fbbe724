package proxy

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

var _ sink = (*fastConn)(nil)

// early implements sink.
func (c *fastConn) early(a *toolAnswer) error {
	b := appendStatus(nil, a.status)
	b = append(appendFields(b, a.fields), "\r\n"...)
	return c.put(b)
}

// begin implements sink.
func (c *fastConn) begin(a *toolAnswer) {
	rq := c.rq
	x := &rq.x
	x.entry.Status = a.status
	x.head = time.Since(x.entry.Time)
	rq.last = rq.last || c.s.draining.Load()
	if (rq.chunked || rq.length > int64(len(rq.body))) && !rq.upload.read.Load() {
		rq.last = true // the rest of the body has no place to go
	}
	b := appendFields(appendStatus(rq.answerHead[:0], a.status), a.fields)
	switch {
	case a.length >= 0 && a.status != http.StatusNoContent && a.status != http.StatusNotModified:
		b = strconv.AppendInt(append(b, "Content-Length: "...), a.length, 10)
		b = append(b, "\r\n"...)
	case a.bodyless:
	default:
		rq.chunking = true
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if rq.last {
		b = append(b, "Connection: close\r\n"...)
	}
	rq.answerHead = append(b, "\r\n"...)
}

// data implements sink.
func (c *fastConn) data(b []byte, from, to int, last bool) error {
	rq := c.rq
	x := &rq.x
	n := to - from
	trailers := rq.ask.answer.trailers
	if rq.chunking {
		from, to = frame(b, from, to, last && len(trailers) == 0)
	}
	if !x.wrote {
		x.wrote = true
		if from < len(rq.answerHead) {
			if err := c.put(rq.answerHead); err != nil {
				return err
			}
		} else {
			from -= len(rq.answerHead)
			copy(b[from:], rq.answerHead)
		}
	}
	if from < to {
		if err := c.put(b[from:to]); err != nil {
			return err
		}
	}
	x.entry.Out += int64(n)
	if last && rq.chunking && len(trailers) > 0 {
		end := appendFields([]byte("0\r\n"), trailers)
		return c.put(append(end, "\r\n"...))
	}
	return nil
}

// put writes to the client, under the sweeper's eye.
func (c *fastConn) put(b []byte) error {
	c.enter(phaseSend)
	err := c.sock.send(c.conn, b)
	c.enter(phaseRelay)
	if err != nil {
		return errors.Join(errClientGone, err)
	}
	return nil
}

// errClientGone is what sending to a client that left comes to.
var errClientGone = errors.New("the client has left")

func appendStatus(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = strconv.AppendInt(append(b, "status code "...), int64(status), 10)
	}
	return append(b, "\r\n"...)
}

func appendFields(b []byte, fields []field) []byte {
	for _, f := range fields {
		b = append(append(append(append(b, f.name...), ": "...), f.value...), "\r\n"...)
	}
	return b
}
