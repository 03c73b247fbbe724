package console

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"pillion/creds"
)

// formPage is the page of the form.
type formPage struct {
	page
	Form     *form
	Fields   []fieldView // of the main part
	More     []fieldView
	MoreOpen bool
	Types    []optionGroup
	Examples []option
	Presets  []creds.Preset
	Errors   []errorView
	Notes    [][]string // each in lines
	Saved    bool
	Conflict *conflictView
	Scan     *scanView
	Redirect string
	Tools    *toolsView

	template string // a login template to show, of a preset
	byField  map[string]string
}

// errorView is one line of the box at the top.
type errorView struct{ ID, Label, Problem string }

// fieldView is one field as the template shows it.
type fieldView struct {
	ID, Name, Label, Hint, Input, Uses, Value string
	Optional, On, Stored, Removable           bool
	Options                                   []option
	Error                                     string
}

// renderForm shows f. set adds what is special.
func (s *Server) renderForm(w http.ResponseWriter, session *Session, status int, f *form, set func(*formPage)) {
	title := "New credential"
	if f.Version != 0 {
		title = "Edit " + f.Name
	}
	p := &formPage{
		page: s.pageOf(session, title), Form: f, Types: typeGroups(), Examples: examples(), Presets: creds.Presets(), Redirect: s.RedirectURL(),
	}
	if set != nil {
		set(p)
	}
	for _, field := range fields() {
		view := p.view(field)
		if field.more {
			p.More = append(p.More, view)
			p.MoreOpen = p.MoreOpen || view.Error != ""
		} else {
			p.Fields = append(p.Fields, view)
		}
	}
	p.MoreOpen = p.MoreOpen || p.byField["header"] != "" || len(f.Headers) > 0
	if len(p.Errors) > 0 {
		p.Title = "Error: " + p.Title
	}
	s.render(w, status, "form", p)
}

func (p *formPage) view(field field) fieldView {
	f := p.Form
	v := fieldView{
		ID: fieldID(field.name), Name: field.name, Label: field.label, Hint: field.hint, Input: field.input, Uses: field.uses,
		Value: f.Values[field.name], Options: field.options, Error: p.byField[field.name], On: field.belongs(f.use()),
	}
	for _, u := range strings.Fields(field.uses) {
		v.Optional = v.Optional || field.optionalFor(u) && (u == f.use() || field.optional == field.uses)
	}
	if field.secret != nil {
		v.Stored = slices.Contains(f.Stored, field.name)
		v.Removable = v.Stored && field.optionalFor(f.use())
		v.Value = ""
		if field.name == "login_template" {
			v.Value = p.template
		}
	}
	return v
}

// Err is the problem of a field that the template has itself.
func (p *formPage) Err(name string) string { return p.byField[name] }

// problems fills the box at the top, in the order of the form.
func (p *formPage) problems(problems []creds.FieldError) {
	p.byField = map[string]string{}
	slices.SortStableFunc(problems, func(a, b creds.FieldError) int { return orderOf(a.Field) - orderOf(b.Field) })
	for _, problem := range problems {
		id, label := p.place(problem.Field)
		problem.Problem = wordsOfForm.Replace(typeInProblem.ReplaceAllString(problem.Problem, "")) // the form says which type
		p.Errors = append(p.Errors, errorView{id, label, problem.Problem})
		if p.byField[problem.Field] != "" {
			p.byField[problem.Field] += "; "
		}
		p.byField[problem.Field] += problem.Problem
	}
}

// wordsOfForm puts what a field is called on the page where a problem has the name
// that it has in an import file, and what can be done on the page beside the rest.
var wordsOfForm = strings.NewReplacer("private_key", "private key", " (api_key_header)", "", " (api_key_query)", "", "token_lifetime", "Life of a token",
	"paste the server's public key as one line", "read it from the server, or paste its public key as one line",
	"the prefix and the port need to be included", "is not whole: the prefix and the port need to be included")

var typeInProblem = regexp.MustCompile(` by authorization type [a-z0-9-]+`)

// ownFields are those with a form of their own, above the table's.
var ownFields = []string{"name", partParameter, "protocol", "url", "authorization", "preset"}

func orderOf(name string) int {
	if i := slices.Index(ownFields, name); i >= 0 {
		return i
	}
	for i, f := range fields() {
		if f.name == name {
			return len(ownFields) + i
		}
	}
	return 1000
}

// place is where a problem's field is on the page.
func (p *formPage) place(name string) (id, label string) {
	switch name {
	case "name":
		return "f-name", "Name"
	case partParameter:
		return "f-prefix", "Prefix"
	case "protocol":
		return "f-protocol", "Protocol"
	case "preset":
		return "f-preset", "Fill in for"
	case "authorization":
		return "f-authorization", "Authorization type"
	case "header":
		return fieldID(name), "Extra headers"
	case "url":
		if p.Form.Protocol == creds.SFTP {
			return "f-hostname", "Hostname"
		}
		return "f-url", "Instance URL"
	}
	f, _ := fieldNamed(name)
	return fieldID(name), f.label
}
