// Package systemd_test holds the unit to what it promises, by systemd's own tools.
package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pillion/creds/credstest"
)

// mostExposure is in tenths, as systemd-analyze counts: 0 is a service that can do
// nothing, 100 one without any bounds.
const mostExposure = "20"

func TestUnitIsHardened(t *testing.T) {
	credstest.Need(t, "systemd-analyze")
	output, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+mostExposure, "pillion.service").CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	t.Log(lines[len(lines)-1])
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// Every directive is known, and has a value that makes sense.
func TestUnitIsValid(t *testing.T) {
	credstest.Need(t, "systemd-analyze")
	unit, err := os.ReadFile("pillion.service")
	if err != nil {
		t.Fatal(err)
	}
	const program = "ExecStart=/usr/local/bin/pillion "
	if !strings.Contains(string(unit), program) {
		t.Fatalf("there is no %s", program)
	}
	// It is not installed here, and verify wants to see it.
	file := filepath.Join(t.TempDir(), "pillion.service")
	if err := os.WriteFile(file, []byte(strings.Replace(string(unit), program, "ExecStart=/bin/true ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	// Of this unit alone: others of this machine are not ours to judge.
	output, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", file).CombinedOutput()
	if err != nil || strings.Contains(string(output), "pillion.service") {
		t.Errorf("%v\n%s", err, output)
	}
}

func TestUserIsMade(t *testing.T) {
	credstest.Need(t, "systemd-sysusers")
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := filepath.Abs("pillion.sysusers.conf")
	if err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command("systemd-sysusers", "--root="+root, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	users, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !strings.HasPrefix(string(users), "pillion:x:") || !strings.Contains(string(users), ":/var/lib/pillion:") {
		t.Errorf("%v\n%s", err, users)
	}
}
