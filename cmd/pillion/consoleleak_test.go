package main_test

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"pillion/creds/credstest"
)

// TestAttackConsoleLeaks is case 62 through the page: a secret is planted in every
// secret field of every type, and every page, error, conflict, result, dialog, plot,
// log line and metric is searched, as sent and as it stands in a real browser, with
// scripts and without.
func TestAttackConsoleLeaks(t *testing.T) {
	t.Parallel()
	need(t, "chromium")
	t.Run("62 planted secrets through the page", searchThePage)
}

// plantedForms are the forms of new credentials, one or two of each type. SECRET is
// replaced by a canary of its own, KEY by a private key.
var plantedForms = map[string]string{
	"none":     "authorization=none",
	"basic":    "authorization=basic&username=u&password=SECRET",
	"bearer":   "authorization=bearer&header_prefix=Bearer&token=SECRET",
	"key":      "authorization=api-key&api_key=SECRET&api_key_header=X-Key",
	"query":    "authorization=api-key&api_key=SECRET&api_key_query=k",
	"client":   "authorization=oauth2-client-credentials&client_id=c&client_secret=SECRET&access_token_url=PROVIDER",
	"code":     "authorization=oauth2-authorization-code&client_id=c&client_secret=SECRET&access_token_url=PROVIDER&authorization_url=PROVIDER",
	"grant":    "authorization=oauth2-password&client_id=c&client_secret=SECRET&username=u&password=SECRET&access_token_url=PROVIDER",
	"login":    `authorization=login&username=u&password=SECRET&access_token_url=PROVIDER&login_template={"json": {"u": "{{username}}", "p": "{{password}}", "more": "SECRET"}, "token": "/access_token"}`,
	"files":    "protocol=sftp&hostname=sftp://127.0.0.1:1/&username=u&password=SECRET&host_key=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJ3JzHu4Ua3dAtgNbR/9QVAjqIVLCUUt/O2Nxl9gKM8",
	"fileskey": "protocol=sftp&hostname=sftp://127.0.0.1:2/&username=u&private_key=KEY&host_key=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJ3JzHu4Ua3dAtgNbR/9QVAjqIVLCUUt/O2Nxl9gKM8",
}

// leakHunt is a client of the page that searches whatever it gets.
type leakHunt struct {
	t       *testing.T
	page    string
	client  *http.Client
	key     string // a private key
	keyLine string // of it, which is no canary
	checked int
}

func (h *leakHunt) search(where string, data []byte) {
	h.t.Helper()
	h.checked++
	for _, found := range credstest.Canaries(data) {
		h.t.Errorf("%s: a planted secret has leaked: %s", where, found)
	}
	if bytes.Contains(data, []byte(h.keyLine)) {
		h.t.Errorf("%s: the private key has leaked", where)
	}
}

