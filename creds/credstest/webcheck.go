package credstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ValidateHTML returns what html-validate has against HTML files, each whole pages; ""
// when nothing.
func ValidateHTML(t testing.TB, files ...string) string {
	t.Helper()
	dir := webcheck(t)
	command := exec.Command("node", append([]string{filepath.Join(dir, "node_modules/html-validate/bin/html-validate.mjs"), "--formatter", "text"}, files...)...)
	command.Dir = dir
	output, err := command.CombinedOutput()
	if err == nil {
		return ""
	}
	return strings.TrimSpace(string(output)) + "\n" + err.Error()
}

func webcheck(t testing.TB) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s: %v", program, err)
		}
	}
	dir, err := prepared("npm.sh", "creds/credstest/webcheck")
	if err != nil {
		t.Fatalf("installing what examines pages: %v", err)
	}
	return dir
}

// Screenshots returns the directory that the tests keep pictures in, made if need be.
func Screenshots(t testing.TB) string {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, ".test", "screenshots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
