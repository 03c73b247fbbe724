package creds

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// goList runs go list in the module's root and returns its lines.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e"}, args...)...)
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Fields(string(out))
}

// The domain imports the standard library, IDNA and SSH keys; and no HTTP, no
// TLS, by whatever way round.
func TestDomainImportsNothingElse(t *testing.T) {
	for _, path := range goList(t, "-f", `{{join .Imports "\n"}}`, "./creds") {
		first, _, _ := strings.Cut(path, "/")
		if strings.Contains(first, ".") && path != "golang.org/x/net/idna" && path != "golang.org/x/crypto/ssh" {
			t.Errorf("creds imports %s", path)
		}
	}
	for _, path := range goList(t, "-deps", "./creds") {
		foreign := strings.Contains(strings.Split(path, "/")[0], ".") && !strings.HasPrefix(path, "golang.org/x/")
		if foreign || path == "net/http" || path == "crypto/tls" || path == "database/sql" || path == "os/exec" {
			t.Errorf("creds depends on %s", path)
		}
	}
}

// sockets is shared by the packages that relay. It knows nothing of this program.
const sockets = "pillion/proxy/socket"

// Packages around the domain import it, and never one another: cmd alone ties
// them together. Test helpers are imported by tests only.
func TestRimPackagesDoNotImportOneAnother(t *testing.T) {
	var rim []string
	for _, path := range goList(t, "./...") {
		switch {
		case path == "pillion/creds", path == "pillion/creds/credstest", path == sockets, strings.HasPrefix(path, "pillion/cmd/"):
		default:
			rim = append(rim, path)
		}
	}
	if len(rim) < 2 {
		t.Fatalf("only %v found", rim)
	}
	for _, path := range goList(t, "-deps", sockets) {
		if path != sockets && strings.HasPrefix(path, "pillion/") {
			t.Errorf("%s depends on %s", sockets, path)
		}
	}
	for _, path := range rim {
		for _, dependency := range goList(t, "-deps", path) {
			if dependency != path && (slices.Contains(rim, dependency) || dependency == "pillion/creds/credstest") {
				t.Errorf("%s depends on %s", path, dependency)
			}
		}
	}
}
