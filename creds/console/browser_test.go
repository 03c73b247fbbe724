package console

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"pillion/creds"
	"pillion/creds/credstest"
)

// tab is a real Chromium that has the page open.
type tab struct {
	*rig
	t   *testing.T
	ctx context.Context

	problems func() []string // that the browser's console shows: violations of the policy, above all
}

func newTab(t *testing.T, r *rig) *tab {
	t.Helper()
	ctx, ok := credstest.Browser(t, 1280, 900)
	if !ok {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no chromium")
		}
		t.Skip("there is no chromium")
	}
	b := &tab{rig: r, t: t, ctx: ctx, problems: credstest.WatchConsole(t, ctx)}
	b.open(r.links.New())
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("in the browser: %v\n%s", err, b.text("body"))
	}
}

func (b *tab) open(path string) { b.t.Helper(); b.do(chromedp.Navigate(b.page.URL + path)) }

// press clicks on what leads to another page.
func (b *tab) press(selector string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		b.t.Fatalf("pressing %s: %v", selector, err)
	}
}

func (b *tab) fill(name, value string) {
	b.t.Helper()
	b.do(chromedp.SetValue(chromedp.CSS(`[name="`+name+`"]`), value))
}

func (b *tab) text(selector string) string {
	text, err := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS(selector)))
	if err != nil {
		b.t.Fatalf("reading %s: %v", selector, err)
	}
	return text
}

func (b *tab) wantText(texts ...string) {
	b.t.Helper()
	page := b.text("body")
	for _, text := range texts {
		if !strings.Contains(page, text) {
			b.t.Errorf("the page lacks %q:\n%s", text, page)
		}
	}
}

// eval returns what an expression is in the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("evaluating %.60s: %v", expression, err)
	}
	return value
}

// await waits in the page until an expression, or what it promises, is true.
func (b *tab) await(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	loop := `(async () => { while (!await (` + expression + `)) await new Promise(again => setTimeout(again, 20)); return true })()`
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](loop, chromedp.EvalAwaitPromise)); err != nil {
		b.t.Fatalf("waiting for %s: %v", expression, err)
	}
}

func (b *tab) scripts(on bool) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on}); err != nil {
		b.t.Fatal(err)
	}
}

// look makes the window as wide as that, light or dark.
func (b *tab) look(width int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 900))
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	if err != nil {
		b.t.Fatal(err)
	}
}

// look is how somebody looks at a page.
type look struct {
	width  int64
	scheme string
}

// takesPictures is what `make pictures` is for: they are for people alone, and take
// longer than all that is examined.
func takesPictures() bool { return os.Getenv("PILLION_PICTURES") != "" }

// looks are wide and narrow, light and dark. The first two have each width and each
// colour once; `make pictures` goes through all four.
func looks() []look {
	two := []look{{1280, "light"}, {360, "dark"}}
	if takesPictures() {
		return append(two, look{1280, "dark"}, look{360, "light"})
	}
	return two
}

// examine has axe-core look at what the browser shows, wants nothing to be wider than
// the window, and takes pictures where they are wanted: narrow and wide, light and dark.
func (b *tab) examine(name string) {
	b.t.Helper()
	widths := []int64{320}
	if eval[bool](b, `document.querySelector("table") !== null`) {
		widths = []int64{320, 700, 1130}
	}
	for _, width := range widths {
		b.look(width, "light")
		b.fits(name, width)
	}
	for _, how := range looks() {
		b.look(how.width, how.scheme)
		b.fits(name, how.width)
		b.accessible(fmt.Sprintf("%s, %d %s", name, how.width, how.scheme))
		b.picture(name, how)
	}
	b.look(1280, "light")
}

func (b *tab) fits(name string, width int64) {
	b.t.Helper()
	if overflow := eval[int](b, `document.documentElement.scrollWidth - innerWidth`); overflow > 0 {
		b.t.Errorf("%s is %d px too wide at %d", name, overflow, width)
	}
}

