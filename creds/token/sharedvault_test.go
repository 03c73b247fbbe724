package token

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/filestore"
	"pillion/creds/vaultstore"
)

// roles are the stores of one place, as each role sees it.
type roles struct {
	sidecar, refresher, console creds.Store
	bounded                     bool // the place keeps roles apart
}

// overBoth runs test over a file that several open, and over a real Vault with the
// policies of deploy/vault.
func overBoth(t *testing.T, test func(t *testing.T, at roles)) {
	t.Run("file", func(t *testing.T) {
		dir := t.TempDir()
		open := func() creds.Store {
			s, err := filestore.Open(filepath.Join(dir, "store.age"), filepath.Join(dir, "store.key"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			return s
		}
		test(t, roles{sidecar: open(), refresher: open(), console: open()})
	})
	t.Run("vault", func(t *testing.T) {
		vault := credstest.SharedVault(t)
		mount := vault.Mount(t)
		as := func(role string) creds.Store { return storeAs(t, vault, vault.Addr, mount, role) }
		test(t, roles{sidecar: as("sidecar"), refresher: as("refresher"), console: as("console"), bounded: true})
	})
}

// storeAs opens a mount with the policy of a role.
func storeAs(t *testing.T, vault *credstest.Vault, address, mount, role string) creds.Store {
	t.Helper()
	cmd := exec.Command("../../deploy/vault/policy.sh", role)
	cmd.Env = append(os.Environ(), "MOUNT="+mount)
	rules, err := cmd.Output()
	if err != nil {
		t.Fatalf("policy.sh: %v", err)
	}
	vault.Policy(t, mount+"-"+role, string(rules))
	token := vault.Token(t, mount+"-"+role)
	getenv := func(name string) string {
		if name == "VAULT_TOKEN" {
			return token
		}
		return ""
	}
	client, err := vaultstore.New(vaultstore.Config{Address: address, Mount: mount}.WithEnvironment(getenv), getenv)
	if err != nil {
		t.Fatal(err)
	}
	return client.Store("")
}

// sidecar is a process that reads: its table and its Keeper.
type sidecar struct {
	live   *creds.Live
	keeper *Keeper
}

func newSidecar(t *testing.T, store creds.Store) *sidecar {
	t.Helper()
	live := &creds.Live{Store: store, WithoutGrants: true}
	if err := live.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &sidecar{live, &Keeper{Store: live.StoreOf}}
}

func (s *sidecar) credential(t *testing.T, name string) *creds.Credential {
	t.Helper()
	c, ok := s.live.Table().ByName(name)
	if !ok {
		t.Fatalf("%s is not in the table: %v", name, s.live.Bad())
	}
	if !c.ClientSecret.IsZero() {
		t.Fatal("a sidecar has a client secret")
	}
	return c
}

func (s *sidecar) token(t *testing.T, name string) string {
	t.Helper()
	a, err := s.keeper.Authorize(t.Context(), s.credential(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return a.Token
}

// runRefresher runs one until the test ends.
func runRefresher(t *testing.T, store creds.Store, provider http.RoundTripper) *Refresher {
	t.Helper()
	live := &creds.Live{Store: store}
	if err := live.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &Refresher{
		HTTP: provider, Table: live.Table, Store: live.StoreOf, Stores: []creds.Store{store},
		Journal: t.TempDir(), Poll: 100 * time.Millisecond,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

func saveAs(t *testing.T, store creds.Store, c *creds.Credential) {
	t.Helper()
	c.Version = 0
	if err := creds.Save(t.Context(), store, c); err != nil {
		t.Fatal(err)
	}
}

func waitAnswer(t *testing.T, store creds.Store, name, id string) Report {
	t.Helper()
	for {
		report, done, err := Answer(t.Context(), store, name, id)
		if err != nil {
			t.Fatal(err)
		}
		if done {
			return report
		}
		if !pause(t.Context(), 50*time.Millisecond) {
			t.Fatal("no answer")
		}
	}
}

// The whole way over the real stores: consent, tokens for two sidecars by one token
// call, a 401, a refresh that a person asks for, an edit, a removal.
func TestSharedOverRealStores(t *testing.T) {
	overBoth(t, func(t *testing.T, at roles) {
		provider := newSimProvider(time.Hour)
		jira := provider.credential("jira", creds.AuthorizationCode)
		saveAs(t, at.console, jira)
		runRefresher(t, at.refresher, provider)
		runRefresher(t, at.refresher, provider)
		first, second := newSidecar(t, at.sidecar), newSidecar(t, at.sidecar)

		if _, err := first.keeper.Authorize(t.Context(), first.credential(t, "jira")); !errors.Is(err, creds.ErrNeedsConsent) {
			t.Errorf("before the consent: %v", err)
		}
		id, err := PutConsent(t.Context(), at.console, "jira", Consent{
			Code: creds.NewSecret(provider.consent("jira")), Verifier: creds.NewSecret("v"), RedirectURL: "http://127.0.0.1/", By: "ann",
		})
		if err != nil {
			t.Fatal(err)
		}
		if report := waitAnswer(t, at.console, "jira", id); !report.OK {
			t.Fatalf("the exchange: %+v", report)
		}
		token := second.token(t, "jira")
		if n := callsOf(provider); n != 1 {
			t.Errorf("%d token calls for the consent", n)
		}

		// 30, 33 both are refused, and one refresh serves both.
		got := make(chan string, 2)
		for _, s := range []*sidecar{second, second, newSidecar(t, at.sidecar)} {
			_ = s.token(t, "jira")
		}
		for _, s := range []*sidecar{second, newSidecar(t, at.sidecar)} {
			go func() {
				a, err := s.keeper.Refused(t.Context(), s.credential(t, "jira"), token)
				if err != nil {
					t.Error(err)
					got <- ""
					return
				}
				got <- a.Token
			}()
		}
		renewed := <-got
		if other := <-got; other != renewed || renewed == token {
			t.Errorf("after the 401: %s and %s, before %s", renewed, other, token)
		}
		if n := callsOf(provider); n != 2 {
			t.Errorf("%d token calls after one 401", n)
		}

		id, err = AskFor(t.Context(), at.console, "jira", OpRefresh, "ann")
		if err != nil {
			t.Fatal(err)
		}
		if report := waitAnswer(t, at.console, "jira", id); !report.OK || callsOf(provider) != 3 {
			t.Errorf("the refresh: %+v, %d token calls", report, callsOf(provider))
		}
		if at.bounded {
			wantBounds(t, at)
		}
		provider.mu.Lock()
		reuse, refused := provider.reuse, provider.refused
		provider.mu.Unlock()
		if reuse != 0 || refused != 0 {
			t.Errorf("%d refresh tokens came twice, %d were refused", reuse, refused)
		}

		if err := creds.Remove(t.Context(), at.console, "jira"); err != nil {
			t.Fatal(err)
		}
		if err := second.live.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, ok := second.live.Table().ByName("jira"); ok {
			t.Error("it is still there")
		}
		if _, err := at.sidecar.Get(t.Context(), creds.KeyTokens+"jira"); !errors.Is(err, creds.ErrNotFound) {
			t.Errorf("its token: %v", err)
		}
	})
}

func callsOf(p *simProvider) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// wantBounds: a sidecar holds what requests need, and can bring no code in.
func wantBounds(t *testing.T, at roles) {
	t.Helper()
	for _, key := range []string{creds.KeyGrants + "jira", creds.KeyRequests + "jira"} {
		if _, err := at.sidecar.Get(t.Context(), key); !errors.Is(err, creds.ErrStoreDenied) {
			t.Errorf("a sidecar reads %s: %v", key, err)
		}
	}
	consent := Consent{Code: creds.NewSecret("of an attacker"), Verifier: creds.NewSecret("v")}
	if _, err := PutConsent(t.Context(), at.sidecar, "jira", consent); !errors.Is(err, creds.ErrStoreDenied) {
		t.Errorf("a sidecar leaves a code: %v", err)
	}
	if _, err := at.sidecar.CAS(t.Context(), creds.KeyTokens+"jira", creds.NewSecret(`{"schema":"1.0"}`), 1); !errors.Is(err, creds.ErrStoreDenied) {
		t.Errorf("a sidecar writes a token: %v", err)
	}
	for _, key := range []string{creds.KeyTokens + "jira", creds.KeyGrants + "jira"} {
		if _, err := at.console.Get(t.Context(), key); !errors.Is(err, creds.ErrStoreDenied) {
			t.Errorf("the page reads %s: %v", key, err)
		}
	}
}

// What goes to Vault, by the requests that reach it: a sidecar's first token is two
// reads and a ring, and every one after that one read.
func TestWhatASidecarAsksOfVault(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	counted := vault.Lossy(t)
	provider := newSimProvider(4 * time.Second)
	c := provider.credential("jira", creds.ClientCredentials)
	c.AuthorizationURL = ""
	saveAs(t, storeAs(t, vault, vault.Addr, mount, "console"), c)
	runRefresher(t, storeAs(t, vault, vault.Addr, mount, "refresher"), provider)
	s := newSidecar(t, storeAs(t, vault, counted.Addr, mount, "sidecar"))
	s.token(t, "jira")
	counted.Reset()
	seen := map[string]bool{}
	for begun := time.Now(); time.Since(begun) < 8*time.Second; {
		seen[s.token(t, "jira")] = true
		pause(t.Context(), 10*time.Millisecond)
	}
	reads := counted.Count(mount + "/data/tokens/jira")
	if len(seen) < 3 || reads > len(seen)+2 {
		t.Errorf("%d reads for %d tokens", reads, len(seen))
	}
	for _, r := range counted.Requests() {
		if !strings.HasPrefix(r.Path, mount+"/data/tokens/") && !strings.Contains(r.Path, "/requests/") && r.Path != "sys/health" {
			t.Errorf("%s %s", r.Method, r.Path)
		}
	}
}

// Vault loses a fifth of its answers to writes: nobody notices.
func TestSharedOverALossyVault(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	lossy := vault.Lossy(t)
	provider := newSimProvider(3 * time.Second)
	jira := provider.credential("jira", creds.AuthorizationCode)
	console := storeAs(t, vault, vault.Addr, mount, "console")
	saveAs(t, console, jira)
	lossy.LoseShare(0.2)
	for range 2 {
		runRefresher(t, storeAs(t, vault, lossy.Addr, mount, "refresher"), provider)
	}
	id, err := PutConsent(t.Context(), console, "jira", Consent{
		Code: creds.NewSecret(provider.consent("jira")), Verifier: creds.NewSecret("v"), RedirectURL: "http://127.0.0.1/",
	})
	if err != nil {
		t.Fatal(err)
	}
	if report := waitAnswer(t, console, "jira", id); !report.OK {
		t.Fatalf("%+v", report)
	}
	s := newSidecar(t, storeAs(t, vault, lossy.Addr, mount, "sidecar"))
	seen := map[string]bool{}
	for begun := time.Now(); time.Since(begun) < 10*time.Second; {
		seen[s.token(t, "jira")] = true
		pause(t.Context(), 20*time.Millisecond)
	}
	provider.mu.Lock()
	defer provider.mu.Unlock()
	if len(seen) < 3 || provider.reuse != 0 || provider.refused != 0 {
		t.Errorf("%d tokens, %d refresh tokens came twice, %d refused; %d answers lost", len(seen), provider.reuse, provider.refused, lossy.Lost())
	}
	t.Logf("%d tokens by %d token calls, %d answers of Vault lost", len(seen), provider.calls, lossy.Lost())
}
