package token

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// What stands between these lines of docs/tokens.md is the simulation's; all else in
// that file is prose, and kept.
const (
	scaleBegin = "<!-- scale: begin -->"
	scaleEnd   = "<!-- scale: end -->"
)

// publish writes the table and the plot into docs.
func publish(docs string, loads []load) error {
	path := filepath.Join(docs, "tokens.md")
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the page: %w", err)
	}
	before, rest, ok := strings.Cut(string(page), scaleBegin)
	_, after, ok2 := strings.Cut(rest, scaleEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines %s and %s; add them where the table belongs", path, scaleBegin, scaleEnd)
	}
	text := before + scaleBegin + "\n\n" + scaleTable(loads) + "\n" + scaleEnd + after
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // pages for everyone
		return fmt.Errorf("writing the page: %w", err)
	}
	if err := os.WriteFile(filepath.Join(docs, "tokens.svg"), []byte(scalePlot(loads)), 0o644); err != nil { //nolint:gosec // pages for everyone
		return fmt.Errorf("writing the plot: %w", err)
	}
	return nil
}

func scaleTable(loads []load) string {
	var w strings.Builder
	l := loads[0]
	fmt.Fprintf(&w, "%d credentials whose tokens live %s, %d refreshers, a request a minute from every sidecar for each credential, %s simulated after %s.\n\n",
		l.credentials, hours(scaleLife.Hours()), l.refreshers, hours(l.measured.Hours()), hours(l.warm.Hours()))
	w.WriteString("| sidecars | token calls an hour | sidecars' token reads a second | reads a sidecar and rotation | refreshers' reads a second | writes a second | worst second of a start: reads, writes | beside it: polls of the credentials a second |\n")
	w.WriteString("|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, l := range loads {
		fmt.Fprintf(&w, "| %s | %.0f | %s | %.2f | %s | %s | %s, %s | %s |\n", grouped(l.sidecars), l.perHour(l.tokenCalls),
			rate(l.perSecond(l.readerReads)), l.readsARotation(), rate(l.perSecond(l.refresherReads)),
			rate(l.perSecond(l.readerWrites+l.refresherCAS)), grouped(l.startReads), grouped(l.startWrites), rate(l.perSecond(l.pollReads)))
	}
	return w.String()
}

func hours(n float64) string {
	if n == 1 {
		return "an hour"
	}
	return fmt.Sprintf("%.0f hours", n)
}

func rate(v float64) string {
	switch {
	case v < 0.1:
		return fmt.Sprintf("%.3f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func grouped(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// The plot has logarithmic axes: the sidecars, and what they cost.
const (
	plotWidth, plotHeight = 760, 380
	plotLeft, plotRight   = 84, 110
	plotTop, plotBottom   = 60, 50
)

const scaleStyle = `<style>
text { font: 12px system-ui, sans-serif; fill: #374151 }
.t { font-weight: 600; font-size: 16px; fill: #111827 } .g { stroke: #e5e7eb }
polyline { fill: none; stroke-width: 2.5 }
.b { stroke: #c2410c } .c { stroke: #2563eb }
.lb { fill: #c2410c } .lc { fill: #2563eb }
@media (prefers-color-scheme: dark) {
text { fill: #cbd5e1 } .t { fill: #f1f5f9 } .g { stroke: #334155 }
.b { stroke: #fb923c } .c { stroke: #60a5fa } .lb { fill: #fb923c } .lc { fill: #60a5fa }
}
</style>
`

// series is a line of the plot.
type series struct {
	class, label string
	value        func(load) float64
}

func scalePlot(loads []load) string {
	lines := []series{
		{"c", "token reads", func(l load) float64 { return l.perHour(l.readerReads) }},
		{"b", "token calls", func(l load) float64 { return l.perHour(l.tokenCalls) }},
	}
	top := 0.0
	for _, l := range loads {
		for _, s := range lines {
			top = max(top, s.value(l))
		}
	}
	decades := math.Ceil(math.Log10(top))
	wide := math.Log10(float64(loads[len(loads)-1].sidecars))
	x := func(n float64) float64 { return plotLeft + math.Log10(n)/wide*(plotWidth-plotLeft-plotRight) }
	y := func(v float64) float64 {
		return plotHeight - plotBottom - math.Log10(max(v, 1))/decades*(plotHeight-plotTop-plotBottom)
	}
	var w strings.Builder
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="Token calls and token reads an hour by the number of sidecars">`+"\n", plotWidth, plotHeight)
	w.WriteString(scaleStyle)
	fmt.Fprintf(&w, `<text class="t" x="0" y="20">Token calls and token reads an hour</text>`+"\n")
	fmt.Fprintf(&w, `<text x="0" y="40">%d credentials, %d refreshers, tokens of %s; both axes are logarithmic</text>`+"\n", loads[0].credentials, loads[0].refreshers, hours(scaleLife.Hours()))
	for d := 0.0; d <= decades; d++ {
		fmt.Fprintf(&w, `<line class="g" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotLeft, plotWidth-plotRight, y(math.Pow(10, d)), y(math.Pow(10, d)), plotLeft-8, y(math.Pow(10, d))+4, grouped(int(math.Pow(10, d))))
	}
	for _, l := range loads {
		fmt.Fprintf(&w, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(float64(l.sidecars)), plotHeight-plotBottom+20, grouped(l.sidecars))
	}
	fmt.Fprintf(&w, `<text x="%d" y="%d" text-anchor="middle">sidecars</text>`+"\n", (plotLeft+plotWidth-plotRight)/2, plotHeight-8)
	for _, s := range lines {
		var points []string
		for _, l := range loads {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(float64(l.sidecars)), y(s.value(l))))
		}
		last := s.value(loads[len(loads)-1])
		fmt.Fprintf(&w, `<polyline class="%s" points="%s"/><text class="l%s" x="%d" y="%.1f">%s</text>`+"\n", s.class, strings.Join(points, " "), s.class, plotWidth-plotRight+8, y(last)+4, s.label)
	}
	w.WriteString("</svg>\n")
	return w.String()
}
