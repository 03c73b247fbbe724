package console

import (
	"net/http"
	"strings"

	"pillion/creds"
)

type explainPage struct {
	page
	URL      string
	Asked    bool
	Upgraded bool
	Problem  string
	Result   creds.Explanation
}

// explain says which credential a URL gets, and why. It asks nobody but the store.
func (s *Server) explain(w http.ResponseWriter, r *http.Request, session *Session) {
	p := &explainPage{page: s.pageOf(session, "Which credential?"), URL: strings.TrimSpace(r.URL.Query().Get("url"))}
	p.Here = "explain"
	status := http.StatusOK
	if p.URL != "" {
		p.Asked = true
		inv, err := session.inventory(r.Context())
		if err != nil {
			s.failStore(w, session, err)
			return
		}
		if target, err := creds.ParseTarget(p.URL); err != nil {
			p.Problem, status = sentence("this address "+err.Error()), http.StatusUnprocessableEntity
		} else {
			if target.Scheme == "http" { // to the proxy: it goes on as https
				p.Upgraded, target.Scheme = true, "https"
				if target.Port == 80 {
					target.Port = 443
				}
			}
			p.Result = creds.NewTable(inv.used()).Explain(target)
		}
	}
	s.render(w, status, "explain", p)
}
