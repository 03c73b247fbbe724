package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"pillion/creds/credstest"
)

// pages are two consoles of one team behind one address, as whole pillions that read
// their configuration: each request goes to the other one than the last.
type pages struct {
	*team
	url string
	tab context.Context
}

func newPages(t *testing.T) *pages {
	t.Helper()
	for _, program := range []string{"chromium", "node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	p := &pages{team: newTeam(t)}
	var turn atomic.Int64
	var listens []string
	server := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: listens[turn.Add(1)%int64(len(listens))]})
		r.Out.Host = r.In.Host
	}})
	t.Cleanup(server.Close)
	p.url = server.URL
	key := filepath.Join(t.TempDir(), "session.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("shared by both of them ", 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		listens = append(listens, credstest.FreeAddress(t))
		p.install("sidecar", p.vault.Addr, `proxy: {listen: 'off'}
console:
  listen: `+listens[len(listens)-1]+`
  url: `+p.url+`
  session_key_file: `+key+`
  vault: {userpass: 'off', oidc: {path: sso, role: people, name: Example SSO}}`).serve()
	}
	p.vault.OIDC(t, "sso", p.provider)
	p.admit("pillion-console", nil)
	for _, listen := range listens {
		eventually(t, func() bool {
			response, err := http.Get("http://" + listen + "/login")
			if err != nil {
				return false
			}
			response.Body.Close()
			return true
		})
	}
	var ok bool
	if p.tab, ok = credstest.Browser(t, 1000, 800); !ok {
		t.Fatal("there is no chromium")
	}
	return p
}

// admit sets what people may do who log in, and who they must be.
func (p *pages) admit(policy string, bound map[string]any) {
	p.vault.OIDCRole(p, "sso", "people", p.url+"/login/callback", []string{policy}, bound)
}

func (p *pages) open(path string) {
	p.Helper()
	if err := chromedp.Do(p.tab, chromedp.Navigate(p.url+path)); err != nil {
		p.Fatal(err)
	}
}

// press clicks on what leads to another page.
func (p *pages) press(selector string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.tab, time.Minute)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		p.Fatalf("pressing %s: %v", selector, err)
	}
}

func (p *pages) text() string {
	p.Helper()
	text, err := chromedp.Run(p.tab, chromedp.Text(chromedp.CSS("body")))
	if err != nil {
		p.Fatal(err)
	}
	return text
}

func (p *pages) want(texts ...string) {
	p.Helper()
	page := p.text()
	for _, text := range texts {
		if !strings.Contains(page, text) {
			p.Fatalf("the page lacks %q:\n%s", text, page)
		}
	}
}

func (p *pages) logIn() {
	p.Helper()
	p.open("/login")
	p.press(`a[href^="/login/provider"]`)
	p.agree()
}

// agree consents at the provider, if it asks: it may know the person still.
func (p *pages) agree() {
	p.Helper()
	const button = `button[value="allow"]`
	asks, err := chromedp.Run(p.tab, chromedp.Evaluate[bool]("document.querySelector('"+button+"') !== null"))
	if err != nil {
		p.Fatal(err)
	}
	if asks {
		p.press(button)
	}
}

