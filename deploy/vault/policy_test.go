// Package vault_test holds the policies of this directory to what they promise,
// against a real Vault.
package vault_test

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"pillion/creds/credstest"
)

// documented returns the table of README.md, line by line.
func documented(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```\npath ")
	table, _, closed := strings.Cut(rest, "\n```")
	if !found || !closed {
		t.Fatal("README.md has no table of paths")
	}
	return strings.Split(table, "\n")[1:]
}

var roles = []string{"sidecar", "refresher", "console"}

func TestPoliciesAllowWhatIsDocumentedAndNothingElse(t *testing.T) {
	v := credstest.StartVault(t)
	v.MountAt(t, "pillion")
	tokens := map[string]string{}
	for _, role := range roles {
		tokens[role] = tokenFor(t, v, "pillion-"+role, rules(t, nil, role))
	}
	asked := 0
	for _, line := range documented(t) {
		fields := strings.Fields(line)
		if len(fields) != 4 {
			t.Fatalf("the table has the line %q", line)
		}
		for i, role := range roles {
			for _, verb := range "crupld" {
				if verb == 'l' && !listable(fields[0]) || verb != 'l' && fields[0] == "metadata" {
					continue
				}
				allowed := strings.ContainsRune(fields[i+1], verb)
				status := try(t, v, tokens[role], "pillion", fields[0], verb)
				if allowed && status >= 300 {
					t.Errorf("%s may %c on %s, and Vault answers %d", role, verb, fields[0], status)
				}
				if !allowed && status != http.StatusForbidden {
					t.Errorf("%s must not %c on %s, and Vault answers %d", role, verb, fields[0], status)
				}
				asked++
			}
		}
	}
	if asked < 400 {
		t.Errorf("only %d questions were asked", asked)
	}
}

func listable(path string) bool {
	return strings.HasPrefix(path, "metadata") && strings.Count(path, "/") < 2 && path != "metadata/index" && path != "metadata/sweep"
}

// try prepares what the verb needs, does it with the token, and returns the status.
func try(t *testing.T, v *credstest.Vault, token, mount, path string, verb rune) int {
	t.Helper()
	tree, key, _ := strings.Cut(path, "/")
	at := mount + "/" + path
	record := func(version int) map[string]any {
		if tree == "data" {
			return map[string]any{"data": map[string]any{"a": 1}, "options": map[string]int{"cas": version}}
		}
		return map[string]any{"custom_metadata": map[string]string{"written_by": "somebody"}, "versions": []int{1}}
	}
	if key != "" { // a record of one version, or for create none
		v.Do(t, v.Root, http.MethodDelete, mount+"/metadata/"+key, nil)
		isFolder := tree == "metadata" && listable(path)
		if isFolder {
			key += "/jira"
			v.Do(t, v.Root, http.MethodDelete, mount+"/metadata/"+key, nil)
		}
		if verb != 'c' {
			v.Write(t, mount+"/data/"+key, map[string]any{"data": map[string]any{"b": 1}, "options": map[string]int{"cas": 0}})
		}
	}
	switch verb {
	case 'c':
		return v.Do(t, token, http.MethodPost, at, record(0)).Status
	case 'r':
		return v.Do(t, token, http.MethodGet, at, nil).Status
	case 'u':
		return v.Do(t, token, http.MethodPost, at, record(1)).Status
	case 'p':
		return v.Do(t, token, http.MethodPatch, at, record(1)).Status
	case 'l':
		return v.Do(t, token, "LIST", at, nil).Status
	default:
		return v.Do(t, token, http.MethodDelete, at, nil).Status
	}
}

