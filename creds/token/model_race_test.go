//go:build race

package token

// With the race detector a step takes ten times as long, and since the model takes one
// step at a time it finds nothing there but what a few paths show. scripts/test.sh runs
// the model without it as well.
const (
	modelSteps   = 1
	modelChoices = 8
	wholeModel   = false
)
