package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"pillion/creds"
)

// toolPool keeps connections to tools, HTTP/1.1 over verified TLS, for the fast
// engines. Each Configure makes a new one, so that no connection outlives the
// guard, the addresses and the authorities under which it was made.
//
// A tool is asked for HTTP/1.1 even if it prefers HTTP/2: one request at a time on
// a connection costs half of what a stream does. A tool that speaks HTTP/2 alone
// is remembered, and left to net/http's transport.
type toolPool struct {
	guard  *Guard
	config *tls.Config

	mu     sync.Mutex
	tools  map[toolKey]*tool
	idle   int
	closed bool
}

type toolKey struct {
	host string
	port uint16
}

// tool is one origin.
type tool struct {
	pool      *toolPool
	key       toolKey
	authority string
	config    *tls.Config

	// Under pool.mu.
	idle      []*toolConn // used last at the end
	http1     bool        // it speaks HTTP/1.1
	http2Only time.Time   // until then nobody tries that
}

// maxTools bounds the origins that are remembered: those without connections go
// first.
const maxTools = 1024

// http2OnlyFor is how long a tool that refused HTTP/1.1 is believed.
const http2OnlyFor = 10 * time.Minute

func newToolPool(guard *Guard, roots *x509.CertPool) *toolPool {
	return &toolPool{
		guard: guard,
		tools: map[toolKey]*tool{},
		config: &tls.Config{
			RootCAs: roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
			ClientSessionCache:          tls.NewLRUClientSessionCache(256),
			DynamicRecordSizingDisabled: true, // bodies come in large pieces, and leave as such
		},
	}
}

// of returns the origin of target.
func (p *toolPool) of(target *creds.Target) *tool {
	key := toolKey{target.Host, target.Port}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tools[key]
	if t == nil {
		p.makeRoom()
		config := p.config.Clone()
		config.ServerName = target.Host
		t = &tool{pool: p, key: key, authority: target.Authority(), config: config}
		p.tools[key] = t
	}
	return t
}

// makeRoom forgets a tool that has no connection, where there are too many. The
// caller holds mu.
func (p *toolPool) makeRoom() {
	if len(p.tools) < maxTools {
		return
	}
	for key, t := range p.tools {
		if len(t.idle) == 0 {
			delete(p.tools, key)
			return
		}
	}
}

// protocol reports what is known of the tool without asking it; neither: nothing,
// or nothing any more.
func (t *tool) protocol(now time.Time) (http1, http2Only bool) {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return t.http1, now.Before(t.http2Only)
}

// errHTTP2Only says that a tool does not speak HTTP/1.1.
type errHTTP2Only struct{ error }

// toolConn is one connection to a tool, used by one request at a time.
type toolConn struct {
	tool   *tool
	sock   *socket
	conn   *tls.Conn
	reused bool      // it has served a request before
	since  time.Time // idle since
}

// get returns the connection used last, or a new one; with fresh, only a new one.
func (t *tool) get(ctx context.Context, fresh bool) (*toolConn, error) {
	if !fresh {
		if c := t.take(); c != nil {
			return c, nil
		}
	}
	return t.dial(ctx)
}

func (t *tool) take() *toolConn {
	p := t.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(t.idle)
	if n == 0 {
		return nil
	}
	c := t.idle[n-1]
	t.idle[n-1] = nil
	t.idle = t.idle[:n-1]
	p.idle--
	return c
}

func (t *tool) dial(ctx context.Context) (*toolConn, error) {
	c, err := t.connect(ctx, t.config)
	switch {
	case err != nil && refusesHTTP1(err):
		t.remember(false)
		return nil, errHTTP2Only{err}
	case err != nil:
		return nil, err
	case c.conn.ConnectionState().NegotiatedProtocol != "":
		t.remember(true)
		return c, nil
	}
	http2, err := t.choosesHTTP2(ctx)
	switch {
	case err != nil: // not known yet: the next connection tells
		return c, nil
	case http2:
		c.close()
		t.remember(false)
		return nil, errHTTP2Only{errors.New("of HTTP/2 and HTTP/1.1, the tool agrees on HTTP/2 alone")}
	}
	t.remember(true)
	return c, nil
}

