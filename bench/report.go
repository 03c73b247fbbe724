package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// report is a run as it is published.
type report struct {
	machine machine
	plan    plan
	results results
}

// What stands between the markers of performance.md is the bench's; all else in that file is prose, and kept.
const (
	beginMark = "<!-- bench: begin -->"
	endMark   = "<!-- bench: end -->"
)

// section is a part of the page that the bench writes, and the plot that goes with it.
type section struct {
	Begin, End string // its markers
	Tables     string
	Plot, SVG  string // name and content of the plot's file
}

// write publishes into a directory, or prints the tables when it is "-".
func (r *report) write(dir string, stdout io.Writer) error {
	return publish(dir, stdout, r.section())
}

func (r *report) section() section {
	return section{Begin: beginMark, End: endMark, Tables: r.markdown(), Plot: "performance.svg", SVG: r.plot()}
}

// publish writes sections into the page; what the page has of others is kept.
func publish(dir string, stdout io.Writer, sections ...section) error {
	if dir == "-" {
		for _, s := range sections {
			fmt.Fprintf(stdout, "\n%s\n", s.Tables)
		}
		return nil
	}
	file := filepath.Join(dir, "performance.md")
	text, err := os.ReadFile(file)
	page := string(text)
	if errors.Is(err, fs.ErrNotExist) {
		page, err = "# Performance\n", nil
		for _, s := range sections {
			page += "\n" + s.Begin + "\n" + s.End + "\n"
		}
	}
	if err != nil {
		return fmt.Errorf("reading the page: %w", err)
	}
	for _, s := range sections {
		if page, err = s.put(page); err != nil {
			return fmt.Errorf("writing %s: %w", file, err)
		}
	}
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil { //nolint:gosec // pages for everyone
		return fmt.Errorf("writing the page: %w", err)
	}
	for _, s := range sections {
		if err := os.WriteFile(filepath.Join(dir, s.Plot), []byte(s.SVG), 0o644); err != nil { //nolint:gosec // pages for everyone
			return fmt.Errorf("writing the plot: %w", err)
		}
		fmt.Fprintf(stdout, "\nwrote %s and %s\n", file, s.Plot)
	}
	return nil
}

// put replaces what stands between the markers.
func (s section) put(page string) (string, error) {
	before, rest, ok := strings.Cut(page, s.Begin)
	_, after, ok2 := strings.Cut(rest, s.End)
	if !ok || !ok2 {
		return "", fmt.Errorf("the page lacks the lines %s and %s; add them where the tables belong", s.Begin, s.End)
	}
	return before + s.Begin + "\n\n" + strings.TrimSpace(s.Tables) + "\n\n" + s.End + after, nil
}

func (r *report) markdown() string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s\n\n%d rounds of %v a peer and load, %d requests in flight; medians, ± half the range.\n\n",
		r.machine, r.plan.Rounds, r.plan.Measure, clients)
	w.WriteString("### CPU microseconds a request\n\n")
	r.writeOverview(&w)
	w.WriteString("\n### Start, idle memory, idle tunnels\n\n")
	r.writeBeginnings(&w)
	w.WriteString("\n### Bars\n\n")
	for _, bar := range bars(&r.results) {
		fmt.Fprintf(&w, "- %s\n", bar)
	}
	w.WriteString("\n### Every load\n\n")
	r.writeDetails(&w)
	r.writeNotes(&w)
	return w.String()
}

// row writes one line of a table.
func row(w io.Writer, cells ...string) {
	fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
}

// head writes the names of the columns; all but the first `left` are right-aligned.
func head(w io.Writer, left int, cells ...string) {
	row(w, cells...)
	lines := slices.Repeat([]string{"---:"}, len(cells))
	for i := range left {
		lines[i] = "---"
	}
	row(w, lines...)
}

// proxies are the peers that have a process, thus CPU and memory.
func (r *report) proxies() []*peer {
	var list []*peer
	for _, p := range r.plan.Peers {
		if p.Name != peerDirect && r.results.Missing[p.Name] == "" {
			list = append(list, p)
		}
	}
	return list
}

func (r *report) writeOverview(w io.Writer) {
	columns := []string{"load"}
	for _, p := range r.proxies() {
		columns = append(columns, p.Title)
	}
	head(w, 1, append(columns, "pillion to floor", "pillion to nginx")...)
	for _, s := range r.plan.Scenarios {
		cells := []string{s.Title}
		for _, p := range r.proxies() {
			cells = append(cells, r.cpuCell(s, p))
		}
		cells = append(cells, ratio(r.cpuTo(s.Name, peerPillion, peerFloor)), ratio(r.cpuTo(s.Name, peerPillion, peerNginx)))
		row(w, cells...)
	}
}

func (r *report) cpuTo(scenario, of, to string) float64 {
	return pairedRatio(r.results.series(scenario, of, cpuOf), r.results.series(scenario, to, cpuOf))
}

