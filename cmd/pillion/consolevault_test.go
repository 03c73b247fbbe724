package main

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/console"
	"pillion/creds/credstest"
	"pillion/creds/token"
	"pillion/creds/vaultstore"
)

// replicas are two pages over one Vault behind one address, which answer in turns.
type replicas struct {
	t     *testing.T
	url   string
	vault *credstest.Vault
	store creds.Store // of an administrator, to look
	mount string
}

func newReplicas(t *testing.T) *replicas {
	t.Helper()
	r := &replicas{t: t, vault: credstest.SharedVault(t)}
	r.mount = r.vault.Mount(t)
	rules, err := os.ReadFile("../../deploy/vault/console.hcl")
	if err != nil {
		t.Fatal(err)
	}
	r.vault.Policy(t, r.mount+"-console", strings.ReplaceAll(string(rules), `"pillion/`, `"`+r.mount+`/`))
	r.vault.Policy(t, r.mount+"-looks", `path "`+r.mount+`/data/credentials/*" { capabilities = ["read"] }
path "`+r.mount+`/metadata/credentials/" { capabilities = ["list"] }
path "`+r.mount+`/metadata/credentials/*" { capabilities = ["read"] }`)
	var turn atomic.Int64
	var handlers []http.Handler
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		handlers[turn.Add(1)%int64(len(handlers))].ServeHTTP(w, q)
	}))
	r.url = "http://" + server.Listener.Addr().String()
	for range 2 {
		client, err := vaultstore.New(vaultstore.Config{Address: r.vault.Addr, Mount: r.mount, Prefixes: []string{""}}, noEnvironment)
		if err != nil {
			t.Fatal(err)
		}
		page := &console.Server{
			URL: r.url, SessionKey: []byte(strings.Repeat("shared by all of them", 2)),
			Login: &vaultLogin{client: client}, Grants: statelessGrants{consoleGrants{&daemon{vault: client}}},
		}
		handler, err := page.Handler()
		if err != nil {
			t.Fatal(err)
		}
		handlers = append(handlers, handler)
	}
	server.Start()
	t.Cleanup(server.Close)
	root, err := vaultstore.New(vaultstore.Config{Address: r.vault.Addr, Mount: r.mount, Prefixes: []string{""}}, func(name string) string {
		return map[string]string{"VAULT_TOKEN": r.vault.Root}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	r.store = root.Store("")
	return r
}

// statelessGrants are those of a page beside no sidecar.
type statelessGrants struct{ consoleGrants }

func (statelessGrants) State(*creds.Credential) console.TokenState {
	return console.TokenState{Condition: console.Unknown}
}

// person is a browser.
type person struct {
	*replicas
	client *http.Client
}

func (r *replicas) person() *person {
	r.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return &person{r, &http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(q *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(q.URL.String(), r.url) {
			return http.ErrUseLastResponse
		}
		return nil
	}}}
}

func (p *person) get(address string) (*http.Response, string) { return p.answer(p.client.Get(address)) }

func (p *person) post(path string, form url.Values) (*http.Response, string) {
	return p.answer(p.client.PostForm(p.url+path, form))
}

func (p *person) answer(response *http.Response, err error) (*http.Response, string) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	credstest.FindCanaries(p.t, body)
	return response, string(body)
}

func (p *person) logIn(form url.Values) {
	p.t.Helper()
	if response, body := p.post("/login", form); response.StatusCode != http.StatusOK || !strings.Contains(body, "Connector credentials") {
		p.t.Fatalf("logging in: %d\n%s", response.StatusCode, body)
	}
}

