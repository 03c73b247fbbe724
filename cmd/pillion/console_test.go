package main_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"pillion/creds/credstest"
)

// withConsole adds the page to a sidecar's configuration, and returns its address.
func withConsole(t *testing.T, r *sidecarProcess) string {
	t.Helper()
	address := credstest.FreeAddress(t)
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.config, append(text, "console: {listen: '"+address+"', session: {idle: 20m}}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	return "http://" + address
}

func (s *sidecarProcess) consoleLink(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(s.run(t, "", "console-link", "--config", s.config))
}

// A credential that is made on the page counts for the next request; one that is
// deleted there, not any more. A link opens the page once.
func TestConsoleServed(t *testing.T) {
	t.Parallel()
	tool := startOrigin(t, "tool.example")
	r := newSidecar(t, tool)
	page := withConsole(t, r)
	r.start(t)
	link := r.consoleLink(t)
	if !strings.HasPrefix(link, page+"/login?link=") {
		t.Fatalf("the link is %s", link)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	open := func(client *http.Client, address string) (int, string) {
		response, err := client.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode, response.Request.URL.Path
	}
	if status, at := open(client, link); status != http.StatusOK || at != "/" {
		t.Fatalf("the link leads to %d at %s", status, at)
	}
	if status, at := open(&http.Client{}, link); status != http.StatusUnauthorized || at != "/login" {
		t.Fatalf("the link again leads to %d at %s", status, at)
	}
	response, err := client.Get(page + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || !regexp.MustCompile(`<body data-left="(1200|11[0-9]{2})">`).Match(body) {
		t.Errorf("console.session.idle does not count: %v\n%s", err, body)
	}
	post := func(path string, form url.Values) string {
		response, err := client.PostForm(page+path, form)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.Request.URL.RequestURI()
	}
	secret := credstest.Canary("console-served").Reveal()
	if at := post("/new", url.Values{"name": {"tool"}, "protocol": {"https"}, "url": {"https://tool.example/"}, "authorization": {"bearer"}, "header_prefix": {"Bearer"}, "token": {secret}}); at != "/?saved=tool" {
		t.Fatalf("saving leads to %s", at)
	}
	through := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: r.proxy}), DisableKeepAlives: true}
	send := func() int {
		request, err := http.NewRequest(http.MethodGet, "http://tool.example/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := through.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	if status := send(); status != http.StatusOK {
		t.Fatalf("a request gets %d", status)
	}
	if seen := tool.seen(); seen[len(seen)-1].authorization != "Bearer "+secret {
		t.Error("the request carries something else")
	}
	if at := post("/credentials/tool/test", url.Values{"path": {"/y"}}); at != "/credentials/tool/test" {
		t.Errorf("a test leads to %s", at)
	}
	if seen := tool.seen(); seen[len(seen)-1].authorization != "Bearer "+secret {
		t.Error("the test carries something else")
	}
	if at := post("/credentials/tool/delete", nil); at != "/?deleted=tool" {
		t.Fatalf("deleting leads to %s", at)
	}
	if status := send(); status != http.StatusForbidden {
		t.Errorf("afterwards a request gets %d", status)
	}
}

// From the form of the page to an injected token: a person consents in a browser.
func TestConsoleConnectInABrowser(t *testing.T) {
	t.Parallel()
	need(t, "chromium", "node", "npm")
	var page string
	r := newConnectRig(t, func(t *testing.T, s *sidecarProcess) { page = withConsole(t, s) })
	tab, ok := credstest.Browser(t, 1000, 800)
	if !ok {
		t.Skip("there is no chromium")
	}
	if err := chromedp.Do(tab, chromedp.Navigate(r.consoleLink(t)), chromedp.Navigate(page+"/credentials/jira")); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.RunResponse(tab, chromedp.Click(chromedp.CSS(`a[href*="/connect?nonce="]`))); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.RunResponse(tab, chromedp.Click(chromedp.CSS(`button[value="allow"]`))); err != nil {
		t.Fatal(err)
	}
	text, err := chromedp.Run(tab, chromedp.Text(chromedp.CSS("main")))
	if err != nil || !strings.Contains(text, "Connected") || !strings.Contains(text, "is connected") {
		t.Fatalf("the browser ends on %q, %v", text, err)
	}
	r.wantConnected(t)
	// Back on its page: good, and it can be refreshed there.
	if err := chromedp.Do(tab, chromedp.Navigate(page+"/credentials/jira")); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.RunResponse(tab, chromedp.Click(chromedp.CSS(`form[action$="/refresh"] button`))); err != nil {
		t.Fatal(err)
	}
	if text, err = chromedp.Run(tab, chromedp.Text(chromedp.CSS("main"))); err != nil || !strings.Contains(text, "Refreshed") {
		t.Errorf("refreshing ends on %q, %v", text, err)
	}
	r.wantConnected(t)
}
