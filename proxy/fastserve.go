package proxy

import (
	"net/http"
	"time"

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

// broken notes why an answer is cut.
func (c *fastConn) broken(rq *fastRequest, err error) {
	status := rq.x.entry.Status
	rq.x.fail(problemOf(err))
	rq.x.entry.Status = status
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
