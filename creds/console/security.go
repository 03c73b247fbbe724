package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// contentPolicy lets a page load from here and nowhere else, and be framed by
// nobody. Chromium applies form-action to redirects too: so consents begin with a
// link, and not with a form.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// The bounds of a posted form are far more than the largest needs: a login template has
// 64 KiB, and there are some thirty fields and 50 headers. Those of a request's head,
// and how long it may take, are of the http.Server around.
const (
	maxForm   = 256 << 10 // bytes
	maxFields = 500
)

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
// too large, broken, or cut on its way.
func (s *Server) form(w http.ResponseWriter, r *http.Request, session *Session) bool {
	problem, status := "", http.StatusRequestEntityTooLarge
	if err := r.ParseForm(); err != nil {
		tooLarge := (*http.MaxBytesError)(nil)
		if problem = "It has more than 256 KiB."; !errors.As(err, &tooLarge) {
			problem, status = "It is broken, or was cut on its way.", http.StatusBadRequest
		}
	} else if count := countFields(r.PostForm); count > maxFields {
		problem = "It has more than 500 fields."
	}
	if problem != "" {
		s.fail(w, session, status, "The form cannot be read", problem+" Nothing was changed.")
	}
	return problem == ""
}

func countFields(form url.Values) (n int) {
	for _, values := range form {
		n += len(values)
	}
	return n
}
