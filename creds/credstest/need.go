package credstest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Need skips the test where a program or, with a slash at its head, a file is
// missing; in continuous integration, which installs all of them (scripts/deps.sh),
// it fails.
func Need(t testing.TB, what ...string) {
	t.Helper()
	for _, what := range what {
		if what == "" {
			continue
		}
		_, err := exec.LookPath(what)
		if strings.HasPrefix(what, "/") {
			_, err = os.Stat(what)
		}
		if err != nil {
			Skip(t, what+" is not installed: `make test-deps` installs it")
		}
	}
}

// Skip skips the test for a reason, and fails it in continuous integration.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why + "; with CI=true nothing may be skipped")
	}
	t.Skip(why)
}
