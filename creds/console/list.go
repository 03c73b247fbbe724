package console

import (
	"cmp"
	"context"
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
	perPage = 30
	// searchFrom is from how many entries on searching and sorting are worth their place.
	searchFrom = 20
)

type listPage struct {
	page
	Total    int // that are stored
	Found    int // that match the search
	Rows     []row
	Bad      []badRow
	Overlaps [][]string
	Twice    []twice
	Hidden   int    // that the person may not read
	Closed   []Part // that the person may not list
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
	Silent   bool   // who counts does not answer
}

type row struct {
	Name, Protocol, URL, Type string
	Prefix                    string // where it lies, if there are several parts
	Edit, Delete              string // addresses
	Chip                      chip
	Used, Refreshed, Expires  moment

	of entry
}

// badRow is a credential that cannot be used.
type badRow struct{ Name, Problem, Delete string }

// twice is a name that several parts have.
type twice struct {
	Name  string
	Used  string // the part of the one that is used
	Parts []link
}

type link struct{ Label, Address string }

type column struct{ Name, Label, Link, Order string }

func (s *Server) showList(w http.ResponseWriter, r *http.Request, session *Session) {
	query := r.URL.Query()
	p := &listPage{page: s.pageOf(session, "Connector credentials"), Search: strings.TrimSpace(query.Get("q")), Sort: query.Get("sort")}
	p.Here = "list"
	p.Saved, p.Deleted = query.Get("saved"), query.Get("deleted")
	inv, err := session.inventory(r.Context())
	if err != nil {
		s.failStore(w, session, err)
		return
	}
	p.notes(inv)
	rows := s.rowsOf(session, search(inv.all, p.Search))
	if strings.TrimPrefix(p.Sort, "-") == "state" { // else only those that are shown are asked about
		s.fillStates(r.Context(), rows)
	}
	sortRows(rows, p.Sort)
	p.Found = len(rows)
	p.cut(rows, query.Get("page"))
	s.fillStates(r.Context(), p.Rows)
	p.columns()
	if s.Live != nil {
		_, known := s.Live.Usage("")
		p.Source, p.Silent = s.Live.Source(), !known
	}
	s.render(w, http.StatusOK, "list", p)
}

// notes takes over what stands above the table.
func (p *listPage) notes(inv inventory) {
	p.Total, p.Hidden, p.Closed = len(inv.all)+len(inv.bad), inv.hidden, inv.closed
	if p.Saved != "" && !inv.has(p.Saved, p.Session.At) {
		p.Saved = ""
	}
	if inv.has(p.Deleted, p.Session.At) {
		p.Deleted = ""
	}
	for _, b := range inv.bad {
		p.Bad = append(p.Bad, badRow{b.Name, b.Problem, p.Session.addressIn(b.part, b.Name, "/delete", nil)})
	}
	p.Overlaps = creds.NewTable(inv.used()).Overlaps()
	for _, same := range inv.namesakes() {
		t := twice{Name: same[0].Name, Used: same[0].part.Label()}
		for _, e := range same {
			t.Parts = append(t.Parts, link{e.part.Label(), p.Session.addressIn(e.part, e.Name, "", nil)})
		}
		p.Twice = append(p.Twice, t)
	}
	p.Tools = p.Total >= searchFrom
}

func search(all []entry, words string) []entry {
	words = strings.ToLower(words)
	return slices.DeleteFunc(slices.Clone(all), func(e entry) bool {
		return !strings.Contains(strings.ToLower(e.Name+" "+e.URL+" "+typeWords(e.Protocol, e.Authorization)+" "+e.part.Name), words)
	})
}

func (s *Server) rowsOf(session *Session, list []entry) []row {
	now := s.now()
	rows := make([]row, 0, len(list))
	for _, c := range list {
		one := row{
			Name: c.Name, Protocol: strings.ToUpper(string(c.Protocol)), URL: c.URL, Type: typeWords(c.Protocol, c.Authorization),
			Used: s.usedOf(c.Name, now), of: c,
			Edit: session.addressIn(c.part, c.Name, "", nil), Delete: session.addressIn(c.part, c.Name, "/delete", nil),
		}
		if session.Several() {
			one.Prefix = c.part.Label()
		}
		rows = append(rows, one)
	}
	return rows
}

// usedOf is when a credential was used last, as far as somebody counts.
func (s *Server) usedOf(name string, now time.Time) moment {
	if s.Live != nil {
		if usage, ok := s.Live.Usage(name); ok {
			return past(now, usage.Last, "not seen")
		}
	}
	return moment{Words: notKnown}
}

// fillStates asks how the tokens of the rows stand.
func (s *Server) fillStates(ctx context.Context, rows []row) {
	now := s.now()
	entries := make([]entry, len(rows))
	for i, r := range rows {
		entries[i] = r.of
	}
	states := s.states(ctx, entries)
	for i := range rows {
		c := rows[i].of.Credential
		rows[i].Chip, rows[i].Refreshed, rows[i].Expires = chipOf(c, states[i]), refreshOf(c, states[i], now), expiryOf(c, states[i], now)
	}
}

// states says how the tokens of the entries stand, in their order.
func (s *Server) states(ctx context.Context, entries []entry) []TokenState {
	out := make([]TokenState, len(entries))
	byPart := map[string][]int{}
	for i, e := range entries {
		byPart[e.part.Name] = append(byPart[e.part.Name], i)
	}
	for _, at := range byPart {
		list := make([]*creds.Credential, len(at))
		for i, place := range at {
			list[i] = entries[place].Credential
		}
		if s.Grants == nil {
			continue
		}
		for i, state := range s.Grants.States(ctx, entries[at[0]].part, list) {
			out[at[i]] = state
		}
	}
	return out
}

func (s *Server) stateOf(ctx context.Context, session *Session, c *creds.Credential) TokenState {
	return s.states(ctx, []entry{{c, session.At}})[0]
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
			order = b.Used.At.Compare(a.Used.At)
		case "protocol":
			order = cmp.Compare(a.Protocol, b.Protocol)
		case "name":
			order = cmp.Compare(a.Name, b.Name)
		case "prefix":
			order = cmp.Compare(a.Prefix, b.Prefix)
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

// Wide is how many columns the table has, with that of the actions.
func (p *listPage) Wide() int { return len(p.Columns) + 1 }

func (p *listPage) columns() {
	all := []column{
		{Name: "name", Label: "Name"}, {Name: "protocol", Label: "Protocol"}, {Name: "url", Label: "Instance URL"}, {Name: "type", Label: "Authorization type"},
		{Name: "state", Label: "State"}, {Name: "used", Label: "Last used"}, {Label: "Last refresh"}, {Label: "Expires"},
	}
	if p.Session.Several() {
		all = slices.Insert(all, 1, column{Name: "prefix", Label: "Prefix"})
	}
	for _, c := range all {
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
