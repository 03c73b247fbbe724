package console

import (
	"bytes"
	"context"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

// The numbered sub-tests are the cases of docs/attacks.md.
func TestAttackConsole(t *testing.T) {
	t.Run("45 a form of another site, a foreign host name, a frame", attackForeign)
	t.Run("46 state: once, of this session, never empty; nothing of the provider's is echoed", attackConsent)
	t.Run("46a a consent ends once, whichever replica it comes back to", consentEndsOnce)
	t.Run("46b a login elsewhere ends in the browser that began it, once", loginElsewhere)
	t.Run("47 secrets: never sent, never overwritten by what was not typed", attackSecrets)
	t.Run("48 another server asks for the secret again", attackAim)
	t.Run("49 a test goes to the stored address alone", attackTest)
	t.Run("50 the later of two editors gets a conflict", attackConflict)
	t.Run("51 nothing without a login", attackStranger)
	t.Run("53 slow and huge forms", attackSize)
}

func (r *rig) request(method, path, body string, header ...string) answer {
	r.t.Helper()
	request, err := http.NewRequest(method, r.page.URL+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
			continue
		}
		request.Header.Set(header[i], header[i+1])
	}
	return r.do(request)
}

func attackForeign(t *testing.T) {
	r := loggedIn(t, nil)
	r.save(basic("jira", "https://jira.example/"))
	for _, from := range [][]string{
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"}, // another port of this machine
		{"Origin", "http://127.0.0.1:1"},
	} {
		r.request("POST", "/credentials/jira/delete", "x=y", from...).want(t, http.StatusForbidden)
		r.request("POST", "/logout", "x=y", from...).want(t, http.StatusForbidden)
		r.request("POST", "/login", "way=link&link=x", from...).want(t, http.StatusForbidden)
	}
	for _, host := range []string{"evil.example", "localhost:8180", "127.0.0.1", r.page.host + ".evil.example", "evil.example:" + r.page.host} {
		r.request("GET", "/", "", "Host", host).want(t, http.StatusMisdirectedRequest)
		r.request("POST", "/credentials/jira/delete", "x=y", "Host", host).want(t, http.StatusMisdirectedRequest)
	}
	r.stored("jira")
	for _, path := range []string{"/", "/new", "/credentials/jira", "/nothing", "/assets/nothing", "/login"} {
		h := r.get(path).header
		if h.Get("Content-Security-Policy") != contentPolicy || h.Get("X-Frame-Options") != "DENY" || h.Get("Referrer-Policy") != "no-referrer" ||
			h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is sent with %v", path, h)
		}
	}
	a := r.get(assetPath("style.css"))
	if a.status != http.StatusOK || !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
		t.Errorf("the style sheet: %d %v", a.status, a.header)
	}
}

var connectLink = regexp.MustCompile(`href="(/credentials/[a-z]+/connect\?nonce=[^"]+)"`)

