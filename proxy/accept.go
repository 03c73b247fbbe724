package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/elazarl/goproxy"

	"pillion/creds"
)

// idleTimeout ends kept-alive connections that nobody uses. Connectors often
// send one batch an hour; opening a tunnel again costs them a millisecond.
const idleTimeout = 5 * time.Minute

// Serve answers connections of l until Shutdown, then returns nil.
func (s *Server) Serve(l net.Listener) error {
	s.begin()
	err := s.front.Serve(door{l, s})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// begin makes the two servers: one for the listeners, one inside the tunnels.
func (s *Server) begin() {
	s.start.Do(func() {
		s.timeouts = s.timeouts.orDefaults()
		s.stopped, s.stop = context.WithCancel(context.Background())
		s.sshCut, s.cutSSH = context.WithCancel(context.Background())
		s.lastUsed.Store(time.Now().UnixNano())
		s.tls = s.tunnelTLS()
		s.goproxy = s.newGoproxy()
		s.front = s.newHTTP(http.HandlerFunc(s.receive))
		s.inner = s.newHTTP(http.HandlerFunc(s.serve))
		s.inner.TLSConfig = s.tls // mentions h2: net/http then serves connections that negotiated it
		s.inner.HTTP2 = &http.HTTP2Config{
			MaxConcurrentStreams: 250,
			WriteByteTimeout:     s.timeouts.stall,
			// Small windows: a slow tool must not fill our memory with uploads.
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     256 << 10,
		}
		s.handoff, s.frontHandoff = newHandoff(), newHandoff()
		go func() { _ = s.inner.Serve(&s.handoff) }() // ends with Shutdown
		go func() { _ = s.front.Serve(&s.frontHandoff) }()
		s.sweeper = newSweeper(s)
		go s.sweeper.run()
	})
}

func (s *Server) newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            s.timeouts.head,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHead,
		DisableGeneralOptionsHandler: true,
		ConnContext:                  connContext,
		ConnState:                    connState,
		ErrorLog:                     slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

type contextKey int

const (
	gateKey contextKey = iota
	tunnelKey
)

// connContext lets handlers find the connection that they answer on.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if g, ok := c.(*gate); ok {
		ctx = context.WithValue(ctx, gateKey, g)
		if g.tunnel != nil {
			ctx = context.WithValue(ctx, tunnelKey, g.tunnel)
		}
		return ctx
	}
	if t := tunnelUnder(c); t != nil {
		ctx = context.WithValue(ctx, tunnelKey, t)
	}
	return ctx
}

func gateOf(ctx context.Context) *gate {
	g, _ := ctx.Value(gateKey).(*gate)
	return g
}

func tunnelOf(ctx context.Context) *tunnel {
	t, _ := ctx.Value(tunnelKey).(*tunnel)
	return t
}

// connState learns that an answer is out, to the last byte.
func connState(c net.Conn, state http.ConnState) {
	if g, ok := c.(*gate); ok && state == http.StateIdle {
		g.busy.Store(false)
	}
}

// door wraps what a listener accepts: the gate, and who is on the other side.
type door struct {
	net.Listener
	s *Server
}

func (d door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := d.s.Admit(c) // asked now: the socket's owner can be looked up while it is connected
		sock := newSocket(c)
		if sock == nil || peer != nil || !d.s.takesFast(nil) {
			return &gate{Conn: c, refuse: d.s.refuseRaw, peer: peer, times: &d.s.timeouts}, nil
		}
		go d.s.acceptFast(sock)
	}
}

// Admit decides who may connect: this machine alone, and of its users those in
// AllowUIDs. What cannot be found out is refused. Other listeners of the same
// program obey it too.
func (s *Server) Admit(c net.Conn) error {
	remote, err1 := netip.ParseAddrPort(c.RemoteAddr().String())
	local, err2 := netip.ParseAddrPort(c.LocalAddr().String())
	if err := errors.Join(err1, err2); err != nil {
		return forbiddenClient("its address is unknown")
	}
	if !remote.Addr().Unmap().IsLoopback() {
		return forbiddenClient("it does not come from this machine, or pod, by a loopback address")
	}
	allowed := s.config.Load().AllowUIDs
	if allowed == nil {
		return nil
	}
	uid, err := peerUID(local, remote)
	if err != nil {
		return forbiddenClient("the user of its connection cannot be found out (" + err.Error() + ")")
	}
	if !slices.Contains(allowed, uid) {
		return forbiddenClient("its user is not listed in proxy.allow_uids")
	}
	return nil
}

func forbiddenClient(why string) error {
	return &problem{kind: kindForbiddenClient, detail: "This client may not use the proxy: " + why + "."}
}

