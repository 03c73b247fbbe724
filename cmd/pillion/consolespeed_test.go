package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"pillion/creds"
)

// Over Vault, too, the first page of 1,000 credentials is small, and there at once when
// somebody comes back to it; and what a policy hides from then on is not shown.
func TestThousandCredentialsOverVault(t *testing.T) {
	r := newReplicas(t)
	var names []string
	revisions := map[string]string{}
	for i := range 1000 {
		name := fmt.Sprintf("credential-number-%04d", i)
		names, revisions[name] = append(names, name), "1.00000000"
	}
	put := func(key string, record any) {
		text, err := json.Marshal(record)
		if err == nil {
			_, err = r.store.CAS(t.Context(), key, creds.NewSecret(string(text)), 0)
		}
		if err != nil {
			t.Error(err)
		}
	}
	creds.InParallel(names, func(name string) {
		put(creds.KeyCredentials+name, map[string]any{
			"schema": "1.0", "name": name, "protocol": "https", "url": "https://" + name + ".customers.example/api/", "authorization": "oauth2-client-credentials",
			"client_id": "pillion", "access_token_url": "https://login.example/token", "secrets": map[string]string{"client_secret": "0123456789abcdef"},
		})
	})
	put(creds.KeyIndex, map[string]any{"schema": "1.0", "revisions": revisions})
	r.alone.Store(true) // each replica keeps a list of its own
	anna := r.person()
	begin := time.Now()
	anna.logIn(url.Values{"way": {"token"}, "token": {r.vault.Token(t, r.policyFor(""))}})
	cold := time.Since(begin)

	page := func() (took time.Duration, body string) {
		begin := time.Now()
		_, body = anna.get(r.url + "/")
		return time.Since(begin), body
	}
	const atOnce = 500 * time.Millisecond // 50 ms on a machine that has nothing else to do
	best, body := page()
	for try := 1; try < 5 || try < 50 && best > atOnce; try++ {
		warm, _ := page()
		best = min(best, warm)
	}
	if !strings.Contains(body, "1000 credentials") || !strings.Contains(body, "credential-number-0029") {
		t.Errorf("the page has %d bytes, and not what it should", len(body))
	}
	t.Logf("the first page comes after %v, and after %v with the login before it; it weighs %d bytes", best, cold, len(body))
	if best > atOnce {
		t.Errorf("the first page comes after %v", best)
	}
	if len(body) > 50<<10 { // with its assets 60 KiB
		t.Errorf("the first page weighs %d bytes", len(body))
	}

	// The policy is all that counts, whatever was shown before.
	rules := shippedPolicy(t, "console", r.mount, "") + "\n" + `path "` + r.mount + `/data/credentials/credential-number-0001" { capabilities = ["deny"] }`
	r.vault.Policy(t, r.policyFor(""), rules)
	if _, body = page(); strings.Contains(body, "number-0001") || !strings.Contains(body, "1 more credential that your login may not read") {
		t.Error("after the policy was changed the page shows what it must not")
	}
}
