package main

import (
	"fmt"
	"html"
	"maps"
	"math"
	"slices"
	"strings"
)

// The plot: one panel a load, one bar a peer, two panels a row. Its colours follow the reader's scheme; the background is the page's.
const (
	panelWidth, panelGap = 400, 30
	barHeight, barStep   = 14, 19
	labelWidth           = 92
	barRoom              = 215 // the longest bar; behind it stands its value
	titleHeight          = 30
	topHeight            = 62
	clipAt               = 6 // bars longer than this many times the median bar are cut, or goproxy would hide all else
)

const plotStyle = `<style>
text { font: 12px system-ui, sans-serif; fill: #374151 }
.t { font-weight: 600; fill: #111827 } .h { font-size: 16px }
.b { fill: #94a3b8 } .p { fill: #c2410c } .v { font-variant-numeric: tabular-nums } .cut { stroke: #ffffff; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
text { fill: #cbd5e1 } .t { fill: #f1f5f9 } .b { fill: #64748b } .p { fill: #fb923c } .cut { stroke: #0d1117 }
}
</style>
`

// plotted is one bar.
type plotted struct {
	Peer  string
	Value float64
}

// panel is the bars of one load.
type panel struct {
	Title string
	Bars  []plotted
}

// plot draws CPU microseconds a request.
func (r *report) plot() string {
	var panels []panel
	for _, s := range r.plan.Scenarios {
		if s.Rate == 0 {
			panels = append(panels, panel{s.Title, r.bars(s)})
		}
	}
	return drawPlot("CPU microseconds a request (less is better)", r.machine, r.plan.Rounds, panels)
}

func drawPlot(title string, m machine, rounds int, panels []panel) string {
	rows := 0
	for _, p := range panels {
		rows = max(rows, len(p.Bars))
	}
	panelHeight := titleHeight + rows*barStep + 16
	width := 2*panelWidth + panelGap
	height := topHeight + (len(panels)+1)/2*panelHeight
	var w strings.Builder
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="%[3]s">`+"\n", width, height, html.EscapeString(title))
	w.WriteString(plotStyle)
	fmt.Fprintf(&w, `<text class="t h" x="0" y="20">%s</text>`+"\n", html.EscapeString(title))
	fmt.Fprintf(&w, `<text x="0" y="42">%s, %d cores, %s; medians of %d rounds; cut bars are longer than there is room for</text>`+"\n",
		html.EscapeString(m.CPU), m.Cores, m.Date.UTC().Format("2006-01-02"), rounds)
	for i, p := range panels {
		x, y := i%2*(panelWidth+panelGap), topHeight+i/2*panelHeight
		drawPanel(&w, x, y, p.Title, p.Bars)
	}
	w.WriteString("</svg>\n")
	return w.String()
}

func (r *report) bars(s scenario) []plotted {
	var bars []plotted
	for _, p := range r.proxies() {
		value := median(slices.Collect(maps.Values(r.results.series(s.Name, p.Name, cpuOf))))
		bars = append(bars, plotted{p.Name, value})
	}
	return bars
}

func drawPanel(w *strings.Builder, x, y int, title string, bars []plotted) {
	fmt.Fprintf(w, `<text class="t" x="%d" y="%d">%s</text>`+"\n", x, y+18, html.EscapeString(title))
	longest := fullBar(bars)
	for i, b := range bars {
		top := y + titleHeight + i*barStep
		class := "b"
		if b.Peer == peerPillion {
			class = "p"
		}
		fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="end">%s</text>`, x+labelWidth-8, top+11, b.Peer)
		length := 0.0
		if !math.IsNaN(b.Value) && longest > 0 {
			length = min(b.Value/longest, 1) * barRoom
			fmt.Fprintf(w, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, class, x+labelWidth, top, length, barHeight)
		}
		if b.Value > longest {
			at := float64(x+labelWidth) + length - 18
			fmt.Fprintf(w, `<path class="cut" d="M%.0f %d l6 -%d"/>`, at, top+barHeight+1, barHeight+2)
		}
		fmt.Fprintf(w, `<text class="v" x="%.0f" y="%d">%s</text>`+"\n", float64(x+labelWidth)+length+6, top+11, number(b.Value))
	}
}

// fullBar is the value of the longest bar that is drawn whole.
func fullBar(bars []plotted) float64 {
	var values []float64
	for _, b := range bars {
		values = append(values, b.Value)
	}
	limit, longest := clipAt*median(values), 0.0
	for _, v := range numbers(values) {
		if v <= limit {
			longest = v
		}
	}
	return longest
}
