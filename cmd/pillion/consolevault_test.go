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
	alone atomic.Bool // one of them answers everything from now on
}

func newReplicas(t *testing.T, prefixes ...string) *replicas {
	t.Helper()
	r := &replicas{t: t, vault: credstest.SharedVault(t)}
	r.mount = r.vault.Mount(t)
	if len(prefixes) == 0 {
		prefixes = []string{""}
	}
	for _, prefix := range prefixes {
		r.vault.Policy(t, r.policyFor(prefix), shippedPolicy(t, "console", r.mount, prefix))
	}
	r.vault.Policy(t, r.mount+"-looks", `path "`+r.mount+`/data/credentials/*" { capabilities = ["read"] }
path "`+r.mount+`/metadata/credentials/" { capabilities = ["list"] }
path "`+r.mount+`/metadata/credentials/*" { capabilities = ["read"] }`)
	var turn atomic.Int64
	var handlers []http.Handler
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		at := turn.Add(1)
		if r.alone.Load() {
			at = 0
		}
		handlers[at%int64(len(handlers))].ServeHTTP(w, q)
	}))
	r.url = "http://" + server.Listener.Addr().String()
	for range 2 {
		client, err := vaultstore.New(vaultstore.Config{Address: r.vault.Addr, Mount: r.mount, Prefixes: prefixes}, noEnvironment)
		if err != nil {
			t.Fatal(err)
		}
		page := &console.Server{
			URL: r.url, SessionKey: []byte(strings.Repeat("shared by all of them", 2)),
			Login: &vaultLogin{client: client, prefixes: prefixes, userpass: "userpass"}, Grants: consoleGrants{&daemon{vault: client, live: &creds.Live{}}},
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
	r.store = root.Store(prefixes[0])
	return r
}

// versionOf is the version of a record that was read; 0 for none.
func versionOf(a credstest.VaultAnswer) int {
	metadata, _ := a.Data()["metadata"].(map[string]any)
	version, _ := metadata["version"].(float64)
	return int(version)
}

// policyFor is the name of the console's policy for a prefix.
func (r *replicas) policyFor(prefix string) string { return r.mount + "-console" + prefix }

// shippedPolicy is what deploy/vault/policy.sh prints.
func shippedPolicy(t *testing.T, role, mount, prefix string) string {
	t.Helper()
	command := exec.Command("../../deploy/vault/policy.sh", role)
	command.Env = append(os.Environ(), "MOUNT="+mount, "PREFIX="+prefix)
	rules, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(rules)
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
	t.Parallel()
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
	if _, body := ben.get(r.url + "/"); !strings.Contains(body, `aria-label="Edit jira"`) {
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

// Of several prefixes the page shows all that a person may see, and acts in the one
// that was meant.
func TestConsoleOverSeveralPrefixes(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, "team-a", "shared")
	anna, carl := r.person(), r.person()
	anna.logIn(url.Values{"way": {"token"}, "token": {r.vault.Token(t, r.policyFor("team-a"), r.policyFor("shared"))}})
	carl.logIn(url.Values{"way": {"token"}, "token": {r.vault.Token(t, r.policyFor("team-a"))}})
	want := func(response *http.Response, body string, status int, texts ...string) string {
		t.Helper()
		if response.StatusCode != status {
			t.Fatalf("%s answers %d, want %d:\n%s", response.Request.URL, response.StatusCode, status, body)
		}
		for _, text := range texts {
			if !strings.Contains(body, text) {
				t.Errorf("%s lacks %q:\n%s", response.Request.URL, text, body)
			}
		}
		return body
	}
	get := func(p *person, path string, status int, texts ...string) string {
		t.Helper()
		response, body := p.get(r.url + path)
		return want(response, body, status, texts...)
	}
	post := func(p *person, path string, form url.Values, status int, texts ...string) string {
		t.Helper()
		response, body := p.post(path, form)
		return want(response, body, status, texts...)
	}
	stored := func(prefix, name string) int { // its version
		return versionOf(r.vault.Do(t, r.vault.Root, http.MethodGet, r.mount+"/data/"+prefix+"/credentials/"+name, nil))
	}
	form := func(name, prefix string) url.Values {
		return url.Values{
			"name": {name}, "prefix": {prefix}, "protocol": {"https"}, "url": {"https://" + name + ".example/"}, "authorization": {"basic"}, "username": {"u"},
			"password": {credstest.Canary("console-prefix").Reveal()},
		}
	}
	get(anna, "/new", http.StatusOK, `<option value="/team-a">team-a</option>`, `<option value="/shared">shared</option>`)
	post(anna, "/new", form("jira", ""), http.StatusUnprocessableEntity, `<a href="#f-prefix">Prefix</a> says where it is kept`)
	post(anna, "/new", form("jira", "/team-b"), http.StatusUnprocessableEntity, `<a href="#f-prefix">Prefix</a>`)
	post(anna, "/new", form("jira", "/team-a"), http.StatusOK, "jira is saved")
	post(anna, "/new", form("jira", "/shared"), http.StatusOK, "jira is saved", "jira is kept in several prefixes", "uses the one in team-a")
	post(anna, "/new", form("bmc", "/shared"), http.StatusOK, `href="/credentials/bmc?prefix=shared"`, `data-label="Prefix">shared<`, "3 credentials")
	if stored("team-a", "bmc") != 0 || stored("shared", "bmc") != 1 || stored("team-a", "jira") != 1 {
		t.Error("they are not where they belong")
	}

	// Each is edited and deleted where it lies; an address without a prefix means the
	// first.
	edited := form("jira", "")
	edited.Set("version", "1")
	get(anna, "/credentials/jira?prefix=shared", http.StatusOK, `value="shared" readonly`, `action="/credentials/jira?prefix=shared"`)
	get(anna, "/credentials/jira", http.StatusOK, `value="team-a" readonly`)
	get(anna, "/credentials/bmc", http.StatusOK, `value="shared" readonly`)
	get(anna, "/credentials/jira?prefix=team-b", http.StatusNotFound, "no such part")
	post(anna, "/credentials/jira?prefix=shared", edited, http.StatusOK, "jira is saved")
	if stored("shared", "jira") != 2 || stored("team-a", "jira") != 1 {
		t.Error("an edit hit the other one")
	}
	get(anna, "/explain?url="+url.QueryEscape("https://bmc.example/x"), http.StatusOK, "bmc")

	// Who may not see a part is told that there is one, and no more.
	if body := get(carl, "/", http.StatusOK, "What lies in shared is not shown", "1 credential"); strings.Contains(body, "bmc") {
		t.Errorf("carl sees what is not his:\n%s", body)
	}
	get(carl, "/credentials/bmc?prefix=shared", http.StatusForbidden, "You may not do this")
	post(carl, "/credentials/jira/delete?prefix=shared", nil, http.StatusForbidden, "You may not do this")
	post(carl, "/new", form("cherwell", "/shared"), http.StatusForbidden, "You may not do this")

	get(anna, "/credentials/jira/delete?prefix=shared", http.StatusOK, "Delete jira in shared?")
	post(anna, "/credentials/jira/delete?prefix=shared", nil, http.StatusOK, "jira is deleted", "2 credentials")
	if stored("shared", "jira") != 0 || stored("team-a", "jira") != 1 {
		t.Error("a deletion hit the other one")
	}

	// A consent, too, begins for the one that was meant.
	oauth := form("sn", "/shared")
	for name, value := range map[string]string{
		"authorization": "oauth2-authorization-code", "client_id": "c", "client_secret": "s", "access_token_url": "https://sn.example/token",
		"authorization_url": "https://sn.example/auth", "auth_style": "header", "header_prefix": "Bearer",
	} {
		oauth.Set(name, value)
	}
	body := post(anna, "/new", oauth, http.StatusOK, "A person must consent")
	link := regexp.MustCompile(`href="(/credentials/sn/connect\?nonce=[^"]+)"`).FindStringSubmatch(body)
	if link == nil {
		t.Fatalf("there is no way to connect:\n%s", body)
	}
	address := html.UnescapeString(link[1])
	get(anna, strings.Replace(address, "prefix=shared", "prefix=team-a", 1), http.StatusForbidden)
	if response, _ := anna.get(r.url + address); !strings.HasPrefix(response.Header.Get("Location"), "https://sn.example/auth?") {
		t.Errorf("connecting: %d %s", response.StatusCode, response.Header.Get("Location"))
	}
}

var connectAddress = regexp.MustCompile(`href="(/credentials/jira/connect\?nonce=[^"]+)"`)

// A consent that begins in one replica and ends in the other, exchanged by a
// refresher: the page can read neither the client secret nor the tokens.
func TestConsoleConsentOverVault(t *testing.T) {
	t.Parallel()
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
	site, _ := url.Parse(r.url)
	cookies := anna.client.Jar.Cookies(site)
	if response, body = anna.get(back.String()); response.StatusCode != http.StatusOK || !strings.Contains(body, "jira is connected") {
		t.Fatalf("coming back: %d\n%s", response.StatusCode, body)
	}
	for range 2 { // each replica, although the browser has forgotten nothing
		anna.client.Jar.SetCookies(site, cookies)
		if response, body = anna.get(back.String()); response.StatusCode != http.StatusBadRequest || !strings.Contains(body, "belongs to nothing that was asked") {
			t.Errorf("coming back once more: %d\n%s", response.StatusCode, body)
		}
	}
	record, err := r.store.Get(t.Context(), creds.KeyTokens+"jira")
	if err != nil || !strings.Contains(record.Data.Reveal(), `"ok"`) {
		t.Errorf("the token is not there: %v", err)
	}
	if stats := provider.Stats(t); stats.Granted["authorization_code"] != 1 || stats.Reused != 0 {
		t.Errorf("the provider counts %+v", stats)
	}
}
