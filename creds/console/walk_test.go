package console

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"pillion/creds"
	"pillion/creds/credstest"
)

// What an administrator does, from the empty list on, in a real browser: with
// scripts, and then all of it again without.
func TestWalkInChromium(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *Server) { s.Grants = &knownGrants{} })
	b := newTab(t, r)
	for _, scripts := range []bool{true, false} {
		name := map[bool]string{true: "with", false: "without"}[scripts]
		t.Run(name+" scripts", func(t *testing.T) {
			b.t, b.rig.t = t, t
			b.scripts(scripts)
			b.walk(scripts)
		})
	}
	b.t, b.rig.t = t, t
	b.scripts(true)
	t.Run("by keyboard", func(t *testing.T) {
		b.t, b.rig.t = t, t
		b.keyboard()
	})
	for _, problem := range b.problems() {
		t.Errorf("the browser's console says: %s", problem)
	}
}

// shown reports whether a field can be seen.
func (b *tab) shown(id string) bool {
	b.t.Helper()
	model, err := chromedp.Run(b.ctx, chromedp.Dimensions(chromedp.CSS("#"+id), chromedp.NodeReady))
	return err == nil && model != nil && model.Width > 0
}

func (b *tab) choose(id, value string) {
	b.t.Helper()
	b.do(chromedp.SetValue(chromedp.CSS("#"+id), value))
}

const saveButton = `.buttons button[value="save"]`

// withoutScripts takes pictures of what TestPagesInChromium has with scripts.
func (b *tab) withoutScripts(scripts bool, name string) {
	b.t.Helper()
	if !scripts {
		b.pictures("noscript-" + name)
	}
}

func (b *tab) walk(scripts bool) {
	b.open("/")
	b.wantText("No credentials yet")
	b.withoutScripts(scripts, "list-empty")
	b.press(".head .button")
	// Nothing filled in: the box of errors leads to each field.
	b.press(saveButton)
	b.wantText("4 things are wrong, and nothing is saved", "Name is required", "Username is required", "Password is required")
	b.withoutScripts(scripts, "form-errors")
	b.press2(`.errors a[href="#f-name"]`)
	if at := b.focused(scripts); scripts && at != "f-name" {
		b.t.Errorf("the link of the error leads to %q", at)
	}
	canary := credstest.Canary("walk")
	kinds := map[string]map[string]string{
		"none": {}, "basic": {"username": "u", "password": "canary"}, "bearer": {"token": "canary"},
		"oauth2-client-credentials": {"client_id": "c", "client_secret": "canary", "access_token_url": "https://login.example/token"},
		"oauth2-authorization-code": {"client_id": "c", "client_secret": "canary", "access_token_url": "https://login.example/token", "authorization_url": "https://login.example/authorize"},
	}
	for kind, values := range kinds {
		b.open("/new")
		b.fill("name", kind)
		b.fill("url", "https://"+kind+".example/")
		b.choose("f-authorization", kind)
		for _, field := range []string{"username", "password", "token", "client_id", "client_secret", "access_token_url", "authorization_url", "header_prefix", "scope", "api_key"} {
			f, _ := fieldNamed(field)
			if got := b.shown("f-" + field); got != f.belongs(kind) {
				b.t.Errorf("%s: the field %s is shown: %v", kind, field, got)
			}
		}
		for field, value := range values {
			b.fill(field, strings.Replace(value, "canary", canary.Reveal(), 1))
		}
		b.withoutScripts(scripts, "form-"+kind)
		b.press(saveButton)
		b.wantText(kind + " is saved")
	}
	b.open("/new")
	b.fill("name", "files")
	b.choose("f-protocol", "sftp")
	if b.shown("f-url") || b.shown("f-authorization") || !b.shown("f-hostname") || !b.shown("f-host_key") || b.shown("f-client_id") {
		b.t.Error("over SFTP other fields are shown than those of SFTP")
	}
	b.fill("hostname", "sftp://files.example:22/")
	b.fill("host_key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJ3JzHu4Ua3dAtgNbR/9QVAjqIVLCUUt/O2Nxl9gKM8")
	b.fill("username", "upload")
	b.fill("password", credstest.Canary("walk-files").Reveal())
	b.withoutScripts(scripts, "form-sftp")
	b.press(saveButton)
	b.wantText("files is saved", "6 credentials", "sftp://files.example:22/")
	b.pictures(map[bool]string{true: "list-saved", false: "noscript-list-saved"}[scripts])

	// An edit: the secret is not there, and stays; Cancel changes nothing.
	b.press(`a[aria-label="Edit basic"]`)
	if value, err := chromedp.Run(b.ctx, chromedp.Value(chromedp.CSS("#f-password"))); err != nil || value != "" {
		b.t.Errorf("the password's field holds %q, %v", value, err)
	}
	b.wantText("Stored, and never shown")
	b.withoutScripts(scripts, "edit-basic")
	b.fill("username", "other")
	b.press(`.buttons a[href="/"]`)
	if c := b.stored("basic"); c.Username != "u" {
		b.t.Error("Cancel has changed something")
	}
	b.press(`a[aria-label="Edit basic"]`)
	b.fill("username", "other")
	b.press(saveButton)
	if c := b.stored("basic"); c.Username != "other" || !c.Password.Equal(canary) {
		b.t.Error("the edit is not stored, or the password is not kept")
	}
	for kind := range kinds {
		b.remove(kind, scripts)
	}
	b.remove("files", scripts)
	b.wantText("No credentials yet")
	b.pictures(map[bool]string{true: "list-deleted", false: "noscript-list-deleted"}[scripts])
}