func attackConsent(t *testing.T) {
	grants := &knownGrants{url: "https://provider.example/authorize", report: Report{OK: true, Lines: []string{"connected"}}}
	r := loggedIn(t, func(s *Server) { s.Grants = grants })
	exampleStore(r, grants)
	begin := func() string {
		return html.UnescapeString(connectLink.FindStringSubmatch(r.get("/credentials/jira").body)[1])
	}

	// Only by a link of this session's own page, once.
	r.get("/credentials/jira/connect").want(t, http.StatusForbidden)
	r.get("/credentials/jira/connect?nonce=guessed").want(t, http.StatusForbidden)
	link := begin()
	r.get(strings.Replace(link, "/jira/", "/itsm/", 1)).want(t, http.StatusForbidden)
	other := &rig{t: t, page: r.page, links: r.links, client: newClient(t)}
	other.get(r.links.New())
	other.get(link).want(t, http.StatusForbidden)

	if a := r.get(link); a.status != http.StatusSeeOther || a.location != "https://provider.example/authorize?state=the-state" {
		t.Fatalf("%d %s", a.status, a.location)
	}
	if got := grants.asked[len(grants.asked)-1]; got != "begin jira "+r.page.URL+"/connect/callback" {
		t.Errorf("the redirect URL does not follow from the configuration: %s", got)
	}
	r.get(link).want(t, http.StatusForbidden)

	finished := func() int { return strings.Count(strings.Join(grants.asked, "\n"), "finish") }
	for _, query := range []string{"", "?code=c", "?code=c&state=", "?code=c&state=guessed", "?code=c&state=the-state&state=the-state", "?code=c&state=the-state%00"} {
		r.get("/connect/callback"+query).want(t, http.StatusBadRequest)
	}
	other.get("/connect/callback?code=c&state=the-state").want(t, http.StatusBadRequest)
	if finished() != 0 {
		t.Fatal("a stray answer was taken")
	}
	// What a provider writes, or whoever made the link, is not on the page.
	attack := "?code=c&state=the-state&error_description=" + url.QueryEscape("<script>alert(1)</script>hello")
	a := r.get("/connect/callback"+attack).want(t, http.StatusOK, "Connected")
	if strings.Contains(a.body, "alert(1)") || strings.Contains(a.body, "the-verifier") || finished() != 1 {
		t.Errorf("the page echoes what it was sent, or it was not taken once:\n%s", a.body)
	}
	r.get("/connect/callback"+attack).want(t, http.StatusBadRequest)
	if finished() != 1 {
		t.Error("an answer was taken twice")
	}
	if got := grants.asked[len(grants.asked)-1]; got != "finish jira the-verifier "+r.page.URL+"/connect/callback" {
		t.Errorf("finished with %s", got)
	}

	// Text of others is text: names, URLs, errors.
	script := `"><script>alert(2)</script>`
	for _, a := range []answer{
		r.post("/new", "name", script, "protocol", "https", "url", "https://x.example/"+script, "authorization", script, "username", script, "header_name_of", script, "header_value_of", "v"),
		r.get("/explain?url=" + url.QueryEscape(script)), r.get("/?q=" + url.QueryEscape(script)), r.get("/?saved=" + url.QueryEscape(script)),
		r.get("/login?back=" + url.QueryEscape(script)),
	} {
		if strings.Contains(a.body, "<script>alert") {
			t.Errorf("a script comes through:\n%s", a.body)
		}
	}
}

func attackSecrets(t *testing.T) {
	grants := &knownGrants{report: Report{OK: true}}
	r := loggedIn(t, func(s *Server) { s.Grants, s.Live = grants, knownLive{time.Now()} })
	exampleStore(r, grants)
	// The whole page is crawled; do looks for canaries in every answer.
	seen, queue := map[string]bool{}, []string{"/"}
	links := regexp.MustCompile(`(?:href|action)="(/[^"#]*)"`)
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		if seen[path] || strings.Contains(path, "/connect?") {
			continue
		}
		seen[path] = true
		for _, link := range links.FindAllStringSubmatch(r.get(path).body, -1) {
			queue = append(queue, html.UnescapeString(link[1]))
		}
	}
	if len(seen) < 25 {
		t.Errorf("only %d pages found: %v", len(seen), seen)
	}
	// A form that failed does not bring back what was typed.
	r.post("/credentials/servicenow", "version", "1", "protocol", "https", "url", "", "authorization", "basic", "username", "u",
		"password", credstest.Canary("typed").Reveal(), "header_name_of", "X-Account", "header_value_of", credstest.Canary("typed-header").Reveal()).want(t, http.StatusUnprocessableEntity)
	// Empty keeps, whatever way the field is empty; and stars are a password like any other.
	before := r.stored("servicenow").Password
	if a := r.post("/credentials/servicenow", "version", "1", "protocol", "https", "url", "https://example.service-now.com/", "authorization", "basic", "username", "u"); a.status != http.StatusSeeOther {
		t.Fatalf("%d\n%s", a.status, a.body)
	}
	if !r.stored("servicenow").Password.Equal(before) {
		t.Error("a field that was not sent overwrote the secret")
	}
	page := r.get("/credentials/servicenow").body
	if field := regexp.MustCompile(`<input id="f-password"[^>]*>`).FindString(page); !strings.Contains(field, `value=""`) {
		t.Errorf("the field of the password is %s", field)
	}
}

