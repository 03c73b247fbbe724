package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"runtime/debug"
	"sync"
	"time"
)

// serve answers one request, from inside a tunnel or from the listener: the
// pipeline, then the answer, then its log line.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	x := newExchange(r)
	s.requests.Add(1)
	s.Metrics.inFlight.Inc()
	defer s.finish(w, x)

	x.early = &earlyAnswers{w: w, left: maxEarlyAnswers, unwanted: !r.ProtoAtLeast(1, 1)}
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		_ = http.NewResponseController(w).EnableFullDuplex() // an answer may come before the upload's end
	}
	resp, err := s.roundTrip(x, r)
	x.early.end()
	if err != nil {
		s.refuse(w, r, x, err)
		return
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		s.upgrade(w, r, x, resp)
		return
	}
	s.relay(w, r, x, resp)
}

// finish ends a request: also one whose handler panicked, which must not take
// the process along, nor leave without a log line.
func (s *Server) finish(w http.ResponseWriter, x *exchange) {
	fault := recover()
	if fault != nil && fault != http.ErrAbortHandler { //nolint:errorlint // the value itself, as net/http compares it
		s.logFault(fault)
		p := faultProblem()
		x.fail(p)
		if !x.wrote {
			x.answer(w, p, true)
			fault = nil
		} else {
			fault = http.ErrAbortHandler
		}
	}
	if x.giveUp != nil {
		x.giveUp()
	}
	s.ended(x)
	if fault != nil {
		panic(fault)
	}
}

// logFault says where a panic began. Its value stays out of the log: it may quote
// what was being handled.
func (s *Server) logFault(fault any) {
	s.Log.Error("fault", "type", fmt.Sprintf("%T", fault), "stack", string(debug.Stack()))
}

func faultProblem() *problem {
	return &problem{kind: kindInternal, detail: "The log of pillion has the place. Please report it."}
}

// fail notes in the log line what went wrong.
func (x *exchange) fail(p *problem) {
	x.entry.Status, x.entry.Error, x.entry.Detail = p.status, p.name, p.detail
}

// answer writes the problem, and notes how long its body is: a HEAD gets none.
func (x *exchange) answer(w http.ResponseWriter, p *problem, closing bool) {
	if n := p.respond(w, closing); x.entry.Method != http.MethodHead {
		x.entry.Out += int64(n)
	}
}

// refuse answers with the problem document of err.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, x *exchange, err error) {
	p := problemOf(clientsFault(r, x, err))
	x.fail(p)
	if p.kind == kindClientGone {
		panic(http.ErrAbortHandler)
	}
	x.wrote = true
	x.head = time.Since(x.entry.Time)
	// A body that nobody read would have to be read to its end: close instead.
	unread := r.ProtoMajor == 1 && r.ContentLength != 0
	x.answer(w, p, unread || s.closing(r, x) || p.kind == kindForbiddenClient)
}

// clientsFault sorts what broke off a request: the framing of its body, the
// client's silence, its leaving, or none of these: err then.
func clientsFault(r *http.Request, x *exchange, err error) error {
	if g := gateOf(r.Context()); g != nil {
		if p := g.broken.Load(); p != nil {
			return p
		}
	}
	if x.bodyBroke.Load() || r.Context().Err() != nil {
		return context.Canceled
	}
	return err
}

// closing reports whether the client should not send another request on this
// connection: we are about to end, or a CONNECT or a WebSocket handshake was not
// accepted, behind which anything may follow, and the gate stands open, or the tool
// answers before it has the body, whose rest has no place to go. net/http's server
// takes that rest when our handler has ended, and panics on what follows.
//
// Over HTTP/2 it never is: net/http then says GOAWAY with the last stream that it
// has seen, and whatever the client has sent meanwhile is lost, unless it can be
// sent again. The connection ends with the process, when it has been idle.
func (s *Server) closing(r *http.Request, x *exchange) bool {
	if r.ProtoMajor != 1 {
		return false
	}
	return s.draining.Load() || x.entry.Method == http.MethodConnect || x.webSocket || x.uploading()
}

