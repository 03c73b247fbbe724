package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// sftpReport is a run of transfers as it is published.
type sftpReport struct {
	machine machine
	plan    sftpPlan
	results sftpResults
}

const (
	sftpBeginMark = "<!-- bench sftp: begin -->"
	sftpEndMark   = "<!-- bench sftp: end -->"
)

// section is what is published of the run.
func (r *sftpReport) section() section {
	return section{Begin: sftpBeginMark, End: sftpEndMark, Tables: r.markdown(), Plot: "performance-sftp.svg", SVG: r.plot()}
}

func (r *sftpReport) markdown() string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s\n\n%d rounds; medians, ± half the range.\n\n### Bars of SFTP\n\n", r.machine, r.plan.Rounds)
	for _, bar := range sftpBars(&r.results, r.plan.MiB) {
		fmt.Fprintf(&w, "- %s\n", bar)
	}
	w.WriteString("\n### Every transfer\n\n")
	head(&w, 2, "transfer", "", "time, s", "to direct", "to TCP relay", "CPU, s", "to TCP relay", "memory beyond idle, MiB", "anonymous")
	for _, s := range r.plan.Loads {
		for _, p := range r.peers() {
			if !s.Put || p.Name == peerPillion {
				row(&w, r.cells(s, p)...)
			}
		}
	}
	r.writeIdle(&w)
	r.writeNotes(&w)
	return w.String()
}

// peers that could be started.
func (r *sftpReport) peers() []*sftpPeer {
	var list []*sftpPeer
	for _, p := range r.plan.Peers {
		if r.results.Missing[p.Name] == "" {
			list = append(list, p)
		}
	}
	return list
}

func (r *sftpReport) cells(s sftpLoad, p *sftpPeer) []string {
	walls := slices.Collect(maps.Values(r.results.series(s.Name, p.Name, wallOf)))
	cpus := slices.Collect(maps.Values(r.results.series(s.Name, p.Name, busyOf)))
	to := func(figure func(transfer) float64, peer string) string {
		return ratio(pairedRatio(r.results.series(s.Name, p.Name, figure), r.results.series(s.beside(), peer, figure)))
	}
	if len(walls) == 0 {
		return []string{s.title(r.plan.MiB), p.Title, "failed", "", "", "", "", "", ""}
	}
	cells := []string{s.title(r.plan.MiB), p.Title, number(median(walls)) + plusMinus(spread(walls)), to(wallOf, peerDirect), to(wallOf, peerTCP)}
	if p.Name == peerDirect {
		return append(cells, "", "", "", "")
	}
	memory := func(figure func(transfer) float64) string {
		return mebibytes(median(slices.Collect(maps.Values(r.results.series(s.Name, p.Name, figure)))))
	}
	return append(cells, number(median(cpus))+plusMinus(spread(cpus)), to(busyOf, peerTCP), memory(peakOf), memory(anonOf))
}

func (r *sftpReport) writeIdle(w io.Writer) {
	var list []string
	for _, p := range r.peers() {
		if idle := median(r.results.Idle[p.Name]); !math.IsNaN(idle) {
			list = append(list, fmt.Sprintf("%s %s MiB", p.Title, mebibytes(idle)))
		}
	}
	if len(list) > 0 {
		fmt.Fprintf(w, "\nIdle memory: %s.\n", strings.Join(list, ", "))
	}
}

func (r *sftpReport) writeNotes(w io.Writer) {
	var notes []string
	for _, p := range r.plan.Peers {
		if why := r.results.Missing[p.Name]; why != "" {
			notes = append(notes, fmt.Sprintf("%s was left out: %s.", p.Title, oneLine(why)))
		}
	}
	for _, t := range r.results.Transfers {
		if t.Err != "" {
			notes = append(notes, fmt.Sprintf("%s, %s, round %d: failed: %s.", t.Peer, t.Load, t.Round, oneLine(t.Err)))
		}
	}
	if len(notes) > 0 {
		fmt.Fprintf(w, "\n- %s\n", strings.Join(notes, "\n- "))
	}
}

// plot draws the seconds of CPU that each program between takes, and the time of all ways.
func (r *sftpReport) plot() string {
	var panels []panel
	add := func(title string, s sftpLoad, figure func(transfer) float64) {
		p := panel{Title: s.title(r.plan.MiB) + ": " + title}
		for _, peer := range r.peers() {
			if value := median(slices.Collect(maps.Values(r.results.series(s.Name, peer.Name, figure)))); !math.IsNaN(value) {
				p.Bars = append(p.Bars, plotted{peer.Name, value})
			}
		}
		panels = append(panels, p)
	}
	for _, s := range r.plan.Loads {
		add("time, s", s, wallOf)
		add("CPU, s", s, busyOf)
	}
	return drawPlot("Time and CPU of SFTP transfers (less is better)", r.machine, r.plan.Rounds, panels)
}
