package creds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func pointer[T any](v T) *T { return &v }

// oneOfEach is a valid credential of every type, all fields set.
func oneOfEach(t testing.TB) []*Credential {
	static := func() []Header {
		return []Header{{"X-4me-Account", NewSecret("static-value")}, {"X-Other", NewSecret("other-value")}}
	}
	s := NewSecret
	const tokenURL = "https://login.example/oauth/token?tenant=1"
	line := hostKeyLine(fixedKey(t, 1))
	return []*Credential{
		{Name: "c-none", Protocol: HTTPS, URL: "https://a.example/", Authorization: None, Headers: static()},
		{Name: "c-basic", Protocol: HTTPS, URL: "https://b.example:8443/x/", Authorization: Basic, Username: "u", Password: s("pw-value"), Headers: static()},
		{Name: "c-bearer", Protocol: HTTPS, URL: "https://c.example", Authorization: Bearer, Token: s("token-value"), HeaderPrefix: pointer("")},
		{Name: "c-key", Protocol: HTTPS, URL: "https://d.example/", Authorization: APIKey, APIKey: s("key-value"), APIKeyHeader: "X-Api-Key", Headers: static()},
		{Name: "c-query", Protocol: HTTPS, URL: "https://d2.example/", Authorization: APIKey, APIKey: s("key-value"), APIKeyQuery: "api_key"},
		{Name: "c-client", Protocol: HTTPS, URL: "https://e.example/", Authorization: ClientCredentials, ClientID: "id", ClientSecret: s("secret-value"), AccessTokenURL: tokenURL,
			Scope: "a b", AuthStyle: AuthStyleBody, Params: map[string]string{"audience": "x", "resource": "y"}, HeaderPrefix: pointer("rest_api_key="), Headers: static()},
		{Name: "c-code", Protocol: HTTPS, URL: "https://f.example/", Authorization: AuthorizationCode, ClientID: "id", ClientSecret: s("secret-value"), AccessTokenURL: tokenURL, AuthorizationURL: "https://login.example/authorize",
			AuthorizationParams: map[string]string{"prompt": "consent"}, RefreshTokenLifetime: 100 * day},
		{Name: "c-password", Protocol: HTTPS, URL: "https://g.example/", Authorization: PasswordGrant, Username: "u", Password: s("pw-value"), ClientID: "id", ClientSecret: s("secret-value"), AccessTokenURL: tokenURL},
		{Name: "c-login", Protocol: HTTPS, URL: "https://h.example/", Authorization: Login, Username: "u", Password: s("pw-value"), AccessTokenURL: "https://h.example/login",
			HeaderName: "X-Auth", TokenLifetime: time.Hour, Params: map[string]string{"role": "r"}, LoginTemplate: s(`{"form": {"u": "{{username}}", "r": "{{param.role}}"}}`)},
		{Name: "c-sftp", Protocol: SFTP, URL: "sftp://files.example:2222/", Authorization: Basic, Username: "u", Password: s("pw-value"), HostKeys: []string{line}},
		{Name: "c-alone", Protocol: HTTPS, URL: "https://i.example/", Authorization: ClientCredentials, ClientID: "id", ClientSecret: s("secret-value"), AccessTokenURL: tokenURL, Unshared: true},
	}
}

func mustSave(t *testing.T, store Store, credentials ...*Credential) {
	t.Helper()
	for _, c := range credentials {
		if err := Save(context.Background(), store, c); err != nil {
			t.Fatal(err)
		}
	}
}

func sameContent(a, b *Credential) bool {
	x, y := *a, *b
	x.Version, y.Version = 0, 0
	return x.equal(&y)
}

