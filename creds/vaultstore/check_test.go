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
path "`+mount+`/data/team/secrets/a" { capabilities = ["read"] }`)
	c := client(t, Config{Address: vault.Addr, Mount: mount, Prefixes: []string{"team"}}, getenvToken(vault.Token(t, mount)))
	report, err := c.Examine(t.Context(), Want{Names: []string{"a", "b"}, Grants: []string{"b"}})
	if err != nil {
		t.Fatal(err)
	}
	if report.Name != "token" || !slices.Equal(report.Policies, []string{"default", mount}) || report.Ahead.Abs() > 2*time.Second {
		t.Errorf("%+v", report)
	}
	missing := []string{"read " + mount + "/data/team/grants/b", "read " + mount + "/data/team/secrets/b", "read " + mount + "/data/team/sweep"}
	if got := paths(report.Missing); !slices.Equal(got, missing) {
		t.Errorf("missing %q", got)
	}
	if got := paths(report.Excess); !slices.Equal(got, []string{"update " + mount + "/data/team/credentials/" + notListed}) {
		t.Errorf("excess %q", got)
	}
}
