package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"
)

const (
	// shownRequests is how many of the last requests the live view has.
	shownRequests = 50
	// shownTokens is how many tokens it has, those that end first.
	shownTokens = 20
)

type livePage struct {
	page
	Counted  bool // somebody counts requests
	Source   string
	Kept     bool // and keeps single ones
	Requests []Request
	Plots    []plot // none while nobody can tell
	Tokens   []tokenLeft
}

// tokenLeft is a token and what is left of its life, of the next hour.
type tokenLeft struct {
	Name    string
	Address string
	Chip    chip
	Expires time.Time
	Words   string
	Width   int // of 300
}

// live shows the last requests, the last hour, and the tokens that end in the next.
func (s *Server) live(w http.ResponseWriter, r *http.Request, session *Session) {
	p := &livePage{page: s.pageOf(session, "Live")}
	p.Here = "live"
	if s.Live != nil {
		p.Counted, p.Source, p.Requests = true, s.Live.Source(), s.Live.Requests(shownRequests)
		p.Kept = p.Requests != nil
		if minutes := s.Live.Minutes(); minutes != nil {
			p.Plots = plots(minutes)
		}
	}
	if s.Grants != nil {
		inv, err := session.inventory(r.Context())
		if err != nil {
			s.failStore(w, session, err)
			return
		}
		p.Tokens = s.tokensLeft(r.Context(), session, inv.all)
	}
	s.render(w, http.StatusOK, "live", p)
}

func (s *Server) tokensLeft(ctx context.Context, session *Session, all []entry) []tokenLeft {
	now, states := s.now(), s.states(ctx, all)
	var out []tokenLeft
	for i, c := range all {
		state := states[i]
		if state.Expires.IsZero() {
			continue
		}
		left := min(max(state.Expires.Sub(now), 0), time.Hour)
		out = append(out, tokenLeft{c.Name, session.addressIn(c.part, c.Name, "", nil), chipOf(c.Credential, state), state.Expires, until(now, state.Expires), int(left * plotWidth / time.Hour)})
	}
	slices.SortFunc(out, func(a, b tokenLeft) int { return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.Name, b.Name)) })
	return out[:min(len(out), shownTokens)]
}
