package console

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"

	"pillion/creds"
)

// page is what every page has.
type page struct {
	Title   string
	Session *Session // nil: nobody is logged in
	Here    string   // which entry of the menu is this one
	Left    int      // seconds of the session
}

func (s *Server) pageOf(session *Session, title string) page {
	p := page{Title: title, Session: session}
	if session != nil {
		p.Left = s.leftOf(session, s.now()).Seconds
	}
	return p
}

// Style and Script are the addresses of the assets.
func (page) Style() string { return assetPath("style.css") }

// Script is the address of the script.
func (page) Script() string { return assetPath("script.js") }

//go:embed templates
var templateFiles embed.FS

// templates are one set a page, each with the layout. A sidecar without the page
// does not parse them.
var templates = sync.OnceValue(func() map[string]*template.Template {
	return parseTemplates("list", "form", "delete", "login", "result", "message", "explain", "live")
})

func parseTemplates(names ...string) map[string]*template.Template {
	out := map[string]*template.Template{}
	for _, name := range names {
		t := template.New("layout.html").Funcs(template.FuncMap{
			"stamp": stamp, "count": countWords, "capital": capital, "breakable": breakable,
		})
		out[name] = template.Must(t.ParseFS(templateFiles, "templates/layout.html", "templates/"+name+".html"))
	}
	return out
}

// breakable lets a URL be broken where people would: after a slash, before a dot.
func breakable(url string) template.HTML {
	text := template.HTMLEscapeString(url)
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		scheme, rest = "", text
	} else {
		scheme += "://"
	}
	return template.HTML(scheme + strings.NewReplacer("/", "/<wbr>", ".", "<wbr>.").Replace(strings.TrimSuffix(rest, "/")) + text[len(strings.TrimSuffix(text, "/")):]) //nolint:gosec // escaped above
}

// stamp is a time in full, for a tooltip.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// render writes a page, or nothing of one that fails half way.
func (s *Server) render(w http.ResponseWriter, status int, name string, data any) {
	var body bytes.Buffer
	if err := templates()[name].Execute(&body, data); err != nil {
		panic("console: showing the page " + name + ": " + err.Error()) // a template of ours and a struct of ours
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

type messagePage struct {
	page
	Lines []string
}

// fail is a page that says why there is no other.
func (s *Server) fail(w http.ResponseWriter, session *Session, status int, title string, lines ...string) {
	s.render(w, status, "message", messagePage{s.pageOf(session, title), lines})
}

// failStore is fail for what a store answers.
func (s *Server) failStore(w http.ResponseWriter, session *Session, err error) {
	var broken *creds.BadRecord
	switch {
	case s.Login.Ended(err):
		s.used.use(session.id, session.Expires)
		s.setCookie(w, cookieSession, "", time.Time{})
		s.renderLogin(w, http.StatusUnauthorized, loginPage{Problem: capital(errSessionEnded.Error()) + ". Nothing was changed."})
	case errors.Is(err, creds.ErrNotFound):
		s.fail(w, session, http.StatusNotFound, "There is no such credential", "It may have been deleted meanwhile.")
	case errors.As(err, &broken):
		s.fail(w, session, http.StatusUnprocessableEntity, "This credential cannot be shown", sentence(err.Error()), "Delete it, and make it again.")
	case errors.Is(err, creds.ErrStoreDenied):
		s.fail(w, session, http.StatusForbidden, "You may not do this", sentence(err.Error()), "Ask who looks after the store for the right to it.")
	case errors.Is(err, creds.ErrStoreUnavailable):
		s.fail(w, session, http.StatusServiceUnavailable, "The store does not answer", sentence(err.Error()), "What runs goes on with what it read last.")
	default:
		s.fail(w, session, http.StatusInternalServerError, "This did not work", sentence(err.Error()))
	}
}
