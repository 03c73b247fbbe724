package vaultstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// basic is a credential whose password is a canary.
func basic(name string) *creds.Credential {
	return &creds.Credential{
		Name: name, Protocol: creds.HTTPS, URL: "https://" + name + ".example/", Authorization: creds.Basic,
		Username: "u", Password: credstest.Canary("password"),
	}
}

func mustSave(t *testing.T, store creds.Store, all ...*creds.Credential) {
	t.Helper()
	for _, c := range all {
		if err := creds.Save(t.Context(), store, c); err != nil {
			t.Fatal(err)
		}
	}
}

// outage is a fleet's view of one Vault: a Live over real vaultstore code.
type outage struct {
	vault *credstest.Vault
	lossy *credstest.LossyVault
	admin *Store
	live  *creds.Live
	now   time.Time
}

func newOutage(t *testing.T, vault *credstest.Vault) *outage {
	t.Helper()
	mount := vault.Mount(t)
	policy := mount + "-sidecar"
	vault.Policy(t, policy, sidecarPolicy(mount))
	roleID, secretID := vault.AppRole(t, mount, policy)
	o := &outage{vault: vault, lossy: vault.Lossy(t), admin: rooted(t, vault, vault.Addr, mount), now: time.Now()}
	mustSave(t, o.admin, basic("a"), basic("b"))
	c := client(t, Config{Address: o.lossy.Addr, Mount: mount, Auth: Auth{Method: "approle", RoleID: roleID, SecretIDFile: writeFile(t, secretID)}},
		environment("VAULT_CLIENT_TIMEOUT", "500ms"))
	c.Now = func() time.Time { return o.now }
	o.live = &creds.Live{Store: c.Store(""), MaxStale: c.config.MaxStale, MaxDenied: c.config.MaxDenied, Now: c.Now}
	o.poll(t, 0)
	if o.live.Err() != nil {
		t.Fatal(o.live.Err())
	}
	return o
}

func sidecarPolicy(mount string) string {
	return strings.ReplaceAll(`path "MOUNT/data/*" { capabilities = ["read"] }
path "MOUNT/metadata/credentials/" { capabilities = ["list"] }`, "MOUNT", mount)
}

// poll polls after some time has passed, and returns its error.
func (o *outage) poll(t *testing.T, after time.Duration) error {
	t.Helper()
	o.now = o.now.Add(after)
	err := o.live.Poll(t.Context())
	if err != nil {
		credstest.FindCanaries(t, []byte(err.Error()))
		if !errors.Is(err, creds.ErrStoreUnavailable) {
			t.Errorf("%v is no ErrStoreUnavailable", err)
		}
	}
	return err
}

func (o *outage) serves(t *testing.T, when string, want bool) {
	t.Helper()
	err := o.live.StoreErr()
	if (err == nil) != want || err != nil && !errors.Is(err, creds.ErrStoreUnavailable) {
		t.Errorf("%s: %v", when, err)
	}
	if o.live.Table().Len() != 2 {
		t.Errorf("%s: %d credentials", when, o.live.Table().Len())
	}
}

