package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// load is what one load generator does; the bench sends it on the generator's standard input. The generator answers "ready" after the warm-up,
// starts measuring at the line "go", answers one loadResult, and ends with its standard input: so whoever asked can read clocks and memory of the
// proxy just before, and just after with every connection still open.
type load struct {
	Dial          string   // where to connect: the proxy, or the origin itself
	Connect       string   // authority for CONNECT; empty for none
	TLS           bool     // false: plain to the proxy
	CAs           []string // PEM files that the client trusts
	HTTP2         bool     // offer h2 alone
	Fresh         bool     // a new connection, CONNECT and TLS for each request
	Resume        bool     // TLS session tickets, with Fresh
	Target        string   // request target: a path, or an absolute URL
	Host          string
	Authorization string // sent by the client where nothing between could inject it
	Upload        int    // bytes to POST; none for GET
	Want          string // the body of an answer, where it is not WantBytes of filler
	WantBytes     int
	Clients       int // requests in flight
	Connections   int // HTTP/2: over how many connections
	Rate          int // requests a second of an open loop; 0 for a closed one
	Warm, Measure time.Duration
}

// loadResult is what a load generator has seen. Latencies are in nanoseconds.
type loadResult struct {
	Requests      int
	Elapsed       time.Duration
	P50, P99, Max time.Duration
	Client        time.Duration // CPU of the generator itself, to see that it is not the bottleneck
	Err           string        // the first answer that was wrong; the run counts for nothing then
}

// requester sends one request and checks its answer. One goroutine uses it at a time.
type requester interface {
	do() error
	close()
}

// maxRequests bounds what one client of one run remembers: 16 million latencies over 16 clients are 128 MB.
const maxRequests = 1 << 20

// serveLoad is the subcommand "load".
func serveLoad(stdin io.Reader, stdout io.Writer) error {
	in := bufio.NewReader(stdin)
	first, err := in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the load: %w", err)
	}
	var l load
	if err := json.Unmarshal(first, &l); err != nil {
		return fmt.Errorf("reading the load: %w", err)
	}
	clients, err := l.connect()
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	if warm := l.run(clients, l.Warm); warm.Err != "" {
		return errors.New(warm.Err)
	}
	fmt.Fprintln(stdout, "ready")
	if _, err := in.ReadString('\n'); err != nil {
		return fmt.Errorf("waiting to go: %w", err)
	}
	before := ownCPU()
	result := l.run(clients, l.Measure)
	result.Client = ownCPU() - before
	if err := json.NewEncoder(stdout).Encode(result); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

func (l *load) connect() ([]requester, error) {
	d, err := newDialer(l)
	if err != nil {
		return nil, err
	}
	if l.HTTP2 {
		return connectHTTP2(l, d)
	}
	var clients []requester
	for range l.Clients {
		c := newHTTP1(l, d)
		if !l.Fresh {
			if err := c.open(); err != nil {
				return nil, err
			}
		}
		clients = append(clients, c)
	}
	return clients, nil
}

// run drives every client for d and gathers what they saw.
func (l *load) run(clients []requester, d time.Duration) loadResult {
	var (
		wg        sync.WaitGroup
		latencies = make([][]time.Duration, len(clients))
		failures  = make([]error, len(clients))
	)
	start := time.Now()
	for i, client := range clients {
		wg.Go(func() {
			if l.Rate > 0 {
				latencies[i], failures[i] = openLoop(client, start, i, len(clients), l.Rate, d)
			} else {
				latencies[i], failures[i] = closedLoop(client, start.Add(d))
			}
		})
	}
	wg.Wait()
	result := loadResult{Elapsed: time.Since(start)}
	if err := errors.Join(failures...); err != nil {
		result.Err, _, _ = cutLine(err.Error())
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	result.Requests = len(all)
	result.P50, result.P99, result.Max = quantile(all, 0.50), quantile(all, 0.99), quantile(all, 1)
	return result
}

// closedLoop sends the next request when the last one was answered.
func closedLoop(client requester, until time.Time) ([]time.Duration, error) {
	latencies := make([]time.Duration, 0, 1<<14)
	for begun := time.Now(); begun.Before(until) && len(latencies) < maxRequests; {
		if err := client.do(); err != nil {
			return latencies, err
		}
		now := time.Now()
		latencies = append(latencies, now.Sub(begun))
		begun = now
	}
	return latencies, nil
}

// openLoop sends at fixed moments, whatever the answers do: client i of n takes every n-th moment. A request whose moment passed while the last one
// was still out is counted from its moment, so a stall is seen by all that it delayed; one whose client was free is counted from when it was
// sent, since a timer that wakes late is the machine's doing and not the proxy's.
func openLoop(client requester, start time.Time, i, n, rate int, d time.Duration) ([]time.Duration, error) {
	interval := time.Second / time.Duration(rate)
	var latencies []time.Duration
	for k := i; len(latencies) < maxRequests; k += n {
		due := start.Add(time.Duration(k) * interval)
		if due.Sub(start) >= d {
			break
		}
		begun := due
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
			begun = time.Now()
		}
		if err := client.do(); err != nil {
			return latencies, err
		}
		latencies = append(latencies, time.Since(begun))
	}
	return latencies, nil
}
