package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pillion/creds/credstest"
)

// The commands over Vault, with the operator's own token: everything that they do
// over the embedded store, copies between the two, and check --online.
func TestVaultCommands(t *testing.T) {
	vault := credstest.StartVault(t)
	vault.MountAt(t, "pillion")
	vault.Policy(t, "sidecar", `path "pillion/data/team-a/*" { capabilities = ["read"] }
path "pillion/data/team-a/secrets/denied" { capabilities = ["deny"] }
path "pillion/metadata/team-a/credentials/" { capabilities = ["list"] }`)
	roleID, secretID := vault.AppRole(t, "sidecar", "sidecar")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret-id"), []byte(secretID), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "pillion.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `state: state
store:
  vault:
    address: %s
    prefixes: [team-a]
    auth: {method: approle, role_id: %s, secret_id_file: secret-id}
`, vault.Addr, roleID), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := buildProgram(t, ".")
	password := credstest.Canary("password").Reveal()
	pillion := func(token, input, arguments string) (string, error) {
		command := exec.Command(binary, append(strings.Fields(arguments), "--config", config)...)
		command.Env = append(plainEnvironment(t), "VAULT_TOKEN="+token)
		command.Stdin = strings.NewReader(input)
		output, err := command.CombinedOutput()
		credstest.FindCanaries(t, output)
		return string(output), err
	}
	does := func(token, input, arguments string, words ...string) {
		t.Helper()
		output, err := pillion(token, input, arguments)
		if err != nil {
			t.Errorf("pillion %s: %v\n%s", arguments, err, output)
		}
		for _, w := range words {
			if !strings.Contains(output, w) {
				t.Errorf("pillion %s does not say %q:\n%s", arguments, w, output)
			}
		}
	}
	fails := func(token, arguments string, words ...string) {
		t.Helper()
		output, err := pillion(token, "", arguments)
		if err == nil {
			t.Errorf("pillion %s works:\n%s", arguments, output)
		}
		for _, w := range words {
			if !strings.Contains(output, w) {
				t.Errorf("pillion %s does not say %q:\n%s", arguments, w, output)
			}
		}
	}

	for _, name := range []string{"jira", "denied"} {
		does(vault.Root, password, "credential set "+name+" --url https://"+name+".example/ --authorization basic --username u --password-file -", "made "+name)
	}
	does(vault.Root, "", "credential list", "jira", "denied")
	does(vault.Root, "", "credential list --prefix team-b", "no credentials")
	does(vault.Root, "", "credential get jira", "password: stored")
	fails("not-a-token", "credential list", "does not accept the token of VAULT_TOKEN")
	does("", "", "explain https://jira.example/x", "credential:    jira", "Basic [secret]")
	does("", "", "check", "not asked; --online does")
	does("", "", "check --online", "logged in as approle, policies default, sidecar", "1 credential",
		`note: the policy lacks read on "pillion/data/team-a/secrets/denied": its secrets`,
		`credential denied is skipped: is not used`)

	does(vault.Root, "", "credential import --from vault --to file", "copied 2 credentials")
	for _, name := range []string{"jira", "denied"} {
		does(vault.Root, "", "credential delete "+name+" --yes", "deleted "+name)
	}
	does(vault.Root, "", "credential list", "no credentials")
	does(vault.Root, "", "credential import --from file --to vault", "copied 2 credentials")
	does(vault.Root, "", "credential import --from file --to vault", "copied 2 credentials")
	does("", "", "explain https://jira.example/x", "credential:    jira")
	fails(vault.Root, "credential import --from vault --to vault", "write --from file --to vault")
	vault.Seal(t)
	fails(vault.Root, "credential list", "is sealed: unseal it")
	vault.Unseal(t)
}
