package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// soakReport is a soak as it is published.
type soakReport struct {
	soak    *soak
	machine machine
}

func (r *soakReport) section() section {
	return section{
		Begin: "<!-- bench soak: begin -->", End: "<!-- bench soak: end -->",
		Tables: r.markdown(), Plot: "performance-soak.svg", SVG: r.plot(),
	}
}

func (r *soakReport) markdown() string {
	s := r.soak
	var w strings.Builder
	last := soakSample{CPU: math.NaN()}
	if n := len(s.samples); n > 0 {
		last = s.samples[n-1]
	}
	requests := s.tally.total()
	fmt.Fprintf(&w, "%s\n\n", r.machine)
	fmt.Fprintf(&w, "%v, %d requests (%.0f a second), %.0f s of pillion's CPU (%.0f %% of a core); %.0f tokens got, %d answers 401 to revoked or refused ones; %s. **%d findings.**\n\n",
		s.plan.For, requests, float64(requests)/s.plan.For.Seconds(), last.CPU-s.before.CPU, 100*(last.CPU-s.before.CPU)/s.plan.For.Seconds(),
		s.after.Refreshes, s.origin.refused.Load(), r.changes(), s.findings.number())
	for _, text := range s.findings.list() {
		fmt.Fprintf(&w, "- %s\n", text)
	}
	w.WriteString("\n")
	r.writeFigures(&w)
	r.writeKinds(&w)
	return w.String()
}

// changes says what was reloaded.
func (r *soakReport) changes() string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(r.soak.reloads.done)) {
		parts = append(parts, fmt.Sprintf("%s %d times", what, r.soak.reloads.done[what]))
	}
	return strings.Join(parts, ", ")
}

func (r *soakReport) writeFigures(w *strings.Builder) {
	s := r.soak
	from, to, late := windows(s.plan.For)
	head(w, 1, "", "idle before", fmt.Sprintf("median of minutes %s to %s", minutes(from), minutes(to)), fmt.Sprintf("minutes %s to %s", minutes(late), minutes(s.plan.For)), "growth", "a leak from", "after the load")
	for _, f := range figures() {
		early, end := window(s.samples, f.Of, from, to), window(s.samples, f.Of, late, s.plan.For)
		in := func(v float64) string { return number(v / f.Unit) }
		row(w, f.Title, in(f.Of(s.before)), in(early), in(end), in(end-early), in(f.Leak), in(f.Of(s.after)))
	}
}

func minutes(d time.Duration) string { return fmt.Sprintf("%.3g", d.Minutes()) }

func (r *soakReport) writeKinds(w *strings.Builder) {
	s := r.soak
	w.WriteString("\nRequests by the way in: ")
	for i, way := range soakWays {
		fmt.Fprintf(w, "%s %d%s", way, s.tally.ways[i].Load(), map[bool]string{true: ".\n", false: ", "}[i == len(soakWays)-1])
	}
	w.WriteString("\nBy kind: ")
	for i, kind := range slices.Sorted(maps.Keys(s.tally.kinds)) {
		if i > 0 {
			w.WriteString(", ")
		}
		fmt.Fprintf(w, "%s %d", kind, s.tally.kinds[kind])
	}
	w.WriteString(".\n")
}