// relay passes the tool's answer on as it comes.
func (s *Server) relay(w http.ResponseWriter, r *http.Request, x *exchange, resp *http.Response) {
	defer x.close(resp)
	h := w.Header()
	clear(h)
	responseHeader(h, resp)
	announced := len(resp.Trailer)
	for name := range resp.Trailer {
		h.Add("Trailer", name)
		delete(h, "Content-Length") // HTTP/1.1 has room for trailers behind chunks alone
	}
	if s.closing(r, x) {
		h.Set("Connection", "close")
	}
	x.wrote = true
	x.entry.Status = resp.StatusCode
	w.WriteHeader(resp.StatusCode)
	x.head = time.Since(x.entry.Time)
	err := x.copyBody(w, resp)
	if err != nil {
		s.broken(r, x, err)
	}
	relayTrailers(h, resp.Trailer, len(resp.Trailer) == announced)
}

// close ends the tool's answer. One that came in the middle of an upload ends that
// as well: over HTTP/2 Close waits for it, and our answer waits for Close.
func (x *exchange) close(resp *http.Response) {
	if x.uploading() {
		x.giveUp()
	}
	_ = resp.Body.Close()
}

// relayTrailers writes what came behind the body. Trailers that the head did not
// announce need net/http's prefix.
func relayTrailers(h, trailers http.Header, announced bool) {
	if len(trailers) == 0 {
		return
	}
	clean := http.Header{}
	toolsFields(clean, trailers)
	delete(clean, "Content-Length")
	for name, values := range clean {
		if !announced {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// broken ends an answer that cannot be completed: the client must see that it
// is cut, so the connection or the stream is broken off.
func (s *Server) broken(r *http.Request, x *exchange, err error) {
	var gone *clientWriteError
	if errors.As(err, &gone) {
		err = context.Canceled
	}
	p := problemOf(clientsFault(r, x, err))
	status := x.entry.Status
	x.fail(p)
	x.entry.Status = status
	panic(http.ErrAbortHandler)
}

type clientWriteError struct{ error }

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// copyBody streams the answer. What has arrived is flushed before the next read,
// so that an event, a dribbling answer, or a whole one whose stream the tool does not
// end yet is seen at once; a body that ends with the first read is written together
// with its head.
func (x *exchange) copyBody(w http.ResponseWriter, resp *http.Response) error {
	if resp.ContentLength == 0 || resp.Body == http.NoBody {
		return nil
	}
	flusher := http.NewResponseController(w)
	if resp.ContentLength < 0 {
		if err := flusher.Flush(); err != nil {
			return &clientWriteError{err}
		}
	}
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
	defer copyBuffers.Put(buf)
	for {
		n, readErr := resp.Body.Read(*buf)
		if n > 0 {
			if _, err := w.Write((*buf)[:n]); err != nil {
				return &clientWriteError{err}
			}
			x.entry.Out += int64(n)
			if readErr == nil {
				if err := flusher.Flush(); err != nil {
					return &clientWriteError{err}
				}
			}
		}
		switch {
		case readErr == io.EOF, readErr != nil && x.entry.Out == resp.ContentLength: // whole, whatever becomes of the stream, or of a client that has it
			return nil
		case readErr != nil:
			return readErr
		}
	}
}

// earlyAnswers passes 1xx answers such as 103 on. The transport calls it from
// its own goroutine, and may do so after RoundTrip has returned.
type earlyAnswers struct {
	mu       sync.Mutex
	w        http.ResponseWriter
	left     int  // how many more are passed on
	unwanted bool // HTTP/1.0 knows none
	ended    bool
}

// maxEarlyAnswers bounds them: net/http does not, where somebody listens to them.
const maxEarlyAnswers = 32

var errEarlyAnswers = errors.New("the tool sends 1xx answers without an end")

func (e *earlyAnswers) send(code int, header textproto.MIMEHeader) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left--; e.left < 0 {
		return errEarlyAnswers
	}
	// 100 is net/http's to send, when the body is asked for.
	if e.ended || e.unwanted || code == http.StatusContinue {
		return nil
	}
	h := e.w.Header()
	toolsFields(h, http.Header(header))
	e.w.WriteHeader(code)
	clear(h)
	return nil
}

func (e *earlyAnswers) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
}
