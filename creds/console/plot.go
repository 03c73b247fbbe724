package console

import (
	"fmt"
	"slices"
	"strings"
)

// plot is a small chart of the last hour, one bar a minute. It is drawn here, so
// that it needs no script; its figures stand beside it in words, for who cannot see it.
type plot struct {
	Title, Summary, Class string
	Width, Height         int
	Path                  string // the bars
	Top                   int    // of the scale
}

const (
	plotWidth  = 300 // 60 bars of 5
	plotHeight = 60
)

func plots(minutes []Minute) []plot {
	var requests, errors []int
	for _, m := range minutes {
		requests, errors = append(requests, m.Requests), append(errors, m.Errors)
	}
	top := max(1, maxOf(requests))
	return []plot{
		newPlot("Requests", "good", "request", requests, top),
		newPlot("Refused or failed", "bad", "failure", errors, max(1, maxOf(errors))),
	}
}

func maxOf(values []int) int {
	if len(values) == 0 {
		return 0
	}
	return slices.Max(values)
}

func newPlot(title, class, unit string, values []int, top int) plot {
	var path strings.Builder
	sum := 0
	for i, v := range values {
		sum += v
		if v == 0 {
			continue
		}
		height := max(1, v*plotHeight/top)
		fmt.Fprintf(&path, "M%d %dh4v%dh-4z", i*plotWidth/max(60, len(values)), plotHeight-height, height)
	}
	return plot{
		Title: title, Class: class, Width: plotWidth, Height: plotHeight, Path: path.String(), Top: top,
		Summary: fmt.Sprintf("%s in the last hour, %d at most in a minute", countWords(sum, unit), maxOf(values)),
	}
}
