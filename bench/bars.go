package main

import (
	"fmt"
	"math"
)

// bar is a promise of pillion's that a run can hold it to.
type bar struct {
	Name  string
	Got   float64
	Limit float64
	Under bool // the limit itself is too much
	Unit  string
}

const (
	keptBar    = "PASS"
	missedBar  = "FAIL"
	unknownBar = "----" // not measured in this run
)

func (b bar) verdict() string {
	switch {
	case math.IsNaN(b.Got):
		return unknownBar
	case b.Got < b.Limit || !b.Under && b.Got == b.Limit:
		return keptBar
	default:
		return missedBar
	}
}

func (b bar) String() string {
	words := "at most"
	if b.Under {
		words = "under"
	}
	return fmt.Sprintf("%s  %s: %s%s (%s %g%s)", b.verdict(), b.Name, number(b.Got), b.Unit, words, b.Limit, b.Unit)
}

// bars judges a run.
func bars(r *results) []bar {
	first, ready, idle := r.beginning(peerPillion)
	all := []bar{
		{Name: "first start to ready, keys made and files published", Got: first, Limit: 150, Under: true, Unit: " ms"},
		{Name: "start to ready", Got: ready, Limit: 100, Under: true, Unit: " ms"},
		{Name: "idle RSS", Got: idle / (1 << 20), Limit: 15, Under: true, Unit: " MiB"},
		{Name: "RSS after load", Got: r.largest("h1-1k", peerPillion, rssOf) / (1 << 20), Limit: 24, Unit: " MiB"},
		{Name: "memory of an idle tunnel", Got: r.Tunnels.each() / 1000, Limit: 24, Unit: " KB"},
		{Name: "HTTP/1.1 CPU a request, to squid", Got: r.paired("h1-1k", peerPillion, peerSquid), Limit: 1, Under: true, Unit: " x"},
		{Name: "HTTP/1.1 CPU a request, to goproxy as it comes", Got: r.paired("h1-1k", peerPillion, peerGoproxy), Limit: 0.2, Unit: " x"},
		{Name: "HTTP/1.1 CPU a request, to the floor", Got: r.paired("h1-1k", peerPillion, peerFloor), Limit: 1.3, Unit: " x"},
	}
	for _, b := range []struct {
		scenario, title string
		limit           float64
	}{
		{"h1-1k", "HTTP/1.1", 0.75},
		{"h1-100k-down", "100 KiB down", 0.75},
		{"h1-100k-up", "100 KiB up", 0.75},
		{"plain-1k", "plain to TLS", 0.66},
		{"h2-1k", "HTTP/2", 0.95},
		{"new", "a new connection", 0.95},
		{"rate-1000", "1,000 a second", 1},
	} {
		all = append(all, bar{Name: b.title + " CPU a request, to nginx", Got: r.paired(b.scenario, peerPillion, peerNginx), Limit: b.limit, Unit: " x"})
	}
	return append(all, bar{Name: "1,000 a second, added p50, to nginx", Got: r.added("rate-1000", peerPillion) / r.added("rate-1000", peerNginx), Limit: 1, Unit: " x"})
}

func (r *results) paired(scenario, peer, other string) float64 {
	return pairedRatio(r.series(scenario, peer, cpuOf), r.series(scenario, other, cpuOf))
}

// added is the distance of a peer's median latency to direct's, in microseconds.
func (r *results) added(scenario, peer string) float64 {
	return pairedDifference(r.series(scenario, peer, p50Of), r.series(scenario, peerDirect, p50Of))
}

func p50Of(s sample) float64 { return s.P50 }

func rssOf(s sample) float64 { return s.RSS }

func (r *results) largest(scenario, peer string, figure func(sample) float64) float64 {
	most := math.NaN()
	for _, v := range r.series(scenario, peer, figure) {
		if math.IsNaN(most) || v > most {
			most = v
		}
	}
	return most
}

// each is NaN where no tunnels were tried, and beyond every limit where some were not alive: cheap memory for dead connections proves nothing.
func (t tunnels) each() float64 {
	switch {
	case t.Limit == 0:
		return math.NaN()
	case t.Err != "" || t.Count == 0 || t.Alive != t.Count:
		return math.Inf(1)
	default:
		return t.Each
	}
}

func cpuOf(s sample) float64 { return s.CPU }

// series gathers a figure of one peer under one load by round. Failed runs are left out.
func (r *results) series(scenario, peer string, figure func(sample) float64) map[int]float64 {
	byRound := make(map[int]float64)
	for _, s := range r.Samples {
		if s.Scenario == scenario && s.Peer == peer && s.Err == "" {
			byRound[s.Round] = figure(s)
		}
	}
	return byRound
}

// beginning is the median first start and later start in milliseconds, and the idle memory in bytes.
func (r *results) beginning(peer string) (first, ready, idle float64) {
	var firsts, readies, idles []float64
	for _, b := range r.Beginnings {
		if b.Peer == peer {
			firsts = append(firsts, microseconds(b.First)/1000)
			readies = append(readies, microseconds(b.Ready)/1000)
			idles = append(idles, b.IdleRSS)
		}
	}
	return median(firsts), median(readies), median(idles)
}