func attackAim(t *testing.T) {
	grants := &knownGrants{}
	r := loggedIn(t, func(s *Server) { s.Grants = grants })
	exampleStore(r, grants)
	const key2 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
	for what, form := range map[string][]string{
		"host":      {"servicenow", "f-password", "protocol", "https", "url", "https://evil.example/", "authorization", "basic", "username", "integration"},
		"port":      {"servicenow", "f-password", "protocol", "https", "url", "https://example.service-now.com:8443/", "authorization", "basic", "username", "integration"},
		"token URL": {"itsm", "f-client_secret", "protocol", "https", "url", "https://itsm.example/", "authorization", "oauth2-client-credentials", "client_id", "pillion", "access_token_url", "https://evil.example/token"},
		"host key":  {"files", "f-password", "protocol", "sftp", "hostname", "sftp://files.example:2222/", "username", "upload", "host_key", key2},
		"SFTP host": {"files", "f-password", "protocol", "sftp", "hostname", "sftp://evil.example:2222/", "username", "upload", "host_key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJ3JzHu4Ua3dAtgNbR/9QVAjqIVLCUUt/O2Nxl9gKM8"},
	} {
		was := r.stored(form[0])
		r.post("/credentials/"+form[0], append([]string{"version", "1"}, form[2:]...)...).want(t, http.StatusUnprocessableEntity, `href="#`+form[1]+`"`, "must be entered again")
		if now := r.stored(form[0]); now.Version != was.Version {
			t.Errorf("another %s was stored with the old secret", what)
		}
	}
	// Another path of the same server does not ask.
	if a := r.post("/credentials/itsm", "version", "1", "protocol", "https", "url", "https://itsm.example/api/", "authorization", "oauth2-client-credentials", "client_id", "pillion", "access_token_url", "https://login.itsm.example/other", "header_prefix", "Bearer", "auth_style", "header", "share", "true"); a.status != http.StatusSeeOther {
		t.Errorf("another path: %d\n%s", a.status, a.body)
	}
}

func attackTest(t *testing.T) {
	grants := &knownGrants{report: Report{OK: true, Lines: []string{"fine"}}}
	r := loggedIn(t, func(s *Server) { s.Grants = grants })
	exampleStore(r, grants)
	// Whatever the form says beside: the stored credential is what is tested.
	r.post("/credentials/itsm/test", "path", "/api", "url", "https://evil.example/", "access_token_url", "https://evil.example/token", "name", "jira").want(t, 200, "The test went well")
	if got := grants.asked[len(grants.asked)-1]; got != "test itsm https://itsm.example/ /api" {
		t.Errorf("it tests %s", got)
	}
	r.post("/credentials/nobody/test").want(t, http.StatusNotFound)
	if len(grants.asked) != 1 {
		t.Errorf("asked: %q", grants.asked)
	}
}

func attackConflict(t *testing.T) {
	r := loggedIn(t, nil)
	r.save(basic("jira", "https://jira.example/"))
	theirs := r.stored("jira")
	theirs.Username = "theirs"
	r.save(theirs)
	form := []string{"protocol", "https", "url", "https://jira.example/", "authorization", "basic", "username", "mine"}
	a := r.post("/credentials/jira", append([]string{"version", "1"}, form...)...).
		want(t, http.StatusConflict, "changed this credential meanwhile", `<td data-label="Stored now">theirs</td><td data-label="Yours">mine</td>`, "Take theirs", "Write mine over it", `name="version" value="2"`, `value="mine"`)
	if strings.Contains(a.body, "are not kept") || r.stored("jira").Username != "theirs" {
		t.Error("the stale edit was stored, or secrets are said to be lost")
	}
	if a := r.post("/credentials/jira", append([]string{"version", "2"}, form...)...); a.status != http.StatusSeeOther || r.stored("jira").Username != "mine" {
		t.Errorf("over theirs: %d", a.status)
	}
	r.post("/new", append([]string{"name", "jira", "password", "p"}, form...)...).want(t, http.StatusUnprocessableEntity, "is taken")
	if err := creds.Remove(t.Context(), r.store, "jira"); err != nil {
		t.Fatal(err)
	}
	r.post("/credentials/jira", append([]string{"version", "3"}, form...)...).want(t, http.StatusConflict, "was deleted meanwhile")
	if _, err := r.store.Get(t.Context(), creds.KeyCredentials+"jira"); err == nil {
		t.Error("an edit brought a deleted credential back")
	}
}

