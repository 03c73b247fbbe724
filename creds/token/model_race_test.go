//go:build race

package token

// modelSteps is smaller with the race detector, which makes a step ten times as slow.
const modelSteps = 3
