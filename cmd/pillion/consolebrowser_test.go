package main_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"pillion/creds"
	"pillion/creds/credstest"
)

// consoleTab is the page of a running pillion in a real Chromium.
type consoleTab struct {
	t        *testing.T
	ctx      context.Context
	page     string
	problems func() []string
}

// openConsole opens the page by a link. Nothing that it ever shows may hold a planted
// secret.
func (s *sidecarProcess) openConsole(t *testing.T, page string) *consoleTab {
	t.Helper()
	need(t, "chromium")
	ctx, ok := credstest.Browser(t, 1100, 900)
	if !ok {
		t.Skip("there is no chromium")
	}
	b := &consoleTab{t, ctx, page, credstest.WatchConsole(t, ctx)}
	b.do(chromedp.Navigate(s.consoleLink(t)))
	return b
}

func (b *consoleTab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("in the browser: %v", err)
	}
}

func (b *consoleTab) open(path string) { b.t.Helper(); b.do(chromedp.Navigate(b.page + path)) }

// set fills fields, each by its name.
func (b *consoleTab) set(pairs ...string) {
	b.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		b.do(chromedp.SetValue(chromedp.CSS(`[name="`+pairs[i]+`"]`), pairs[i+1]))
	}
}

// press clicks on what leads to another page, which must say all of that.
func (b *consoleTab) press(selector string, wanted ...string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Minute)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.t.Fatalf("pressing %s: %v", selector, err)
	}
	text := b.text()
	for _, words := range wanted {
		if !strings.Contains(text, words) {
			b.t.Errorf("after %s the page does not say %q:\n%s", selector, words, text)
		}
	}
}

func (b *consoleTab) text() string {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS("main")))
	if err != nil {
		b.t.Fatal(err)
	}
	b.source()
	return text
}

