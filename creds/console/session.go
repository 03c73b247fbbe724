package console

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"pillion/creds"
)

// Session is somebody who is logged in.
type Session struct {
	Person
	// Parts are those of the credential store as that person may use them, and At the
	// one that a request is about.
	Parts []Part
	At    Part

	id   string
	seen time.Time // before this request
}

// sessionCookie is what the sealed cookie holds: everything, so that any replica
// with the same key can go on.
type sessionCookie struct {
	ID      string    `json:"id"`
	Who     string    `json:"who"`
	Token   string    `json:"token,omitempty"`
	Expires time.Time `json:"expires"`
	Seen    time.Time `json:"seen"` // the last request: idle sessions end
	Own     bool      `json:"own,omitempty"`
}

var (
	errNoSession    = errors.New("you are not logged in")
	errSessionEnded = errors.New("your session has ended: log in again")
)

func (s *Server) cookieName(name string) string {
	if s.secure {
		return "__Host-" + name // no other host can set it, no page over HTTP read it
	}
	return name
}

// setCookie sets a cookie for this host alone. Lax, because Strict is not sent on
// the way back from a provider.
func (s *Server) setCookie(w http.ResponseWriter, name, value string, expires time.Time) {
	cookie := &http.Cookie{Name: s.cookieName(name), Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: s.secure}
	if value == "" {
		cookie.MaxAge = -1
	} else {
		cookie.Expires = expires
		cookie.MaxAge = max(1, int(expires.Sub(s.now()).Seconds()))
	}
	others := w.Header()["Set-Cookie"]
	w.Header()["Set-Cookie"] = slices.DeleteFunc(others, func(set string) bool { return strings.HasPrefix(set, cookie.Name+"=") }) // the last word counts
	http.SetCookie(w, cookie)
}

const (
	cookieSession = "pillion_session"
	cookieConsent = "pillion_consent"
)

func (s *Server) startSession(w http.ResponseWriter, p Person) {
	if end := s.now().Add(s.sessionTime()); p.Expires.IsZero() || p.Expires.After(end) {
		p.Expires = end
	}
	s.setSession(w, p, newID())
}

// setSession sends the cookie that says that a session was used now.
func (s *Server) setSession(w http.ResponseWriter, p Person, id string) {
	sealed := s.sealer.seal(cookieSession, sessionCookie{id, p.Who, p.Token.Reveal(), p.Expires, s.now(), p.Own})
	s.setCookie(w, cookieSession, sealed, p.Expires)
}

// session returns who has sent a request.
func (s *Server) session(r *http.Request) (*Session, error) {
	cookie, err := r.Cookie(s.cookieName(cookieSession))
	if err != nil {
		return nil, errNoSession
	}
	var held sessionCookie
	if s.sealer.open(cookieSession, cookie.Value, &held) != nil {
		return nil, errSessionEnded
	}
	if now := s.now(); !now.Before(held.Expires) || !now.Before(held.Seen.Add(s.idleTime())) || s.used.has(held.ID) {
		return nil, errSessionEnded
	}
	person := Person{Who: held.Who, Token: creds.NewSecret(held.Token), Expires: held.Expires, Own: held.Own}
	parts, err := s.Login.Parts(person)
	if err != nil {
		return nil, err
	}
	return &Session{Person: person, Parts: parts, id: held.ID, seen: held.Seen}, nil
}

// did is the line for the audit of something that was done to a credential.
func (s *Session) did(what, credential string, fields []string, problem string) Action {
	a := Action{Who: s.Who, What: what, Credential: credential, Fields: fields, Problem: problem}
	if s.Several() {
		a.Prefix = &s.At.Name
	}
	return a
}

func (s *Server) logOut(w http.ResponseWriter, r *http.Request, session *Session) {
	s.used.use(session.id, session.Expires)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
	defer cancel()
	s.Login.LogOut(ctx, session.Person)
	s.audit(Action{Who: session.Who, What: "logout"})
	s.setCookie(w, cookieSession, "", time.Time{})
	http.Redirect(w, r, "/login?out=1", http.StatusSeeOther)
}