// The page over Vault, in a browser, from the login at a provider to an injected token:
// two replicas, a refresher and a sidecar, each with the policy that is shipped for
// it. The page acts with the person's own token: Vault knows who wrote, and refuses
// who may not.
func TestConsoleOverVaultInABrowser(t *testing.T) {
	t.Parallel()
	p := newPages(t)
	p.does(p.operator, p.provider.ClientSecret, "credential", "set", "tool", "--url", "https://example.com/", "--authorization", "oauth2-authorization-code",
		"--client-id", p.provider.ClientID, "--client-secret-file", "-", "--access-token-url", p.provider.TokenURL(),
		"--authorization-url", p.provider.AuthorizationURL(), "--scope", "openid offline_access")
	p.refresher.serve()
	p.sidecar.serve()

	p.open("/")
	p.want("Log in with Example SSO", "With a Vault token")
	credstest.Accessible(t, p.tab, "the login over Vault")
	p.logIn()
	p.want("Connector credentials", "sso-alice", "https://example.com/")

	// A consent that begins in one replica and ends in the other.
	p.open("/credentials/tool")
	p.press(`a[href*="/connect?nonce="]`)
	p.agree()
	p.want("Connected", "tool is connected")
	deadline := time.Now().Add(patience)
	for {
		output, failed := p.sidecar.run("", "try", "https://example.com/")
		if !failed && strings.Contains(output, "answer:     200 OK") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the consent:\n%s", output)
		}
		<-time.After(200 * time.Millisecond)
	}
	// The page knows how the token stands, by what the refresher tells people of it.
	for {
		p.open("/credentials/tool")
		if page := p.text(); strings.Contains(page, "Reconnect") && strings.Contains(page, "Consent ends") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the page says:\n%s", page)
		}
	}
	credstest.Accessible(t, p.tab, "a credential over Vault")
	p.press(`form[action$="/refresh"] button`)
	p.want("Refreshed")

	// What alice changes bears her name in Vault.
	p.open("/credentials/tool")
	if err := chromedp.Do(p.tab, chromedp.SetValue(chromedp.CSS(`[name="scope"]`), "openid offline_access profile")); err != nil {
		t.Fatal(err)
	}
	p.press(`.buttons button[value="save"]`)
	p.want("tool is saved")
	metadata := p.vault.Do(t, p.vault.Root, http.MethodGet, "pillion/metadata/credentials/tool", nil).Data()
	if custom, _ := metadata["custom_metadata"].(map[string]any); custom["written_by"] != "sso-alice" {
		t.Errorf("Vault says that it was written by %v", metadata["custom_metadata"])
	}

	// Who may only look is told so, in words, and nothing changes.
	p.vault.Policy(t, "looks", `path "pillion/data/credentials/*" { capabilities = ["read"] }
path "pillion/data/index" { capabilities = ["read"] }
path "pillion/metadata/credentials/" { capabilities = ["list"] }`)
	p.admit("looks", nil)
	p.press(`form[action="/logout"] button`)
	p.want("You are logged out")
	p.logIn()
	before := p.everything()
	for path, button := range map[string]string{
		"/credentials/tool":        `.buttons button[value="save"]`,
		"/credentials/tool/delete": `button.danger`,
	} {
		p.open(path)
		p.press(button)
		p.want("You may not do this", "denies the", "Ask who looks after the store")
	}
	p.open("/credentials/tool")
	p.press(`a[href*="/connect?nonce="]`)
	p.want("You may not do this")
	if after := p.everything(); after != before {
		t.Errorf("the store was\n%s\nand is\n%s", before, after)
	}

	// Whom Vault does not admit stays outside.
	p.admit("pillion-console", map[string]any{"bound_subject": "somebody-else"})
	p.open("/")
	p.press(`form[action="/logout"] button`)
	p.logIn()
	p.want("does not let this account in", "Log in with Example SSO")
	credstest.Accessible(t, p.tab, "a login that is refused")
	p.admit("pillion-console", map[string]any{"allowed_redirect_uris": []string{"https://elsewhere.example/"}})
	p.open("/login")
	p.press(`a[href^="/login/provider"]`)
	p.want("allowed_redirect_uris of role people")
}

// everything is every record of the store with its version.
func (p *pages) everything() string {
	p.Helper()
	var out strings.Builder
	for _, tree := range []string{"credentials", "secrets", "grants", "tokens", "requests", "consents", "states"} {
		keys, _ := p.vault.Do(p, p.vault.Root, "LIST", "pillion/metadata/"+tree, nil).Data()["keys"].([]any)
		for _, key := range keys {
			name, _ := key.(string)
			if tree == "requests" || tree == "tokens" || tree == "states" || tree == "grants" { // refreshers write there meanwhile
				out.WriteString(tree + "/" + name + "\n")
				continue
			}
			current := p.vault.Do(p, p.vault.Root, http.MethodGet, "pillion/metadata/"+tree+"/"+name, nil).Data()["current_version"]
			version, _ := current.(float64)
			out.WriteString(tree + "/" + name + " " + time.Duration(version).String() + "\n")
		}
	}
	return out.String()
}
