package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/elazarl/goproxy"

	"pillion/creds"
)

// tunnel is what one CONNECT asked for.
type tunnel struct {
	host       string // canonical
	port       uint16
	chosen     string // the credential that the proxy user named, or ""
	serverName string // SNI of the client's handshake; set before any request is read
}

// target is where its requests go, but for their paths.
func (t *tunnel) target() creds.Target {
	return creds.Target{Scheme: "https", Host: t.host, Port: t.port}
}

func (t *tunnel) authority() string { return t.target().Authority() }

// tunnelWriter hands the connection over with what the client sent right behind
// its CONNECT, which net/http keeps in a buffer and goproxy would lose.
type tunnelWriter struct {
	http.ResponseWriter
	g *gate
}

// Hijack implements http.Hijacker for goproxy, which does not use the buffers.
func (w tunnelWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	_, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	early = append(bytes.Clone(early), w.g.buf[w.g.r:]...)
	w.g.buf = nil
	return &tunnelConn{Conn: w.g.Conn, early: early}, nil, nil
}

// tunnelConn is a client's connection behind CONNECT.
type tunnelConn struct {
	net.Conn
	early  []byte // read before its turn
	tunnel *tunnel
	once   sync.Once
	closed func()
}

func (c *tunnelConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// socket is what the fast engine needs of it; nil where it cannot be had.
func (c *tunnelConn) socket() *socket {
	sock, _ := c.Conn.(*socket)
	return sock
}

// peek returns the first n bytes without taking them.
func (c *tunnelConn) peek(n int) ([]byte, error) {
	if missing := n - len(c.early); missing > 0 {
		more := make([]byte, missing)
		if _, err := io.ReadFull(c.Conn, more); err != nil {
			return nil, err
		}
		c.early = append(c.early, more...)
	}
	return c.early[:n], nil
}

// Close implements net.Conn.
func (c *tunnelConn) Close() error {
	c.once.Do(func() {
		if c.closed != nil {
			c.closed()
		}
	})
	return c.Conn.Close()
}

// CloseWrite ends one direction.
func (c *tunnelConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// tunnelUnder finds the tunnel below a connection whose TLS we ended.
func tunnelUnder(c net.Conn) *tunnel {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if t, ok := c.(*tunnelConn); ok {
		return t.tunnel
	}
	return nil
}

// connect answers a CONNECT; goproxy has taken the connection over for us.
// Targets that will be refused get a tunnel all the same, and the problem
// document inside: clients do not show what a refused CONNECT says.
func (s *Server) connect(r *http.Request, conn net.Conn, _ *goproxy.ProxyCtx) {
	s.lastUsed.Store(time.Now().UnixNano()) // a request will follow: a draining pillion waits for it
	x := newExchange(r)
	x.entry.Path = "" // and no host until it is one: some clients put a password before it
	client, ok := conn.(*tunnelConn)
	if !ok {
		_ = conn.Close() // only tunnelWriter makes them
		return
	}
	defer func() {
		if fault := recover(); fault != nil { // net/http would log its value
			s.logFault(fault)
			x.fail(faultProblem())
			_ = client.Close()
			s.log(&x.entry, time.Now())
		}
	}()
	t, err := s.newTunnel(r)
	if err == nil {
		err = s.reserve(client)
	}
	if err != nil {
		s.answerRaw(client, x, err)
		_ = client.Close()
		return
	}
	client.tunnel = t
	x.entry.Host = t.authority()
	switch table := s.Table(); {
	case table.HasOrigin("https", t.host, t.port):
	case table.HasOrigin("sftp", t.host, t.port):
		s.connectSSH(client, x)
		return
	case s.config.Load().Tunnel && s.storeErr() == nil: // else nobody knows whether it is a credential's
		s.splice(client, x)
		return
	}
	if err := s.terminate(client, x); err != nil {
		var p *problem
		if errors.As(err, &p) {
			s.answerRaw(client, x, err)
		}
		_ = client.Close()
	}
}

// reserve counts a tunnel in, and arranges for its end to count it out.
func (s *Server) reserve(c *tunnelConn) error {
	if n := s.tunnels.Add(1); s.MaxTunnels > 0 && n > int64(s.MaxTunnels) {
		s.tunnels.Add(-1)
		return &problem{kind: kindOverloaded, detail: "All tunnels that the open-files limit allows are in use.", retryAfter: time.Second}
	}
	s.Metrics.tunnels.Inc()
	c.closed = func() {
		s.Metrics.tunnels.Dec()
		s.tunnels.Add(-1)
	}
	return nil
}

var established = []byte("HTTP/1.1 200 Connection established\r\n\r\n")

// terminate ends the client's TLS and gives the connection to the inner server;
// what begins as SSH does goes to the gateway instead.
// A problem in return is for the client to read; other errors are only an end.
func (s *Server) terminate(client *tunnelConn, x *exchange) error {
	deadline := time.Now().Add(s.timeouts.handshake)
	_ = client.SetDeadline(deadline)
	if _, err := client.Write(established); err != nil {
		return err
	}
	first, err := client.peek(1)
	if err != nil {
		return err // left again: some clients open tunnels ahead of need
	}
	const tlsHandshakeRecord = 0x16
	switch first[0] {
	case tlsHandshakeRecord:
	case sshVersion[0]:
		if first, err = client.peek(len(sshVersion)); err == nil && string(first) == sshVersion {
			s.handOver(client, x)
			return nil
		}
		fallthrough
	default:
		return badRequest("what came through CONNECT is not TLS; for plain HTTP to the tool's name send the absolute form http://host/ without CONNECT")
	}
	ctx, cancel := context.WithDeadline(s.stopped, deadline)
	defer cancel()
	conn := tls.Server(client, s.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		s.logHandshake(client, err)
		return err
	}
	_ = client.SetDeadline(time.Time{})
	state := conn.ConnectionState()
	client.tunnel.serverName = state.ServerName
	if client.socket() != nil && s.takesFast(client.tunnel) {
		// On a goroutine of its own: this one's stack has grown with the handshake, and
		// the tunnel may be idle for hours.
		if state.NegotiatedProtocol == "h2" {
			go s.serveH2(client, conn)
		} else {
			go s.serveTunnel(client, conn)
		}
		return nil
	}
	return s.giveInner(client, conn, state.NegotiatedProtocol)
}

// giveInner passes a tunnel on to net/http.
func (s *Server) giveInner(client *tunnelConn, conn *tls.Conn, protocol string) error {
	var inner net.Conn = conn
	if protocol != "h2" {
		inner = &gate{Conn: conn, tunnel: client.tunnel, refuse: s.refuseRaw, times: &s.timeouts}
	}
	if !s.handoff.give(inner) {
		return net.ErrClosed
	}
	return nil
}

func (s *Server) serveTunnel(client *tunnelConn, conn *tls.Conn) {
	if !s.serveFast(conn, client.socket(), client.tunnel) && s.giveInner(client, conn, "") != nil {
		_ = client.Close()
	}
}

// logHandshake says why no request will come: nearly always a client that does
// not know our CA, which nobody else can tell the connector's developer.
func (s *Server) logHandshake(client *tunnelConn, err error) {
	p := badRequestProblem("The client ended the TLS handshake: it does not trust pillion's CA. Point it to ca-bundle.crt; \"pillion env\" prints the variables, \"pillion doctor\" checks them.")
	var alert tls.AlertError
	if !errors.As(err, &alert) {
		p = badRequestProblem("The TLS handshake with the client did not come to its end: it offers no TLS 1.2 or 1.3, or left.")
	}
	x := &exchange{entry: Entry{Time: time.Now(), Method: http.MethodConnect, Host: client.tunnel.authority(), Protocol: "HTTP/1.1"}}
	x.fail(p)
	x.entry.Status = 0 // nobody was answered
	s.Metrics.refusals.WithLabelValues(p.name).Inc()
	s.log(&x.entry, time.Now())
}

func badRequestProblem(detail string) *problem { return &problem{kind: kindBadRequest, detail: detail} }

// tunnelTLS is the one configuration of all tunnels: shared, so that session
// tickets work. HTTP/1.1 is preferred: one request costs less than half of what
// it costs over HTTP/2. The post-quantum key exchange is left out: the client is
// on this machine, and it costs a quarter more CPU a connection.
func (s *Server) tunnelTLS() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS12,
		NextProtos:       []string{"http/1.1", "h2"},
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			host := hello.ServerName
			if host == "" {
				t := tunnelUnder(hello.Conn)
				if t == nil {
					return nil, errors.New("no tunnel below this connection")
				}
				host = t.host
			}
			return s.CA.Leaf(hello.Context(), host)
		},
	}
}

