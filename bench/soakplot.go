package main

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

// The plot of a soak: a panel a figure, time from left to right. Its style is that of the bars.
const (
	curveHeight = 130
	curveLeft   = 44 // for the scale
	curveStep   = curveHeight + titleHeight + 34
)

const curveStyle = `<style>
.c { fill: none; stroke: #c2410c; stroke-width: 1.4 } .g { stroke: #cbd5e1 } .w { fill: #94a3b8; opacity: .25 }
@media (prefers-color-scheme: dark) { .c { stroke: #fb923c } .g { stroke: #334155 } }
</style>
`

func (r *soakReport) plot() string {
	s := r.soak
	panels := append(figures(), figure{Title: "requests in flight", Unit: 1, Of: func(t soakSample) float64 { return t.InFlight }})
	const title = "pillion under a mixed load"
	width, height := 2*panelWidth+panelGap, topHeight+(len(panels)+1)/2*curveStep
	var w strings.Builder
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-label="%s">`+"\n", width, height, title)
	w.WriteString(plotStyle + curveStyle)
	fmt.Fprintf(&w, `<text class="t h" x="0" y="20">%s</text>`+"\n", title)
	fmt.Fprintf(&w, `<text x="0" y="42">%s, %d cores, %s; %v, %.0f requests a second; grey: the parts that are compared</text>`+"\n",
		html.EscapeString(r.machine.CPU), r.machine.Cores, r.machine.Date.UTC().Format("2006-01-02"), s.plan.For, float64(s.tally.total())/s.plan.For.Seconds())
	for i, f := range panels {
		drawCurve(&w, i%2*(panelWidth+panelGap), topHeight+i/2*curveStep, f, s.samples, s.plan.For)
	}
	w.WriteString("</svg>\n")
	return w.String()
}

// drawCurve draws one figure. The scale begins at 0: what is flat has to look flat, and what grows like what it is.
func drawCurve(w *strings.Builder, left, top int, f figure, samples []soakSample, d time.Duration) {
	fmt.Fprintf(w, `<text class="t" x="%d" y="%d">%s</text>`+"\n", left, top+18, html.EscapeString(f.Title))
	most := 0.0
	for _, s := range samples {
		most = max(most, f.Of(s)/f.Unit)
	}
	step := roundStep(most)
	most = math.Ceil(most/step) * step
	bottom := top + titleHeight + curveHeight
	x := func(at time.Duration) float64 {
		return float64(left+curveLeft) + at.Seconds()/d.Seconds()*(panelWidth-curveLeft)
	}
	y := func(v float64) float64 { return float64(bottom) - v/most*curveHeight }
	from, to, late := windows(d)
	for _, part := range [][2]time.Duration{{from, to}, {late, d}} {
		fmt.Fprintf(w, `<rect class="w" x="%.1f" y="%d" width="%.1f" height="%d"/>`+"\n", x(part[0]), top+titleHeight, x(part[1])-x(part[0]), curveHeight)
	}
	for v := 0.0; v <= most; v += step {
		fmt.Fprintf(w, `<path class="g" d="M%d %.1fH%d"/><text class="v" x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", left+curveLeft, y(v), left+panelWidth, left+curveLeft-6, y(v)+4, v)
	}
	fmt.Fprintf(w, `<text class="v" x="%d" y="%d">0</text><text class="v" x="%d" y="%d" text-anchor="end">%v</text>`+"\n", left+curveLeft, bottom+16, left+panelWidth, bottom+16, d)
	if len(samples) == 0 {
		return
	}
	points := make([]string, len(samples))
	for i, s := range samples {
		points[i] = fmt.Sprintf("%.1f,%.1f", x(s.At), y(f.Of(s)/f.Unit))
	}
	fmt.Fprintf(w, `<polyline class="c" points="%s"/>`+"\n", strings.Join(points, " "))
}

// roundStep is the distance between lines of a scale up to most: 1, 2 or 5 times a power of ten, so that there are two to five of them.
func roundStep(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most)))
	switch {
	case most/power > 5:
		return 2 * power
	case most/power > 2:
		return power
	default:
		return power / 2
	}
}
