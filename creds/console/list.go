package console

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pillion/creds"
)

const (
	// perPage keeps a page under some 60 KiB.
	perPage = 40
	// searchFrom is from how many entries on searching and sorting are worth their place.
	searchFrom = 20
)

type listPage struct {
	page
	Total    int // that are stored
	Found    int // that match the search
	Rows     []row
	Bad      []creds.BadRecord
	Overlaps [][]string
	Saved    string
	Deleted  string
	Search   string
	Sort     string
	Tools    bool // search and sort are shown
	Columns  []column
	Number   int // of this page
	Pages    int
	Previous string
	Next     string
	Source   string // whose requests "last used" is about; "" where nobody counts
}

type row struct {
	Name, Protocol, URL, Type string
	Chip                      chip
	Used                      string
	UsedAt, Refreshed, Until  time.Time
	Now                       time.Time
}

type column struct{ Name, Label, Link, Order string }

func (s *Server) showList(w http.ResponseWriter, r *http.Request, session *Session) {
	query := r.URL.Query()
	p := &listPage{page: s.pageOf(session, "Connector credentials"), Search: strings.TrimSpace(query.Get("q")), Sort: query.Get("sort")}
	p.Here = "list"
	p.Saved, p.Deleted = query.Get("saved"), query.Get("deleted")
	all, bad, err := creds.ListPublic(r.Context(), session.Store)
	if err != nil {
		s.failStore(w, session, err)
		return
	}
	p.Bad, p.Total = bad, len(all)+len(bad)
	if p.Saved != "" && !contains(all, p.Saved) {
		p.Saved = ""
	}
	if contains(all, p.Deleted) {
		p.Deleted = ""
	}
	p.Overlaps = creds.NewTable(all).Overlaps()
	p.Tools = p.Total >= searchFrom
	rows := s.rowsOf(search(all, p.Search))
	sortRows(rows, p.Sort)
	p.Found = len(rows)
	p.cut(rows, query.Get("page"))
	p.columns()
	if s.Live != nil {
		p.Source = s.Live.Source()
	}
	s.render(w, http.StatusOK, "list", p)
}

func contains(all []*creds.Credential, name string) bool {
	return slices.ContainsFunc(all, func(c *creds.Credential) bool { return c.Name == name })
}

func search(all []*creds.Credential, words string) []*creds.Credential {
	words = strings.ToLower(words)
	return slices.DeleteFunc(slices.Clone(all), func(c *creds.Credential) bool {
		return !strings.Contains(strings.ToLower(c.Name+" "+c.URL+" "+typeWords(c.Protocol, c.Authorization)), words)
	})
}

func (s *Server) rowsOf(list []*creds.Credential) []row {
	now := s.now()
	rows := make([]row, 0, len(list))
	for _, c := range list {
		state, known := s.stateOf(c)
		one := row{
			Name: c.Name, Protocol: strings.ToUpper(string(c.Protocol)), URL: c.URL, Type: typeWords(c.Protocol, c.Authorization),
			Chip: chipOf(c, state, known), Refreshed: state.Refreshed, Until: state.Expires, Now: now, Used: "not known",
		}
		if s.Live != nil {
			if usage, ok := s.Live.Usage(c.Name); ok {
				one.UsedAt, one.Used = usage.Last, ago(now, usage.Last)
			}
		}
		rows = append(rows, one)
	}
	return rows
}

func (s *Server) stateOf(c *creds.Credential) (TokenState, bool) {
	if s.Grants == nil {
		return TokenState{}, false
	}
	return s.Grants.State(c), true
}

// sortRows sorts by a column; "-name" is the other way round.
func sortRows(rows []row, by string) {
	column, descending := strings.CutPrefix(by, "-")
	slices.SortStableFunc(rows, func(a, b row) int {
		order := 0
		switch column {
		case "url":
			order = cmp.Compare(a.URL, b.URL)
		case "type":
			order = cmp.Compare(a.Type, b.Type)
		case "state":
			order = cmp.Compare(a.Chip.Text, b.Chip.Text)
		case "used":
			order = b.UsedAt.Compare(a.UsedAt)
		case "name":
			order = cmp.Compare(a.Name, b.Name)
		}
		if descending {
			order = -order
		}
		return order
	})
}

func (p *listPage) cut(rows []row, number string) {
	p.Pages = max(1, (len(rows)+perPage-1)/perPage)
	p.Number, _ = strconv.Atoi(number)
	p.Number = min(max(p.Number, 1), p.Pages)
	p.Rows = rows[(p.Number-1)*perPage : min(p.Number*perPage, len(rows))]
	if p.Number > 1 {
		p.Previous = p.link(p.Sort, p.Number-1)
	}
	if p.Number < p.Pages {
		p.Next = p.link(p.Sort, p.Number+1)
	}
}

func (p *listPage) link(sort string, number int) string {
	query := url.Values{}
	for name, value := range map[string]string{"q": p.Search, "sort": sort} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if number > 1 {
		query.Set("page", strconv.Itoa(number))
	}
	if len(query) == 0 {
		return "/"
	}
	return "/?" + query.Encode()
}

func (p *listPage) columns() {
	for _, c := range []column{
		{Name: "name", Label: "Name"}, {Name: "url", Label: "Instance URL"}, {Name: "type", Label: "Authorization type"},
		{Name: "state", Label: "State"}, {Name: "used", Label: "Last used"}, {Label: "Last refresh"}, {Label: "Expires"},
	} {
		if p.Tools && c.Name != "" {
			c.Link = p.link(c.Name, 1)
			switch p.Sort {
			case c.Name:
				c.Order, c.Link = "ascending", p.link("-"+c.Name, 1)
			case "-" + c.Name:
				c.Order = "descending"
			}
		}
		p.Columns = append(p.Columns, c)
	}
}
