package main

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// soakWay is how a client reaches pillion.
type soakWay int

const (
	wayTunnel soakWay = iota // HTTP/1.1 over CONNECT and TLS
	wayTwo                   // HTTP/2, likewise
	wayPlain                 // http:// to the proxy, which makes TLS of it
	wayBase                  // the base URL http://127.0.0.1:PORT/c/NAME/
)

var soakWays = [...]string{"HTTP/1.1 over CONNECT", "HTTP/2 over CONNECT", "http:// to the proxy", "base URL"}

// address is where an errand goes on this way.
func (w soakWay) address(s *soak, e *errand) string {
	authority := authority(s.origin.addrs[e.key.Port])
	path := "/" + e.key.Name + "/" + e.kind + "?" + e.query()
	switch w {
	case wayPlain:
		return "http://" + authority + path
	case wayBase:
		return "http://" + s.pillion.proxy + "/c" + path
	default:
		return "https://" + authority + path
	}
}

// transport makes a client of its own on this way. One that reads slowly receives little at once, so that it is felt.
func (w soakWay) transport(s *soak, slow bool) *http.Transport {
	dialer := &net.Dialer{Timeout: answerTimeout}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if tcp, ok := conn.(*net.TCPConn); ok && slow {
				_ = tcp.SetReadBuffer(16 << 10)
			}
			return conn, err
		},
		TLSClientConfig:       &tls.Config{RootCAs: s.pillion.roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(16)},
		Protocols:             new(http.Protocols),
		ExpectContinueTimeout: soakPatience / 2,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   16,
	}
	if slow {
		t.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 32 << 10, MaxReceiveBufferPerConnection: 1 << 20}
	}
	if w != wayBase {
		t.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: s.pillion.proxy})
	}
	t.Protocols.SetHTTP1(w != wayTwo)
	t.Protocols.SetHTTP2(w == wayTwo)
	return t
}

// crew is a group of clients that do the same kind of errands on the same way.
type crew struct {
	clients int
	way     soakWay
	shares  []share
	part    float64 // of all errands
	shared  bool    // one transport, and so, with HTTP/2, few connections, for all of them
	slow    bool    // little is received at once
}

// crews add up to 1, beside WebSockets and knocks. HTTP/1.1 in its usual form has the most: it is what most connectors speak.
func crews() []crew {
	return []crew{
		{8, wayTunnel, usual, 0.34, false, false},
		{6, wayPlain, usual, 0.16, false, false},
		{8, wayTwo, usual, 0.24, true, false},
		{2, wayTwo, usual, 0.04, false, false},
		{1, wayBase, usual, 0.03, false, false},
		{2, wayTunnel, unusual, 0.05, false, false},
		{1, wayPlain, unusual, 0.02, false, false},
		{2, wayTwo, unusual, 0.04, true, false},
		{1, wayTunnel, broken, 0.01, false, false},
		{1, wayPlain, broken, 0.005, false, false},
		{1, wayTwo, broken, 0.01, true, false},
		{5, wayTunnel, leisurely, 0.004, false, true},
		{3, wayPlain, leisurely, 0.003, false, true},
		{5, wayTwo, leisurely, 0.004, true, true},
		{3, wayTunnel, abandoned, 0.015, false, false},
		{2, wayPlain, abandoned, 0.01, false, false},
		{3, wayTwo, abandoned, 0.015, true, false},
	}
}

// tally counts what was done, by kind.
type tally struct {
	mu    sync.Mutex
	kinds map[string]int
	ways  [len(soakWays)]atomic.Int64
}

func (t *tally) add(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kinds == nil {
		t.kinds = map[string]int{}
	}
	t.kinds[kind]++
}

func (t *tally) of(kind string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kinds[kind]
}

func (t *tally) total() int64 {
	var sum int64
	for i := range t.ways {
		sum += t.ways[i].Load()
	}
	return sum
}

// work runs all clients until ctx ends, and returns when the last errand is done.
func (s *soak) work(ctx context.Context) {
	var wg sync.WaitGroup
	for _, c := range crews() {
		var common *http.Transport
		if c.shared {
			common = c.way.transport(s, c.slow)
			defer common.CloseIdleConnections()
		}
		every := time.Duration(float64(c.clients) / (c.part * s.plan.Rate) * float64(time.Second))
		for range c.clients {
			wg.Go(func() { s.client(ctx, c, common, every) })
		}
	}
	s.besides(ctx, &wg)
	wg.Wait()
}

// paced calls do at random moments, on average every so often, until ctx ends.
func paced(ctx context.Context, every time.Duration, do func()) {
	due := time.Now().Add(rand.N(every))
	for {
		timer := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		do()
		due = due.Add(time.Duration(rand.ExpFloat64() * float64(every)))
		if now := time.Now(); due.Before(now) { // a slow errand is not made up for
			due = now
		}
	}
}

// newConnection is how many errands a client runs, on average, before it opens new connections.
const newConnection = 40

func (s *soak) client(ctx context.Context, c crew, transport *http.Transport, every time.Duration) {
	if transport == nil {
		transport = c.way.transport(s, c.slow)
		defer transport.CloseIdleConnections()
	}
	paced(ctx, every, func() {
		e := draw(c.shares)
		if c.way == wayBase && e.key.Port != portHTTP1 { // their names stand for another port
			e.key = keyOf("static")
		}
		e.fresh = c.way != wayTwo && rand.N(newConnection) == 0
		s.do(&e, c.way, transport)
		if !c.shared && rand.N(newConnection) == 0 {
			transport.CloseIdleConnections()
		}
	})
}

// do runs one errand. Its own time-out ends it, not the soak's end.
func (s *soak) do(e *errand, way soakWay, transport *http.Transport) {
	address := way.address(s, e)
	s.tally.add(e.kind)
	s.tally.ways[way].Add(1)
	if e.leave != leaveNot {
		e.abandon(context.Background(), transport, address)
		return
	}
	if err := e.send(context.Background(), transport, address); err != nil {
		s.findings.add("client: %s of %s by %s: %v", e.kind, e.key.Name, soakWays[way], err)
		return
	}
	s.origin.whole.had(e.ID)
}

// besides starts what are no requests of a kind, or connections without one.
func (s *soak) besides(ctx context.Context, wg *sync.WaitGroup) {
	for range 3 {
		wg.Go(func() {
			paced(ctx, 2*time.Second, func() {
				key := keyOf("static", "oauth", "both")
				e := errand{kind: soakSocket, key: key, order: order{ID: errands.Add(1) * 8}}
				s.tally.add(soakSocket)
				s.tally.ways[wayTunnel].Add(1)
				path := "/" + key.Name + "/" + soakSocket + "?" + e.query()
				if err := talk(s.dialer(key.Port), path, e.ID, 10+rand.N(30), 50*time.Millisecond); err != nil {
					s.findings.add("client: %s of %s: %v", soakSocket, key.Name, err)
				}
			})
		})
	}
	wg.Go(func() {
		paced(ctx, 250*time.Millisecond, func() { knock(s.dialer(portHTTP1)) })
	})
}

// dialer opens connections without a library of HTTP.
func (s *soak) dialer(port soakPort) *dialer {
	return &dialer{
		load:   &load{Dial: s.pillion.proxy, Connect: authority(s.origin.addrs[port])},
		config: &tls.Config{RootCAs: s.pillion.roots, ServerName: originName, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12},
	}
}