// People act with their own tokens, in whichever replica: who may not write is told
// so, and changes nothing; who logs out takes the token along.
func TestConsoleOverVault(t *testing.T) {
	r := newReplicas(t)
	password := credstest.Canary("console-vault").Reveal()
	r.vault.Userpass(t, "console-anna", password, r.mount+"-console")
	r.vault.Userpass(t, "console-ben", password, r.mount+"-looks")
	anna, ben := r.person(), r.person()
	if response, body := anna.post("/login", url.Values{"way": {"password"}, "username": {"console-anna"}, "password": {"wrong"}}); response.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "refuses this user name and password") {
		t.Errorf("a wrong password: %d\n%s", response.StatusCode, body)
	}
	anna.logIn(url.Values{"way": {"password"}, "username": {"console-anna"}, "password": {password}})
	ben.logIn(url.Values{"way": {"token"}, "token": {r.vault.Token(t, r.mount+"-looks")}})
	form := url.Values{"name": {"jira"}, "protocol": {"https"}, "url": {"https://jira.example/"}, "authorization": {"basic"}, "username": {"u"}, "password": {password}}
	if response, body := ben.post("/new", form); response.StatusCode != http.StatusForbidden || !strings.Contains(body, "You may not do this") {
		t.Errorf("ben makes one: %d\n%s", response.StatusCode, body)
	}
	if response, body := anna.post("/new", form); response.Request.URL.RequestURI() != "/?saved=jira" {
		t.Fatalf("anna makes one: %d\n%s", response.StatusCode, body)
	}
	if _, body := ben.get(r.url + "/"); !strings.Contains(body, "https://jira.example/") {
		t.Errorf("ben does not see it:\n%s", body)
	}
	form.Set("version", "1")
	form.Set("username", "bens")
	for _, path := range []string{"/credentials/jira", "/credentials/jira/delete"} {
		if response, body := ben.post(path, form); response.StatusCode != http.StatusForbidden {
			t.Errorf("ben at %s: %d\n%s", path, response.StatusCode, body)
		}
	}
	c, err := creds.LoadCredential(t.Context(), r.store, "jira")
	if err != nil || c.Username != "u" || c.Version != 1 || c.Password.Reveal() != password {
		t.Errorf("now it is %+v, %v", c, err)
	}
	// Who was faster has a name.
	c.Username = "roots"
	if err := creds.Save(t.Context(), r.store, c); err != nil {
		t.Fatal(err)
	}
	form.Set("password", "")
	if response, body := anna.post("/credentials/jira", form); response.StatusCode != http.StatusConflict || !strings.Contains(body, "root changed this credential meanwhile") {
		t.Errorf("a conflict: %d\n%s", response.StatusCode, body)
	}
	site, _ := url.Parse(r.url)
	copied := anna.client.Jar.Cookies(site)
	anna.post("/logout", nil)
	anna.client.Jar.SetCookies(site, copied)
	for range 2 { // the replica that logged her out, and the other one
		if response, body := anna.get(r.url + "/"); strings.Contains(body, "jira.example") || !strings.Contains(body, "Your session has ended") {
			t.Errorf("after the logout: %d\n%s", response.StatusCode, body)
		}
	}
}

var connectAddress = regexp.MustCompile(`href="(/credentials/jira/connect\?nonce=[^"]+)"`)

// A consent that begins in one replica and ends in the other, exchanged by a
// refresher: the page can read neither the client secret nor the tokens.
func TestConsoleConsentOverVault(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node")
	}
	provider := credstest.StartOIDC(t)
	r := newReplicas(t)
	live := &creds.Live{Store: r.store}
	refresher := &token.Refresher{
		HTTP: provider.Transport(), Table: live.Table, Store: live.StoreOf, Stores: []creds.Store{r.store}, Journal: t.TempDir(), Poll: 100 * time.Millisecond,
	}
	anna := r.person()
	anna.logIn(url.Values{"way": {"token"}, "token": {r.vault.Token(t, r.mount+"-console")}})
	response, body := anna.post("/new", url.Values{
		"name": {"jira"}, "protocol": {"https"}, "url": {"https://jira.example/"}, "authorization": {"oauth2-authorization-code"}, "header_prefix": {"Bearer"}, "auth_style": {"header"},
		"client_id": {provider.ClientID}, "client_secret": {provider.ClientSecret}, "access_token_url": {provider.TokenURL()}, "authorization_url": {provider.AuthorizationURL()}, "scope": {"openid offline_access"},
	})
	link := connectAddress.FindStringSubmatch(body)
	if link == nil {
		t.Fatalf("there is no way to connect: %d\n%s", response.StatusCode, body)
	}
	if err := live.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); refresher.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	response, body = anna.get(r.url + html.UnescapeString(link[1]))
	if response.StatusCode != http.StatusSeeOther {
		t.Fatalf("beginning: %d\n%s", response.StatusCode, body)
	}
	back := provider.Consent(t, response.Header.Get("Location"))
	if !strings.HasPrefix(back.String(), r.url+"/connect/callback?") {
		t.Fatalf("the provider sends the browser to %s", back)
	}
	if response, body = anna.get(back.String()); response.StatusCode != http.StatusOK || !strings.Contains(body, "jira is connected") {
		t.Fatalf("coming back: %d\n%s", response.StatusCode, body)
	}
	if response, _ = anna.get(back.String()); response.StatusCode != http.StatusBadRequest {
		t.Errorf("coming back once more: %d", response.StatusCode)
	}
	record, err := r.store.Get(t.Context(), creds.KeyTokens+"jira")
	if err != nil || !strings.Contains(record.Data.Reveal(), `"ok"`) {
		t.Errorf("the token is not there: %v", err)
	}
	if stats := provider.Stats(t); stats.Granted["authorization_code"] != 1 || stats.Reused != 0 {
		t.Errorf("the provider counts %+v", stats)
	}
}