func TestSaveThenLoad(t *testing.T) {
	ctx, store := context.Background(), newMemStore()
	for _, c := range oneOfEach(t) {
		mustSave(t, store, c)
		loaded, err := LoadCredential(ctx, store, c.Name)
		if err != nil || !loaded.equal(c) || loaded.Version != 1 {
			t.Errorf("%s: %+v, %v", c.Name, loaded, err)
		}
		public, stored, err := LoadPublic(ctx, store, c.Name)
		if err != nil || public.URL != c.URL || public.Version != 1 {
			t.Errorf("%s: %+v, %v", c.Name, public, err)
		}
		for _, field := range c.secretFields() {
			if slices.Contains(stored, field.name) == field.value.IsZero() {
				t.Errorf("%s: stored secrets %v", c.Name, stored)
			}
		}
		for _, field := range public.secretFields() {
			if !field.value.IsZero() {
				t.Errorf("%s: LoadPublic reads %s", c.Name, field.name)
			}
		}
		if text := store.text(KeyCredentials + c.Name); strings.Contains(text, "-value") || strings.Contains(text, "POST") {
			t.Errorf("a secret in the public record: %s", text)
		}
	}
	if text := store.text(KeySecrets+"c-client") + store.text(KeySecrets+"c-password") + store.text(KeySecrets+"c-login"); strings.Contains(text, "secret-value") || strings.Contains(text, "pw-value") {
		t.Error("what only token requests carry is kept where sidecars read")
	}
	if text := store.text(KeyGrants + "c-client"); !strings.Contains(text, `["https://login.example:443 https://e.example:443",`) {
		t.Error(text)
	}
	list, err := ListPublic(ctx, store)
	if err != nil || len(list.Credentials) != len(oneOfEach(t)) || len(list.Bad) != 0 || list.Hidden != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestSaveChecksVersions(t *testing.T) {
	ctx, store := context.Background(), newMemStore()
	c := oneOfEach(t)[1]
	mustSave(t, store, c)
	other := *c
	other.Version, other.Username = 0, "other"
	conflict := func(c *Credential, words string) {
		t.Helper()
		writes := store.writes
		err := Save(ctx, store, c)
		if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), c.Name) || !strings.Contains(err.Error(), words) {
			t.Errorf("got %v", err)
		}
		if store.writes != writes {
			t.Error("something was written before the conflict was seen")
		}
	}
	conflict(&other, "there is a credential of that name already")
	mustSave(t, store, c) // version 2
	other.Version = 1
	conflict(&other, "changed meanwhile")
	if err := Remove(ctx, store, c.Name); err != nil {
		t.Fatal(err)
	}
	conflict(c, "changed meanwhile")
	if c.Version != 2 {
		t.Errorf("version %d", c.Version)
	}
}

// A writer that comes between the look and the check-and-set.
func TestSaveLosesARaceCleanly(t *testing.T) {
	for _, version := range []int{0, 1} {
		ctx, store := context.Background(), newMemStore()
		mine := oneOfEach(t)[1]
		theirs := *mine
		theirs.Username = "theirs"
		if version == 1 {
			mustSave(t, store, mine)
			theirs.Version = mine.Version
		}
		store.before = func(op, key string) {
			if op == "cas" && strings.HasPrefix(key, KeyCredentials) {
				store.before = nil
				mustSave(t, store, &theirs)
			}
		}
		mine.Password = NewSecret("mine-value")
		if err := Save(ctx, store, mine); !errors.Is(err, ErrConflict) {
			t.Fatalf("got %v", err)
		}
		if c, err := LoadCredential(ctx, store, mine.Name); err != nil || c.Username != "theirs" {
			t.Errorf("%v, %v", c, err)
		}
		if strings.Contains(store.text(KeySecrets+mine.Name), "mine-value") {
			t.Error("the loser's secret stays behind")
		}
	}
}

func TestSaveReplacesSecrets(t *testing.T) {
	store := newMemStore()
	c := oneOfEach(t)[5]
	mustSave(t, store, c)
	c.ClientSecret, c.Headers = NewSecret("second"), c.Headers[:1]
	mustSave(t, store, c)
	all := store.text(KeySecrets+c.Name) + store.text(KeyGrants+c.Name)
	if strings.Contains(all, "secret-value") || strings.Contains(all, "other-value") || !strings.Contains(all, "second") || c.Version != 2 {
		t.Errorf("version %d, secrets %s", c.Version, all)
	}
}

