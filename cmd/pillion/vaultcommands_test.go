package main_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pillion/creds/credstest"
)

// The commands over Vault, with the operator's own token: everything that they do
// over the embedded store, copies between the two, and check --online.
func TestVaultCommands(t *testing.T) {
	t.Parallel()
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
		`note: the policy allows read on "pillion/data/team-a/grants/`, "client secrets and refresh tokens are for refreshers",
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
	wrappedLeftToRun(t, vault, config, does, fails)
	vault.Seal(t)
	fails(vault.Root, "credential list", "is sealed: unseal it")
	vault.Unseal(t)
}

// wrappedLeftToRun: no command uses up the wrapped secret id that run needs.
func wrappedLeftToRun(t *testing.T, vault *credstest.Vault, config string, does func(token, input, arguments string, words ...string), fails func(token, arguments string, words ...string)) {
	t.Helper()
	secret := filepath.Join(filepath.Dir(config), "secret-id")
	text, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(secret, []byte(vault.WrappedSecretID(t, "sidecar", time.Hour)), 0o600)
	}
	if err == nil {
		err = os.WriteFile(config, []byte(strings.Replace(string(text), "secret_id_file: secret-id", "secret_id_file: secret-id, wrapped: true", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		does("", "", "check --online", "the wrapping token was not used yet, and is good for another ", "are not examined, since that would use the wrapping token up")
		does(vault.Root, "", "explain https://jira.example/x", "read with your own token", "credential:    jira")
		fails("", "credential list", "would use up the wrapped secret id of pillion run: set VAULT_TOKEN")
	}
	token, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	if unwrapped := vault.Do(t, string(token), http.MethodPost, "sys/wrapping/unwrap", nil); unwrapped.Data()["secret_id"] == nil {
		t.Errorf("the wrapping token was used up: status %d", unwrapped.Status)
	}
	fails("", "check --online", "POSSIBLE THEFT")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
