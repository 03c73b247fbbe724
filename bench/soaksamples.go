package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// soakSample is pillion at one moment of a soak.
type soakSample struct {
	At         time.Duration // since the load began
	RSS        float64       // bytes resident, files of the program included
	Anonymous  float64       // bytes of them that are the process's own: heap, stacks
	Heap       float64       // bytes that Go's heap has in use, garbage that is not yet collected included
	Goroutines float64
	Files      float64 // open ones
	CPU        float64 // seconds used since the start
	InFlight   float64 // requests
	Tunnels    float64 // open
	Refreshes  float64 // tokens got
}

// takeSample asks pillion's metrics and the kernel.
func takeSample(ctx context.Context, metrics string, pid int) (soakSample, error) {
	values, err := readMetrics(ctx, metrics)
	if err != nil {
		return soakSample{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return soakSample{}, fmt.Errorf("reading memory: %w", err)
	}
	return soakSample{
		RSS:        float64(statusBytes(status, "VmRSS:")),
		Anonymous:  float64(statusBytes(status, "RssAnon:")),
		Heap:       values["go_memstats_heap_inuse_bytes"],
		Goroutines: values["go_goroutines"],
		Files:      float64(openFiles(pid)),
		CPU:        values["process_cpu_seconds_total"],
		InFlight:   values["pillion_requests_in_flight"],
		Tunnels:    values["pillion_tunnels_open"],
		Refreshes:  values["pillion_token_refreshes_total"],
	}, nil
}

// readMetrics returns every series by its name; those that differ by labels are added up.
func readMetrics(ctx context.Context, addr string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	values := map[string]float64{}
	for line := range bytes.Lines(text) {
		series, value, ok := strings.Cut(strings.TrimSpace(string(line)), "} ")
		if !ok {
			series, value, _ = strings.Cut(series, " ")
		}
		name, _, _ := strings.Cut(series, "{")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] += n
		}
	}
	return values, nil
}

// watch takes a sample every so often, until ctx ends. Pillion having ended is the caller's to notice.
func (s *soak) watch(ctx context.Context) {
	tick := time.NewTicker(s.plan.Every)
	defer tick.Stop()
	for {
		taken, err := takeSample(ctx, s.pillion.metrics, s.pillion.process.pid())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.findings.add("sample: %v", err)
		default:
			taken.At = time.Since(s.begun)
			s.samples = append(s.samples, taken)
			s.told(taken)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// figure is one of a sample's.
type figure struct {
	Title string
	Unit  float64 // what it is counted in
	Of    func(soakSample) float64
	Leak  float64 // a growth of so much over a soak is a leak
	Rest  float64 // so much more than before the load may stay after it
}

const mebi = 1 << 20

// figures that are published. Leak is what a goroutine or a file in 45 s, or 4.5 KiB a second, comes to between the windows of half an hour: what is in use at
// a moment moves with how busy the machine is otherwise. Rest leaves room for what the first request of each kind makes once.
func figures() []figure {
	return []figure{
		{Title: "resident memory (RSS), MiB", Unit: mebi, Of: func(s soakSample) float64 { return s.RSS }, Leak: 4 * mebi, Rest: math.Inf(1)},
		{Title: "of it the process's own (RssAnon), MiB", Unit: mebi, Of: func(s soakSample) float64 { return s.Anonymous }, Leak: 4 * mebi, Rest: math.Inf(1)},
		{Title: "Go heap in use, MiB", Unit: mebi, Of: func(s soakSample) float64 { return s.Heap }, Leak: 4 * mebi, Rest: math.Inf(1)},
		{Title: "goroutines", Unit: 1, Of: func(s soakSample) float64 { return s.Goroutines }, Leak: 20, Rest: 3},
		{Title: "open files and sockets", Unit: 1, Of: func(s soakSample) float64 { return s.Files }, Leak: 20, Rest: 3},
	}
}

// window is the median of a figure over a part of the soak.
func window(samples []soakSample, of func(soakSample) float64, from, to time.Duration) float64 {
	var values []float64
	for _, s := range samples {
		if s.At >= from && s.At <= to {
			values = append(values, of(s))
		}
	}
	return median(values)
}

// windows are the parts that are compared: minutes 10 to 15 of half an hour, and the last 5. Before that the heap still grows into the pages that it needs
// when many slow clients come at once.
func windows(d time.Duration) (earlyFrom, earlyTo, lateFrom time.Duration) {
	return d / 3, d / 2, d * 25 / 30
}

// judged is how long a soak has to be for its growth to mean anything.
const judged = 10 * time.Minute

// lingering is how many connections to the origin, and goroutines of them, may be left of a short soak, which does not wait for their end: with HTTP/2
// those that were busy during a reload have a minute and a half to go.
func (s *soak) lingering() float64 {
	if s.plan.For >= judged {
		return 0
	}
	return 6 * float64(s.reloads.configured())
}

// judge adds a finding for each figure that grows.
func (s *soak) judge() {
	d := s.plan.For
	from, to, late := windows(d)
	for _, f := range figures() {
		growth := window(s.samples, f.Of, late, d) - window(s.samples, f.Of, from, to)
		if d >= judged && !(growth <= f.Leak) {
			s.findings.add("%s grew by %s between %v to %v and %v to %v, more than %s", f.Title, number(growth/f.Unit), from, to, late, d, number(f.Leak/f.Unit))
		}
		if rest := f.Of(s.after) - f.Of(s.before); !(rest <= f.Rest+s.lingering()) {
			s.findings.add("%s: %s before the load, %s after it", f.Title, number(f.Of(s.before)/f.Unit), number(f.Of(s.after)/f.Unit))
		}
	}
	if s.after.InFlight != 0 || s.after.Tunnels != 0 {
		s.findings.add("after the load %v requests are in flight and %v tunnels open", s.after.InFlight, s.after.Tunnels)
	}
}
