package main

import (
	"strings"
	"testing"
)

func TestBarsOfARunThatKeepsThem(t *testing.T) {
	for _, b := range bars(&madeUp().results) {
		if b.verdict() != keptBar && b.verdict() != unknownBar { // one load alone is made up
			t.Errorf("%s", b)
		}
	}
}

func TestBars(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*results)
		bar    string
		want   string
	}{
		{"as much as squid is not below squid", func(r *results) { r.slow(peerPillion, 100) }, "to squid", missedBar},
		{"three quarters of nginx are allowed", func(r *results) { r.slow(peerPillion, 30) }, "HTTP/1.1 CPU a request, to nginx", keptBar},
		{"more is not", func(r *results) { r.slow(peerPillion, 31) }, "HTTP/1.1 CPU a request, to nginx", missedBar},
		{"1.3 times the floor is allowed", func(r *results) { r.slow(peerPillion, 26) }, "to the floor", keptBar},
		{"more is not", func(r *results) { r.slow(peerPillion, 27) }, "to the floor", missedBar},
		{"a fifth of goproxy is allowed", func(r *results) { r.slow(peerPillion, 160) }, "to goproxy", keptBar},
		{"more is not", func(r *results) { r.slow(peerPillion, 161) }, "to goproxy", missedBar},
		{"a tunnel of 25 KB", func(r *results) { r.Tunnels.Each = 25000 }, "idle tunnel", missedBar},
		{"one dead tunnel", func(r *results) { r.Tunnels.Alive-- }, "idle tunnel", missedBar},
		{"no tunnels held", func(r *results) { r.Tunnels = tunnels{} }, "idle tunnel", unknownBar},
		{"150 ms is not under 150 ms", func(r *results) {
			for i := range r.Beginnings {
				r.Beginnings[i].Ready = 150e6
			}
		}, "start to ready", missedBar},
		{"no pillion in the run", func(r *results) { r.Beginnings = nil }, "idle RSS", unknownBar},
	} {
		r := madeUp().results
		row.change(&r)
		found := false
		for _, b := range bars(&r) {
			if b.Name == row.bar || strings.Contains(b.Name, row.bar) && row.bar != "start to ready" {
				found = true
				if b.verdict() != row.want {
					t.Errorf("%s: %s, want %s", row.name, b, row.want)
				}
			}
		}
		if !found {
			t.Errorf("%s: no bar %q", row.name, row.bar)
		}
	}
}

// slow sets a peer's CPU microseconds a request, by round as madeUp does.
func (r *results) slow(peer string, cpu float64) {
	for i, s := range r.Samples {
		if s.Peer == peer {
			r.Samples[i].CPU = cpu * float64(s.Round)
		}
	}
}
