package proxy

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"

	"pillion/creds"
)

// exchange serves one request, whose head is read and aimed: the pipeline, the
// answer, the log line. With a body that came whole it is called inside the poll of
// the client, else outside.
func (c *fastConn) exchange(rq *fastRequest) (next nextStep) {
	s, x := c.s, &rq.x
	s.requests.Add(1)
	s.Metrics.inFlight.Inc()
	c.enter(phaseAsk)
	s.sweeper.kick()
	rq.last = rq.closing || s.draining.Load()
	rq.chunking = false
	rq.answerHead = rq.answerHead[:0]
	rq.upload.read.Store(false)
	rq.upload.broken.Store(nil)
	defer func() {
		if fault := recover(); fault != nil {
			next = c.faulted(rq, fault)
		}
		s.ended(x)
		c.enter(phaseIdle)
	}()
	if err := c.forward(rq); err != nil {
		return c.refuse(rq, err)
	}
	rq.r += rq.size + len(rq.body)
	switch {
	case x.entry.Error != "":
		return nextClose
	case rq.last:
		return nextLinger
	}
	return nextRequest
}

// forward is Server.roundTrip for the fast engine: whose request is it, what does
// it carry, send it, and relay the answer. Its error means that the client has not
// been answered.
func (c *fastConn) forward(rq *fastRequest) error {
	x := &rq.x
	up, dialled := rq.first, rq.firstErr
	rq.first, rq.firstErr = nil, nil
	a, err := c.carries(x)
	if err == nil {
		err = dialled
	}
	if err != nil {
		if up != nil {
			up.put(time.Now())
		}
		return c.fault(rq, err)
	}
	streams := rq.chunked || rq.length > int64(len(rq.body))
	rq.write(a, c.name)
	err = c.ask(rq, a, up, streams)
	if err != nil || rq.retry == nil {
		return err
	}
	a, rq.retry = rq.retry, nil
	x.authorization = a
	if streams {
		rq.length, rq.chunked = int64(len(rq.upload.kept)), false
		rq.body = rq.upload.kept
	}
	rq.write(a, c.name)
	err = c.ask(rq, a, nil, false)
	if streams {
		rq.body = nil // of which nothing stands behind the head any more
	}
	return err
}

// carries finds what the request carries.
func (c *fastConn) carries(x *exchange) (*creds.Authorization, error) {
	credential, err := c.s.match(x)
	if err != nil {
		return nil, err
	}
	a, err := c.s.authorize(c.ctx, x, credential)
	if err == nil && !isWritable(a) {
		err = &problem{kind: kindTokenUnavailable, detail: "The credential holds a control character, and must be entered again."}
	}
	return a, err
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

// ask sends the request to the tool, once more if a connection that had served
// before turns out to have ended, and relays the answer.
func (c *fastConn) ask(rq *fastRequest, a *creds.Authorization, up *toolConn, streams bool) error {
	x, k := &rq.x, &rq.ask
	begin := x.entry.Time
	if a.Token != "" || x.entry.Upstream > 0 {
		begin = time.Now() // a token may have been waited for
	}
	for fresh := false; ; {
		if up == nil {
			var err error
			if up, err = c.tool.get(c.ctx, fresh); err != nil {
				x.entry.Upstream += time.Since(begin)
				return c.fault(rq, err)
			}
		}
		reused := up.reused
		usable := c.once(rq, up, streams, a.Token != "")
		if !k.headAt.IsZero() {
			x.entry.Upstream += k.headAt.Sub(begin)
		}
		if usable {
			up.put(k.headAt)
		} else {
			up.close()
		}
		up = nil
		switch {
		case k.outcome == askStale:
		case !k.silent() || fresh || !reused || !isRepeatable(rq) || c.why() != cutNot:
			return c.outcome(rq)
		default:
			fresh = true
		}
	}
}

// once asks one connection. It reports whether that can be used again.
func (c *fastConn) once(rq *fastRequest, up *toolConn, streams, keep bool) (usable bool) {
	k := &rq.ask
	if !c.attach(up) {
		k.reset(up)
		k.fail(context.Canceled)
		return false
	}
	k.sink, k.method, k.onHead, k.write = c, rq.requestHead.method, rq.onHead, rq.sendWhole
	if streams {
		rq.upload.prepare(c, rq, keep && rq.length <= maxReplay)
		k.write = rq.beginUpload
	}
	k.run(up)
	if k.outcome == askOdd {
		k.finishOdd()
	}
	whole := k.outcome == askDone || k.outcome == askDropped
	switch {
	case !streams:
		rq.x.in.Store(int64(len(rq.body)))
	case !rq.upload.end(whole) && k.outcome != askStale:
		k.dirty = true
		rq.last = true
	}
	c.attach(nil)
	return k.reusable() && c.why() == cutNot
}

// outcome is the end of an exchange with the tool: an error where the client has
// not been answered, else a remark in the log line where the answer is cut.
func (c *fastConn) outcome(rq *fastRequest) error {
	x, k := &rq.x, &rq.ask
	switch k.outcome {
	case askDone, askDropped:
		return nil
	case askGone:
		c.broken(rq, clientLeft())
		return nil
	}
	err := c.fault(rq, k.err)
	if !x.wrote {
		return err
	}
	c.broken(rq, err)
	return nil
}

// broken notes why an answer is cut.
func (c *fastConn) broken(rq *fastRequest, err error) {
	status := rq.x.entry.Status
	rq.x.fail(problemOf(err))
	rq.x.entry.Status = status
}

// fault sorts what broke off a request: its body, the client, the tool.
func (c *fastConn) fault(rq *fastRequest, err error) error {
	if p := rq.upload.broken.Load(); p != nil {
		return p
	}
	switch c.why() {
	case cutBody:
		return c.bodyProblem()
	case cutGone, cutStop, cutIdle:
		return clientLeft()
	case cutTool:
		return context.DeadlineExceeded
	}
	return err
}

func clientLeft() *problem { return problemOf(context.Canceled) }

// isRepeatable reports whether a request may be sent again that may have arrived.
func isRepeatable(rq *fastRequest) bool {
	switch rq.requestHead.method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return len(rq.body) == 0 && rq.length == 0 && !rq.chunked
	}
	return false
}