// connect makes a connection, of which config says what it is for.
func (t *tool) connect(ctx context.Context, config *tls.Config) (*toolConn, error) {
	raw, err := t.pool.guard.DialContext(ctx, "tcp", t.authority)
	if err != nil {
		return nil, err
	}
	sock := newSocket(raw)
	if sock == nil {
		_ = raw.Close()
		return nil, net.UnknownNetworkError("without a descriptor")
	}
	ctx, cancel := context.WithTimeout(ctx, upstreamHandshake)
	defer cancel()
	conn := tls.Client(sock, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return &toolConn{tool: t, sock: sock, conn: conn}, nil
}

// choosesHTTP2 is for a tool that agreed on no protocol when it was offered HTTP/1.1:
// it knows no ALPN, or it speaks HTTP/2 alone, with a server of Go's, which makes
// that exception instead of refusing. A tool is asked until it has answered once.
func (t *tool) choosesHTTP2(ctx context.Context) (bool, error) {
	if http1, _ := t.protocol(time.Time{}); http1 {
		return false, nil
	}
	config := t.config.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	c, err := t.connect(ctx, config)
	if err != nil {
		return false, err
	}
	defer c.close()
	return c.conn.ConnectionState().NegotiatedProtocol == "h2", nil
}

// refusesHTTP1 recognizes the alert no_application_protocol (RFC 7301), for which
// crypto/tls has no value of its own.
func refusesHTTP1(err error) bool {
	return strings.Contains(err.Error(), "no application protocol")
}

func (t *tool) remember(http1 bool) {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	t.http1 = http1
	if !http1 {
		t.http2Only = time.Now().Add(http2OnlyFor)
	}
}

// put gives a connection back behind a whole answer; now is the time.
func (c *toolConn) put(now time.Time) {
	c.reused, c.since = true, now
	t, p := c.tool, c.tool.pool
	p.mu.Lock()
	var drop *toolConn
	switch {
	case p.closed, p.tools[t.key] != t:
		drop = c
	case len(t.idle) >= upstreamIdlePerHost:
		drop = t.idle[0]
		copy(t.idle, t.idle[1:])
		t.idle[len(t.idle)-1] = c
	default:
		if p.idle >= upstreamIdleTotal {
			drop = p.oldest()
		}
		t.idle = append(t.idle, c)
		p.idle++
	}
	p.mu.Unlock()
	if drop != nil {
		drop.close()
	}
}

// oldest takes the connection out that has been idle for longest. The caller
// holds mu.
func (p *toolPool) oldest() *toolConn {
	var from *tool
	for _, t := range p.tools {
		if len(t.idle) > 0 && (from == nil || t.idle[0].since.Before(from.idle[0].since)) {
			from = t
		}
	}
	if from == nil {
		return nil
	}
	return p.shift(from)
}

// shift takes out the first connection of t. The caller holds mu.
func (p *toolPool) shift(t *tool) *toolConn {
	c := t.idle[0]
	t.idle = append(t.idle[:0], t.idle[1:]...)
	p.idle--
	return c
}

// expire closes what has been idle since before. It reports whether anything is
// left.
func (p *toolPool) expire(before time.Time) bool {
	var gone []*toolConn
	p.mu.Lock()
	for _, t := range p.tools {
		for len(t.idle) > 0 && t.idle[0].since.Before(before) {
			gone = append(gone, p.shift(t))
		}
	}
	left := p.idle > 0
	p.mu.Unlock()
	for _, c := range gone {
		c.close()
	}
	return left
}

// close ends the pool: idle connections now, the others when they come back.
func (p *toolPool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.closeIdle()
}

func (p *toolPool) closeIdle() { p.expire(time.Now().Add(time.Hour)) }

// close ends the connection without a word: the alert that TLS would send costs a
// system call, and may wait. Nothing is under way.
func (c *toolConn) close() { _ = c.sock.Conn.Close() }
