package proxy

import (
	"net/http"
	"strconv"
	"sync"

	"golang.org/x/net/http/httpguts"

	"pillion/creds"
)

// fastRequest is what one request needs. Connections borrow it for as long as one
// is under way.
type fastRequest struct {
	requestHead
	x      exchange
	config *running

	first    *toolConn // what the probe of a tool's protocol came to
	firstErr error

	in      []byte // read of the client: in[r:w] is not served yet
	r, w    int
	partial bool // in[r:w] is the beginning of a head

	body   []byte // all of it, where it came with the head
	out    []byte // the head, and the body, as the tool gets them
	ask    toolAsk
	upload upload

	answerHead []byte // as the client gets it, until it is written
	chunking   bool   // the client gets chunks
	last       bool   // it is told that the connection ends
	retry      *creds.Authorization

	by                     *asker
	sendWhole, beginUpload func() error // bound once, as toolAsk asks for
	onHead                 func(*toolAnswer) bool

	small  [4 << 10]byte
	memory [maxFields]field
}

// maxFastHead is the most that is collected of a head, with what comes behind it.
const maxFastHead = 16 << 10

var requests = sync.Pool{New: func() any {
	rq := &fastRequest{}
	rq.in = rq.small[:]
	rq.fields = rq.memory[:0]
	rq.out = make([]byte, 0, 2<<10)
	rq.answerHead = make([]byte, 0, 1<<10)
	rq.ask.answer.fields = make([]field, 0, 32)
	rq.upload.done = make(chan struct{}, 1)
	rq.sendWhole = func() error { return rq.ask.up.sock.send(rq.ask.up.conn, rq.out) }
	rq.beginUpload = func() error {
		rq.upload.start(rq.ask.up)
		return nil
	}
	rq.onHead = func(a *toolAnswer) bool { return rq.by.onHead(rq, a) }
	return rq
}}

func takeRequest() *fastRequest {
	return requests.Get().(*fastRequest) //nolint:forcetypeassert // nothing else is put there
}

// begin forgets the request before.
func (rq *fastRequest) begin() {
	rq.chunking = false
	rq.answerHead = rq.answerHead[:0]
	rq.upload.read.Store(false)
	rq.upload.broken.Store(nil)
}

// giveBack drops what is large or points elsewhere.
func (rq *fastRequest) giveBack() {
	rq.in, rq.r, rq.w, rq.partial = rq.small[:], 0, 0, false
	rq.x, rq.config, rq.body, rq.retry, rq.first, rq.firstErr = exchange{}, nil, nil, nil, nil, nil
	rq.ask.up, rq.ask.sink, rq.by, rq.upload.kept = nil, nil, nil, nil
	if cap(rq.out) > 16<<10 {
		rq.out = make([]byte, 0, 2<<10)
	}
	requests.Put(rq)
}

// room makes space behind w; it reports false when a head is too long for it.
func (rq *fastRequest) room() bool {
	if rq.r == rq.w {
		rq.r, rq.w = 0, 0
	}
	if rq.w < len(rq.in) {
		return true
	}
	if rq.r > 0 {
		rq.w = copy(rq.in, rq.in[rq.r:rq.w])
		rq.r = 0
		return true
	}
	if len(rq.in) >= maxFastHead {
		return false
	}
	rq.in = append(rq.in, make([]byte, len(rq.in))...)
	return true
}

// write makes the request as the tool gets it: the client's end-to-end fields, but
// for what the credential owns, and its own in their place.
func (rq *fastRequest) write(a *creds.Authorization, host string) {
	x := &rq.x
	b := append(rq.out[:0], rq.requestHead.method...)
	b = append(b, ' ')
	if len(a.Query) == 0 {
		b = append(b, rq.target...)
	} else {
		query := x.query
		for i := range a.Query {
			query = setQuery(query, a.Query[i].Name, a.Query[i].Value.Reveal())
		}
		b = append(append(append(b, x.path...), '?'), query...)
	}
	b = append(append(b, " HTTP/1.1\r\nHost: "...), host...)
	b = append(b, "\r\n"...)
	for _, f := range rq.fields {
		if !isOwned(a, f.name) {
			b = append(append(append(append(b, f.name...), ": "...), f.value...), "\r\n"...)
		}
	}
	for i := range a.Headers {
		b = append(append(b, a.Headers[i].Name...), ": "...)
		b = append(append(b, a.Headers[i].Value.Reveal()...), "\r\n"...)
	}
	switch {
	case rq.chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case rq.length > 0, takesBody(rq.requestHead.method):
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, rq.length, 10), "\r\n"...)
	}
	b = append(b, "\r\n"...)
	rq.out = append(b, rq.body...)
}

// takesBody tells methods whose missing body is said to be empty, as net/http does.
func takesBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

func isOwned(a *creds.Authorization, name []byte) bool {
	for i := range a.Headers {
		if owns(a.Headers[i].Name, name) {
			return true
		}
	}
	return false
}

// isWritable reports whether a's fields are ones: whoever made it has seen to that,
// but what ends a field early would begin another.
func isWritable(a *creds.Authorization) bool {
	for i := range a.Headers {
		f := &a.Headers[i]
		if !httpguts.ValidHeaderFieldName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value.Reveal()) {
			return false
		}
	}
	return true
}
