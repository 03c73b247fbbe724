// Package compose_test tries the files of deploy/compose.yaml against what reads
// them: the program, a real Vault, Prometheus. The compose file itself is held
// against its specification in check/.
package compose_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pillion/creds/credstest"
)

// What the containers vault-setup, credential and pillion do with one another, as
// processes: a Vault is prepared, a credential stored, and the sidecar's login reads
// it.
func TestSetUpLeadsToACredential(t *testing.T) {
	credstest.Need(t, "curl")
	v := credstest.VaultSetup{}.Start(t)
	login, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	environment := append(os.Environ(), "VAULT_ADDR="+v.Addr, "VAULT_TOKEN="+v.Root)
	for range 2 { // as a second "up" does
		run(t, environment, "./vault-setup.sh", login)
	}

	binary := filepath.Join(t.TempDir(), "pillion")
	run(t, os.Environ(), "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "../../cmd/pillion")
	config := configuration(t, login)
	run(t, environment, binary, "credential", "set", "tool", "--config", config, "--state", state,
		"--url=https://tool.example/", "--authorization=bearer", "--token-file=tool-token")
	if _, err := os.Stat(state); err == nil {
		t.Error("storing a credential in Vault wrote to the state directory, which its container has not")
	}
	// Without the operator's token it is the sidecar that asks.
	run(t, append(os.Environ(), "VAULT_ADDR="+v.Addr), binary, "check", "--online", "--config", config, "--state", state)
}

// configuration is pillion.yaml with the places of this machine.
func configuration(t *testing.T, login string) string {
	t.Helper()
	data, err := os.ReadFile("pillion.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for container, here := range map[string]string{"/run/vault-login": login, "/run/pillion/public": filepath.Join(t.TempDir(), "public")} {
		if strings.Count(text, container) != 1 {
			t.Fatalf("%s does not stand once in pillion.yaml", container)
		}
		text = strings.Replace(text, container, here, 1)
	}
	file := filepath.Join(t.TempDir(), "pillion.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPrometheusTakesItsConfiguration(t *testing.T) {
	credstest.Need(t, "promtool")
	dir := t.TempDir()
	for name, source := range map[string]string{"prometheus.yml": "prometheus.yml", "pillion.rules.yaml": "../monitoring/pillion.rules.yaml"} {
		data, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, os.Environ(), "promtool", "check", "config", filepath.Join(dir, "prometheus.yml"))
}

func run(t *testing.T, environment []string, program string, arguments ...string) {
	t.Helper()
	command := exec.Command(program, arguments...)
	command.Env = environment
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, arguments, err, output)
	}
}
