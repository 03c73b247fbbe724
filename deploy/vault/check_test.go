package vault_test

import (
	"testing"

	"pillion/creds/credstest"
	"pillion/creds/vaultstore"
)

// What pillion check --online asks for is what these policies give: of a policy for
// the right role it has nothing to say, and of the refresher's in a sidecar it
// warns.
func TestCheckAgreesWithThePolicies(t *testing.T) {
	v := credstest.StartVault(t)
	v.MountAt(t, "pillion")
	names := []string{"jira", "servicenow"}
	for _, row := range []struct {
		role             string
		names            []string // of the policy
		want             vaultstore.Want
		missing, tooMany bool
	}{
		{"sidecar", nil, vaultstore.Want{WithList: true}, false, false},
		{"sidecar", names, vaultstore.Want{}, false, false},
		{"sidecar", nil, vaultstore.Want{}, false, true},
		{"sidecar", names[:1], vaultstore.Want{}, true, false},
		{"sidecar", nil, vaultstore.Want{WithList: true, Refreshes: true}, true, false},
		{"refresher", nil, vaultstore.Want{WithList: true, Refreshes: true}, false, false},
		{"refresher", names, vaultstore.Want{Refreshes: true}, false, false},
		{"refresher", nil, vaultstore.Want{Refreshes: true}, false, true},
		{"refresher", nil, vaultstore.Want{WithList: true}, false, true},
		{"refresher", names, vaultstore.Want{}, false, true},
	} {
		token := tokenFor(t, v, "checked", rules(t, nil, append([]string{row.role}, row.names...)...))
		getenv := func(name string) string { return map[string]string{"VAULT_TOKEN": token}[name] }
		client, err := vaultstore.New(vaultstore.Config{Address: v.Addr}.WithEnvironment(getenv), getenv)
		if err != nil {
			t.Fatal(err)
		}
		row.want.Names, row.want.Tokens = names, names
		report, err := client.Examine(t.Context(), row.want)
		if err != nil {
			t.Fatal(err)
		}
		if (len(report.Missing) > 0) != row.missing || (len(report.Excess) > 0) != row.tooMany {
			t.Errorf("the policy of a %s for %v, where %+v is wanted, lacks %v and allows too much: %v", row.role, row.names, row.want, report.Missing, report.Excess)
		}
	}
}
