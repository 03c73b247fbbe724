package main

import (
	"strconv"
	"time"
)

// clients is how many requests are in flight: as many as a busy connector has threads.
const clients = 16

// scenario is one load, the same for every peer.
type scenario struct {
	Name        string
	Title       string
	HTTP2       bool // the client offers h2 alone, the origin offers h2
	OriginHTTP2 bool
	Plain       bool // the client speaks plain HTTP, the origin TLS
	Fresh       bool
	Resume      bool
	Down        int
	Up          int
	Rate        int
}

// scenarios in the order of the report.
func scenarios() []scenario {
	return []scenario{
		{Name: "h1-1k", Title: "HTTP/1.1, 1 KiB", Down: 1 << 10},
		{Name: "h1-100k-down", Title: "HTTP/1.1, 100 KiB down", Down: 100 << 10},
		{Name: "h1-100k-up", Title: "HTTP/1.1, 100 KiB up", Up: 100 << 10},
		{Name: "h1-1k-origin-h2", Title: "HTTP/1.1, 1 KiB, origin offers HTTP/2", Down: 1 << 10, OriginHTTP2: true},
		{Name: "h2-1k", Title: "HTTP/2, 1 KiB", Down: 1 << 10, HTTP2: true, OriginHTTP2: true},
		{Name: "h2-100k-down", Title: "HTTP/2, 100 KiB down", Down: 100 << 10, HTTP2: true, OriginHTTP2: true},
		{Name: "h2-100k-up", Title: "HTTP/2, 100 KiB up", Up: 100 << 10, HTTP2: true, OriginHTTP2: true},
		{Name: "plain-1k", Title: "plain to TLS, 1 KiB", Down: 1 << 10, Plain: true},
		{Name: "new", Title: "a new connection each", Down: 1 << 10, Fresh: true},
		{Name: "new-resumed", Title: "a new connection each, TLS resumed", Down: 1 << 10, Fresh: true, Resume: true},
		{Name: "rate-1000", Title: "1,000 requests a second", Down: 1 << 10, Rate: 1000},
		{Name: "rate-100", Title: "100 requests a second", Down: 1 << 10, Rate: 100},
	}
}

// load is the part of a load that does not depend on the peer.
func (s scenario) load() load {
	l := load{
		HTTP2: s.HTTP2, Fresh: s.Fresh, Resume: s.Resume, Rate: s.Rate,
		Clients: clients, Connections: clients / 4,
		Target: "/bytes/" + strconv.Itoa(s.Down), WantBytes: s.Down,
	}
	if s.Up > 0 {
		l.Target, l.Upload, l.Want = "/sink", s.Up, strconv.Itoa(s.Up)
	}
	return l
}

// lasts is how long a scenario is measured, when a closed loop is measured for d: at a fixed rate the CPU time is small, and needs longer to be seen.
func (s scenario) lasts(d time.Duration) time.Duration {
	if s.Rate > 0 {
		return 2 * d
	}
	return d
}