// source is the page as it stands, whatever scripts have done to it.
func (b *consoleTab) source() string {
	b.t.Helper()
	html, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.documentElement.outerHTML`))
	if err != nil {
		b.t.Fatal(err)
	}
	credstest.FindCanaries(b.t, []byte(html))
	return html
}

const saveButton, testButton = `.buttons button[value="save"]`, `form[action$="/test"] button`

// A tool that answers each path otherwise, and an SFTP server, both real: what an
// administrator does with them on the page.
func TestConsoleInABrowser(t *testing.T) {
	t.Parallel()
	server := credstest.StartSSHD(t, credstest.SSHDOptions{HostKeys: []string{"ed25519", "rsa"}})
	var mu sync.Mutex
	var arrived []string
	tool := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		arrived = append(arrived, r.Method+" "+r.RequestURI+" "+r.Header.Get("X-Api-Key"))
		mu.Unlock()
		status := map[string]int{"/wrong": 401, "/forbidden": 403, "/moved": 302, "/broken": 503}[r.URL.Path]
		if r.URL.Path == "/get-only" && r.Method == http.MethodHead {
			status = http.StatusMethodNotAllowed
		}
		if status != 0 {
			w.Header().Set("Location", "https://elsewhere.example/login")
			w.WriteHeader(status)
		}
	}))
	o := &origin{name: "tool.example", caFile: filepath.Join(t.TempDir(), "tool-ca.crt")}
	tool.TLS = &tls.Config{Certificates: []tls.Certificate{issueCertificate(t, o.name, o.caFile)}}
	tool.StartTLS()
	t.Cleanup(tool.Close)
	o.address = tool.Listener.Addr().String()
	r := newSidecar(t, o)
	page := withConsole(t, r)
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	resolved := strings.Replace(string(text), "resolve: {", fmt.Sprintf("resolve: {files.example: %q, ", server.Addr), 1)
	if err := os.WriteFile(r.config, []byte(resolved), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	b := r.openConsole(t, page)
	t.Run("host keys are read and accepted, and a login is tried", func(t *testing.T) { b.t = t; b.files(server) })
	t.Run("a test goes to a chosen path below the instance URL", func(t *testing.T) {
		b.t = t
		b.tool(func() string {
			mu.Lock()
			defer mu.Unlock()
			return arrived[len(arrived)-1]
		})
	})
	b.t = t
	for _, problem := range b.problems() {
		t.Errorf("the browser's console says: %s", problem)
	}
}

func (b *consoleTab) files(server *credstest.SSHD) {
	t := b.t
	keys, err := creds.ParseHostKeys(server.HostKeys, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	b.open("/new")
	b.set("name", "files", "protocol", "sftp", "hostname", "sftp://files.example:22/", "username", server.Username)
	b.press(`button[value="scan"]`, "sftp://files.example:22/ shows 2 host keys", "ssh-ed25519", keys[0].SHA256, "ssh-rsa", keys[1].SHA256, "Compare with what")
	inForm := func() string {
		value, err := chromedp.Run(b.ctx, chromedp.Value(chromedp.CSS("#f-host_key")))
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	if inForm() != "" {
		t.Error("the keys are in the form without a second click")
	}
	b.press(`button[value="accept"]`, "The host keys are in the form. They count once you save.")
	for _, key := range server.HostKeys {
		if !strings.Contains(inForm(), key) {
			t.Errorf("the form lacks %s", key)
		}
	}
	b.set("password", credstest.Canary("console-wrong-password").Reveal())
	b.press(saveButton, "files is saved")
	b.open("/credentials/files")
	b.press(testButton, "The test failed", "refused the login of user")
	b.open("/credentials/files")
	b.set("password", server.Password.Reveal())
	b.press(saveButton, "files is saved")
	b.open("/credentials/files")
	b.press(testButton, "The test went well", "The server showed a pinned host key, took the login and opened SFTP")
	server.WaitLog(t, "Accepted password for "+server.Username, 1)
	// Another server's key: the password is asked for again, and then never sent.
	b.open("/credentials/files")
	const foreign = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJ3JzHu4Ua3dAtgNbR/9QVAjqIVLCUUt/O2Nxl9gKM8"
	b.set("host_key", foreign)
	b.press(saveButton, "must be entered again")
	b.set("password", server.Password.Reveal())
	b.press(saveButton, "files is saved")
	b.open("/credentials/files")
	b.press(testButton, "The test failed", "Host key of files.example:22 is ssh-ed25519", "but the credential pins")
	// Nothing answers there.
	b.open("/new")
	b.set("protocol", "sftp", "hostname", "sftp://127.0.0.1:1/")
	b.press(`button[value="scan"]`, "One thing is wrong", "Hostname does not show its host keys")
}

func (b *consoleTab) tool(last func() string) {
	key := credstest.Canary("console-api-key").Reveal()
	b.open("/new")
	b.set("name", "tool", "url", "https://tool.example/", "authorization", "api-key", "api_key", key, "api_key_header", "X-Api-Key")
	b.press(saveButton, "tool is saved")
	for path, want := range map[string]struct{ arrives, says, more string }{
		"":           {"HEAD /", "The test went well", "HEAD https://tool.example/ was answered 200 OK"},
		"api/me?a=b": {"HEAD /api/me?a=b", "The test went well", "HEAD https://tool.example/api/me was answered 200 OK"},
		"/get-only":  {"GET /get-only", "The test went well", "GET https://tool.example/get-only was answered 200 OK"},
		"/moved":     {"HEAD /moved", "The test went well", "That is a redirect, which nobody follows"},
		"/wrong":     {"HEAD /wrong", "The test failed", "401 Unauthorized"},
		"/forbidden": {"HEAD /forbidden", "The test failed", "403 Forbidden"},
		"/broken":    {"HEAD /broken", "The test failed", "The tool has trouble of its own"},
	} {
		b.open("/credentials/tool")
		if path != "" {
			b.set("path", path)
		}
		b.press(testButton, want.says, want.more)
		if got := last(); got != want.arrives+" "+key {
			b.t.Errorf("%q arrives as %s", path, strings.Replace(got, key, "KEY", 1))
		}
	}
}
