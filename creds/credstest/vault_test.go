package credstest

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, v *Vault, path string, data map[string]any, cas int) VaultAnswer {
	t.Helper()
	return v.Do(t, v.Root, http.MethodPost, path, map[string]any{"data": data, "options": map[string]int{"cas": cas}})
}

func TestVaultKeepsCheckAndSet(t *testing.T) {
	v := SharedVault(t)
	path := v.Mount(t) + "/data/tokens/jira"
	for _, row := range []struct {
		what   string
		cas    int
		status int
	}{
		{"the first write creates", 0, 200}, {"a second creation conflicts", 0, 400},
		{"a write over its version is taken", 1, 200}, {"one over a version that is gone conflicts", 1, 400},
	} {
		if got := write(t, v, path, map[string]any{"a": row.what}, row.cas); got.Status != row.status {
			t.Errorf("%s: %d %v", row.what, got.Status, got.Body)
		}
	}
	if got := v.Do(t, v.Root, http.MethodPost, path, map[string]any{"data": map[string]any{}}); got.Status != 400 {
		t.Errorf("a write without a version is taken: %d", got.Status)
	}
}

func TestVaultLogins(t *testing.T) {
	v := SharedVault(t)
	v.Policy(t, "logins", `path "nothing/*" { capabilities = ["read"] }`)
	v.Userpass(t, "ada", "swordfish", "logins")
	v.JWT(t, "connector", "connector-1", "logins")
	v.Kubernetes(t, "pod", "tools", "connector", "logins")
	role, secret := v.AppRole(t, "host", "logins")
	expired := map[string]any{"role": "connector", "jwt": v.Sign(t, Claims("connector-1", "vault", -time.Minute*10))}
	for _, row := range []struct {
		what, path string
		body       map[string]any
		good       bool
	}{
		{"userpass", "auth/userpass/login/ada", map[string]any{"password": "swordfish"}, true},
		{"wrong password", "auth/userpass/login/ada", map[string]any{"password": "tuna"}, false},
		{"approle", "auth/approle/login", map[string]any{"role_id": role, "secret_id": secret}, true},
		{"wrong secret id", "auth/approle/login", map[string]any{"role_id": role, "secret_id": "x"}, false},
		{"jwt", "auth/jwt/login", map[string]any{"role": "connector", "jwt": v.Sign(t, Claims("connector-1", "vault", time.Hour))}, true},
		{"jwt of another subject", "auth/jwt/login", map[string]any{"role": "connector", "jwt": v.Sign(t, Claims("connector-2", "vault", time.Hour))}, false},
		{"jwt for another audience", "auth/jwt/login", map[string]any{"role": "connector", "jwt": v.Sign(t, Claims("connector-1", "bank", time.Hour))}, false},
		{"expired jwt", "auth/jwt/login", expired, false},
		{"kubernetes", "auth/kubernetes/login", map[string]any{"role": "pod", "jwt": v.ServiceAccountToken(t, "tools", "connector", time.Hour)}, true},
		{"kubernetes from another namespace", "auth/kubernetes/login", map[string]any{"role": "pod", "jwt": v.ServiceAccountToken(t, "games", "connector", time.Hour)}, false},
		{"kubernetes, expired", "auth/kubernetes/login", map[string]any{"role": "pod", "jwt": v.ServiceAccountToken(t, "tools", "connector", -time.Hour)}, false},
	} {
		answer := v.Do(t, "", http.MethodPost, row.path, row.body)
		if (answer.Status == 200) != row.good {
			t.Errorf("%s: %d %v", row.what, answer.Status, answer.Body["errors"])
		}
		if row.good && row.what != "userpass" && answer.Auth()["token_type"] != "batch" {
			t.Errorf("%s gives a token of type %v", row.what, answer.Auth()["token_type"])
		}
	}
}

func TestVaultWrappedSecretIDOpensOnce(t *testing.T) {
	v := SharedVault(t)
	v.AppRole(t, "wrapped")
	token := v.WrappedSecretID(t, "wrapped", time.Minute)
	if got := v.Do(t, token, http.MethodPost, "sys/wrapping/unwrap", nil); got.Data()["secret_id"] == nil {
		t.Fatalf("unwrapping: %d %v", got.Status, got.Body)
	}
	if got := v.Do(t, token, http.MethodPost, "sys/wrapping/unwrap", nil); got.Status != 400 {
		t.Errorf("unwrapping again: %d %v", got.Status, got.Body)
	}
}

