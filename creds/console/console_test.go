package console

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/filestore"
)

// rig is the page over a real embedded store, and a client that has logged in.
type rig struct {
	t      *testing.T
	page   *Server
	links  *Links
	store  creds.Store
	server *httptest.Server
	client *http.Client // follows no redirects

	mu      sync.Mutex
	actions []Action
}

// newRig starts the page. set changes it first.
func newRig(t *testing.T, set func(*Server)) *rig {
	t.Helper()
	dir := t.TempDir()
	store, err := filestore.Open(filepath.Join(dir, "store.age"), filepath.Join(dir, "key.txt"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	r := &rig{t: t, store: store, links: &Links{Embedded: store}}
	r.server = httptest.NewUnstartedServer(nil)
	r.page = &Server{
		URL: "http://" + r.server.Listener.Addr().String(), Login: r.links, SessionKey: []byte(strings.Repeat("k", 32)),
		Audit: func(a Action) { r.mu.Lock(); defer r.mu.Unlock(); r.actions = append(r.actions, a) },
	}
	if set != nil {
		set(r.page)
	}
	handler, err := r.page.Handler()
	if err != nil {
		t.Fatal(err)
	}
	r.server.Config.Handler = handler
	r.server.Start()
	t.Cleanup(r.server.Close)
	r.client = newClient(t)
	return r
}

func newClient(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: time.Minute, Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// loggedIn starts the page and logs in.
func loggedIn(t *testing.T, set func(*Server)) *rig {
	t.Helper()
	r := newRig(t, set)
	if a := r.get(r.links.New()); a.status != http.StatusSeeOther || a.location != "/" {
		t.Fatalf("logging in: %d %s", a.status, a.location)
	}
	return r
}

type answer struct {
	status   int
	location string
	header   http.Header
	body     string
}

func (r *rig) get(path string) answer {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodGet, r.page.URL+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.do(request)
}

// post sends a form as a browser does from the page itself.
func (r *rig) post(path string, pairs ...string) answer {
	r.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	request, err := http.NewRequest(http.MethodPost, r.page.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Sec-Fetch-Site", "same-origin")
	request.Header.Set("Origin", r.page.URL)
	return r.do(request)
}

func (r *rig) do(request *http.Request) answer {
	r.t.Helper()
	response, err := r.client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	credstest.FindCanaries(r.t, body)
	return answer{response.StatusCode, response.Header.Get("Location"), response.Header, string(body)}
}

func (a answer) want(t *testing.T, status int, texts ...string) answer {
	t.Helper()
	if a.status != status {
		t.Errorf("answers %d, want %d\n%s", a.status, status, a.body)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("the page lacks %q:\n%s", text, a.body)
		}
	}
	return a
}

func (r *rig) stored(name string) *creds.Credential {
	r.t.Helper()
	c, err := creds.LoadCredential(r.t.Context(), r.store, name)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) save(c *creds.Credential) *creds.Credential {
	r.t.Helper()
	if err := creds.Save(r.t.Context(), r.store, c); err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) lastAction() Action {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.actions) == 0 {
		return Action{}
	}
	return r.actions[len(r.actions)-1]
}

func basic(name, url string) *creds.Credential {
	return &creds.Credential{Name: name, Protocol: creds.HTTPS, URL: url, Authorization: creds.Basic,
		Username: "integration", Password: credstest.Canary("console-password-" + name)}
}

func TestEmptyThenOne(t *testing.T) {
	r := loggedIn(t, nil)
	r.get("/").want(t, 200, "Connector credentials", "No credentials yet", "New credential")
	r.get("/new").want(t, 200, "New credential", `<option value="basic" selected>Basic`, r.page.URL+"/connect/callback")
	secret := credstest.Canary("console-first")
	a := r.post("/new", "name", "servicenow", "protocol", "https", "url", "https://example.service-now.com/", "authorization", "basic",
		"username", "integration", "password", secret.Reveal(), "action", "save")
	if a.status != http.StatusSeeOther || a.location != "/?saved=servicenow" {
		t.Fatalf("saving: %d %s\n%s", a.status, a.location, a.body)
	}
	r.get(a.location).want(t, 200, "servicenow is saved", "1 credential", "https://example<wbr>.service-now<wbr>.com/", "Basic", `aria-label="Edit servicenow"`, `aria-label="Delete servicenow"`)
	if c := r.stored("servicenow"); c.Username != "integration" || !c.Password.Equal(secret) {
		t.Errorf("stored: %+v", c)
	}
	got := r.lastAction()
	if got.Who != "administrator" || got.What != "create" || got.Credential != "servicenow" || !slices.Contains(got.Fields, "password") || !slices.Contains(got.Fields, "url") {
		t.Errorf("the audit says %+v", got)
	}
	r.get("/credentials/servicenow").want(t, 200, "Edit servicenow", "Stored, and never shown", `value="integration"`)
}

// Each type can be made by the page, and comes back into the form as it was.
func TestEveryType(t *testing.T) {
	r := loggedIn(t, nil)
	common := []string{"protocol", "https", "header_prefix", "Bearer", "auth_style", "header", "share", "true", "action", "save"}
	for _, kind := range creds.AuthorizationTypes(creds.HTTPS) {
		t.Run(string(kind), func(t *testing.T) {
			name := string(kind)
			form := append([]string{"name", name, "url", "https://" + name + ".example/", "authorization", name}, common...)
			for _, field := range fields() {
				if !field.belongs(name) || field.optionalFor(name) && field.name != "api_key_header" {
					continue
				}
				switch field.name {
				case "access_token_url", "authorization_url":
					form = append(form, field.name, "https://login."+name+".example/"+field.name)
				case "login_template":
					form = append(form, field.name, `{"form": {"user": "x"}}`)
				case "auth_style", "share":
				case "api_key_header":
					form = append(form, field.name, "X-Api-Key")
				default:
					form = append(form, field.name, "value-of-"+field.name)
				}
			}
			a := r.post("/new", form...)
			if a.status != http.StatusSeeOther {
				t.Fatalf("%d\n%s", a.status, a.body)
			}
			c := r.stored(name)
			if c.Authorization != kind || c.HeaderPrefix != nil {
				t.Errorf("stored as %+v", c)
			}
			// Saved again as the form shows it, nothing changes.
			public, stored, err := creds.LoadPublic(t.Context(), r.store, name)
			if err != nil {
				t.Fatal(err)
			}
			shown := formOf(public, stored)
			again, keep := shown.credential()
			if d := differences(c, again); len(d) != 0 || again.ValidateKeeping(keep...) != nil {
				t.Errorf("the form changes %+v; %v", d, again.ValidateKeeping(keep...))
			}
		})
	}
}

// Every field that a type has stands in the form, and no other.
func TestFieldsAreTheTypes(t *testing.T) {
	for _, p := range []creds.Protocol{creds.HTTPS, creds.SFTP} {
		for _, kind := range creds.AuthorizationTypes(p) {
			c := &creds.Credential{Name: "a", Protocol: p, Authorization: kind}
			var invalid *creds.InvalidError
			if !errors.As(c.Validate(), &invalid) {
				t.Fatal("an empty credential is valid")
			}
			for _, problem := range invalid.Fields {
				if f, ok := fieldNamed(problem.Field); ok && !f.belongs(use(p, kind)) {
					t.Errorf("%s over %s needs %s, which the form does not show", kind, p, problem.Field)
				}
			}
			for _, f := range fields() {
				if !f.belongs(use(p, kind)) || f.secret == nil {
					continue
				}
				full := &creds.Credential{Name: "a", Protocol: p, Authorization: kind}
				*f.secret(full) = creds.NewSecret("x")
				_ = errors.As(full.Validate(), &invalid)
				for _, problem := range invalid.Fields {
					if problem.Field == f.name && strings.Contains(problem.Problem, "is not used by") {
						t.Errorf("%s over %s shows %s, which it does not use", kind, p, f.name)
					}
				}
			}
		}
	}
}

func TestErrorsNameTheirFields(t *testing.T) {
	r := loggedIn(t, nil)
	canary := credstest.Canary("console-typed").Reveal()
	a := r.post("/new", "name", "Bad Name", "protocol", "https", "url", "http://tool.example/?q", "authorization", "oauth2-client-credentials",
		"client_id", "kept-id", "client_secret", canary, "scope", "kept scope", "param", "nothing", "token_lifetime", "soon", "action", "save")
	a.want(t, http.StatusUnprocessableEntity, `role="alert"`, `href="#f-name"`, `href="#f-url"`, `href="#f-access_token_url"`, `href="#f-param"`, `href="#f-token_lifetime"`,
		`value="kept-id"`, `value="kept scope"`, `value="http://tool.example/?q"`, `aria-invalid="true"`, `<details class="more over https on" open>`)
	if names, err := r.store.List(t.Context(), creds.KeyCredentials); err != nil || len(names) != 0 {
		t.Errorf("something is stored: %v, %v", names, err)
	}
}

func TestEditKeepsAndRemoves(t *testing.T) {
	r := loggedIn(t, nil)
	c := basic("jira", "https://jira.example/")
	c.Headers = []creds.Header{{Name: "X-Account", Value: credstest.Canary("console-header")}, {Name: "X-Gone", Value: credstest.Canary("console-gone")}}
	r.save(c)
	a := r.post("/credentials/jira", "version", "1", "protocol", "https", "url", "https://jira.example/", "authorization", "basic", "username", "other",
		"header_name_of", "X-Account", "header_value_of", "", "header_name_of", "", "header_value_of", "", "header_name_of", "X-New", "header_value_of", "new", "action", "save")
	if a.status != http.StatusSeeOther {
		t.Fatalf("%d\n%s", a.status, a.body)
	}
	now := r.stored("jira")
	if now.Username != "other" || !now.Password.Equal(c.Password) || len(now.Headers) != 2 || !now.Headers[0].Value.Equal(c.Headers[0].Value) || now.Headers[1].Name != "X-New" {
		t.Errorf("stored: %+v", now)
	}
	if got := r.lastAction(); got.What != "edit" || slices.Contains(got.Fields, "password") || !slices.Contains(got.Fields, "username") || !slices.Contains(got.Fields, "header") {
		t.Errorf("the audit says %+v", got)
	}
	// Another type drops what only the former one had.
	a = r.post("/credentials/jira", "version", "2", "protocol", "https", "url", "https://jira.example/", "authorization", "bearer", "token", "t", "header_prefix", "Token", "action", "save")
	if a.status != http.StatusSeeOther {
		t.Fatalf("%d\n%s", a.status, a.body)
	}
	if now = r.stored("jira"); now.Username != "" || !now.Password.IsZero() || now.Prefix() != "Token " {
		t.Errorf("stored: %+v", now)
	}
}

func TestDelete(t *testing.T) {
	r := loggedIn(t, nil)
	r.save(basic("jira", "https://jira.example/"))
	r.get("/credentials/jira/delete").want(t, 200, "Delete jira?", "regardless of connectors", "is not known here", ">OK<", ">Cancel<")
	if a := r.post("/credentials/jira/delete"); a.status != http.StatusSeeOther || a.location != "/?deleted=jira" {
		t.Fatalf("%d %s", a.status, a.location)
	}
	r.get("/?deleted=jira").want(t, 200, "jira is deleted")
	r.get("/credentials/jira").want(t, http.StatusNotFound)
	if got := r.lastAction(); got.What != "delete" || got.Credential != "jira" {
		t.Errorf("the audit says %+v", got)
	}
}

func TestPresetsFillIn(t *testing.T) {
	r := loggedIn(t, nil)
	r.post("/new", "name", "sn", "protocol", "https", "url", "https://example.service-now.com/", "authorization", "none", "preset", "servicenow", "action", "preset").
		want(t, 200, `value="https://example.service-now.com/oauth_token.do"`, `<option value="oauth2-client-credentials" selected>`, "Filled in for ServiceNow", `value="sn"`)
	r.post("/new", "protocol", "https", "url", "https://example-restapi.onbmc.com/", "authorization", "none", "preset", "bmc", "action", "preset").
		want(t, 200, "AR-JWT", "{{password}}", `value="1h"`)
	r.post("/new", "protocol", "https", "authorization", "none", "preset", "bmc", "action", "preset").want(t, 422, `href="#f-url"`)
}

func TestScanHostKeys(t *testing.T) {
	const line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJ3JzHu4Ua3dAtgNbR/9QVAjqIVLCUUt/O2Nxl9gKM8"
	keys, err := creds.ParseHostKeys([]string{line}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	r := loggedIn(t, func(s *Server) {
		s.ScanHostKeys = func(_ context.Context, host string, port uint16) ([]creds.HostKey, error) {
			if host != "files.example" || port != 2222 {
				t.Errorf("asks %s:%d", host, port)
			}
			return keys, nil
		}
	})
	form := []string{"name", "files", "protocol", "sftp", "hostname", "sftp://files.example:2222/", "username", "u"}
	r.post("/new", append(form, "action", "scan")...).want(t, 200, keys[0].SHA256, "Accept this key")
	if strings.Contains(r.post("/new", append(form, "action", "scan")...).body, `spellcheck="false" autocomplete="off" aria-describedby="f-host_key-hint">`+"\n"+line) {
		t.Error("the key is in the form without a second click")
	}
	r.post("/new", append(form, "action", "accept", "scanned", line)...).want(t, 200, line+"</textarea>")
	if a := r.post("/new", append(form, "host_key", line, "password", "p", "action", "save")...); a.status != http.StatusSeeOther {
		t.Fatalf("%d\n%s", a.status, a.body)
	}
	if c := r.stored("files"); c.Protocol != creds.SFTP || len(c.HostKeys) != 1 || c.Authorization != creds.Basic {
		t.Errorf("stored %+v", c)
	}
}

func TestExplain(t *testing.T) {
	r := loggedIn(t, nil)
	r.save(basic("jira", "https://jira.example/"))
	r.get("/explain").want(t, 200, "Which credential?")
	r.get("/explain?url="+url.QueryEscape("https://jira.example/rest/api?x=1")).want(t, 200, `<a href="/credentials/jira">jira</a>`)
	r.get("/explain?url="+url.QueryEscape("http://jira.example/rest")).want(t, 200, "goes on as https")
	r.get("/explain?url="+url.QueryEscape("https://jira.example:8443/")).want(t, 200, "Port differs")
	r.get("/explain?url=nothing").want(t, 422, "has no scheme")
}

// What the pages are made of is HTML as it is meant to be.
func TestValidHTML(t *testing.T) {
	grants := &knownGrants{report: Report{OK: true, Lines: []string{"fine"}}}
	r := loggedIn(t, func(s *Server) { s.Grants, s.Live = grants, knownLive{time.Now()} })
	pages := map[string]string{"empty": r.get("/").body, "new": r.get("/new").body, "errors": r.post("/new", "protocol", "https", "authorization", "login").body}
	exampleStore(r, grants)
	for _, path := range []string{"/", "/credentials/jira", "/credentials/servicenow", "/credentials/files", "/credentials/jira/delete", "/explain?url=https://jira.example:1/", "/live", "/nothing", "/login"} {
		pages[strings.Map(func(c rune) rune {
			if c >= 'a' && c <= 'z' {
				return c
			}
			return '-'
		}, "page"+path)] = r.get(path).body
	}
	pages["conflict"] = r.post("/credentials/status", "version", "9", "protocol", "https", "authorization", "none", "url", "https://status.example/x").body
	pages["result"] = r.post("/credentials/itsm/test").body
	dir := t.TempDir()
	var files []string
	for name, page := range pages {
		file := filepath.Join(dir, name+".html")
		if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	rules := `{"root": true, "extends": ["html-validate:recommended"], "rules": {"long-title": "off", "no-trailing-whitespace": "off", "attribute-boolean-style": "off", "form-dup-name": "off"}}`
	if err := os.WriteFile(filepath.Join(dir, ".htmlvalidate.json"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if problems := credstest.ValidateHTML(t, files...); problems != "" {
		t.Errorf("html-validate says:\n%s", strings.ReplaceAll(problems, dir, ""))
	}
}

// By TLS the cookie belongs to this host alone, and to no page that came in the clear.
func TestCookieByTLS(t *testing.T) {
	links := &Links{}
	page := &Server{URL: "https://pillion.example", Login: links, SessionKey: []byte(strings.Repeat("k", 32))}
	handler, err := page.Handler()
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "https://pillion.example"+links.New(), nil)
	handler.ServeHTTP(w, r)
	cookie := w.Header().Get("Set-Cookie")
	if !strings.HasPrefix(cookie, "__Host-pillion_session=") || !strings.Contains(cookie, "; Secure") || !strings.Contains(cookie, "Path=/") || strings.Contains(cookie, "Domain") {
		t.Errorf("the cookie is %s", cookie)
	}
	if w.Header().Get("Strict-Transport-Security") == "" || page.RedirectURL() != "https://pillion.example/connect/callback" {
		t.Errorf("%v, %s", w.Header(), page.RedirectURL())
	}
	for _, bad := range []string{"", "pillion.example", "ftp://pillion.example", "https://pillion.example/console", "https://u@pillion.example", "https://pillion.example?q"} {
		if _, err := (&Server{URL: bad, Login: links, SessionKey: page.SessionKey}).Handler(); err == nil {
			t.Errorf("the URL %q is taken", bad)
		}
	}
	if _, err := (&Server{URL: page.URL, Login: links, SessionKey: []byte("short")}).Handler(); err == nil {
		t.Error("a short key is taken")
	}
}
