package proxy

import (
	"context"
	"net/http"
	"time"

	"pillion/creds"
)

// asker asks tools on behalf of one client: a connection of HTTP/1.1, or a stream of
// HTTP/2.
type asker struct {
	s      *Server
	client client
	name   string // the Host field towards the tool
	tool   *tool

	ctx    context.Context //nolint:containedctx // ends with the client
	cancel context.CancelFunc

	watch
}

// client is whom an asker asks for. It takes the answer, and has a body to send.
type client interface {
	sink
	// readBody reads the body of a request to its end, and passes it on by u. Its
	// error means that it was interrupted.
	readBody(u *upload) error
	// stopBody interrupts that, now and from now on.
	stopBody()
}

// ask sends the request to the tool, once more if a connection that had served
// before turns out to have ended, and relays the answer.
func (c *asker) ask(rq *fastRequest, a *creds.Authorization, up *toolConn, streams bool) error {
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
func (c *asker) once(rq *fastRequest, up *toolConn, streams, keep bool) (usable bool) {
	k := &rq.ask
	if !c.attach(up) {
		k.reset(up)
		k.fail(context.Canceled)
		return false
	}
	k.sink, k.method, k.onHead, k.write = c.client, rq.requestHead.method, rq.onHead, rq.sendWhole
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
func (c *asker) outcome(rq *fastRequest) error {
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

// fault sorts what broke off a request: its body, the client, the tool.
func (c *asker) fault(rq *fastRequest, err error) error {
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
func (c *asker) onHead(rq *fastRequest, a *toolAnswer) (drop bool) {
	if a.status != http.StatusUnauthorized {
		return false
	}
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