func TestVaultOutages(t *testing.T) {
	v := VaultSetup{TLS: true, Keep: true}.Start(t)
	v.MountAt(t, "pillion")
	v.Kubernetes(t, "pod", "tools", "connector")
	if got := write(t, v, "pillion/data/index", map[string]any{"jira": 1}, 0); got.Status != 200 {
		t.Fatal(got)
	}
	if !strings.HasPrefix(v.Addr, "https://") {
		t.Fatalf("it answers at %s", v.Addr)
	}
	read := func() (VaultAnswer, error) { return v.do(v.Root, http.MethodGet, "pillion/data/index", nil, nil) }

	v.Seal(t)
	if got, err := read(); err != nil || got.Status != 503 {
		t.Errorf("sealed: %d %v", got.Status, err)
	}
	v.Unseal(t)
	if got, err := read(); err != nil || got.Status != 200 {
		t.Errorf("unsealed: %d %v", got.Status, err)
	}

	v.Freeze(t)
	answered := make(chan error, 1)
	go func() { _, err := read(); answered <- err }()
	select {
	case err := <-answered:
		t.Errorf("a frozen Vault answers: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	v.Thaw(t)
	if err := <-answered; err != nil {
		t.Errorf("thawed: %v", err)
	}

	before := v.Addr
	v.Kill(t)
	if _, err := read(); err == nil {
		t.Error("a killed Vault answers")
	}
	v.Restart(t)
	if got, err := read(); err != nil || got.Status != 200 || v.Addr != before {
		t.Errorf("started again at %s, was %s: %d %v", v.Addr, before, got.Status, err)
	}
	login := map[string]any{"role": "pod", "jwt": v.ServiceAccountToken(t, "tools", "connector", time.Hour)}
	if got := v.Do(t, "", http.MethodPost, "auth/kubernetes/login", login); got.Status != 200 {
		t.Errorf("a login after the restart: %d %v", got.Status, got.Body)
	}
}

func TestRestartInMemoryForgets(t *testing.T) {
	v := StartVault(t)
	v.MountAt(t, "pillion")
	v.JWT(t, "connector", "connector-1")
	root := v.Root
	v.Restart(t)
	if v.Root == root {
		t.Error("the root token is the same")
	}
	v.MountAt(t, "pillion")
	v.JWT(t, "connector", "connector-1")
}

func TestLossyVaultAppliesWhatItLoses(t *testing.T) {
	v := SharedVault(t)
	path := v.Mount(t) + "/data/index"
	lossy := v.Lossy(t)
	through := &Vault{Addr: lossy.Addr, Root: v.Root, client: v.client}
	body := map[string]any{"data": map[string]any{"a": 1}, "options": map[string]int{"cas": 0}}

	lossy.LoseNext(1, nil)
	if got, err := through.do(v.Root, http.MethodPost, path, body, nil); err == nil {
		t.Errorf("a lost answer arrives: %d", got.Status)
	}
	got := through.Do(t, v.Root, http.MethodGet, path, nil)
	if got.Status != 200 {
		t.Errorf("the write whose answer was lost: %d %v", got.Status, got.Body)
	}
	if got := through.Do(t, v.Root, http.MethodPost, path, body); got.Status != 400 {
		t.Errorf("the same write again: %d", got.Status)
	}
	if lossy.Lost() != 1 || lossy.Count(path) != 3 || lossy.Requests()[0].Status != 200 {
		t.Errorf("seen: %+v", lossy.Requests())
	}

	lossy.LoseShare(1)
	if _, err := through.do(v.Root, http.MethodPost, path, body, nil); err == nil {
		t.Error("with all answers lost, one arrives")
	}
	lossy.LoseShare(0)
	lossy.Answer(VaultError(503, "Vault is sealed"))
	if got := through.Do(t, v.Root, http.MethodGet, path, nil); got.Status != 503 {
		t.Errorf("answered in Vault's place: %d", got.Status)
	}
}
