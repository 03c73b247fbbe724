package proxy

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"time"

	"pillion/creds"
)

// aim finds out where a request goes. It returns false for what the engine leaves
// to net/http: nothing has come of the request then.
func (c *fastConn) aim(rq *fastRequest) bool {
	config := c.s.config.Load()
	if !config.Fast || config.UpstreamProxy != nil {
		return false
	}
	rq.config = config
	rq.x = exchange{entry: Entry{Time: time.Now(), Method: rq.requestHead.method, Protocol: "HTTP/1.1"}}
	x := &rq.x
	target := string(rq.target)
	x.path, x.query, _ = strings.Cut(target, "?")
	x.entry.Path = x.path
	if c.tunnel == nil {
		if !c.aimPlain(rq) {
			return false
		}
	} else {
		if rq.authority != nil || !equalFold(rq.host, c.name) && !equalFold(rq.host, c.authority) {
			return false
		}
		x.chosen = c.tunnel.chosen
	}
	x.target = c.target
	x.target.Path = x.path
	x.entry.Host = c.name
	if c.tool == nil || c.tool.pool != config.pool {
		c.tool = config.pool.of(&c.target)
	}
	return true
}

// hasCredential reports whether match will find one.
func (s *Server) hasCredential(x *exchange) bool {
	table := s.Table()
	var err error
	if x.chosen != "" {
		_, err = table.MatchNamed(x.chosen, x.target)
	} else {
		_, err = table.Match(x.target)
	}
	return err == nil
}

// probe finds out whether the tool speaks HTTP/1.1 before anything comes of the
// first request to it. It returns false for one that does not. What has no
// credential is not dialled: it will be refused.
func (c *asker) probe(rq *fastRequest) bool {
	rq.first, rq.firstErr = nil, nil
	http1, http2Only := c.tool.protocol(rq.x.entry.Time)
	if http1 || http2Only {
		return !http2Only
	}
	if !c.s.hasCredential(&rq.x) {
		return true
	}
	c.enter(phaseAsk)
	c.s.sweeper.kick()
	rq.first, rq.firstErr = c.tool.get(c.ctx, false)
	_, http2Only = errors.AsType[errHTTP2Only](rq.firstErr)
	return !http2Only
}

// aimPlain takes the absolute form http://, which means https:// wherever a
// credential asks for it.
func (c *fastConn) aimPlain(rq *fastRequest) bool {
	if rq.authority == nil || !bytes.EqualFold(rq.host, rq.authority) || c.peer != nil {
		return false
	}
	if string(rq.authority) != c.authority {
		host, port, err := creds.ParseAuthority(string(rq.authority), 80)
		if err != nil {
			return false
		}
		if port == 80 {
			port = 443
		}
		c.authority, c.tool = string(rq.authority), nil
		c.target = creds.Target{Scheme: "https", Host: host, Port: port}
		c.name = hostField(c.target)
	}
	if rq.config.Tunnel && !c.s.Table().HasOrigin(c.target.Scheme, c.target.Host, c.target.Port) {
		return false // passed on in the clear
	}
	chosen, err := c.s.chosen(string(rq.proxyAuth))
	rq.x.chosen = chosen
	return err == nil
}

// isConnect holds a CONNECT to the whole grammar: it is rare, and as any other.
func (c *fastConn) isConnect(head []byte) bool {
	f, err := checkHead(head)
	return err == nil && f.opaque && c.peer == nil
}

// connect answers a CONNECT, with what the client sent right behind it.
func (c *fastConn) connect() {
	b := c.rq.in[c.rq.r:c.rq.w]
	size := bytes.Index(b, headEnd) + len(headEnd)
	r := connectRequest(b[:size])
	client := &tunnelConn{Conn: c.sock}
	if size < len(b) {
		client.early = bytes.Clone(b[size:])
	}
	c.drop()
	c.leave()
	c.s.connect(r, client, nil)
}

// connectRequest is as much of a CONNECT request as Server.connect looks at.
func connectRequest(head []byte) *http.Request {
	line, rest, _ := cutLine(head)
	parts := bytes.Split(line, []byte(" "))
	r := &http.Request{Method: http.MethodConnect, RequestURI: string(parts[1]), Proto: string(parts[2]), ProtoMajor: 1, Header: http.Header{}}
	for {
		var ok bool
		if line, rest, ok = cutLine(rest); !ok || len(line) == 0 {
			return r
		}
		if name, value, ok := splitField(line); ok && equalFold(name, "proxy-authorization") {
			r.Header["Proxy-Authorization"] = append(r.Header["Proxy-Authorization"], string(value))
		}
	}
}