func (b *tab) pictures(name string) {
	b.t.Helper()
	if !takesPictures() {
		return
	}
	for _, how := range looks() {
		b.look(how.width, how.scheme)
		b.picture(name, how)
	}
	b.look(1280, "light")
}

// picture keeps one for people to look at.
func (b *tab) picture(name string, how look) {
	b.t.Helper()
	if !takesPictures() {
		return
	}
	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	file := filepath.Join(credstest.Screenshots(b.t), fmt.Sprintf("%s-%d-%s.png", name, how.width, how.scheme))
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// accessible wants nothing that axe-core finds, best practice included.
func (b *tab) accessible(name string) {
	b.t.Helper()
	credstest.Accessible(b.t, b.ctx, name)
}

// exampleStore has a credential in each state.
func exampleStore(r *rig, grants *knownGrants) {
	now := time.Now()
	jira := &creds.Credential{Name: "jira", Protocol: creds.HTTPS, URL: "https://api.atlassian.com/ex/jira/11223344-a1b2-3b33-c444-def123456789/", Authorization: creds.AuthorizationCode,
		ClientID: "pillion", ClientSecret: credstest.Canary("console-jira"), AccessTokenURL: "https://auth.atlassian.com/oauth/token", AuthorizationURL: "https://auth.atlassian.com/authorize", AuthStyle: creds.AuthStyleBody}
	client := func(name string) *creds.Credential {
		return &creds.Credential{Name: name, Protocol: creds.HTTPS, URL: "https://" + name + ".example/", Authorization: creds.ClientCredentials,
			ClientID: "pillion", ClientSecret: credstest.Canary("console-" + name), AccessTokenURL: "https://login." + name + ".example/token"}
	}
	files := &creds.Credential{Name: "files", Protocol: creds.SFTP, URL: "sftp://files.example:2222/", Authorization: creds.Basic, Username: "upload",
		Password: credstest.Canary("console-files"), HostKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJ3JzHu4Ua3dAtgNbR/9QVAjqIVLCUUt/O2Nxl9gKM8"}}
	with := basic("servicenow", "https://example.service-now.com/")
	with.Headers = []creds.Header{{Name: "X-Account", Value: credstest.Canary("console-account")}}
	for _, c := range []*creds.Credential{jira, client("itsm"), client("cmdb"), client("crm"), client("erp"), files, with, basic("servicenow-admin", "https://example.service-now.com/"),
		{Name: "status", Protocol: creds.HTTPS, URL: "https://status.example/", Authorization: creds.None}} {
		r.save(c)
	}
	grants.states = map[string]TokenState{
		"jira": {Condition: NeedsConsent, Detail: "the provider has taken the consent back"},
		"itsm": {Condition: Good, Refreshed: now.Add(-10 * time.Minute), Expires: now.Add(50*time.Minute + time.Second)},
		"cmdb": {Condition: Failing, Refreshed: now.Add(-55 * time.Minute), Expires: now.Add(5 * time.Minute), Detail: "server_5xx, status 503"},
		"crm":  {Condition: Wrong, Detail: "invalid_client"},
		"erp":  {Condition: Expiring, Refreshed: now.Add(-59 * time.Minute), Expires: now.Add(30 * time.Second)},
	}
}

// Every page and state: no violation of WCAG 2.2 AA, no line in the browser's
// console, nothing wider than its window.
func TestPagesInChromium(t *testing.T) {
	t.Parallel()
	grants := &knownGrants{report: Report{true, []string{"asking https://login.itsm.example/token for a token", "a token came after 84ms: 43 characters, fingerprint 1f2e3d4c5b6a", "HEAD https://itsm.example/ was answered 200 OK after 31ms"}}}
	r := newRig(t, func(s *Server) {
		s.Grants, s.Live = grants, knownLive{time.Now()}
		s.ScanHostKeys = func(context.Context, string, uint16) ([]creds.HostKey, error) {
			return creds.ParseHostKeys([]string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJ3JzHu4Ua3dAtgNbR/9QVAjqIVLCUUt/O2Nxl9gKM8"}, "", 0)
		}
	})
	b := newTab(t, r)
	b.examine("list-empty")
	exampleStore(r, grants)
	b.open("/")
	b.examine("list")
	b.open("/new")
	b.examine("form-basic")
	for _, kind := range []string{"none", "bearer", "oauth2-client-credentials", "oauth2-authorization-code", "api-key", "oauth2-password", "login"} {
		b.fill("authorization", kind)
		b.examine("form-" + kind)
	}
	b.press(`.buttons button[value="save"]`)
	b.wantText("things are wrong, and nothing is saved")
	if at := eval[string](b, `document.activeElement.id`); at != "errors" {
		t.Errorf("the focus is on %q, not on the box of errors", at)
	}
	b.examine("form-errors")
	b.open("/new")
	b.fill("protocol", "sftp")
	b.examine("form-sftp")
	b.fill("hostname", "sftp://files.example:2222/")
	b.press(`button[value="scan"]`)
	b.wantText("Accept this key")
	b.examine("form-scan")
	b.press(`button[value="accept"]`)
	b.wantText("The host keys are in the form")
	b.examine("form-scanned")
	b.open("/new")
	b.fill("url", "https://api.4me.com/")
	b.fill("authorization", "oauth2-client-credentials")
	b.fill("preset", "4me")
	b.press(`button[value="preset"]`)
	b.wantText("Filled in for 4me", "X-4me-Account", "It also has")
	b.examine("form-preset")
	for _, name := range []string{"servicenow", "jira", "itsm", "files"} {
		b.open("/credentials/" + name)
		_ = eval[bool](b, `for (const d of document.querySelectorAll("details")) d.open = true; true`)
		b.examine("edit-" + name)
	}
	b.open("/credentials/itsm")
	b.press(`form[action$="/test"] button`)
	b.wantText("The test went well")
	b.examine("result-good")
	grants.report, grants.err = Report{false, []string{"no token after 84ms: invalid_client, status 401", "check client id and client secret"}}, nil
	b.open("/credentials/itsm")
	b.press(`form[action$="/refresh"] button`)
	b.examine("result-bad")
	b.conflict("conflict")
	b.open("/credentials/jira/delete")
	b.examine("delete")
	b.open("/")
	b.do(chromedp.Click(chromedp.CSS(`a[aria-label="Delete jira"]`)), chromedp.WaitVisible(chromedp.CSS("dialog form")))
	b.examine("delete-dialog")
	b.open("/explain?url=https://itsm.example/api")
	b.examine("explain-found")
	b.open("/explain?url=https://itsm.example:8443/api")
	b.examine("explain-missed")
	b.open("/explain?url=nonsense")
	b.examine("explain-wrong")
	b.open("/live")
	b.examine("live")
	b.open("/credentials/nobody")
	b.examine("not-found")
	for i := range 60 {
		r.save(&creds.Credential{Name: fmt.Sprintf("many-%02d", i), Protocol: creds.HTTPS, URL: fmt.Sprintf("https://many-%02d.example/", i), Authorization: creds.None})
	}
	r.save(&creds.Credential{Name: strings.Repeat("long-name-", 6) + "end", Protocol: creds.HTTPS, URL: "https://" + strings.Repeat("very-long-host-name.", 8) + "example/with/a/path/" + strings.Repeat("x", 60) + "/", Authorization: creds.None})
	b.open("/?q=long&sort=-name")
	b.examine("list-extreme")
	b.open("/?sort=-name")
	b.examine("list-long")
	b.open("/?q=nothing-like-it")
	b.examine("list-no-match")
	b.press("header button")
	b.examine("login")
	for _, problem := range b.problems() {
		t.Errorf("the browser's console says: %s", problem)
	}
}

// conflict edits a credential that somebody else has changed since.
func (b *tab) conflict(name string) {
	b.t.Helper()
	b.open("/credentials/status")
	c := b.stored("status")
	c.URL = "https://status.example/theirs/"
	b.save(c)
	b.fill("url", "https://status.example/mine/")
	b.press(`.buttons button[value="save"]`)
	b.wantText("changed this credential meanwhile", "https://status.example/theirs/", "Take theirs", "Write mine over it")
	b.examine(name)
}