// Cases 41 and 42: whatever happens to Vault, what was read last serves for a
// bounded time, each reason has its sentence, and all is well after it.
func TestAttack41And42(t *testing.T) {
	const stale, denied = 12 * time.Hour, 5 * time.Minute
	for _, c := range []struct {
		name       string
		begin, end func(*testing.T, *outage)
		limit      time.Duration
		words      string
	}{
		{"sealed", func(t *testing.T, o *outage) { o.vault.Seal(t) }, func(t *testing.T, o *outage) { o.vault.Unseal(t) }, stale, "is sealed: unseal it"},
		{"slow", func(_ *testing.T, o *outage) { o.lossy.Delay(time.Second) }, func(_ *testing.T, o *outage) { o.lossy.Delay(0) }, stale, "did not answer within 500ms"},
		{"our token and our role gone", func(t *testing.T, o *outage) {
			o.vault.Do(t, o.vault.Root, http.MethodDelete, "auth/approle/role/"+o.mount(), nil)
			o.now = o.now.Add(2 * time.Hour) // a batch token lives on without its role
		}, nil, denied, "refuses the login at auth/approle/login"},
		{"frozen", func(t *testing.T, o *outage) { o.vault.Freeze(t) }, func(t *testing.T, o *outage) { o.vault.Thaw(t) }, stale, "did not answer within 500ms"},
		{"5xx", answering(502), nil, stale, "has a problem of its own (status 502)"},
		{"quota", answering(429), nil, stale, "takes no more requests now"},
		{"something else", func(_ *testing.T, o *outage) {
			o.lossy.Answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
		}, nil, stale, "answers in a way that no Vault does"},
		{"another 404", func(_ *testing.T, o *outage) { o.lossy.Answer(http.NotFound) }, nil, stale, "is not a Vault"},
		{"policy removed", func(t *testing.T, o *outage) { o.vault.DropPolicy(t, o.mount()+"-sidecar") },
			func(t *testing.T, o *outage) { o.vault.Policy(t, o.mount()+"-sidecar", sidecarPolicy(o.mount())) }, denied, "denies the read: the policy of this login needs read on"},
		{"mount gone", func(t *testing.T, o *outage) { o.vault.Unmount(t, o.mount()) }, nil, denied, "nothing mounted at"},
		{"store emptied", func(t *testing.T, o *outage) { o.vault.Unmount(t, o.mount()); o.vault.MountAt(t, o.mount()) }, nil, denied, "the index and every credential that it named are gone"},
	} {
		t.Run("41 "+c.name, func(t *testing.T) {
			o := newOutage(t, credstest.SharedVault(t))
			forGood := c.name == "mount gone" || c.name == "store emptied" || c.name == "our token and our role gone"
			c.begin(t, o)
			if c.end == nil {
				c.end = func(_ *testing.T, o *outage) { o.lossy.Answer(nil) }
			}
			t.Cleanup(func() {
				if t.Failed() {
					c.end(t, o)
				}
			})
			err := o.poll(t, 2*time.Minute)
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v does not say %q", err, c.words)
			}
			t.Run("42 for a bounded time", func(t *testing.T) {
				o.serves(t, "at first", true)
				if since, why := o.live.Stale(); since.IsZero() || why == nil {
					t.Errorf("stale since %v, because of %v", since, why)
				}
				_ = o.poll(t, c.limit-4*time.Minute)
				o.serves(t, "within the limit", true)
				_ = o.poll(t, 5*time.Minute)
				o.serves(t, "after the limit", false)
			})
			if forGood {
				return
			}
			c.end(t, o)
			err = o.poll(t, 10*time.Second)
			for try := 1; err != nil && try < 10; try++ { // a busy Vault needs more than one to go on
				err = o.poll(t, 10*time.Second)
			}
			if err != nil {
				t.Errorf("after it: %v", err)
			}
			o.serves(t, "after it", true)
			if since, _ := o.live.Stale(); !since.IsZero() {
				t.Error("it still says stale")
			}
		})
	}
}

func (o *outage) mount() string { return o.admin.client.config.Mount }

func answering(status int) func(*testing.T, *outage) {
	return func(_ *testing.T, o *outage) {
		o.lossy.Answer(credstest.VaultError(status, "pillioncanary-not-to-be-quoted"))
	}
}

// Killed, and started again with its data: recovered at the next poll.
func TestAttack41Killed(t *testing.T) {
	t.Run("41 killed, and started again", killed)
}

func killed(t *testing.T) {
	vault := credstest.VaultSetup{Keep: true}.Start(t)
	o := newOutage(t, vault)
	vault.Kill(t)
	if err := o.poll(t, time.Minute); err == nil || !strings.Contains(err.Error(), "Vault at") {
		t.Errorf("%v", err)
	}
	o.serves(t, "killed", true)
	vault.Restart(t)
	if err := o.poll(t, 10*time.Second); err != nil {
		t.Error(err)
	}
	o.serves(t, "started again", true)
	if since, _ := o.live.Stale(); !since.IsZero() {
		t.Error("it still says stale")
	}
}

