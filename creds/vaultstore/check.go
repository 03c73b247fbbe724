package vaultstore

import (
	"context"
	"path"
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
// says that all are used, so that they must be listed. Tokens are those of them
// that have an access token, and Refreshes says that this pillion gets it itself,
// and for others: then it needs their grants, and otherwise must not see them.
type Want struct {
	Names     []string
	WithList  bool
	Tokens    []string
	Refreshes bool
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
	told := map[string]bool{}
	for _, g := range excess { // what is open for all is not told once more for each
		if folder := path.Dir(g.Path) + " " + g.Capability; allows(have[g.Path], g.Capability) && !told[folder] {
			report.Excess = append(report.Excess, g)
			told[folder] = path.Base(g.Path) == notListed
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

// gaps collects paths below one prefix.
type gaps struct {
	store *Store
	all   []Gap
}

func (g *gaps) add(tree, key, why string, capabilities ...string) {
	path, err := g.store.api(tree, key)
	if err != nil {
		return
	}
	if strings.HasSuffix(key, "/") {
		path += "/" // as policies name it
	}
	for _, capability := range capabilities {
		g.all = append(g.all, Gap{path, capability, why})
	}
}

// needs returns what want asks of the policies, and what it does not.
func (c *Client) needs(want Want) (needs, excess []Gap) {
	for _, prefix := range c.config.Prefixes {
		n, e := gaps{store: c.Store(prefix)}, gaps{store: c.Store(prefix)}
		want.reading(&n, &e)
		want.refreshing(&n, &e)
		needs, excess = append(needs, n.all...), append(excess, e.all...)
	}
	return needs, excess
}

// reading is what every pillion needs, and none.
func (w Want) reading(needs, excess *gaps) {
	needs.add("data", "index", "every poll reads it", "read")
	needs.add("data", "sweep", "it tells when the index was repaired last", "read")
	if w.WithList {
		needs.add("metadata", "credentials/", "store.credentials names none, so all are used", "list")
	}
	for _, name := range w.Names {
		needs.add("data", "credentials/"+name, "the credential itself", "read")
		needs.add("data", "secrets/"+name, "its secrets", "read")
	}
	if !w.WithList {
		excess.add("data", "secrets/"+notListed, "store.credentials does not name all credentials, and the policy shows the secrets of all", "read")
	}
	excess.add("data", "secrets/"+notListed, "pillion run never writes secrets", "update")
	excess.add("data", "credentials/"+notListed, "pillion run never writes credentials", "update")
	excess.add("metadata", "credentials/"+notListed, "pillion run never deletes credentials", "delete")
}

// refreshing is what tokens need. Client secrets and refresh tokens are for those
// who get tokens, and for nobody else.
func (w Want) refreshing(needs, excess *gaps) {
	if w.Refreshes {
		needs.add("metadata", "requests/", "what sidecars and people ask of a refresher", "list")
		if !w.WithList {
			excess.add("data", "grants/"+notListed, "store.credentials does not name all credentials, and the policy shows the client secrets of all", "read")
		}
		for _, name := range w.Tokens {
			needs.add("data", "grants/"+name, "its client secret and refresh token, since refresher.enabled is on here", "read", "update")
			needs.add("data", "tokens/"+name, "its access token, which this pillion keeps for all", "read", "create", "update")
			needs.add("data", "requests/"+name, "what is asked of a refresher, and the answer", "read", "update")
			needs.add("data", "states/"+name, "how its token stands, for people", "read", "create", "update")
		}
		return
	}
	for _, name := range w.Tokens {
		needs.add("data", "tokens/"+name, "its access token, which a refresher keeps", "read")
		needs.add("data", "requests/"+name, "the bell of the refreshers", "create", "patch")
	}
	for _, name := range append([]string{notListed}, w.Tokens...) {
		const why = "client secrets and refresh tokens are for refreshers, and refresher.enabled is off here"
		excess.add("data", "grants/"+name, why, "read", "update")
	}
	excess.add("data", "tokens/"+notListed, "access tokens are kept by refreshers, and refresher.enabled is off here", "update")
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
