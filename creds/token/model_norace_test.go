//go:build !race

package token

// The bounds of TestModel.
const (
	modelSteps   = 6  // within which faults happen
	modelChoices = 10 // that are gone through where a person acts meanwhile
	wholeModel   = true
)
