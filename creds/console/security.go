package console

import (
	"net/http"
	"strings"
)

// contentPolicy lets a page load from here and nowhere else, and be framed by
// nobody. Chromium applies form-action to redirects too: so consents begin with a
// link, and not with a form.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// maxForm is far more than the largest form needs: a login template has 64 KiB.
const maxForm = 256 << 10

// guarded puts before every page what no page may forget.
func (s *Server) guarded(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fail(w, nil, http.StatusForbidden, "This came from another site", "Nothing was changed. Open the page itself, and repeat what you wanted there.")
	}))
	next = crossOrigin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", contentPolicy)
		header.Set("X-Frame-Options", "DENY")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		if s.secure {
			header.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if !strings.EqualFold(r.Host, s.host) {
			// A name that leads here may be anybody's: DNS rebinding.
			s.fail(w, nil, http.StatusMisdirectedRequest, "This is not my address", "Open "+s.URL+"/ instead.")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		next.ServeHTTP(w, r)
	})
}

// form reads the posted form; it answers itself, and returns false, when that is
// too large or broken.
func (s *Server) form(w http.ResponseWriter, r *http.Request, session *Session) bool {
	if err := r.ParseForm(); err != nil {
		s.fail(w, session, http.StatusRequestEntityTooLarge, "The form cannot be read", "It is too large, or was cut on its way. Nothing was changed.")
		return false
	}
	return true
}
