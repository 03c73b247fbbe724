package console

import "net/http"

// shownRequests is how many of the last requests the live view has.
const shownRequests = 50

type livePage struct {
	page
	Known    bool
	Source   string
	Requests []Request
	Plots    []plot
}

// live shows the last requests, and the last hour.
func (s *Server) live(w http.ResponseWriter, r *http.Request, session *Session) {
	p := &livePage{page: s.pageOf(session, "Live")}
	p.Here = "live"
	if s.Live != nil {
		p.Known, p.Source, p.Requests = true, s.Live.Source(), s.Live.Requests(shownRequests)
		p.Plots = plots(s.Live.Minutes())
	}
	s.render(w, http.StatusOK, "live", p)
}
