package console

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// A login ends without a click for a while, and after a longer while in any case;
// looking how long it lasts is no click.
func TestSessionEnds(t *testing.T) {
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	r := loggedIn(t, func(s *Server) {
		s.Now, s.IdleTime, s.SessionTime = func() time.Time { return now }, 20*time.Minute, time.Hour
	})
	left := func(method string) (l sessionLeft) {
		t.Helper()
		a := r.request(method, "/session", "", "Sec-Fetch-Site", "same-origin").want(t, http.StatusOK)
		if err := json.Unmarshal([]byte(a.body), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	if got := left("GET"); got != (sessionLeft{1200, true}) {
		t.Errorf("at first: %+v", got)
	}
	now = now.Add(15 * time.Minute)
	if got := left("GET"); got != (sessionLeft{300, true}) || !strings.Contains(r.get("/").body, `<body data-left="1200">`) {
		t.Errorf("after a quarter of an hour: %+v", got)
	}
	first := r.client.Jar.Cookies(mustParse(t, r.page.URL))
	for range 2 { // a click each time keeps it
		now = now.Add(15 * time.Minute)
		r.get("/").want(t, http.StatusOK)
	}
	if got := left("POST"); got != (sessionLeft{900, false}) {
		t.Errorf("in the last quarter of an hour: %+v", got)
	}
	// A copy of the cookie that nobody has used since is none any more.
	thief := &rig{t: t, page: r.page, links: r.links, client: newClient(t)}
	thief.client.Jar.SetCookies(mustParse(t, r.page.URL), first)
	thief.get("/").want(t, http.StatusSeeOther)
	now = now.Add(15 * time.Minute)
	if a := r.get("/credentials/jira"); a.location != "/login?back=%2Fcredentials%2Fjira&ended=1" {
		t.Errorf("after an hour of clicks: %d %s", a.status, a.location)
	}
	r.request("GET", "/session", "").want(t, http.StatusUnauthorized)
	r.get(r.links.New())
	r.get("/").want(t, http.StatusOK)
	now = now.Add(20 * time.Minute)
	r.post("/new").want(t, http.StatusUnauthorized, "Your session has ended", "Nothing was changed")
	r.get("/login?ended=1").want(t, http.StatusOK, "Your session has ended")
}

func mustParse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// An open page says that the session ends soon, and keeps what is typed when it has
// ended; after a logout the back button shows nothing.
func TestSessionEndsInChromium(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	var later atomic.Int64
	r := newRig(t, func(s *Server) {
		s.Now, s.IdleTime = func() time.Time { return begin.Add(time.Duration(later.Load())) }, time.Minute // ends soon from the first click on
	})
	b := newTab(t, r)
	b.open("/new")
	b.do(chromedp.WaitVisible(chromedp.CSS(".ending button")))
	b.wantText("Your session ends in less than two minutes.", "Stay logged in")
	b.examine("session-ends")
	b.fill("name", "typed")
	press := `document.querySelector(".ending button").click(); true`
	later.Store(int64(40 * time.Second))
	_ = eval[bool](b, press)
	b.await(`fetch("/session").then(r => r.json()).then(l => l.seconds === 60)`)
	later.Store(int64(101 * time.Second))
	_ = eval[bool](b, press)
	b.await(`document.querySelector(".ending").textContent.includes("has ended")`)
	b.wantText("log in again in another tab")
	if typed := eval[string](b, `document.getElementById("f-name").value`); typed != "typed" {
		t.Errorf("the form has %q", typed)
	}
	// A login elsewhere in this browser is one here too.
	_ = eval[bool](b, `fetch(`+"`"+r.links.New()+"`"+`).then(() => true)`)
	b.press(saveButton)
	b.wantText("things are wrong")
	b.open("/")
	b.press("header button")
	b.wantText("You are logged out")
	_ = eval[bool](b, `history.back(); true`)
	b.do(chromedp.WaitVisible(chromedp.CSS("h1")))
	if text := b.text("main"); strings.Contains(text, "No credentials yet") {
		t.Errorf("after the logout the back button shows:\n%s", text)
	}
}