func (h *leakHunt) do(method, path string, form url.Values) (status int, body string) {
	h.t.Helper()
	request, err := http.NewRequest(method, h.page+path, strings.NewReader(form.Encode()))
	if err != nil {
		h.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Sec-Fetch-Site", "same-origin")
	response, err := h.client.Do(request)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	var head bytes.Buffer
	_ = response.Header.Write(&head)
	h.search(method+" "+path, append(head.Bytes(), data...))
	return response.StatusCode, string(data)
}

func searchThePage(t *testing.T) {
	provider := credstest.NewProvider(t)
	provider.Answer(credstest.ReplyToken(credstest.Canary("page-access-token").Reveal(), 3600))
	tool := startOrigin(t, "tool.example")
	r := newSidecar(t, tool)
	page := withConsole(t, r)
	for path, add := range map[string][]byte{tool.caFile: peerCertificate(t, provider.URL()), r.config: []byte("log: {level: debug}\n")} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, add...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := r.startLogging(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &leakHunt{t: t, page: page, client: &http.Client{Jar: jar, Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	h.key = newPrivateKey(t)
	h.keyLine = strings.Split(h.key, "\n")[3]
	h.do(http.MethodGet, strings.TrimPrefix(r.consoleLink(t), page), nil)
	h.plant(provider.URL())
	h.provoke()
	h.use(r)
	pages := h.crawl()
	if len(pages) < 40 {
		t.Errorf("only %d pages found: %v", len(pages), pages)
	}

	b := r.openConsole(t, page)
	for _, scripts := range []bool{true, false} {
		if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts}); err != nil {
			t.Fatal(err)
		}
		for _, path := range pages {
			b.open(path)
			h.search(fmt.Sprintf("%s in the browser, scripts %v", path, scripts), []byte(b.source()))
		}
	}
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{}); err != nil {
		t.Fatal(err)
	}
	b.open("/")
	b.do(chromedp.Click(chromedp.CSS(`a[aria-label="Delete basic"]`)), chromedp.WaitVisible(chromedp.CSS("dialog form")))
	h.search("the dialog", []byte(b.source()))
	for _, problem := range b.problems() {
		t.Errorf("the browser's console says: %s", problem)
	}

	for _, words := range [][]string{{"credential", "list", "-o", "json"}, {"credential", "get", "login", "-o", "json"}, {"credential", "get", "fileskey"}, {"logs"}, {"top", "--once"}} {
		h.search("pillion "+strings.Join(words, " "), []byte(r.run(t, "", append(words, "--config", r.config)...)))
	}
	_, metrics := get(t, "http://"+r.metrics+"/metrics")
	h.search("the metrics", []byte(metrics))
	log.stop(t)
	h.search("the log", log.bytes())

	// The control: where they belong they are found, and there was something to search.
	var arrived strings.Builder
	for _, request := range tool.seen() {
		fmt.Fprintln(&arrived, request)
	}
	found := strings.Join(credstest.Canaries([]byte(arrived.String())), "\n")
	for _, kind := range []string{"page-bearer", "page-basic", "page-query", "page-access-token"} {
		if !strings.Contains(found, kind) {
			t.Errorf("the tool got no %s: the test tests less than it says", kind)
		}
	}
	if !strings.Contains(string(log.bytes()), `"msg":"console"`) || !strings.Contains(metrics, `credential="bearer"`) || h.checked < 150 {
		t.Errorf("the log or the metrics tell of nothing that was done here, or little was searched: %d", h.checked)
	}
}

// form is the planted one of a name, with canaries of its own.
func (h *leakHunt) form(name, provider string) url.Values {
	h.t.Helper()
	form, err := url.ParseQuery(strings.NewReplacer("+", "%2B").Replace(plantedForms[name]))
	if err != nil {
		h.t.Fatal(err)
	}
	for field, values := range form {
		values[0] = strings.NewReplacer("SECRET", credstest.Canary("page-"+name+"-"+strings.ReplaceAll(field, "_", "-")).Reveal(), "PROVIDER", provider).Replace(values[0])
	}
	if form.Get("private_key") != "" {
		form.Set("private_key", h.key)
	}
	if !form.Has("protocol") {
		form.Set("protocol", "https")
		form.Set("url", "https://tool.example/"+name+"/")
		form.Set("header_name_of", "X-Account")
		form.Set("header_value_of", credstest.Canary("page-header").Reveal())
	}
	form.Set("name", name)
	return form
}

// newPrivateKey makes one with OpenSSH's own program.
func newPrivateKey(t *testing.T) string {
	t.Helper()
	need(t, "ssh-keygen")
	file := filepath.Join(t.TempDir(), "key")
	if output, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, output)
	}
	key, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}

// plant makes the credentials on the page.
func (h *leakHunt) plant(provider string) {
	h.t.Helper()
	for name := range plantedForms {
		if status, body := h.do(http.MethodPost, "/new", h.form(name, provider)); status != http.StatusSeeOther {
			h.t.Fatalf("making %s: %d\n%s", name, status, body)
		}
	}
}