func attackStranger(t *testing.T) {
	now := time.Now()
	r := newRig(t, func(s *Server) { s.Now = func() time.Time { return now } })
	r.save(basic("jira", "https://jira.example/"))
	paths := []string{"/", "/new", "/credentials/jira", "/credentials/jira/delete", "/credentials/jira/connect", "/connect/callback?code=c&state=s", "/explain", "/live", "/nothing"}
	nothing := func(what string) {
		t.Helper()
		for _, path := range paths {
			if a := r.get(path); a.status != http.StatusSeeOther && a.status != http.StatusUnauthorized || strings.Contains(a.body, "jira.example") {
				t.Errorf("%s: %s answers %d\n%s", what, path, a.status, a.body)
			}
		}
		for _, path := range []string{"/new", "/credentials/jira", "/credentials/jira/delete", "/credentials/jira/test", "/credentials/jira/refresh", "/logout"} {
			r.post(path, "name", "mine", "protocol", "https").want(t, http.StatusUnauthorized, "Nothing was changed")
		}
		r.stored("jira")
	}
	nothing("without a cookie")
	for _, link := range []string{"/login?link=", "/login?link=guessed"} {
		r.get(link).want(t, http.StatusUnauthorized)
	}
	link := r.links.New()
	if a := r.request("GET", link, "", "Sec-Purpose", "prefetch;prerender"); a.status != http.StatusOK {
		t.Errorf("fetched ahead: %d", a.status)
	}
	// A cookie of another key, or of another purpose, or one that has ended, is none.
	page, _ := url.Parse(r.page.URL)
	foreign, _ := newSealer([]byte(strings.Repeat("x", 32)))
	mine := r.page.sealer
	held := sessionCookie{ID: "i", Who: "w", Expires: now.Add(time.Hour)}
	ended := held
	ended.Expires = now.Add(-time.Second)
	for what, value := range map[string]string{"of another key": foreign.seal(cookieSession, held), "of another purpose": mine.seal(cookieConsent, held), "that has ended": mine.seal(cookieSession, ended), "that is none": "x"} {
		r.client.Jar.SetCookies(page, []*http.Cookie{{Name: cookieSession, Value: value}})
		nothing("a cookie " + what)
	}
	// Logged out is out, also for a copy of the cookie; eight hours later as well.
	r.get(link)
	copied := r.client.Jar.Cookies(page)
	r.post("/logout")
	r.client.Jar.SetCookies(page, copied)
	nothing("after the logout")
	r.get(r.links.New())
	r.get("/").want(t, 200)
	now = now.Add(9 * time.Hour)
	nothing("nine hours later")
	// The login leads nowhere else.
	for _, back := range []string{"https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", ""} {
		if got := localPath(back); got != "/" {
			t.Errorf("back to %q leads to %q", back, got)
		}
	}
	if cookie := r.get(r.links.New()).header.Get("Set-Cookie"); !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") {
		t.Errorf("the cookie is %s", cookie)
	}
}

func attackSize(t *testing.T) {
	r := loggedIn(t, nil)
	big := url.Values{"name": {"big"}, "scope": {strings.Repeat("a", maxForm)}}.Encode()
	r.request("POST", "/new", big, "Sec-Fetch-Site", "same-origin").want(t, http.StatusRequestEntityTooLarge, "more than 256 KiB")
	r.request("POST", "/new", strings.Repeat("header_name_of=A&header_value_of=b&", 251), "Sec-Fetch-Site", "same-origin").want(t, http.StatusRequestEntityTooLarge, "more than 500 fields")
	r.request("POST", "/new", strings.Repeat("header_name_of=A&header_value_of=b&", 200), "Sec-Fetch-Site", "same-origin").want(t, http.StatusUnprocessableEntity)
	r.request("POST", "/new", "name=%zz", "Sec-Fetch-Site", "same-origin").want(t, http.StatusBadRequest, "It is broken")
	// A form of another kind is none: it is as if nothing was filled in.
	r.request("POST", "/new", "--x\r\nContent-Disposition: form-data; name=name\r\n\r\nother\r\n--x--\r\n", "Sec-Fetch-Site", "same-origin", "Content-Type", "multipart/form-data; boundary=x").
		want(t, http.StatusUnprocessableEntity, "Name is required")
	if names, err := r.store.List(t.Context(), creds.KeyCredentials); err != nil || len(names) != 0 {
		t.Errorf("something is stored: %v, %v", names, err)
	}
	// One that drips holds up nobody else.
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", r.page.host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.Copy(conn, bytes.NewReader([]byte("POST /new HTTP/1.1\r\nHost: "+r.page.host+"\r\nContent-Length: 100\r\n\r\nn"))); err != nil {
		t.Fatal(err)
	}
	r.get("/").want(t, 200)
}