// onHead sees a tool's answer before the client does: a 401 to a token may be
// answered by a newer one.
func (c *fastConn) onHead(a *toolAnswer) (drop bool) {
	if a.status != http.StatusUnauthorized {
		return false
	}
	rq := c.rq
	x := &rq.x
	c.s.Metrics.unauthorized.WithLabelValues(x.credential.Name).Inc()
	if x.entry.Upstream > 0 || x.authorization.Token == "" || !rq.replayable() {
		return false
	}
	newer, err := c.s.Authorizer.Refused(c.ctx, x.credential, x.authorization.Token)
	if err != nil {
		return false // the tool's own answer says more than ours could
	}
	rq.retry = newer
	return true
}

// replayable reports whether the whole body is at hand.
func (rq *fastRequest) replayable() bool {
	if rq.chunked || rq.length > int64(len(rq.body)) {
		return rq.upload.read.Load() && rq.upload.keeps
	}
	return len(rq.body) <= maxReplay
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

// refuse answers with the problem document of err.
func (c *fastConn) refuse(rq *fastRequest, err error) nextStep {
	p := problemOf(err)
	x := &rq.x
	x.fail(p)
	if p.kind == kindClientGone {
		return nextClose
	}
	closing := rq.last || rq.length != 0 || rq.chunked || c.why() != cutNot
	x.wrote = true
	x.head = time.Since(x.entry.Time)
	if c.tell(rq, p, closing) != nil || closing {
		return nextLinger
	}
	rq.r += rq.size
	return nextRequest
}

func (c *fastConn) tell(rq *fastRequest, p *problem, closing bool) error {
	c.enter(phaseSend)
	_, err := c.conn.Write(p.answer(rq.requestHead.method, closing))
	if rq.requestHead.method != http.MethodHead {
		rq.x.entry.Out += int64(len(p.body()))
	}
	return err
}

// faulted is for a panic of ours, which must not take the process along.
func (c *fastConn) faulted(rq *fastRequest, fault any) nextStep {
	c.s.logFault(fault)
	if rq.upload.running {
		rq.upload.end(false)
	}
	if up := c.up; up != nil { // ours alone now
		c.attach(nil)
		up.close()
	}
	p := faultProblem()
	rq.x.fail(p)
	if rq.x.wrote {
		return nextClose
	}
	_ = c.tell(rq, p, true)
	return nextLinger
}

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