func TestSaveRefusesWhatIsNotValid(t *testing.T) {
	store := newMemStore()
	for _, name := range []string{"ok", "", "../secrets/x", "UPPER"} {
		err := Save(context.Background(), store, &Credential{Name: name, Protocol: HTTPS, URL: "https://a.example/", Authorization: Basic, Password: NewSecret(planted)})
		var invalid *InvalidError
		if !errors.As(err, &invalid) || strings.Contains(err.Error(), planted) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if store.writes != 0 {
		t.Error("something was written")
	}
}

// Case 47: an editor that never reads secrets keeps them; case 48: not for
// another server.
func TestUpdateKeepsUnreadSecrets(t *testing.T) {
	ctx := context.Background()
	for _, original := range oneOfEach(t) {
		store := newMemStore()
		mustSave(t, store, original)
		edited, stored, err := LoadPublic(ctx, store, original.Name)
		if err != nil {
			t.Fatal(err)
		}
		store.reads = map[string]int{}
		if err := Update(ctx, store, edited, stored); err != nil {
			t.Fatal(err)
		}
		if store.reads[KeySecrets+edited.Name]+store.reads[KeyGrants+edited.Name] != 0 {
			t.Error("Update reads secrets")
		}
		if c, err := LoadCredential(ctx, store, original.Name); err != nil || !sameContent(c, original) || c.Version != 2 {
			t.Errorf("%s: %+v, %v", original.Name, c, err)
		}
	}
}

func TestUpdateAsksAgainForAnotherServer(t *testing.T) {
	ctx := context.Background()
	otherKey := hostKeyLine(fixedKey(t, 2))
	for _, c := range []struct {
		index int
		edit  func(*Credential)
		again string // "FIELD" or "" for none
	}{
		{1, func(c *Credential) { c.URL = "https://evil.example:8443/x/" }, "password"},
		{1, func(c *Credential) { c.URL = "https://b.example/x/" }, "password"},
		{1, func(c *Credential) { c.URL = "https://B.example:8443/elsewhere" }, ""},
		{5, func(c *Credential) { c.AccessTokenURL = "https://evil.example/oauth/token" }, "client_secret"},
		{5, func(c *Credential) { c.AccessTokenURL = "https://login.example/other" }, ""},
		{5, func(c *Credential) { c.URL = "https://evil.example/" }, "client_secret"},
		{7, func(c *Credential) { c.URL = "https://evil.example/" }, "password"},
		{7, func(c *Credential) { c.AccessTokenURL = "https://evil.example/oauth/token" }, "password"},
		{9, func(c *Credential) { c.HostKeys = []string{otherKey} }, "password"},
		{9, func(c *Credential) { c.HostKeys = append(c.HostKeys, otherKey) }, "password"},
		{9, func(c *Credential) { c.HostKeys[0] += " comment" }, ""},
		{9, func(c *Credential) { c.URL = "sftp://files.example:22/" }, "password"},
	} {
		store := newMemStore()
		original := oneOfEach(t)[c.index]
		mustSave(t, store, original)
		edited, stored, err := LoadPublic(ctx, store, original.Name)
		if err != nil {
			t.Fatal(err)
		}
		c.edit(edited)
		err = Update(ctx, store, edited, stored)
		if c.again == "" {
			if err != nil {
				t.Errorf("%s: %v", original.Name, err)
			}
			continue
		}
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Fields[0].Field != c.again || !strings.Contains(invalid.Fields[0].Problem, "must be entered again") {
			t.Errorf("%s: got %v, want %s asked for again", original.Name, err, c.again)
		}
		if kept, err := LoadCredential(ctx, store, original.Name); err != nil || !sameContent(kept, original) {
			t.Errorf("%s: %v, %v", original.Name, kept, err)
		}
	}
}

func TestUpdateNeedsWhatWasNeverStored(t *testing.T) {
	ctx, store := context.Background(), newMemStore()
	c := oneOfEach(t)[1]
	c.Password = Secret{}
	var invalid *InvalidError
	if err := Update(ctx, store, c, []string{"password", "header:X-4me-Account"}); !errors.As(err, &invalid) || invalid.Fields[0].Field != "password" {
		t.Errorf("a secret kept that is not there: %v", err)
	}
	bearer := oneOfEach(t)[2]
	mustSave(t, store, bearer)
	edited, stored, _ := LoadPublic(ctx, store, bearer.Name)
	edited.Authorization, edited.Username, edited.HeaderPrefix = Basic, "u", nil
	if err := Update(ctx, store, edited, stored); !errors.As(err, &invalid) || invalid.Fields[0].Field != "password" || len(invalid.Fields) != 1 {
		t.Errorf("another type: %v", err)
	}
}

// Whoever can write credentials/ alone cannot aim a stored secret at a host of
// his own.
func TestSecretsAreBoundToTheirServer(t *testing.T) {
	otherKey := hostKeyLine(fixedKey(t, 2))
	for i, edits := range map[int][][2]string{
		1: {{"https://b.example:8443/x/", "https://evil.example:8443/x/"}, {":8443", ":443"}},
		5: {{"https://login.example/", "https://evil.example/"}, {"https://e.example/", "https://evil.example/"}},
		7: {{"https://login.example/", "https://evil.example/"}, {"https://g.example/", "https://evil.example/"}},
		8: {{"https://h.example/", "https://evil.example/"}},
		9: {{"files.example", "evil.example"}, {`"host_key":["`, `"host_key":["` + otherKey + `","`}},
	} {
		for _, edit := range edits {
			store := newMemStore()
			c := oneOfEach(t)[i]
			mustSave(t, store, c)
			store.edit(t, KeyCredentials+c.Name, edit[0], edit[1])
			_, err := LoadCredential(context.Background(), store, c.Name)
			var bad *BadRecord
			if !errors.As(err, &bad) || bad.Name != c.Name || !strings.Contains(bad.Problem, "was given for another server: enter it again") {
				t.Errorf("%s with %s: %v", c.Name, edit[1], err)
			}
		}
	}
}

// Whoever may patch a record of secrets, but not read it, cannot aim a stored one
// elsewhere: the patch that names another server has to bring a value.
func TestPatchUnreadCannotAimASecret(t *testing.T) {
	ctx, store := context.Background(), newMemStore()
	c := oneOfEach(t)[1]
	mustSave(t, store, c)
	id := publicIDs(t, store, c.Name)["password"]
	for _, entry := range []string{`{"for":"https://evil.example:443"}`, `{"0":"https://evil.example:443"}`, `["https://evil.example:443"]`, `["https://evil.example:443",null]`} {
		if _, err := store.Patch(ctx, KeySecrets+c.Name, NewSecret(`{"secrets":{"`+id+`":`+entry+`}}`)); err != nil {
			t.Fatal(err)
		}
		if text := store.text(KeySecrets + c.Name); strings.Contains(text, "pw-value") && strings.Contains(text, "evil") {
			t.Errorf("%s: the stored password is bound to another server: %s", entry, text)
		}
		if _, err := LoadCredential(ctx, store, c.Name); err == nil {
			t.Errorf("%s: the credential is still good", entry)
		}
	}
}

func publicIDs(t *testing.T, store Store, name string) map[string]string {
	t.Helper()
	stored, err := store.Get(context.Background(), KeyCredentials+name)
	if err != nil {
		t.Fatal(err)
	}
	var record credentialRecord
	if err := decodeRecord(stored.Data, &record); err != nil {
		t.Fatal(err)
	}
	return record.Secrets
}

func TestRemove(t *testing.T) {
	ctx, store := context.Background(), newMemStore()
	for _, c := range oneOfEach(t) {
		mustSave(t, store, c)
		store.put(KeyTokens+c.Name, "{}")
		if err := Remove(ctx, store, c.Name); err != nil {
			t.Error(err)
		}
		if err := Remove(ctx, store, c.Name); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), c.Name) {
			t.Errorf("the second time: %v", err)
		}
	}
	if len(store.records) != 1 || strings.Contains(store.text(KeyIndex), "c-") {
		t.Errorf("left: %v", sortedKeys(store.records))
	}
	for _, name := range []string{"", "../x"} {
		if err := Remove(ctx, store, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestEveryCrashLeavesOldOrNew cuts an edit before every one of its writes, and
// after every one whose answer gets lost.
func TestEveryCrashLeavesOldOrNew(t *testing.T) {
	ctx := context.Background()
	for i := range oneOfEach(t) {
		for _, edit := range []string{"create", "save", "update", "remove"} {
			before, old := newMemStore(), oneOfEach(t)[i]
			if edit != "create" {
				mustSave(t, before, old)
			}
			run := func(store Store) (*Credential, error) {
				if edit == "remove" {
					return nil, Remove(ctx, store, old.Name)
				}
				edited := *old
				edited.Headers = []Header{{"X-New", NewSecret("new-value")}}
				if edited.Protocol == SFTP {
					edited.Headers, edited.Username = nil, "new"
				}
				if edit == "update" {
					for _, field := range edited.secretFields() {
						if field.name[0] != 'h' { // all but the header
							*field.value = Secret{}
						}
					}
					return &edited, Update(ctx, store, &edited, []string{"password", "token", "api_key", "client_secret", "login_template"})
				}
				return &edited, Save(ctx, store, &edited)
			}
			whole := before.clone()
			if _, err := run(whole); err != nil {
				t.Fatal(err)
			}
			after, _ := LoadCredential(ctx, whole, old.Name)
			for cut := range whole.writes {
				for _, lost := range []bool{false, true} {
					store := before.clone()
					store.failAfter, store.lost = cut, lost
					if _, err := run(store); !errors.Is(err, ErrStoreUnavailable) {
						t.Errorf("%s %s cut after %d: %v", edit, old.Name, cut, err)
					}
					store.failAfter = -1
					checkOldOrNew(t, fmt.Sprintf("%s %s cut after %d (lost %v)", edit, old.Name, cut, lost), store, before, after, old)
				}
			}
		}
	}
}

func checkOldOrNew(t *testing.T, what string, store, before *memStore, after, old *Credential) {
	t.Helper()
	got, err := LoadCredential(context.Background(), store, old.Name)
	existed := before.text(KeyCredentials+old.Name) != ""
	switch {
	case errors.Is(err, ErrNotFound):
		if existed && after != nil {
			t.Errorf("%s: it is gone", what)
		}
	case err != nil:
		t.Errorf("%s: %v", what, err)
	case !(existed && sameContent(got, old)) && !(after != nil && sameContent(got, after)):
		t.Errorf("%s: neither the old nor the new one: %+v", what, got)
	}
	// Whatever was left behind, the next edit works, and repair finds the rest.
	next := *old
	if next.Version = 0; got != nil {
		next.Version = got.Version
	}
	if err := Save(context.Background(), store, &next); err != nil {
		t.Errorf("%s: afterwards: %v", what, err)
	}
	live := &Live{Store: store}
	if err := live.Reload(context.Background()); err != nil || live.Table().Len() != 1 || len(live.Bad()) != 0 {
		t.Errorf("%s: afterwards: %v, %v", what, err, live.Bad())
	}
}

func TestSchemaRules(t *testing.T) {
	const good = `{"schema":"1.0","name":"x","protocol":"https","url":"https://a.example/","authorization":"none"}`
	with := func(schema, extra string) string {
		return strings.Replace(strings.Replace(good, "1.0", schema, 1), "}", extra+"}", 1)
	}
	for _, c := range []struct{ record, problem string }{
		{good, ""},
		{with("1.1", `,"color":"red"`), ""},
		{with("1.7", ""), ""},
		{with("1.0", `,"color":"red"`), `has an unknown field "color"`},
		{with("2.0", ""), "was written by a newer pillion (schema 2.0, this one reads 1.x): update this one"},
		{with("0.9", ""), "has a schema version that no pillion wrote"},
		{with("one", ""), "has a schema version that no pillion wrote"},
		{with("1", ""), "has a schema version that no pillion wrote"},
		{`{"name":"x"}`, `has no field "schema"`},
		{good[:40], "is not valid JSON"},
		{good + good, "is not valid JSON"},
		{`[]`, "is not a JSON object"},
		{``, "is not valid JSON"},
		{with("1.0", `,"username":{"canary":1}`), `has the wrong type of value in field "username"`},
		{strings.Replace(good, `"x"`, `"y"`, 1), "holds another name"},
		{strings.Replace(good, `"none"`, `"magic"`, 1), "authorization is not a known type"},
		{strings.Replace(good, `https://a`, `http://a`, 1), "begins with http://"},
		{with("1.0", `,"username":"u"`), "username is not used by authorization type none; remove it"},
		{with("1.0", `,"secrets":{"pin":"1"}`), "refers to a secret of a kind that is not known here"},
		{with("1.1", `,"secrets":{"pin":"1"}`), ""},
		{with("1.0", `,"header":["X-A"],"secrets":{"header:X-A":"1"}`), "refers to a stored header:X-A that is not there: enter it again"},
		{with("1.0", `,"header":["X-A"]`), "header X-A: has no value"},
	} {
		store := newMemStore()
		store.put(KeyCredentials+"x", c.record)
		_, err := LoadCredential(context.Background(), store, "x")
		var bad *BadRecord
		switch {
		case c.problem == "" && err != nil:
			t.Errorf("%s: %v", c.record, err)
		case c.problem != "" && (!errors.As(err, &bad) || !strings.Contains(bad.Problem, c.problem) || strings.Contains(err.Error(), "canary")):
			t.Errorf("%s: got %v, want %q", c.record, err, c.problem)
		}
	}
}

func TestSecretRecordsThatAreBroken(t *testing.T) {
	for _, c := range []struct{ record, problem string }{
		{`{"schema":"1.0","secrets":{"x":"hunter2-canary"}}`, "a secret that is not a pair of strings"},
		{`{"schema":"1.0","secrets":{"x":["hunter2-canary"]}}`, "a secret that is not a pair of strings"},
		{`{"schema":"1.0","secrets":{"x":["for","hunter2-canary","more"]}}`, "a secret that is not a pair of strings"},
		{`{"schema":"1.0","hunter2-canary`, "is not valid JSON"},
		{`{"schema":"9.0"}`, "was written by a newer pillion"},
		{`{"schema":"1.0"}`, "refers to a stored password that is not there"},
		{`{"schema":"1.0","other":1}`, `has an unknown field "other"`},
	} {
		store := newMemStore()
		basic := oneOfEach(t)[1]
		mustSave(t, store, basic)
		store.put(KeySecrets+basic.Name, c.record)
		_, err := LoadCredential(context.Background(), store, basic.Name)
		var bad *BadRecord
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.problem) || strings.Contains(err.Error(), planted) {
			t.Errorf("%s: %v", c.record, err)
		}
	}
	// A grant has other members, which are not ours to judge.
	store := newMemStore()
	client := oneOfEach(t)[5]
	mustSave(t, store, client)
	if _, err := store.Patch(context.Background(), KeyGrants+client.Name, NewSecret(`{"gen":7,"refresh_token":"r"}`)); err != nil {
		t.Fatal(err)
	}
	mustSave(t, store, client)
	if c, err := LoadCredential(context.Background(), store, client.Name); err != nil || !sameContent(c, client) || !strings.Contains(store.text(KeyGrants+client.Name), `"gen":7`) {
		t.Errorf("%v, %v", c, err)
	}
}

func TestRepairIndex(t *testing.T) {
	ctx, store := context.Background(), newMemStore()
	all := oneOfEach(t)[:4]
	mustSave(t, store, all...)
	if repaired, err := RepairIndex(ctx, store); err != nil || len(repaired) != 0 {
		t.Errorf("in step: %v, %v", repaired, err)
	}
	store.put(KeyCredentials+all[0].Name, store.text(KeyCredentials+all[0].Name)) // another tool's edit
	delete(store.records, KeyCredentials+all[1].Name)                             // and removal
	repaired, err := RepairIndex(ctx, store)
	if err != nil || !slices.Equal(repaired, []string{"c-basic", "c-none"}) {
		t.Errorf("%v, %v", repaired, err)
	}
	store.put(KeyIndex, `{"schema":"2.0"}`)
	if _, err := RepairIndex(ctx, store); err == nil || !strings.Contains(err.Error(), "newer pillion") {
		t.Errorf("a newer index: %v", err)
	}
}
