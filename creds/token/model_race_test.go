//go:build race

package token

// Smaller with the race detector, which makes a step ten times as slow: scripts/test.sh
// runs the model without it as well.
const (
	modelSteps   = 1
	modelChoices = 8
)
