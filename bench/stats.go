package main

import (
	"math"
	"slices"
	"time"
)

// median is the middle of the values that are numbers; NaN (not measured, does not apply) is left out, and is the answer when nothing is left.
func median(values []float64) float64 {
	sorted := numbers(values)
	if len(sorted) == 0 {
		return math.NaN()
	}
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// spread is half the distance between the smallest and the largest value as a part of the median: what "±" shows in the table.
// It is the honest figure for a handful of rounds, where a standard deviation would pretend to know a distribution.
func spread(values []float64) float64 {
	sorted := numbers(values)
	middle := median(values)
	if len(sorted) < 2 || middle == 0 {
		return math.NaN()
	}
	return (sorted[len(sorted)-1] - sorted[0]) / 2 / middle
}

// numbers returns the values that are not NaN, sorted.
func numbers(values []float64) []float64 {
	sorted := make([]float64, 0, len(values))
	for _, v := range values {
		if !math.IsNaN(v) {
			sorted = append(sorted, v)
		}
	}
	slices.Sort(sorted)
	return sorted
}

// quantile is the nearest-rank quantile of sorted latencies: always a value that was seen, never one between two.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// pairedRatio is the median, over the rounds that both have, of the ratio within one round.
// Both halves of a ratio were measured seconds apart, so a machine that slows down between rounds does not move it.
func pairedRatio(of, to map[int]float64) float64 {
	return median(paired(of, to, func(a, b float64) float64 {
		if b == 0 {
			return math.NaN()
		}
		return a / b
	}))
}

// pairedDifference is the median, over the rounds that both have, of the difference within one round.
func pairedDifference(of, to map[int]float64) float64 {
	return median(paired(of, to, func(a, b float64) float64 { return a - b }))
}

func paired(of, to map[int]float64, combine func(a, b float64) float64) []float64 {
	var combined []float64
	for round, a := range of {
		if b, ok := to[round]; ok {
			combined = append(combined, combine(a, b))
		}
	}
	return combined
}
