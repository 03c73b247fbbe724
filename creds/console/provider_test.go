package console

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"pillion/creds"
)

// sso is a Provider that lets in whoever has the right code.
type sso struct {
	begun, finished int
	refuse          error
}

func (*sso) Name() string { return "Example SSO" }

func (p *sso) Begin(_ context.Context, redirectURL string) (Away, error) {
	if p.refuse != nil {
		return Away{}, p.refuse
	}
	p.begun++
	return Away{URL: "https://sso.example/auth?redirect_uri=" + redirectURL, State: creds.NewSecret("sso-state"), Nonce: creds.NewSecret("sso-nonce")}, nil
}

func (p *sso) Finish(_ context.Context, away Away, code creds.Secret) (Person, error) {
	p.finished++
	if away.State.Reveal() != "sso-state" || away.Nonce.Reveal() != "sso-nonce" || code.Reveal() != "good" {
		return Person{}, &BadLogin{"this account is not let in"}
	}
	return Person{Who: "anna"}, nil
}

// A login elsewhere ends in the browser that began it, once, and in no other.
func loginElsewhere(t *testing.T) {
	now := time.Now()
	provider := &sso{}
	start := func(t *testing.T) *rig {
		return newRig(t, func(s *Server) { s.Provider, s.Now = provider, func() time.Time { return now } })
	}
	begin := func(t *testing.T, r *rig) {
		t.Helper()
		a := r.get("/login/provider?back=%2Fexplain")
		if a.status != http.StatusSeeOther || a.location != "https://sso.example/auth?redirect_uri="+r.page.URL+"/login/callback" {
			t.Fatalf("beginning: %d %s", a.status, a.location)
		}
	}
	r := start(t)
	r.get("/login?back=%2Fexplain").want(t, http.StatusOK, `href="/login/provider?back=%2Fexplain"`, "Log in with Example SSO")

	// Nobody has pressed the button: a page of another site, a browser that fetches ahead.
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Purpose", "prefetch"}} {
		if a := r.request("GET", "/login/provider", "", header...); a.location != "/login" {
			t.Errorf("%v: %d %s", header, a.status, a.location)
		}
	}
	r.get("/login/callback?code=good&state=sso-state").want(t, http.StatusBadRequest, "belongs to no login")
	if provider.begun != 0 || provider.finished != 0 {
		t.Fatal("a login was begun or ended")
	}
	begin(t, r)
	for _, query := range []string{"", "?code=good", "?code=good&state=", "?code=good&state=guessed", "?code=good&state=sso-state&state=sso-state"} {
		r.get("/login/callback"+query).want(t, http.StatusBadRequest, "belongs to no login")
	}
	other := &rig{t: t, page: r.page, links: r.links, client: newClient(t)}
	other.get("/login/callback?code=good&state=sso-state").want(t, http.StatusBadRequest)
	if provider.finished != 0 {
		t.Fatal("a stray answer was taken")
	}
	cookies := r.client.Jar.Cookies(mustParse(t, r.page.URL))
	if a := r.get("/login/callback?code=good&state=sso-state"); a.status != http.StatusSeeOther || a.location != "/explain" {
		t.Fatalf("coming back: %d %s", a.status, a.location)
	}
	r.get("/").want(t, http.StatusOK, "anna")
	if a := r.lastAction(); a.Who != "anna" || a.What != "login" || a.Problem != "" {
		t.Errorf("the audit says %+v", a)
	}
	r.client.Jar.SetCookies(mustParse(t, r.page.URL), cookies)
	r.get("/login/callback?code=good&state=sso-state").want(t, http.StatusBadRequest)

	for name, row := range map[string]struct {
		query, says string
		status      int
	}{
		"given up":      {"?error=access_denied&error_description=%3Cscript%3Ehello&state=sso-state", "refused the login, or it was given up there", http.StatusUnauthorized},
		"other reasons": {"?error=%3Cscript%3E&state=sso-state", "gave no reason that is known here", http.StatusUnauthorized},
		"no code":       {"?state=sso-state", "gave no reason that is known here", http.StatusUnauthorized},
		"not admitted":  {"?code=other&state=sso-state", "This account is not let in", http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			begin(t, r)
			a := r.get("/login/callback"+row.query).want(t, row.status, row.says, "Log in with Example SSO")
			if strings.Contains(a.body, "hello") || strings.Contains(a.body, "&lt;script") {
				t.Errorf("the page echoes what it was sent:\n%s", a.body)
			}
			if a := r.lastAction(); a.What != "login" || a.Problem == "" {
				t.Errorf("the audit says %+v", a)
			}
		})
	}
	t.Run("too late", func(t *testing.T) {
		r := start(t)
		begin(t, r)
		now = now.Add(loginTime)
		r.get("/login/callback?code=good&state=sso-state").want(t, http.StatusBadRequest)
	})
	t.Run("no provider there", func(t *testing.T) {
		provider.refuse = errors.New("Vault cannot be reached")
		start(t).get("/login/provider").want(t, http.StatusBadGateway, "Vault cannot be reached")
		newRig(t, nil).get("/login/callback").want(t, http.StatusBadRequest)
	})
}

// After a login people are where they were, in the part of the store where they were.
func TestLocalPath(t *testing.T) {
	for back, want := range map[string]string{
		"/credentials/jira?prefix=team-a&x=y": "/credentials/jira?prefix=team-a", "/explain?url=x": "/explain", "": "/", "//evil.example": "/", "/\\evil.example": "/",
		"https://evil.example/": "/", "javascript:alert(1)": "/", "?prefix=x": "/",
	} {
		if got := localPath(back); got != want {
			t.Errorf("%q leads to %q, want %q", back, got, want)
		}
	}
}
