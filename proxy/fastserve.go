package proxy

import (
	"net/http"
	"time"
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
	rq.begin()
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
	c.abandon(rq)
	p := faultProblem()
	rq.x.fail(p)
	if rq.x.wrote {
		return nextClose
	}
	_ = c.tell(rq, p, true)
	return nextLinger
}
