package proxy

import (
	"time"

	"pillion/creds"
)

// forward is Server.roundTrip for the fast engines: whose request is it, what does
// it carry, send it, and relay the answer. Its error means that the client has not
// been answered.
func (c *asker) forward(rq *fastRequest) error {
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
func (c *asker) carries(x *exchange) (*creds.Authorization, error) {
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
func (c *asker) broken(rq *fastRequest, err error) {
	status := rq.x.entry.Status
	rq.x.fail(problemOf(err))
	rq.x.entry.Status = status
}

// abandon lets go of what a request that a fault ended holds: the tool's connection is
// nobody else's now.
func (c *asker) abandon(rq *fastRequest) {
	if rq.upload.running {
		rq.upload.end(false)
	}
	if up := c.up; up != nil {
		c.attach(nil)
		up.close()
	}
}
