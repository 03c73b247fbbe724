//go:build !race

package token

// modelSteps is within how many steps TestModel's faults happen.
const modelSteps = 6
