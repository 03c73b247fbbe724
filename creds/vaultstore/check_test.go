package vaultstore

import (
	"slices"
	"testing"
	"time"

	"pillion/creds/credstest"
)

func paths(gaps []Gap) []string {
	var all []string
	for _, g := range gaps {
		all = append(all, g.Capability+" "+g.Path)
	}
	slices.Sort(all)
	return all
}

func TestExamine(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	vault.Policy(t, mount, `path "`+mount+`/data/team/index" { capabilities = ["read"] }
path "`+mount+`/data/team/credentials/*" { capabilities = ["read", "update"] }
path "`+mount+`/data/team/secrets/a" { capabilities = ["read"] }
path "`+mount+`/data/team/tokens/*" { capabilities = ["read"] }
path "`+mount+`/data/team/grants/b" { capabilities = ["read"] }`)
	c := client(t, Config{Address: vault.Addr, Mount: mount, Prefixes: []string{"team"}}, getenvToken(vault.Token(t, mount)))
	report, err := c.Examine(t.Context(), Want{Names: []string{"a", "b"}, Tokens: []string{"b"}})
	if err != nil {
		t.Fatal(err)
	}
	if report.Name != "token" || !slices.Equal(report.Policies, []string{"default", mount}) || report.Ahead.Abs() > 2*time.Second {
		t.Errorf("%+v", report)
	}
	under := mount + "/data/team/"
	wants(t, "missing", report.Missing, "create "+under+"requests/b", "patch "+under+"requests/b", "read "+under+"secrets/b", "read "+under+"sweep")
	wants(t, "excess", report.Excess, "read "+under+"grants/b", "update "+under+"credentials/"+notListed)

	report, err = c.Examine(t.Context(), Want{Names: []string{"a", "b"}, Tokens: []string{"b"}, Refreshes: true})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "missing of a refresher", report.Missing, "create "+under+"states/b", "create "+under+"tokens/b", "list "+mount+"/metadata/team/requests/",
		"read "+under+"requests/b", "read "+under+"secrets/b", "read "+under+"states/b", "read "+under+"sweep",
		"update "+under+"grants/b", "update "+under+"requests/b", "update "+under+"states/b", "update "+under+"tokens/b")
	wants(t, "excess of a refresher", report.Excess, "update "+under+"credentials/"+notListed)
}

func wants(t *testing.T, what string, got []Gap, want ...string) {
	t.Helper()
	if all := paths(got); !slices.Equal(all, want) {
		t.Errorf("%s: %q, want %q", what, all, want)
	}
}

// What is open for all is told once.
func TestExamineTellsAnOpenFolderOnce(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	vault.Policy(t, mount, `path "`+mount+`/data/grants/*" { capabilities = ["read"] }`)
	c := client(t, Config{Address: vault.Addr, Mount: mount}, getenvToken(vault.Token(t, mount)))
	report, err := c.Examine(t.Context(), Want{WithList: true, Names: []string{"a", "b"}, Tokens: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "excess", report.Excess, "read "+mount+"/data/grants/"+notListed)
}

// A wrapped secret id is looked at and not used up: the login of run comes after it.
func TestExamineWrapping(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	roleID, _ := vault.AppRole(t, mount, policy)
	config := Config{Address: vault.Addr, Mount: mount, Auth: Auth{
		Method: "approle", RoleID: roleID, Wrapped: true, SecretIDFile: writeFile(t, vault.WrappedSecretID(t, mount, time.Minute)),
	}}
	for range 3 {
		until, err := client(t, config, noEnvironment).ExamineWrapping(t.Context())
		if left := time.Until(until); err != nil || left > time.Minute || left < 20*time.Second {
			t.Errorf("good for %v, %v", left, err)
		}
	}
	mustRead(t, client(t, config, noEnvironment))
	_, err := client(t, config, noEnvironment).ExamineWrapping(t.Context())
	fails(t, err, "POSSIBLE THEFT")
	rewrite(t, config.Auth.SecretIDFile, wrapped(t, vault))
	_, err = client(t, config, noEnvironment).ExamineWrapping(t.Context())
	fails(t, err, "was not made for a secret id")
}
