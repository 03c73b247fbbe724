// Package proxy is the HTTP half of pillion: a forward proxy that puts the
// authorization into requests which connectors send without any.
//
//	s := &proxy.Server{Table: live.Table, Authorizer: keeper, CA: ca, Log: log, Metrics: metrics}
//	s.Configure(proxy.Config{Guard: guard})
//	err := s.Serve(listener)
//
// A request comes in by CONNECT (TLS ended here, with a leaf of our own CA), in
// the absolute form http://host/ (upgraded to TLS towards the tool), or below
// /c/NAME/ (base URL mode). All three meet in Server.roundTrip: match, authorize,
// inject, send. Whatever fails there becomes one problem document, one log line
// and one count; nothing leaves without its credential.
//
// elazarl/goproxy takes the CONNECT requests and what is not for a proxy at all.
// What it would do inside a tunnel is done by net/http instead, behind the
// stricter parser of gate.go: there goproxy lets the inner Host overrule the
// tunnel's target, knows no limits and no drain, and costs eight times the CPU.
//
// It does not follow redirects, cache, or change bodies.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/elazarl/goproxy"

	"pillion/creds"
)

// Authorizer gives what a request carries for its credential. It is safe for
// concurrent use. *token.Keeper is one.
type Authorizer interface {
	// Authorize returns at once for static kinds, and with a token that is valid
	// now for the others; *creds.TokenError or creds.ErrNeedsConsent otherwise.
	Authorize(ctx context.Context, c *creds.Credential) (*creds.Authorization, error)
	// Refused tells that the tool answered 401 to the token with that
	// fingerprint, and returns a newer one, or creds.ErrNoProgress.
	Refused(ctx context.Context, c *creds.Credential, token string) (*creds.Authorization, error)
}

// Server is the proxy. Its fields are set before Serve, and Configure is called
// once before it and again whenever the configuration changed.
type Server struct {
	Table      func() *creds.Table // the credentials now
	StoreErr   func() error        // why none may be used now; nil: always may
	Authorizer Authorizer
	CA         *CA
	Log        *slog.Logger
	Lines      LineWriter // takes lines as Log would write them; nil: unless Log writes JSON
	Metrics    *Metrics
	OnEntry    func(Entry) // sees every finished request; nil: nobody does

	// SSH serves a client that speaks SSH behind its CONNECT to host and port;
	// chosen is the proxy user, a credential's name or "". It returns when the
	// connection has ended, or soon after ctx has. If nil, SSH is refused.
	SSH func(ctx context.Context, conn net.Conn, host string, port uint16, chosen string)

	// MaxTunnels bounds the open tunnels; 0: no bound.
	MaxTunnels int

	timeouts timeouts
	config   atomic.Pointer[running]
	start    sync.Once
	front    *http.Server // the listeners
	inner    *http.Server // inside TLS-terminated tunnels
	handoff  handoff      // from front to inner
	sweeper  *sweeper     // of the fast engine's connections
	workers  workers      // of HTTP/2's streams

	frontHandoff handoff // from the fast engine to front

	goproxy  *goproxy.ProxyHttpServer
	tls      *tls.Config
	tunnels  atomic.Int64
	requests atomic.Int64
	lastUsed atomic.Int64 // Unix nanoseconds of the last request's end
	draining atomic.Bool
	stop     context.CancelFunc
	stopped  context.Context //nolint:containedctx // ends what was hijacked
	spliced  sync.WaitGroup

	handedOver atomic.Int64 // connections that SSH has
	cutSSH     context.CancelFunc
	sshCut     context.Context //nolint:containedctx // ends them
}

// Config is what a reload may change.
type Config struct {
	Guard         *Guard
	RootCAs       *x509.CertPool // nil: the system's
	UpstreamProxy *url.URL       // the company's proxy; nil: none
	Tunnel        bool           // pass unmatched targets on untouched, instead of refusing them
	BaseURL       bool           // serve /c/NAME/
	AllowUIDs     []uint32       // whose sockets are served; nil: anybody's on this machine
	ClientToken   creds.Secret   // asked for as Proxy-Authorization, unless zero
	Fast          bool           // serve usual requests of HTTP/1.1 by the fast engine, instead of net/http
}

// running is a Config at work.
type running struct {
	Config
	transport *http.Transport
	pool      *toolPool // of the fast engine
}

// closeIdle ends the connections to tools that nobody uses.
func (c *running) closeIdle() {
	c.transport.CloseIdleConnections()
	c.pool.closeIdle()
}

