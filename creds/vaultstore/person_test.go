package vaultstore

import (
	"errors"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// A person's client does what his token may, whatever our own login may.
func TestPeople(t *testing.T) {
	vault := credstest.SharedVault(t)
	mount := vault.Mount(t)
	vault.Policy(t, "people-write", `path "`+mount+`/*" { capabilities = ["create", "read", "update", "patch", "list", "delete"] }`)
	vault.Policy(t, "people-read", `path "`+mount+`/*" { capabilities = ["read", "list"] }`)
	password := credstest.Canary("people-password")
	vault.Userpass(t, "people-anna", password.Reveal(), "people-write")
	vault.Userpass(t, "people-ben", password.Reveal(), "people-read")
	ours, err := New(Config{Address: vault.Addr, Mount: mount, Prefixes: []string{""}}, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	anna, err := ours.LogInWithPassword(t.Context(), "userpass", "people-anna", password)
	if err != nil {
		t.Fatal(err)
	}
	if anna.Name != "userpass-people-anna" || anna.Token.IsZero() || anna.Expires.Before(time.Now()) {
		t.Errorf("anna is %+v", anna)
	}
	ben, err := ours.LogInWithPassword(t.Context(), "userpass", "people-ben", password)
	if err != nil {
		t.Fatal(err)
	}
	storeOf := func(p Person) *Store {
		as, err := ours.As(p.Token)
		if err != nil {
			t.Fatal(err)
		}
		return as.Store("")
	}
	if _, err := storeOf(anna).CAS(t.Context(), "credentials/a", creds.NewSecret(`{"schema":"1.0"}`), 0); err != nil {
		t.Error(err)
	}
	if record, err := storeOf(ben).Get(t.Context(), "credentials/a"); err != nil || record.By != "userpass-people-anna" {
		t.Errorf("ben reads %+v, %v", record, err)
	}
	if _, err := storeOf(ben).CAS(t.Context(), "credentials/b", creds.NewSecret(`{"schema":"1.0"}`), 0); !errors.Is(err, creds.ErrStoreDenied) {
		t.Errorf("ben writes: %v", err)
	}
	rights := func(token creds.Secret) string {
		as, err := ours.As(token)
		if err != nil {
			t.Fatal(err)
		}
		digest, err := as.Rights(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	before := rights(ben.Token)
	if before != rights(ben.Token) || before == rights(anna.Token) {
		t.Error("rights are not told apart")
	}
	vault.Policy(t, "people-read", `path "`+mount+`/*" { capabilities = ["read", "list"] }
path "`+mount+`/data/+/b" { capabilities = ["deny"] }`)
	if before == rights(ben.Token) {
		t.Error("rights that were taken away are not told of")
	}
	if _, err := storeOf(ben).Now(t.Context()); err != nil {
		t.Error(err)
	}
	for _, user := range []string{"people-anna", "nobody", "", "../../sys/mounts"} {
		_, err := ours.LogInWithPassword(t.Context(), "userpass", user, credstest.Canary("people-wrong"))
		if !isKind(err, BadLogin) {
			t.Errorf("%q with a wrong password: %v", user, err)
			continue
		}
		credstest.FindCanaries(t, []byte(err.Error()))
	}
	if err := ours.Revoke(t.Context(), anna.Token); err != nil {
		t.Error(err)
	}
	if _, err := ours.LookUp(t.Context(), anna.Token); err == nil {
		t.Error("a revoked token is taken")
	}
}