// receive takes what arrives on the listener itself.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) {
	g := gateOf(r.Context())
	switch {
	case g.peer != nil:
		s.refuseEarly(w, r, g.peer)
	case r.Method == http.MethodConnect:
		s.goproxy.ServeHTTP(tunnelWriter{w, g}, r)
	case r.URL.IsAbs():
		s.serve(w, r) // goproxy's own round trip costs twice the CPU, and loses 1xx and trailers
	default:
		s.goproxy.ServeHTTP(w, r)
	}
}

func (s *Server) newGoproxy() *goproxy.ProxyHttpServer {
	p := goproxy.NewProxyHttpServer()
	p.Logger = silent{}
	p.Tr, p.ConnectDial = nil, nil // both look at the environment, and verify nothing
	p.NonproxyHandler = http.HandlerFunc(s.serve)
	p.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return &goproxy.ConnectAction{Action: goproxy.ConnectHijack, Hijack: s.connect}, host
	})
	return p
}

// silent drops goproxy's own messages: ours say the same once, in one form.
type silent struct{}

func (silent) Printf(string, ...any) {}

// refuseEarly answers a request that does not get as far as the pipeline.
func (s *Server) refuseEarly(w http.ResponseWriter, r *http.Request, err error) {
	x := newExchange(r)
	x.entry.Host = r.URL.Host
	s.requests.Add(1)
	s.Metrics.inFlight.Inc()
	defer s.finish(w, x)
	s.refuse(w, r, x, err)
}

// refuseRaw answers what net/http never gets to see: a malformed head.
func (s *Server) refuseRaw(g *gate, err error) {
	if g.peer != nil {
		err = g.peer
	}
	x := &exchange{entry: Entry{Time: time.Now(), Protocol: "HTTP/1"}}
	if g.tunnel != nil {
		x.entry.Host = g.tunnel.authority()
	}
	s.answerRaw(g.Conn, x, err)
}

// answerRaw writes a problem document to a bare connection, and its log line. It
// does not close the connection.
func (s *Server) answerRaw(c net.Conn, x *exchange, err error) {
	p := problemOf(err)
	x.fail(p)
	_ = c.SetWriteDeadline(time.Now().Add(s.timeouts.head))
	if _, err := c.Write(p.raw()); err == nil { // else the client is gone: the log line says what it would have read
		x.entry.Out = int64(len(p.body()))
	}
	x.entry.Duration = time.Since(x.entry.Time)
	s.Metrics.count(&x.entry, 0)
	s.log(&x.entry, time.Now())
	lingeringClose(c)
}

// lingeringClose reads on a little after the last answer: closing a socket with
// unread bytes resets it, and the client would lose the answer.
func lingeringClose(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c, 1<<20)
}

const lingerTime = 500 * time.Millisecond

// handoff is a listener that gives connections to a server of net/http: those whose
// TLS we have ended, and those that the fast engine does not take.
type handoff struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newHandoff() handoff { return handoff{conns: make(chan net.Conn), closed: make(chan struct{})} }

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// give passes c on; it reports whether anybody took it.
func (h *handoff) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.closed:
		return false
	}
}

// Close is called by the inner server alone, once.
func (h *handoff) Close() error {
	close(h.closed)
	return nil
}

// Addr is that of no socket.
func (h *handoff) Addr() net.Addr { return &net.UnixAddr{Name: "tunnels", Net: "unix"} }

// Drain makes clients go: from now on each answer ends its connection, but for
// HTTP/2.
func (s *Server) Drain() { s.draining.Store(true) }

// InFlight is the number of requests under way.
func (s *Server) InFlight() int { return int(s.requests.Load()) }

// Idle reports for how long no request has been under way, and no connection
// with SSH open.
func (s *Server) Idle() time.Duration {
	if s.requests.Load() > 0 || s.handedOver.Load() > 0 {
		return 0
	}
	return time.Since(time.Unix(0, s.lastUsed.Load()))
}

// Shutdown stops accepting, waits for requests under way and for SSH until ctx
// ends, then cuts what is left, WebSockets and blind tunnels at once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.begin()
	s.Drain()
	s.stop()
	swept := make(chan error, 1)
	go func() { swept <- s.sweeper.shutdown(ctx) }()
	err := errors.Join(s.front.Shutdown(ctx), s.inner.Shutdown(ctx), <-swept)
	_, _ = s.front.Close(), s.inner.Close()
	stop := context.AfterFunc(ctx, s.cutSSH)
	defer stop()
	s.spliced.Wait()
	return err
}

// newTunnel names what CONNECT asked for, before anything else is known of it.
func (s *Server) newTunnel(r *http.Request) (*tunnel, error) {
	chosen, err := s.proxyUser(r)
	if err != nil {
		return nil, err
	}
	host, port, err := creds.ParseAuthority(r.RequestURI, 0)
	if err != nil {
		return nil, badRequest("the target of CONNECT is not host:port (%v)", err)
	}
	return &tunnel{host: host, port: port, chosen: chosen}, nil
}
