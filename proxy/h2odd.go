package proxy

import (
	"context"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// serveOdd serves a request that is not in the fast engine's subset as net/http's
// server would: a handler, and a writer that knows trailers, 1xx and flushing.
func (st *h2Stream) serveOdd() {
	r, err := st.request()
	if err != nil {
		st.bad = problemOf(err)
		st.exchange()
		return
	}
	w := &h2Writer{st: st, header: http.Header{}, head: r.Method == http.MethodHead}
	defer func() {
		if fault := recover(); fault != nil && fault != http.ErrAbortHandler { //nolint:errorlint // the value itself
			st.s.logFault(fault)
		} else if fault == nil {
			w.end()
		}
		st.stopBody() // the transport may still hold the body
		w.release()
	}()
	st.enter(phaseRelay)
	st.s.serve(w, r)
}

// request is the request as net/http's server makes it.
func (st *h2Stream) request() (*http.Request, error) {
	f := &st.head
	h := http.Header{}
	for _, field := range f.fields {
		h.Add(textproto.CanonicalMIMEHeaderKey(field.Name), field.Value)
	}
	if cookies := h["Cookie"]; len(cookies) > 1 {
		h["Cookie"] = []string{strings.Join(cookies, "; ")}
	}
	method, path, host := f.method, f.path, f.authority
	if host == "" {
		host = h.Get("Host")
	}
	target := &url.URL{Host: host} // of CONNECT
	if method == http.MethodConnect {
		path = host
	} else {
		var err error
		if target, err = url.ParseRequestURI(path); err != nil {
			return nil, badRequest("the path is no path")
		}
	}
	body := &h2Reader{st: st}
	if httpguts.HeaderValuesContainsToken(h["Expect"], "100-continue") {
		body.asks = true
		delete(h, "Expect")
	}
	r := &http.Request{
		Method: method, URL: target, RequestURI: path, Proto: "HTTP/2.0", ProtoMajor: 2, Header: h, Host: host, Body: body,
		ContentLength: st.declared, Trailer: announced(h), RemoteAddr: st.c.conn.RemoteAddr().String(),
	}
	body.trailer = r.Trailer
	if st.bodyless {
		r.ContentLength, r.Body = 0, http.NoBody
	}
	ctx := context.WithValue(st.ctx, tunnelKey, st.c.tunnel)
	return r.WithContext(context.WithValue(ctx, http.LocalAddrContextKey, st.c.conn.LocalAddr())), nil
}

// announced takes the Trailer field out of h: the names of what may follow the body.
func announced(h http.Header) http.Header {
	var trailer http.Header
	for _, list := range h["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			switch name {
			case "", "Transfer-Encoding", "Trailer", "Content-Length":
			default:
				if trailer == nil {
					trailer = http.Header{}
				}
				trailer[name] = nil
			}
		}
	}
	delete(h, "Trailer")
	return trailer
}

// h2Reader is the body of a request in the hands of net/http.
type h2Reader struct {
	st      *h2Stream
	asks    bool // for 100, before it sends the body
	piece   h2Piece
	ended   bool
	trailer http.Header
}

func (r *h2Reader) Read(p []byte) (int, error) {
	if r.asks {
		r.asks = false
		r.st.sendHeaders(appendHpackStatus(nil, http.StatusContinue))
	}
	if r.piece.from == r.piece.to {
		if r.ended {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	if r.piece.from == r.piece.to { // ended
		return 0, io.EOF
	}
	n := copy(p, (*r.piece.buf)[r.piece.from:r.piece.to])
	r.piece.from += n
	if r.piece.from == r.piece.to {
		recycle(r.piece.buf)
		r.piece = h2Piece{}
	}
	return n, nil
}

func (r *h2Reader) next() error {
	piece, ended, err := r.st.next(nil)
	if err != nil {
		return err
	}
	r.piece, r.ended = piece, ended
	if !ended {
		return nil
	}
	r.st.c.lock.Lock()
	defer r.st.c.lock.Unlock()
	if r.st.trailers == nil {
		return nil
	}
	for _, f := range r.st.trailers {
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if _, ok := r.trailer[name]; ok {
			r.trailer[name] = append(r.trailer[name], f.Value)
		}
	}
	return nil
}

// Close implements io.Closer: the stream's end closes it.
func (*h2Reader) Close() error { return nil }

// h2Writer is the answer, as net/http's handlers write it.
type h2Writer struct {
	st     *h2Stream
	header http.Header
	head   bool // no body goes out
	wrote  bool
	buf    *[]byte // nil, or (*buf)[roomBefore:to] is still to be sent
	to     int
	err    error
}

func (w *h2Writer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. It takes 1xx answers as well.
func (w *h2Writer) WriteHeader(status int) {
	if w.wrote {
		return
	}
	st := w.st
	if _, ok := w.header["Date"]; !ok && status >= http.StatusOK {
		w.header["Date"] = []string{time.Now().UTC().Format(http.TimeFormat)}
	}
	block := appendHpackHeader(appendHpackStatus(nil, status), w.withoutTrailers())
	if status < http.StatusOK {
		st.sendHeaders(block)
		return
	}
	w.wrote = true
	st.block = block
}

// withoutTrailers is the header without what belongs behind the body.
func (w *h2Writer) withoutTrailers() http.Header {
	h := http.Header{}
	for name, values := range w.header {
		if !strings.HasPrefix(name, http.TrailerPrefix) {
			h[name] = values
		}
	}
	return h
}

func (w *h2Writer) Write(p []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	if w.head {
		return len(p), nil
	}
	n := len(p)
	for len(p) > 0 && w.err == nil {
		if w.buf == nil {
			w.buf = relayBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
			w.to = roomBefore
		}
		b := *w.buf
		copied := copy(b[w.to:len(b)-roomAfter], p)
		w.to += copied
		if p = p[copied:]; len(p) > 0 {
			w.send(false, nil)
		}
	}
	return n - len(p), w.err
}

// FlushError implements http.ResponseController's Flush.
func (w *h2Writer) FlushError() error {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	w.send(false, nil)
	w.release() // the next piece may take its time
	return w.err
}

// Flush implements http.Flusher.
func (w *h2Writer) Flush() { _ = w.FlushError() }

func (w *h2Writer) send(last bool, trailers []byte) {
	if w.err != nil {
		return
	}
	if w.buf == nil {
		w.err = w.st.send(nil, 0, 0, last, trailers)
		return
	}
	w.err = w.st.send(*w.buf, roomBefore, w.to, last, trailers)
	w.to = roomBefore
}

func (w *h2Writer) release() {
	if w.buf != nil {
		relayBuffers.Put(w.buf)
		w.buf = nil
	}
}

// end sends what is left, and the trailers.
func (w *h2Writer) end() {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	trailers := http.Header{}
	for _, name := range w.header["Trailer"] {
		if values, ok := w.header[textproto.CanonicalMIMEHeaderKey(name)]; ok {
			trailers[name] = values
		}
	}
	for name, values := range w.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			trailers[name] = values
		}
	}
	w.send(true, appendHpackHeader(nil, trailers))
}

// sendHeaders sends a header block that does not end the stream, at once.
func (st *h2Stream) sendHeaders(block []byte) {
	c := st.c
	c.lock.Lock()
	defer c.lock.Unlock()
	if st.dead() {
		return
	}
	c.appendHeaders(block, false, st.id)
	c.flush()
}
