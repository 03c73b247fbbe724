package console

import (
	"context"
	"net/http"
	"time"
)

// routes are all addresses of the page. No name of a credential can stand in the
// way of another address: they are all below /credentials/.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /assets/{file}", serveAsset)
	mux.HandleFunc("GET /login", s.showLogin)
	mux.HandleFunc("POST /login", s.logIn)
	mux.HandleFunc("GET /login/provider", s.leave)
	mux.HandleFunc("GET "+loginCallbackPath, s.comeBack)

	inside := func(pattern string, handle func(http.ResponseWriter, *http.Request, *Session)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			session, err := s.session(r)
			if err != nil {
				s.askForLogin(w, r, err)
				return
			}
			s.setSession(w, session.Person, session.id)
			if !session.choose(r.Context(), r.URL.Query(), r.PathValue("name")) {
				session.At = session.Parts[0]
				s.fail(w, session, http.StatusNotFound, "There is no such part of the store", "The address names a prefix that this page does not show.")
				return
			}
			handle(w, r, session)
		})
	}
	mux.HandleFunc("GET /session", s.showSession)
	inside("POST /session", s.stay)
	inside("POST /logout", s.logOut)
	inside("GET /{$}", s.showList)
	inside("GET /new", s.showNew)
	inside("POST /new", s.create)
	inside("GET /credentials/{name}", s.showEdit)
	inside("POST /credentials/{name}", s.edit)
	inside("GET /credentials/{name}/delete", s.showDelete)
	inside("POST /credentials/{name}/delete", s.delete)
	inside("POST /credentials/{name}/test", s.test)
	inside("POST /credentials/{name}/refresh", s.refresh)
	inside("GET /credentials/{name}/connect", s.connect)
	inside("GET "+callbackPath, s.connected)
	inside("GET /explain", s.explain)
	inside("GET /live", s.live)
	inside("/", func(w http.ResponseWriter, _ *http.Request, session *Session) {
		s.fail(w, session, http.StatusNotFound, "There is no such page", "The address leads nowhere here.")
	})
	return mux
}

// patience is how long one page may take: what a refresher is asked for takes up to
// 45 s.
const patience = 90 * time.Second

// lasting is the context of what must not be cut when somebody leaves the page.
func lasting(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), patience)
}