func (r *report) cpuCell(s scenario, p *peer) string {
	if p.Not[s.Name] != "" {
		return "n/a"
	}
	values := slices.Collect(maps.Values(r.results.series(s.Name, p.Name, cpuOf)))
	if len(values) == 0 {
		return "failed"
	}
	return number(median(values)) + plusMinus(spread(values))
}

func (r *report) writeBeginnings(w io.Writer) {
	head(w, 1, "", "spawn to ready, ms", "idle RSS, MiB")
	for _, p := range r.proxies() {
		first, ready, idle := r.results.beginning(p.Name)
		row(w, p.Title, number(ready), mebibytes(idle))
		if p.Name == peerPillion {
			row(w, "pillion, first start (makes its keys)", number(first), "")
		}
	}
	t := r.results.Tunnels
	switch {
	case t.Err != "":
		fmt.Fprintf(w, "\nIdle keep-alive tunnels through pillion: failed (%s).\n", oneLine(t.Err))
	case t.Count > 0:
		fmt.Fprintf(w, "\nIdle keep-alive tunnels through pillion: %d open at once, as many as it accepts (open-files limit %d, %d in use), RSS %s to %s MiB, **%s KB each**; %d of them answered a request afterwards.\n",
			t.Count, t.Limit, t.OpenFiles, mebibytes(t.Before), mebibytes(t.After), number(t.Each/1000), t.Alive)
	}
}

func (r *report) writeDetails(w io.Writer) {
	head(w, 2, "load", "", "CPU µs", "to floor", "to nginx", "requests/s", "p50 µs", "added p50 µs", "p99 µs", "RSS MiB", "peak MiB", "allocations")
	for _, s := range r.plan.Scenarios {
		for _, p := range r.plan.Peers {
			if p.Not[s.Name] != "" || r.results.Missing[p.Name] != "" {
				continue
			}
			row(w, append([]string{s.Title, p.Title}, r.details(s, p)...)...)
		}
	}
}

func (r *report) details(s scenario, p *peer) []string {
	middle := func(figure func(sample) float64) float64 {
		return median(slices.Collect(maps.Values(r.results.series(s.Name, p.Name, figure))))
	}
	p50 := func(t sample) float64 { return t.P50 }
	added := pairedDifference(r.results.series(s.Name, p.Name, p50), r.results.series(s.Name, peerDirect, p50))
	if p.Name == peerDirect || s.Rate == 0 { // in a closed loop the machine is full, and waiting for a core is not the proxy's own time
		added = math.NaN()
	}
	return []string{
		r.cpuCell(s, p),
		ratio(r.cpuTo(s.Name, p.Name, peerFloor)),
		ratio(r.cpuTo(s.Name, p.Name, peerNginx)),
		whole(middle(func(t sample) float64 { return t.Rate })),
		whole(middle(p50)),
		whole(added),
		whole(middle(func(t sample) float64 { return t.P99 })),
		mebibytes(middle(func(t sample) float64 { return t.RSS })),
		mebibytes(middle(func(t sample) float64 { return t.Peak })),
		number(middle(func(t sample) float64 { return t.Allocations })),
	}
}

// writeNotes says what failed and what was left out, and why.
func (r *report) writeNotes(w io.Writer) {
	var notes []string
	for _, p := range r.plan.Peers {
		if why := r.results.Missing[p.Name]; why != "" {
			notes = append(notes, fmt.Sprintf("%s was left out: %s.", p.Title, oneLine(why)))
		}
		for _, s := range r.plan.Scenarios {
			if why := p.Not[s.Name]; why != "" {
				notes = append(notes, fmt.Sprintf("%s, %s: n/a, %s.", p.Title, s.Title, why))
			}
		}
	}
	for _, s := range r.results.Samples {
		if s.Err != "" {
			notes = append(notes, fmt.Sprintf("%s, %s, round %d: failed: %s.", s.Peer, s.Scenario, s.Round, oneLine(s.Err)))
		}
	}
	if len(notes) > 0 {
		fmt.Fprintf(w, "\n- %s\n", strings.Join(notes, "\n- "))
	}
}

func oneLine(text string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", "/")
}

// number prints three digits or so: enough for what was measured, and no more.
func number(v float64) string {
	switch size := math.Abs(v); {
	case math.IsNaN(v):
		return "n/a"
	case size < 10:
		return fmt.Sprintf("%.2f", v)
	case size < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

func whole(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return fmt.Sprintf("%.0f", v)
}

func ratio(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}

func mebibytes(v float64) string {
	if math.IsNaN(v) {
		return "n/a"
	}
	return fmt.Sprintf("%.1f", v/(1<<20))
}

func plusMinus(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return fmt.Sprintf(" ± %.0f %%", 100*v)
}
