package credstest

import "os"

// Often is how many times a test repeats what chance has a part in: n times where
// PILLION_SOAK is set, and otherwise a quarter of it. The pattern of `make soak` names
// the test.
func Often(n int) int {
	if os.Getenv("PILLION_SOAK") != "" {
		return n
	}
	return max(1, n/4)
}
