package console

import (
	"encoding/json"
	"net/http"
	"time"
)

// sessionLeft is what the script of an open page asks for, so that nobody's typing is
// lost to a session that ends.
type sessionLeft struct {
	Seconds int  `json:"seconds"`
	Extends bool `json:"extends"` // a click makes it longer
}

// leftOf says how long a session lasts that was used at seen, and not again.
func (s *Server) leftOf(session *Session, seen time.Time) sessionLeft {
	now := s.now()
	whole, idle := session.Expires.Sub(now), seen.Add(s.idleTime()).Sub(now)
	return sessionLeft{int(min(whole, idle) / time.Second), idle < whole}
}

// showSession says how long the session lasts, and does not count as use of it.
func (s *Server) showSession(w http.ResponseWriter, r *http.Request) {
	session, err := s.session(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	writeJSON(w, s.leftOf(session, session.seen))
}

// stay counts as use of the session: the button of a page that says it ends soon.
func (s *Server) stay(w http.ResponseWriter, _ *http.Request, session *Session) {
	writeJSON(w, s.leftOf(session, s.now()))
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // whoever left does not need it
}
