package proxy

import (
	"net/http"
	"time"
)

// exchange serves the request by the fast engine: the pipeline, the answer, the log
// line.
func (st *h2Stream) exchange() {
	s, rq := st.s, st.rq
	x := &rq.x
	s.requests.Add(1)
	s.Metrics.inFlight.Inc()
	defer func() {
		if fault := recover(); fault != nil {
			st.faulted(fault)
		}
		s.ended(x)
	}()
	if st.bad != nil {
		st.refuse(st.bad)
	} else if err := st.forward(rq); err != nil {
		st.refuse(err)
	}
}

// refuse answers with the problem document of err.
func (st *h2Stream) refuse(err error) {
	p := problemOf(err)
	x := &st.rq.x
	x.fail(p)
	if p.kind == kindClientGone {
		return
	}
	x.wrote = true
	x.head = time.Since(x.entry.Time)
	st.tell(p)
}

func (st *h2Stream) tell(p *problem) {
	x := &st.rq.x
	body := p.body()
	h := http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}
	p.header(h)
	st.block = appendHpackStatus(st.block[:0], p.status)
	st.block = appendHpackHeader(st.block, h)
	st.block = appendHpackLength(st.block, int64(len(body)))
	if x.entry.Method == http.MethodHead {
		body = nil
	}
	x.entry.Out += int64(len(body))
	b := append(make([]byte, roomBefore, roomBefore+len(body)+roomAfter), body...)
	_ = st.send(b, roomBefore, len(b), true, nil) // the client may be gone: the log line says what it would have read
}

// faulted is for a panic of ours, which must not take the process along.
func (st *h2Stream) faulted(fault any) {
	st.s.logFault(fault)
	st.abandon(st.rq)
	p := faultProblem()
	st.rq.x.fail(p)
	if !st.rq.x.wrote {
		st.rq.x.wrote = true
		st.tell(p)
	}
}

var _ client = (*h2Stream)(nil)

// early implements sink.
func (st *h2Stream) early(a *toolAnswer) error {
	st.block = appendHpackFields(appendHpackStatus(st.block[:0], a.status), a.fields)
	return st.send(nil, 0, 0, false, nil)
}

// begin implements sink.
func (st *h2Stream) begin(a *toolAnswer) {
	x := &st.rq.x
	x.entry.Status = a.status
	x.head = time.Since(x.entry.Time)
	st.block = appendHpackFields(appendHpackStatus(st.block[:0], a.status), a.fields)
	if a.length >= 0 && a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		st.block = appendHpackLength(st.block, a.length)
	}
}

// data implements sink.
func (st *h2Stream) data(b []byte, from, to int, last bool) error {
	rq := st.rq
	var trailers []byte
	if last && len(rq.ask.answer.trailers) > 0 {
		trailers = appendHpackFields(nil, rq.ask.answer.trailers)
	}
	rq.x.wrote = true
	if err := st.send(b, from, to, last, trailers); err != nil {
		return err
	}
	rq.x.entry.Out += int64(to - from)
	return nil
}
