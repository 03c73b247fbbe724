package main

import (
	"math"
	"testing"
	"time"
)

var nan = math.NaN()

func TestMedian(t *testing.T) {
	for _, row := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"nothing", nil, nan},
		{"one", []float64{3}, 3},
		{"odd, unsorted", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 2, 3}, 2.5},
		{"what was not measured is left out", []float64{nan, 7, nan}, 7},
		{"only what was not measured", []float64{nan}, nan},
		{"an outlier does not move it", []float64{10, 11, 9000}, 11},
	} {
		if got := median(row.values); !same(got, row.want) {
			t.Errorf("%s: median %v, want %v", row.name, got, row.want)
		}
	}
}

func TestMedianLeavesItsArgumentAlone(t *testing.T) {
	values := []float64{3, 1, 2}
	median(values)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("median reordered its argument: %v", values)
	}
}

func TestSpread(t *testing.T) {
	if got := spread([]float64{90, 100, 110}); !same(got, 0.1) {
		t.Errorf("spread of 90..110 around 100 is %v, want 0.1", got)
	}
	if got := spread([]float64{5}); !math.IsNaN(got) {
		t.Errorf("spread of one value is %v, want none", got)
	}
}

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := 1; i <= 100; i++ {
		hundred = append(hundred, time.Duration(i))
	}
	for _, row := range []struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{hundred[:1], 0.99, 1},
		{hundred, 0.50, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred, 0, 1},
		{hundred[:2], 0.5, 1},
	} {
		if got := quantile(row.sorted, row.q); got != row.want {
			t.Errorf("quantile %v of %d values: %v, want %v", row.q, len(row.sorted), got, row.want)
		}
	}
}

func TestPairedRatioUsesTheSameRound(t *testing.T) {
	// The machine halved its speed in round 2; the ratio is 2 all the same, where the ratio of medians of unlike rounds would not be.
	of := map[int]float64{1: 100, 2: 200, 3: 100, 4: 7}
	to := map[int]float64{1: 50, 2: 100, 3: 50}
	if got := pairedRatio(of, to); !same(got, 2) {
		t.Errorf("ratio %v, want 2", got)
	}
	if got := pairedRatio(of, map[int]float64{9: 1}); !math.IsNaN(got) {
		t.Errorf("ratio without a common round is %v, want none", got)
	}
	if got := pairedRatio(of, map[int]float64{1: 0}); !math.IsNaN(got) {
		t.Errorf("ratio to zero is %v, want none", got)
	}
	if got := pairedDifference(of, to); !same(got, 50) {
		t.Errorf("difference %v, want 50", got)
	}
}

func same(a, b float64) bool {
	return math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) < 1e-9
}