// Configure makes c the configuration of all requests that begin from now on.
// Those under way end as they began.
func (s *Server) Configure(c Config) {
	old := s.config.Swap(&running{c, newTransport(c.Guard, c.RootCAs, c.UpstreamProxy), newToolPool(c.Guard, c.RootCAs)})
	if old != nil {
		old.transport.CloseIdleConnections()
		old.pool.close()
		// What was in use goes back to its transport, which would keep it for
		// upstreamIdle: with HTTP/2 some 100 KB each, and the authorities besides.
		time.AfterFunc(closeAgain, old.transport.CloseIdleConnections)
	}
}

// closeAgain is how long after a change the connections of before are ended that were
// in use just then.
const closeAgain = 10 * time.Second

// Upstream sends requests that pillion makes itself, such as token requests, by
// the same guarded way as those of connectors.
func (s *Server) Upstream() http.RoundTripper { return upstream{s} }

type upstream struct{ s *Server }

func (u upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	c := u.s.config.Load()
	if err := c.judge(r.URL.Host); err != nil {
		return nil, err
	}
	return c.transport.RoundTrip(r)
}

// judge is the guard where a company's proxy resolves and dials for us: names
// and literal addresses only.
func (c *running) judge(host string) error {
	if c.UpstreamProxy == nil {
		return nil // judged at dial time
	}
	return c.Guard.JudgeLiteral(host)
}

// roundTrip is the product: whose request is it, what does it carry, send it.
func (s *Server) roundTrip(x *exchange, r *http.Request) (*http.Response, error) {
	if err := s.aim(x, r); err != nil {
		return nil, err
	}
	c, err := s.match(x)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return s.send(x, outgoing(x, r))
	}
	a, err := s.authorize(r.Context(), x, c)
	if err != nil {
		return nil, err
	}
	out := outgoing(x, r)
	inject(out, a)
	body := keepBody(out, a)
	resp, err := s.send(x, out)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	return s.unauthorized(x, out, resp, body)
}

func (s *Server) storeErr() error {
	if s.StoreErr == nil {
		return nil
	}
	return s.StoreErr()
}

// match finds the credential. A nil one without an error means: pass it on as it
// is, which only plain requests under "unmatched: tunnel" may.
func (s *Server) match(x *exchange) (*creds.Credential, error) {
	if err := s.storeErr(); err != nil {
		return nil, err
	}
	table := s.Table()
	if x.chosen != "" {
		return table.MatchNamed(x.chosen, x.target)
	}
	c, err := table.Match(x.target)
	if err == nil || table.HasOrigin(x.target.Scheme, x.target.Host, x.target.Port) {
		return c, err
	}
	if x.plain != nil && s.config.Load().Tunnel {
		s.Metrics.misses.WithLabelValues(actionTunnel).Inc()
		x.target = *x.plain
		return nil, nil //nolint:nilnil // documented
	}
	s.Metrics.misses.WithLabelValues(actionDeny).Inc()
	return nil, err
}

func (s *Server) authorize(ctx context.Context, x *exchange, c *creds.Credential) (*creds.Authorization, error) {
	x.credential = c
	x.entry.Credential = c.Name
	a, err := s.Authorizer.Authorize(ctx, c)
	if err != nil {
		s.Metrics.injections.WithLabelValues(c.Name, "refused").Inc()
		return nil, err
	}
	s.Metrics.injections.WithLabelValues(c.Name, "ok").Inc()
	x.authorization = a
	return a, nil
}

// send asks the tool, and takes the time of it.
func (s *Server) send(x *exchange, out *http.Request) (*http.Response, error) {
	c := s.config.Load()
	if err := c.judge(x.target.Authority()); err != nil {
		return nil, err
	}
	begin := time.Now()
	resp, err := c.transport.RoundTrip(out)
	x.entry.Upstream += time.Since(begin)
	return resp, err
}

// unauthorized answers a 401: if the token was refused and there is a newer one,
// the request goes out once more, provided that its body can be sent again. The
// last answer reaches the client with its body. Static credentials get no second
// try: the same password twice locks accounts.
func (s *Server) unauthorized(x *exchange, out *http.Request, resp *http.Response, body *keptBody) (*http.Response, error) {
	s.Metrics.unauthorized.WithLabelValues(x.credential.Name).Inc()
	if x.authorization.Token == "" || !body.whole() {
		return resp, nil
	}
	a, err := s.Authorizer.Refused(out.Context(), x.credential, x.authorization.Token)
	if err != nil {
		return resp, nil //nolint:nilerr // the tool's own answer says more than ours could
	}
	drain(resp.Body)
	x.authorization = a
	again := out.Clone(out.Context())
	body.rewind(again)
	inject(again, a)
	resp, err = s.send(x, again)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		s.Metrics.unauthorized.WithLabelValues(x.credential.Name).Inc()
	}
	return resp, err
}
