package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pillion/creds"
	"pillion/creds/token"
)

// rig is a proxy on a port of its own, between a client and a recording origin.
// The origin is reached under tool.example and evil.example; credentials exist
// for what set puts in the table.
type rig struct {
	t       testing.TB
	origin  *origin
	server  *Server
	addr    string
	roots   *x509.CertPool // our CA, for clients
	table   atomic.Pointer[creds.Table]
	logText lockedBuffer
	entries chan Entry
	reg     *prometheus.Registry
}

// The engines that answer HTTP/1.1. scripts/test.sh runs this package's tests once
// for each.
const (
	engineFast = "fast"
	engineNet  = "net"
)

func engine() string {
	if os.Getenv("PILLION_TEST_ENGINE") == engineNet {
		return engineNet
	}
	return engineFast
}

const toolToken = "tool-token-5e1b"

func bearer(name, instanceURL string) *creds.Credential {
	return &creds.Credential{Name: name, Protocol: creds.HTTPS, URL: instanceURL, Authorization: creds.Bearer, Token: creds.NewSecret(toolToken)}
}

// newRig starts all of it with one bearer credential for https://tool.example/.
func newRig(t testing.TB, change ...func(*Server, *Config)) *rig {
	t.Helper()
	r := &rig{t: t, origin: newOrigin(t), entries: make(chan Entry, 1000), reg: prometheus.NewRegistry()}
	ca, err := LoadOrCreateCA(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r.roots = x509.NewCertPool()
	r.roots.AppendCertsFromPEM(ca.PEM())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	guard := &Guard{Private: true, Resolve: map[string]netip.AddrPort{}}
	guard.Allow, err = ParseAllow([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	guard.Own = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(r.addr)} }
	for _, name := range []string{"tool.example", "evil.example", "example.service-now.com"} {
		guard.Resolve[name] = netip.MustParseAddrPort(r.origin.addr())
	}
	keeper := &token.Keeper{}
	r.server = &Server{
		Table: func() *creds.Table { return r.table.Load() }, Authorizer: keeper, CA: ca,
		Log:     slog.New(slog.NewJSONHandler(&r.logText, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: NewMetrics(r.reg, false),
		OnEntry: func(e Entry) { r.entries <- e },
	}
	config := Config{Guard: guard, RootCAs: r.origin.roots, Fast: engine() == engineFast}
	for _, f := range change {
		f(r.server, &config)
	}
	keeper.HTTP = r.server.Upstream()
	r.set(bearer("tool", "https://tool.example/"))
	r.server.Configure(config)
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = r.server.Shutdown(ctx) // what a test left open is cut
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// set makes credentials the whole table.
func (r *rig) set(credentials ...*creds.Credential) {
	old := r.table.Swap(creds.NewTable(credentials))
	r.server.Metrics.Follow(old, r.table.Load())
}

// client is an ordinary one, with HTTP_PROXY and HTTPS_PROXY set to user@proxy.
func (r *rig) client(user string) *http.Client {
	proxyURL := &url.URL{Scheme: "http", Host: r.addr}
	if user != "" {
		name, password, _ := strings.Cut(user, ":")
		proxyURL.User = url.UserPassword(name, password)
	}
	transport := &http.Transport{
		Proxy:           http.ProxyURL(proxyURL),
		TLSClientConfig: &tls.Config{RootCAs: r.roots},
	}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// entry waits for the next request's log entry.
func (r *rig) entry() Entry {
	r.t.Helper()
	select {
	case e := <-r.entries:
		return e
	case <-time.After(10 * time.Second):
		r.t.Fatal("no log entry within 10 s")
		return Entry{}
	}
}

// dial opens a plain connection to the proxy.
func (r *rig) dial() *wire {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.wire(c)
}

// tunnel opens a CONNECT tunnel with TLS inside, as a client would; serverName
// may differ from the authority, and protocols are offered by ALPN.
func (r *rig) tunnel(authority, serverName string, protocols ...string) *wire {
	r.t.Helper()
	w := r.dial()
	w.send("CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n\r\n")
	resp := w.response("CONNECT")
	if resp.StatusCode != 200 {
		r.t.Fatalf("CONNECT %s: status %d, %s", authority, resp.StatusCode, w.body(resp))
	}
	c := tls.Client(w.conn, &tls.Config{RootCAs: r.roots, ServerName: serverName, NextProtos: protocols, InsecureSkipVerify: serverName == ""})
	if err := c.Handshake(); err != nil {
		r.t.Fatalf("handshake in the tunnel to %s: %v", authority, err)
	}
	return r.wire(c)
}

// inside does the handshake of a tunnel that was opened by hand.
func (r *rig) inside(w *wire, serverName string) *wire {
	r.t.Helper()
	c := tls.Client(w.conn, &tls.Config{RootCAs: r.roots, ServerName: serverName})
	if err := c.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return r.wire(c)
}

func (r *rig) wire(c net.Conn) *wire {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r.t.Cleanup(func() { _ = c.Close() })
	return &wire{r.t, c, bufio.NewReader(c)}
}

// wire is a connection on which a test writes the bytes itself.
type wire struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (w *wire) send(text string) {
	w.t.Helper()
	if _, err := io.WriteString(w.conn, text); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) response(method string) *http.Response {
	w.t.Helper()
	resp, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("reading the response: %v", err)
	}
	return resp
}

func (w *wire) body(resp *http.Response) string {
	w.t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatalf("reading the body: %v", err)
	}
	_ = resp.Body.Close()
	return string(b)
}

// closed reads until the other side has closed.
func (w *wire) closed() {
	w.t.Helper()
	if rest, err := io.ReadAll(w.r); err != nil && !strings.Contains(err.Error(), "reset") || len(rest) > 0 {
		w.t.Errorf("the connection is still open: %d bytes, %v", len(rest), err)
	}
}

// checkProblem checks a problem document and returns its detail.
func checkProblem(t testing.TB, resp *http.Response, want *kind) string {
	t.Helper()
	defer resp.Body.Close()
	var d document
	body, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatalf("status %d, no problem document: %q", resp.StatusCode, body)
	}
	if resp.StatusCode != want.status || d.Type != "urn:pillion:error:"+want.name || d.Status != want.status || d.Detail == "" {
		t.Errorf("got status %d, %+v; want %s", resp.StatusCode, d, want.name)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type is %q", got)
	}
	if got := resp.Header.Get("Proxy-Status"); !strings.HasPrefix(got, "pillion; error=") {
		t.Errorf("Proxy-Status is %q", got)
	}
	return d.Detail
}

// origin is a TLS server that records what reaches it.
type origin struct {
	*httptest.Server
	roots   *x509.CertPool
	mu      sync.Mutex
	seen    []*http.Request
	handler http.HandlerFunc
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	ca, err := LoadOrCreateCA(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{roots: x509.NewCertPool()}
	o.roots.AppendCertsFromPEM(ca.PEM())
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(o.serve))
	o.TLS = &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return ca.Leaf(h.Context(), h.ServerName)
	}, NextProtos: []string{"h2", "http/1.1"}} // httptest would leave HTTP/1.1 out
	o.EnableHTTP2 = true
	o.Config.DisableGeneralOptionsHandler = true
	o.StartTLS()
	t.Cleanup(o.Close)
	return o
}

func (o *origin) addr() string { return o.Listener.Addr().String() }

// handle answers from now on with h.
func (o *origin) handle(h http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handler = h
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.seen = append(o.seen, r)
	h := o.handler
	o.mu.Unlock()
	if h != nil {
		h(w, r)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "hello from the tool")
}

// requests returns what has arrived so far.
func (o *origin) requests() []*http.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]*http.Request(nil), o.seen...)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// plainServer is an origin without TLS, for what is passed on as it came.
func plainServer(t *testing.T) *plainOrigin {
	t.Helper()
	p := &plainOrigin{seen: make(chan http.Header, 10)}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { p.seen <- r.Header }))
	t.Cleanup(server.Close)
	p.addr = netip.MustParseAddrPort(server.Listener.Addr().String())
	return p
}

type plainOrigin struct {
	addr netip.AddrPort
	seen chan http.Header
}

func addrPort(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }
