package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"pillion/creds"
)

// Person is who logged in.
type Person struct {
	Who     string       // for the audit, and the upper right of the page
	Token   creds.Secret // what Login needs to make the person's parts; sealed into the cookie
	Expires time.Time    // not after this; zero: as long as a session lasts
	Own     bool         // the token was made for this session: LogOut may end it
}

// Login decides who may come in. It is safe for concurrent use.
type Login interface {
	// Ways are how people may log in here, the first one first.
	Ways() []Way
	// LogIn returns who has shown what a way asks for. The text of its error is
	// shown, and must quote nothing.
	LogIn(ctx context.Context, way Way, form url.Values) (Person, error)
	// Parts returns the parts of the store as that person may use them: at least one,
	// the first one first. It asks nobody.
	Parts(Person) ([]Part, error)
	// Ended reports whether an error of such a store means that the login is over, such
	// as a token that was revoked.
	Ended(err error) bool
	// LogOut ends what LogIn began elsewhere, as far as it can.
	LogOut(context.Context, Person)
}

// Way is a way to log in.
type Way string

// The ways.
const (
	WayLink     Way = "link"     // a one-time link, that the program prints
	WayToken    Way = "token"    // a token of Vault
	WayPassword Way = "password" // user name and password, at Vault
)

// BadLogin is LogIn's error for somebody who is not let in.
type BadLogin struct{ Problem string }

func (e *BadLogin) Error() string { return e.Problem }

type loginPage struct {
	page
	Back    string
	Note    string
	Problem string
	Ways    map[string]bool
	Leave   string // address that begins a login at Provider; "" where there is none
	At      string // its name
}

// askForLogin answers a request without a session. A form that was posted is lost,
// and the page says so.
func (s *Server) askForLogin(w http.ResponseWriter, r *http.Request, why error) {
	if r.Method == http.MethodGet && r.URL.Path != callbackPath {
		query := url.Values{}
		if r.URL.Path != "/" {
			query.Set("back", localPath(r.URL.String()))
		}
		if errors.Is(why, errSessionEnded) {
			query.Set("ended", "1")
		}
		http.Redirect(w, r, "/login?"+query.Encode(), http.StatusSeeOther)
		return
	}
	s.renderLogin(w, http.StatusUnauthorized, loginPage{Problem: capital(why.Error()) + ". Nothing was changed."})
}

func (s *Server) renderLogin(w http.ResponseWriter, status int, p loginPage) {
	p.page = page{Title: "Log in"}
	p.Ways = map[string]bool{}
	for _, way := range s.Login.Ways() {
		p.Ways[string(way)] = true
	}
	if s.Provider != nil {
		p.At, p.Leave = s.Provider.Name(), "/login/provider"
		if back := localPath(p.Back); back != "/" {
			p.Leave += "?" + url.Values{"back": {back}}.Encode()
		}
	}
	s.render(w, status, "login", p)
}

// showLogin is the form; with a one-time link it logs in. A browser that only
// fetches ahead must not use the link up.
func (s *Server) showLogin(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Has("link") && r.Header.Get("Sec-Purpose") == "" {
		s.enter(w, r, WayLink, query)
		return
	}
	p := loginPage{Back: query.Get("back")}
	switch {
	case query.Has("out"):
		p.Note = "You are logged out."
	case query.Has("ended"):
		p.Note = "Your session has ended. Log in again."
	}
	s.renderLogin(w, http.StatusOK, p)
}

func (s *Server) logIn(w http.ResponseWriter, r *http.Request) {
	if s.form(w, r, nil) {
		s.enter(w, r, Way(r.PostForm.Get("way")), r.PostForm)
	}
}

func (s *Server) enter(w http.ResponseWriter, r *http.Request, way Way, form url.Values) {
	if !slices.Contains(s.Login.Ways(), way) {
		s.renderLogin(w, http.StatusBadRequest, loginPage{Problem: "There is no such way to log in here."})
		return
	}
	person, err := s.Login.LogIn(r.Context(), way, form)
	if err != nil {
		s.refuseLogin(w, err, form.Get("back"))
		return
	}
	s.welcome(w, r, person, form.Get("back"))
}

// refuseLogin says why somebody was not let in.
func (s *Server) refuseLogin(w http.ResponseWriter, err error, back string) {
	status := http.StatusBadGateway
	if bad := (*BadLogin)(nil); errors.As(err, &bad) {
		status = http.StatusUnauthorized
	}
	s.audit(Action{What: "login", Problem: "refused"})
	s.renderLogin(w, status, loginPage{Problem: sentence(err.Error()), Back: back})
}

// welcome lets somebody in.
func (s *Server) welcome(w http.ResponseWriter, r *http.Request, person Person, back string) {
	s.startSession(w, person)
	s.audit(Action{Who: person.Who, What: "login"})
	http.Redirect(w, r, localPath(back), http.StatusSeeOther)
}

// localPath returns where to go on after a login: a path of this page alone, and the
// part of the store that it was about.
func localPath(back string) string {
	u, err := url.Parse(back)
	if err != nil || u.Scheme != "" || u.Host != "" || len(u.Path) == 0 || u.Path[0] != '/' || len(u.Path) > 1 && (u.Path[1] == '/' || u.Path[1] == '\\') {
		return "/"
	}
	if query := u.Query(); query.Has(partParameter) {
		return u.EscapedPath() + "?" + url.Values{partParameter: {query.Get(partParameter)}}.Encode()
	}
	return u.EscapedPath()
}