func TestPoliciesReachNothingElseInVault(t *testing.T) {
	v := credstest.StartVault(t)
	v.MountAt(t, "pillion")
	v.MountAt(t, "pillion-2")
	v.MountAt(t, "kv")
	for _, role := range roles {
		token := tokenFor(t, v, "pillion-"+role, rules(t, nil, role))
		for _, path := range []string{"sys/mounts", "sys/policies/acl/pillion-console", "sys/auth", "auth/token/accessors", "identity/entity/id"} {
			if status := v.Do(t, token, http.MethodGet, path, nil).Status; status != http.StatusForbidden {
				t.Errorf("%s reads %s: %d", role, path, status)
			}
		}
		for _, mount := range []string{"kv", "pillion-2"} {
			if status := try(t, v, token, mount, "data/credentials/jira", 'r'); status != http.StatusForbidden {
				t.Errorf("%s reads the mount %s: %d", role, mount, status)
			}
		}
		if status := v.Do(t, token, http.MethodPost, "auth/token/create", map[string]any{}).Status; status != http.StatusForbidden {
			t.Errorf("%s makes tokens: %d", role, status)
		}
		if status := v.Do(t, token, http.MethodGet, "auth/token/lookup-self", nil).Status; status != http.StatusOK {
			t.Errorf("%s looks at its own token: %d", role, status)
		}
		ask := map[string]any{"paths": []string{"pillion/data/index"}}
		if status := v.Do(t, token, http.MethodPost, "sys/capabilities-self", ask).Status; status != http.StatusOK {
			t.Errorf("%s asks what it may do: %d", role, status)
		}
		rights := http.StatusForbidden
		if role == "console" {
			rights = http.StatusOK
		}
		if status := v.Do(t, token, http.MethodGet, "sys/internal/ui/resultant-acl", nil).Status; status != rights {
			t.Errorf("%s asks for all that it may do: %d", role, status)
		}
	}
}

func TestAPolicyForSomeNamesOpensNoOther(t *testing.T) {
	v := credstest.StartVault(t)
	v.MountAt(t, "pillion")
	for _, role := range roles {
		token := tokenFor(t, v, "some-"+role, rules(t, nil, role, "jira", "servicenow"))
		for _, row := range []struct {
			path    string
			allowed bool
		}{
			{"data/credentials/jira", true}, {"data/credentials/servicenow", true}, {"data/index", true},
			{"data/credentials/jira-2", false}, {"data/credentials/bmc", false}, {"data/credentials/jira/x", false},
		} {
			if status := try(t, v, token, "pillion", row.path, 'r'); (status == http.StatusOK) != row.allowed {
				t.Errorf("%s for jira and servicenow reads %s: %d", role, row.path, status)
			}
		}
	}
}

func TestAPolicyForAPrefixOpensNoOther(t *testing.T) {
	v := credstest.StartVault(t)
	v.MountAt(t, "kv-tools")
	for _, role := range roles {
		token := tokenFor(t, v, "team-"+role, rules(t, []string{"MOUNT=kv-tools", "PREFIX=team-a"}, role))
		for _, row := range []struct {
			path    string
			allowed bool
		}{
			{"data/team-a/credentials/jira", true}, {"data/team-a/index", true},
			{"data/credentials/jira", false}, {"data/team-b/credentials/jira", false}, {"data/index", false},
			{"data/team-a-2/credentials/jira", false},
		} {
			if status := try(t, v, token, "kv-tools", row.path, 'r'); (status == http.StatusOK) != row.allowed {
				t.Errorf("%s for team-a reads %s: %d", role, row.path, status)
			}
		}
	}
}

func TestPolicyScriptRefusesNamesThatOpenMore(t *testing.T) {
	for _, name := range []string{"*", "a*", "+", "a/../b", `a" {}`, "", "a\nb", "/a", "a/"} {
		if out, err := exec.Command("./policy.sh", "sidecar", name).Output(); err == nil {
			t.Errorf("the name %q is taken: %s", name, out)
		}
	}
	if out, err := exec.Command("./policy.sh", "root").CombinedOutput(); err == nil || !strings.Contains(string(out), "sidecar, refresher or console") {
		t.Errorf("an unknown role: %v %s", err, out)
	}
}

// rules runs policy.sh.
func rules(t *testing.T, environment []string, args ...string) string {
	t.Helper()
	if _, err := os.ReadDir("."); err != nil { // a result is kept until these change
		t.Fatal(err)
	}
	cmd := exec.Command("./policy.sh", args...)
	cmd.Env = append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("policy.sh %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// tokenFor returns a token that has this policy and not even the default one, so
// that the policy alone is what allows.
func tokenFor(t *testing.T, v *credstest.Vault, name, rules string) string {
	t.Helper()
	v.Policy(t, name, rules)
	answer := v.Write(t, "auth/token/create-orphan", map[string]any{"policies": []string{name}, "no_default_policy": true})
	token, _ := answer.Auth()["client_token"].(string)
	if token == "" {
		t.Fatal("Vault gives no token")
	}
	return token
}