// Wrong settings, each with its own sentence; nobody takes them for an empty store.
func TestAttack41WrongSettings(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	v1 := mount + "-v1"
	vault.MountV1(t, v1)
	token := vault.Token(t, policy)
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	defer untrusted.Close()
	for _, c := range []struct {
		name, token string
		config      Config
		want        string
	}{
		{"nobody at the address", token, Config{Address: gone.URL, Mount: mount}, "cannot be reached (connection refused)"},
		{"no such name", token, Config{Address: "http://vault.invalid", Mount: mount}, "its name cannot be resolved"},
		{"no Vault", token, Config{Address: web.URL, Mount: mount}, "is not a Vault (status 404): correct store.vault.address"},
		{"a certificate of somebody else", token, Config{Address: untrusted.URL, Mount: mount}, "has a certificate of an authority that is not trusted here"},
		{"no TLS", token, Config{Address: strings.Replace(vault.Addr, "http", "https", 1), Mount: mount}, "does not speak TLS there"},
		{"missing mount", vault.Root, Config{Address: vault.Addr, Mount: "nothing-here"}, "has nothing mounted at nothing-here/"},
		{"missing mount, as a reader", token, Config{Address: vault.Addr, Mount: "nothing-here"}, "has nothing mounted at nothing-here/ that this login may see"},
		{"version 1", vault.Root, Config{Address: vault.Addr, Mount: v1}, "has KV version 1 at " + v1 + "/"},
		{"another engine", vault.Root, Config{Address: vault.Addr, Mount: "sys"}, "sys"},
		{"below the mount", vault.Root, Config{Address: vault.Addr, Mount: mount + "/team"}, "write the mount there, and what is below it into store.vault.prefixes"},
		{"a prefix of others", token, Config{Address: vault.Addr, Mount: mount, Prefixes: []string{"team-b"}}, ""},
	} {
		t.Run("41 "+c.name, func(t *testing.T) {
			cl := client(t, c.config, getenvToken(c.token))
			live := &creds.Live{Store: cl.Stores()[0]}
			err := live.Reload(t.Context())
			if c.want == "" {
				if err != nil || live.Table().Len() != 0 {
					t.Errorf("%v", err)
				}
				return
			}
			fails(t, err, c.want)
			t.Log(err)
		})
	}
}

// A policy that denies one path names it, and takes nothing else down; nor does a
// malformed record, or one of a newer schema (case 43).
func TestAttack43(t *testing.T) {
	t.Run("43 bad records among good ones", badRecords)
	t.Run("43 an empty store allows nothing", emptyStore)
}

// A store without credentials, and a list of names that are not there, are no leave
// to use others: every request then has no credential.
func emptyStore(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, policy := reader(t, vault)
	mustSave(t, client(t, Config{Address: vault.Addr, Mount: mount, Prefixes: []string{"others"}}, getenvToken(vault.Root)).Store("others"), basic("a"))
	c := client(t, Config{Address: vault.Addr, Mount: mount}, getenvToken(vault.Token(t, policy)))
	target, err := creds.ParseTarget("https://a.example/")
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{nil, {"nowhere"}} {
		live := &creds.Live{Store: c.Store(""), Names: names}
		if err := live.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := live.Table().Match(target); live.Table().Len() != 0 || err == nil {
			t.Errorf("%d credentials, %v", live.Table().Len(), err)
		}
	}
}

