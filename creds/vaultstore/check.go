package vaultstore

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Report is what Vault says of our login, for an administrator.
type Report struct {
	Name     string   // the display name of the login
	Policies []string // sorted
	Expires  time.Time
	// Ahead is Vault's clock minus ours, to about a second.
	Ahead time.Duration
	// Missing are paths that the configuration needs and the policies deny, and
	// Excess those that they allow and nothing asks for.
	Missing, Excess []Gap
}

// Gap is one path, as policies name it, and a capability.
type Gap struct{ Path, Capability, Why string }

// Want is what a configuration needs of a policy. Names are credentials; WithList
// says that all are used, so that they must be listed; Grants are those whose
// client secrets are read.
type Want struct {
	Names    []string
	WithList bool
	Grants   []string
}

// Examine logs in, looks at the mount, and asks path by path what the login may do.
func (c *Client) Examine(ctx context.Context, want Want) (Report, error) {
	if err := c.checkMount(ctx); err != nil {
		return Report{}, err
	}
	report := Report{Expires: c.Session().Expires}
	if now, ok := c.clock.read(time.Minute); ok {
		report.Ahead = time.Until(now)
	}
	c.describeLogin(ctx, &report)
	needs, excess := c.needs(want)
	have, err := c.capabilities(ctx, append(slices.Clone(needs), excess...))
	if err != nil {
		return report, err
	}
	for _, g := range needs {
		if !allows(have[g.Path], g.Capability) {
			report.Missing = append(report.Missing, g)
		}
	}
	for _, g := range excess {
		if allows(have[g.Path], g.Capability) {
			report.Excess = append(report.Excess, g)
		}
	}
	return report, nil
}

func allows(have []string, capability string) bool {
	return slices.Contains(have, capability) || slices.Contains(have, "root")
}

func (c *Client) describeLogin(ctx context.Context, report *Report) {
	a, err := c.call(ctx, request{operation: "login", method: "GET", path: "auth/token/lookup-self"})
	var result struct {
		Data struct {
			Name     string   `json:"display_name"`
			Policies []string `json:"policies"`
			Identity []string `json:"identity_policies"`
		} `json:"data"`
	}
	if err == nil && a.decode(&result) == nil {
		report.Name = result.Data.Name
		report.Policies = append(result.Data.Policies, result.Data.Identity...)
		slices.Sort(report.Policies)
	}
}

// notListed is a name that no configuration has: what is allowed on it is allowed
// on every credential.
const notListed = "a-credential-that-the-configuration-does-not-name"

// needs returns what want asks of the policies, and what it does not.
func (c *Client) needs(want Want) (needs, excess []Gap) {
	for _, prefix := range c.config.Prefixes {
		s := c.Store(prefix)
		need := func(list *[]Gap, tree, key, capability, why string) {
			path, err := s.api(tree, key)
			if err == nil {
				if strings.HasSuffix(key, "/") {
					path += "/"
				}
				*list = append(*list, Gap{path, capability, why})
			}
		}
		need(&needs, "data", "index", "read", "every poll reads it")
		need(&needs, "data", "sweep", "read", "it tells when the index was repaired last")
		if want.WithList {
			need(&needs, "metadata", "credentials/", "list", "store.credentials names none, so all are used")
		}
		for _, name := range want.Names {
			need(&needs, "data", "credentials/"+name, "read", "the credential itself")
			need(&needs, "data", "secrets/"+name, "read", "its secrets")
		}
		for _, name := range want.Grants {
			need(&needs, "data", "grants/"+name, "read", "its client secret, with which this pillion gets tokens")
		}
		if !want.WithList {
			need(&excess, "data", "secrets/"+notListed, "read", "store.credentials does not name all credentials, and the policy shows the secrets of all")
		}
		need(&excess, "data", "secrets/"+notListed, "update", "a sidecar never writes secrets")
		need(&excess, "data", "credentials/"+notListed, "update", "a sidecar never writes credentials")
		need(&excess, "metadata", "credentials/"+notListed, "delete", "a sidecar never deletes credentials")
	}
	return needs, excess
}

// capabilities asks for all paths at once.
func (c *Client) capabilities(ctx context.Context, gaps []Gap) (map[string][]string, error) {
	var paths []string
	for _, g := range gaps {
		paths = append(paths, g.Path)
	}
	slices.Sort(paths)
	a, err := c.call(ctx, request{
		operation: "capabilities", method: "POST", path: "sys/capabilities-self",
		body: map[string][]string{"paths": slices.Compact(paths)},
	})
	if err != nil {
		return nil, err
	}
	var result struct {
		Data map[string]any `json:"data"`
	}
	if a.decode(&result) != nil {
		return nil, c.problem(NotVault, "answers in a way that no Vault does: correct store.vault.address or VAULT_ADDR")
	}
	have := map[string][]string{}
	for path, list := range result.Data {
		values, _ := list.([]any)
		for _, v := range values {
			if text, ok := v.(string); ok {
				have[path] = append(have[path], text)
			}
		}
	}
	return have, nil
}