// press2 clicks on what stays on this page.
func (b *tab) press2(selector string) { b.t.Helper(); b.do(chromedp.Click(chromedp.CSS(selector))) }

func (b *tab) focused(scripts bool) string {
	if !scripts {
		return ""
	}
	return eval[string](b, `document.activeElement.id`)
}

func (b *tab) remove(name string, scripts bool) {
	b.t.Helper()
	b.open("/")
	bin := `a[aria-label="Delete ` + name + `"]`
	if !scripts {
		b.press(bin)
		b.wantText("Delete "+name+"?", "regardless of connectors")
		if name == "files" {
			b.pictures("noscript-delete")
		}
		b.press(`a[data-close]`)
		b.press(bin)
		b.press(".confirm .danger")
	} else {
		b.press2(bin)
		b.do(chromedp.WaitVisible(chromedp.CSS("dialog .danger")), chromedp.Click(chromedp.CSS("dialog [data-close]")), chromedp.WaitNotPresent(chromedp.CSS("dialog")))
		b.stored(name)
		b.press2(bin)
		b.do(chromedp.WaitVisible(chromedp.CSS("dialog .danger")))
		b.press("dialog .danger")
	}
	b.wantText(name + " is deleted")
}

// keyboard makes and deletes a credential without a mouse: everything can be reached
// by the tab key in the order in which it stands, and shows that it has the focus.
func (b *tab) keyboard() {
	b.open("/new")
	b.do(chromedp.Focus(chromedp.CSS("#f-name")), chromedp.KeyEvent("typed"), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent("https://typed.example/"))
	var order []string
	for range 12 {
		b.do(chromedp.KeyEvent(kb.Tab))
		at := eval[string](b, `(e => e.id || e.value || e.textContent.trim())(document.activeElement)`)
		if eval[bool](b, `document.activeElement === document.body`) {
			break // the end
		}
		order = append(order, at)
		if eval[bool](b, `getComputedStyle(document.activeElement).outlineStyle === "none"`) {
			b.t.Errorf("%s does not show that it has the focus", at)
		}
		switch at {
		case "f-username":
			b.do(chromedp.KeyEvent("u"))
		case "f-password":
			b.do(chromedp.KeyEvent("p"))
		}
	}
	if got := strings.Join(order, " "); !strings.Contains(got, "Examples f-authorization f-preset preset f-username f-password More settings save Cancel") {
		b.t.Errorf("the tab key goes %s", got)
	}
	b.do(chromedp.Focus(chromedp.CSS("#f-password")))
	if _, err := chromedp.RunResponse(b.ctx, chromedp.KeyEvent(kb.Enter)); err != nil {
		b.t.Fatal(err)
	}
	b.wantText("typed is saved")
	if c := b.stored("typed"); c.Username != "u" || c.Authorization != creds.Basic {
		b.t.Errorf("stored: %+v", c)
	}
	b.everywhere()
	b.open("/")
	b.do(chromedp.Focus(chromedp.CSS(`a[aria-label="Delete typed"]`)), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.CSS("dialog .danger")), chromedp.KeyEvent(kb.Escape), chromedp.WaitNotPresent(chromedp.CSS("dialog")))
	if at := eval[string](b, `document.activeElement.getAttribute("aria-label")`); at != "Delete typed" {
		b.t.Errorf("after Escape the focus is on %q", at)
	}
}

// tabStops is where the tab key goes on a page, from its top to its end. Each stop
// shows that it has the focus.
func (b *tab) tabStops(path string) string {
	b.t.Helper()
	b.open(path)
	var stops []string
	for range 60 {
		b.do(chromedp.KeyEvent(kb.Tab))
		at := eval[string](b, `(e => e === document.body ? "" : e.getAttribute("aria-label") || e.id || e.textContent.trim())(document.activeElement)`)
		if at == "" {
			break
		}
		if eval[bool](b, `getComputedStyle(document.activeElement).outlineStyle === "none"`) {
			b.t.Errorf("%s: %s does not show that it has the focus", path, at)
		}
		stops = append(stops, at)
	}
	return strings.Join(stops, ", ")
}

// everywhere goes over every page by the tab key alone.
func (b *tab) everywhere() {
	const menu = "Skip to the content, pillion, Credentials, Which credential?, Live, Log out, "
	for path, want := range map[string]string{
		"/":                                     "New credential, typed, Edit typed, Delete typed",
		"/credentials/typed":                    "f-name, f-protocol, f-url, Examples, f-authorization, f-preset, Fill in, f-username, f-password, More settings, Save, Cancel, path, Test, Delete typed",
		"/credentials/typed/delete":             "OK, Cancel",
		"/explain?url=https://typed.example:1/": "url, Explain, typed",
		"/live":                                 "Look again",
		"/nothing":                              "To the list",
	} {
		if got := b.tabStops(path); got != menu+want {
			b.t.Errorf("%s: the tab key goes %s, want %s", path, got, menu+want)
		}
	}
	b.open("/")
	b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter))
	if at := eval[string](b, `document.activeElement.id`); at != "main" {
		b.t.Errorf("the first link leads to %q", at)
	}
	// From the box of errors on to the field that is wrong.
	b.open("/new")
	b.do(chromedp.Focus(chromedp.CSS("#f-username")))
	if _, err := chromedp.RunResponse(b.ctx, chromedp.KeyEvent(kb.Enter)); err != nil {
		b.t.Fatal(err)
	}
	b.await(`document.activeElement?.id === "errors"`)
	for _, field := range []string{"#f-name", "#f-url"} {
		b.do(chromedp.KeyEvent(kb.Tab))
		b.await(`document.activeElement?.getAttribute("href") === "` + field + `"`)
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	b.await(`document.activeElement?.id === "f-url"`)
}