func badRecords(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	admin := rooted(t, vault, vault.Addr, mount)
	mustSave(t, admin, basic("a"), basic("b"), basic("c"))
	vault.Write(t, mount+"/data/credentials/malformed", map[string]any{"data": map[string]any{"schema": "1.0", "url": []string{credstest.Canary("misplaced").Reveal()}}, "options": map[string]any{"cas": 0}})
	vault.Write(t, mount+"/data/credentials/newer", map[string]any{"data": map[string]any{"schema": "2.0"}, "options": map[string]any{"cas": 0}})
	vault.Write(t, mount+"/data/credentials/unknown", map[string]any{"data": map[string]any{"schema": "1.0", "name": "unknown", "surprise": credstest.Canary("surprise").Reveal()}, "options": map[string]any{"cas": 0}})
	vault.Write(t, mount+"/data/credentials/team/nested", map[string]any{"data": map[string]any{"schema": "1.0"}, "options": map[string]any{"cas": 0}})
	policy := mount + "-one-denied"
	vault.Policy(t, policy, sidecarPolicy(mount)+`
path "`+mount+`/data/secrets/b" { capabilities = ["deny"] }`)
	live := &creds.Live{Store: client(t, Config{Address: vault.Addr, Mount: mount}, getenvToken(vault.Token(t, policy))).Store("")}
	if err := live.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if live.Table().Len() != 2 {
		t.Errorf("%d credentials", live.Table().Len())
	}
	want := map[string]string{
		"b":         `the policy of this login needs read on "` + mount + `/data/secrets/b"`,
		"malformed": `has the wrong type of value in field "url"`,
		"newer":     "was written by a newer pillion",
		"unknown":   `has an unknown field "surprise"`,
		"team/":     "has a name that no credential can have",
	}
	for _, bad := range live.Bad() {
		if want[bad.Name] == "" || !strings.Contains(bad.Problem, want[bad.Name]) {
			t.Errorf("%s: %s", bad.Name, bad.Problem)
		}
		credstest.FindCanaries(t, []byte(bad.Problem))
		delete(want, bad.Name)
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
}

// What another tool deletes without its history is gone, and can be made anew.
func TestSoftDeleted(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	store := rooted(t, vault, vault.Addr, mount)
	mustCAS(t, store, "tokens/a", `{"n":1}`, 0)
	vault.Do(t, vault.Root, "DELETE", mount+"/data/tokens/a", nil)
	if _, err := store.Get(t.Context(), "tokens/a"); !errors.Is(err, creds.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if version := mustCAS(t, store, "tokens/a", `{"n":2}`, 0); version != 2 {
		t.Errorf("version %d", version)
	}
	vault.Do(t, vault.Root, "DELETE", mount+"/data/tokens/a", nil)
	if version, err := store.Patch(t.Context(), "tokens/a", creds.NewSecret(`{"m":1,"x":null}`)); err != nil || version != 3 {
		t.Errorf("%d, %v", version, err)
	}
	record, err := store.Get(t.Context(), "tokens/a")
	if err != nil || record.Data.Reveal() != `{"m":1}` {
		t.Errorf("%s, %v", record.Data.Reveal(), err)
	}
}

// A conflict names who wrote when; the note is Vault's custom_metadata.
func TestConflictNamesTheWriter(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	vault.Policy(t, mount+"-console", `path "`+mount+`/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }`)
	vault.Userpass(t, "alice", "password", mount+"-console")
	login := vault.Write(t, "auth/userpass/login/alice", map[string]any{"password": "password"})
	token, _ := login.Auth()["client_token"].(string)
	alice := client(t, Config{Address: vault.Addr, Mount: mount}, getenvToken(token)).Store("")
	admin := rooted(t, vault, vault.Addr, mount)
	c := basic("a")
	mustSave(t, admin, c)
	mine := *c
	mustSave(t, alice, c)
	err := creds.Save(t.Context(), admin, &mine)
	var conflict *creds.ConflictError
	if !errors.As(err, &conflict) || !errors.Is(err, creds.ErrConflict) || conflict.By != "userpass-alice" || time.Since(conflict.At) > time.Minute {
		t.Errorf("%v (%+v)", err, conflict)
	}
	if err != nil && !strings.Contains(err.Error(), "userpass-alice changed the record meanwhile, at 2") {
		t.Error(err)
	}
	_, err = admin.CAS(t.Context(), "credentials/a", creds.NewSecret(`{}`), 1)
	if !errors.As(err, &conflict) || conflict.By != "userpass-alice" {
		t.Errorf("%v", err)
	}
	// Another tool writes without a note: the old one is not taken for its own.
	vault.Write(t, mount+"/data/credentials/a", map[string]any{"data": map[string]any{}, "options": map[string]any{"cas": 2}})
	if record, err := admin.Get(t.Context(), "credentials/a"); err != nil || record.By != "" {
		t.Errorf("%q, %v", record.By, err)
	}
}

// The page writes grants that it can never read back, also when answers are lost.
func TestPatchWithoutReading(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	policy := mount + "-writer"
	vault.Policy(t, policy, `path "`+mount+`/data/grants/*" { capabilities = ["create", "update", "patch"] }
path "`+mount+`/metadata/grants/*" { capabilities = ["read"] }`)
	lossy := vault.Lossy(t)
	page := client(t, Config{Address: lossy.Addr, Mount: mount}, getenvToken(vault.Token(t, policy))).Store("")
	admin := rooted(t, vault, vault.Addr, mount)
	for i := range 6 {
		if i%2 == 1 {
			lossy.LoseNext(1, func(method, path string) bool { return strings.Contains(path, "/data/") && method != http.MethodGet })
		}
		if _, err := page.Patch(t.Context(), "grants/a", creds.NewSecret(fmt.Sprintf(`{"secrets":{"k%d":{"value":"v"},"k%d":null}}`, i, i-1))); err != nil {
			t.Fatalf("patch %d: %v", i, err)
		}
	}
	record, err := admin.Get(t.Context(), "grants/a")
	if err != nil || record.Data.Reveal() != `{"secrets":{"k5":{"value":"v"}}}` {
		t.Errorf("%s, %v", record.Data.Reveal(), err)
	}
	if _, err := page.Get(t.Context(), "grants/a"); !errors.Is(err, creds.ErrStoreDenied) || !strings.Contains(err.Error(), `needs read on "`+mount+`/data/grants/a"`) {
		t.Errorf("%v", err)
	}
	// Where the policy knows no patch, it needs read: said, not guessed.
	vault.Policy(t, policy, `path "`+mount+`/data/grants/*" { capabilities = ["create", "update"] }
path "`+mount+`/metadata/grants/*" { capabilities = ["read"] }`)
	_, err = page.Patch(t.Context(), "grants/a", creds.NewSecret(`{"x":1}`))
	fails(t, err, "needs patch on")
	vault.Policy(t, policy, `path "`+mount+`/data/grants/*" { capabilities = ["create", "update", "read"] }`)
	if _, err = page.Patch(t.Context(), "grants/a", creds.NewSecret(`{"x":1}`)); err != nil {
		t.Errorf("with read instead of patch: %v", err)
	}
}

// A role whose policies were given back is used again: 403 with an old login asks
// for a new one, once a minute.
func TestDeniedLoginIsRenewed(t *testing.T) {
	o := newOutage(t, credstest.SharedVault(t))
	o.vault.DropPolicy(t, o.mount()+"-sidecar")
	_ = o.poll(t, 2*time.Minute)
	o.lossy.Reset()
	for range 10 {
		_ = o.poll(t, 5*time.Second)
	}
	if n := o.lossy.Count("auth/"); n > 1 {
		t.Errorf("%d logins in 50 s of refusals", n)
	}
}

// Nothing that a user of the package prints shows a token or a record.
func TestNothingPrints(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount, _ := reader(t, vault)
	c := client(t, Config{Address: vault.Addr, Mount: mount}, getenvToken(vault.Root))
	mustRead(t, c)
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		text := fmt.Sprintf(verb, c.session.current) + fmt.Sprintf(verb, &c.session.unwrap)
		if bytes.Contains([]byte(text), []byte(vault.Root)) {
			t.Errorf("%s shows the token", verb)
		}
	}
	_, err := c.send(context.Background(), request{operation: "get", method: "GET", path: "secret/data/x", token: vault.Root})
	if err != nil && strings.Contains(err.Error(), vault.Root) {
		t.Error(err)
	}
}