// splice passes a tunnel on untouched, to a target that no credential has.
func (s *Server) splice(client *tunnelConn, x *exchange) {
	defer client.Close()
	s.Metrics.misses.WithLabelValues(actionTunnel).Inc()
	ctx, cancel := context.WithTimeout(s.stopped, s.timeouts.handshake)
	defer cancel()
	tool, err := s.DialContext(ctx, "tcp", client.tunnel.authority())
	if err != nil {
		s.answerRaw(client, x, err)
		return
	}
	defer tool.Close()
	if _, err := client.Write(established); err != nil {
		return
	}
	s.spliced.Add(1)
	defer s.spliced.Done()
	in, out := s.join(client, tool)
	x.in.Add(in)
	x.entry.Status, x.entry.In, x.entry.Out = http.StatusOK, in, out
	x.entry.Duration = time.Since(x.entry.Time)
	s.Metrics.count(&x.entry, 0)
	s.log(&x.entry, time.Now())
}

// DialContext connects by the same guarded way as requests do, by the company's
// proxy where there is one: for blind tunnels, and for the SFTP gateway.
func (s *Server) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c := s.config.Load()
	if err := c.judge(addr); err != nil {
		return nil, err
	}
	if c.UpstreamProxy == nil {
		return c.Guard.DialContext(ctx, network, addr)
	}
	return dialThrough(ctx, c.UpstreamProxy, addr)
}
