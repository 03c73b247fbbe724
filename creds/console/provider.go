package console

import (
	"context"
	"crypto/subtle"
	"net/http"
	"net/url"
	"time"

	"pillion/creds"
)

// Provider lets people in who log in elsewhere: the browser goes away, and comes back
// with a code. It is safe for concurrent use.
type Provider interface {
	// Name is what people call it, as in "Log in with Example SSO".
	Name() string
	// Begin makes the address where a person logs in.
	Begin(ctx context.Context, redirectURL string) (Away, error)
	// Finish returns who it was. Its errors are those of Login.LogIn.
	Finish(ctx context.Context, away Away, code creds.Secret) (Person, error)
}

// Away is a login that has begun.
type Away struct {
	URL          string // where the browser goes
	State, Nonce creds.Secret
}

const (
	loginCallbackPath = "/login/callback"
	cookieLogin       = "pillion_login"
	// loginTime is how long a person may be away.
	loginTime = 10 * time.Minute
)

// LoginRedirectURL is what is registered for logins by Provider.
func (s *Server) LoginRedirectURL() string { return s.URL + loginCallbackPath }

// loginCookie is a login that is under way, sealed, in the browser that began it.
type loginCookie struct {
	State, Nonce, Back string
	Started            time.Time
}

// leave sends the browser to the provider. It is a link and not a form: Chromium
// applies the policy's form-action to where a form is redirected to.
func (s *Server) leave(w http.ResponseWriter, r *http.Request) {
	back := r.URL.Query().Get("back")
	if s.Provider == nil || r.Header.Get("Sec-Purpose") != "" || r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		http.Redirect(w, r, "/login", http.StatusSeeOther) // nobody has pressed the button
		return
	}
	away, err := s.Provider.Begin(r.Context(), s.LoginRedirectURL())
	if err != nil {
		s.refuseLogin(w, err, back)
		return
	}
	now := s.now()
	held := loginCookie{away.State.Reveal(), away.Nonce.Reveal(), back, now}
	s.setCookie(w, cookieLogin, s.sealer.seal(cookieLogin, held), now.Add(loginTime))
	http.Redirect(w, r, away.URL, http.StatusSeeOther)
}

// comeBack is where the provider sends the browser. An answer that this browser did
// not ask for logs nobody in: it would be somebody else's account.
func (s *Server) comeBack(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	held, ok := s.loginUnderWay(r, query)
	if s.Provider == nil || !ok {
		s.renderLogin(w, http.StatusBadRequest, loginPage{Problem: "This answer belongs to no login that was begun in this browser, or to one that is over. Begin again."})
		return
	}
	s.setCookie(w, cookieLogin, "", time.Time{})
	code := query.Get("code")
	switch {
	case query.Get("error") == "access_denied":
		s.refuseLogin(w, &BadLogin{"the provider refused the login, or it was given up there"}, held.Back)
		return
	case query.Has("error") || code == "" || len(query["code"]) != 1:
		s.refuseLogin(w, &BadLogin{"the provider let nobody in, and gave no reason that is known here"}, held.Back)
		return
	}
	ctx, cancel := lasting(r)
	defer cancel()
	person, err := s.Provider.Finish(ctx, Away{State: creds.NewSecret(held.State), Nonce: creds.NewSecret(held.Nonce)}, creds.NewSecret(code))
	if err != nil {
		s.refuseLogin(w, err, held.Back)
		return
	}
	s.welcome(w, r, person, held.Back)
}

// loginUnderWay returns the login that an answer belongs to, once.
func (s *Server) loginUnderWay(r *http.Request, query url.Values) (held loginCookie, ok bool) {
	cookie, err := r.Cookie(s.cookieName(cookieLogin))
	if err != nil || s.sealer.open(cookieLogin, cookie.Value, &held) != nil {
		return held, false
	}
	if held.State == "" || len(query["state"]) != 1 || subtle.ConstantTimeCompare([]byte(held.State), []byte(query.Get("state"))) != 1 {
		return held, false
	}
	ends := held.Started.Add(loginTime)
	return held, s.now().Before(ends) && s.used.use(stateDigest(held.State), ends)
}