// provoke has every form refused in each way, with secrets typed into it.
func (h *leakHunt) provoke() {
	h.t.Helper()
	for name := range plantedForms {
		for what, change := range map[string]func(url.Values) int{
			"a bad name":    func(f url.Values) int { f.Set("name", "Bad Name"); return http.StatusUnprocessableEntity },
			"a taken name":  func(url.Values) int { return http.StatusUnprocessableEntity },
			"more fields":   func(f url.Values) int { f.Set("action", "fields"); return http.StatusOK },
			"a preset":      func(f url.Values) int { f.Set("action", "preset"); f.Set("preset", "servicenow"); return 0 },
			"a scan":        func(f url.Values) int { f.Set("action", "scan"); return http.StatusUnprocessableEntity },
			"accepted keys": func(f url.Values) int { f.Set("action", "accept"); return http.StatusOK },
		} {
			form := h.form(name, "https://provider.example/")
			want := change(form)
			if status, body := h.do(http.MethodPost, "/new", form); want != 0 && status != want {
				h.t.Errorf("%s, %s: %d\n%s", name, what, status, body)
			}
		}
		form := h.form(name, "https://provider.example/")
		form.Set("version", "9")
		if status, body := h.do(http.MethodPost, "/credentials/"+name, form); status != http.StatusConflict && status != http.StatusUnprocessableEntity {
			h.t.Errorf("%s, somebody was faster: %d\n%s", name, status, body)
		}
		form.Set("version", "1")
		form.Set("url", "https://elsewhere.example/")
		form.Set("hostname", "sftp://elsewhere.example:22/")
		for _, secret := range []string{"password", "token", "api_key", "client_secret", "private_key", "login_template", "header_value_of"} {
			form.Set(secret, "")
		}
		if status, body := h.do(http.MethodPost, "/credentials/"+name, form); status != http.StatusUnprocessableEntity || !strings.Contains(body, "must be entered again") {
			h.t.Errorf("%s, for another server: %d\n%s", name, status, body)
		}
	}
}

// use sends a request through each credential, and tests and refreshes each.
func (h *leakHunt) use(r *sidecarProcess) {
	h.t.Helper()
	through := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: r.proxy}), DisableKeepAlives: true}
	for name := range plantedForms {
		request, err := http.NewRequest(http.MethodGet, "http://tool.example/"+name+"/x?q="+credstest.Canary("page-clients-query").Reveal(), nil)
		if err != nil {
			h.t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+credstest.Canary("page-clients-own").Reveal())
		response, err := through.RoundTrip(request)
		if err != nil {
			h.t.Fatal(err)
		}
		response.Body.Close()
		h.do(http.MethodPost, "/credentials/"+name+"/test", url.Values{"path": {"/me"}})
		h.do(http.MethodPost, "/credentials/"+name+"/refresh", nil)
	}
	h.do(http.MethodGet, "/explain?url="+url.QueryEscape("https://tool.example/basic/x"), nil)
}

// crawl follows every link of every page, and returns the pages.
func (h *leakHunt) crawl() []string {
	h.t.Helper()
	seen, queue := map[string]bool{}, []string{"/", "/explain?url=https://tool.example/query/x", "/explain?url=nothing", "/credentials/nobody", "/nothing", "/login"}
	links := regexp.MustCompile(`(?:href|action)="(/[^"#]*)"`)
	var pages []string
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		_, body := h.do(http.MethodGet, path, nil)
		if strings.HasPrefix(path, "/assets/") || strings.Contains(path, "/connect?") {
			continue
		}
		pages = append(pages, path)
		for _, link := range links.FindAllStringSubmatch(body, -1) {
			if at := html.UnescapeString(link[1]); at != "/logout" {
				queue = append(queue, at)
			}
		}
	}
	slices.Sort(pages)
	return pages
}
