package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"pillion/creds"
)

func (s *Server) showNew(w http.ResponseWriter, _ *http.Request, session *Session) {
	s.renderForm(w, session, http.StatusOK, emptyForm(), nil)
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, session *Session) {
	if !s.form(w, r, session) {
		return
	}
	f := readForm(r.PostForm, "", nil)
	chosen := r.PostForm.Get(partParameter)
	if f.Placed = !session.Several() || chosen != "" && session.enter(chosen); f.Placed {
		f.Part = session.At.Name
	}
	s.handleForm(w, r, session, f)
}

func (s *Server) showEdit(w http.ResponseWriter, r *http.Request, session *Session) {
	c, stored, err := creds.LoadPublic(r.Context(), session.At.Store, r.PathValue("name"))
	if err != nil {
		s.failStore(w, session, err)
		return
	}
	s.renderForm(w, session, http.StatusOK, formOf(c, stored), func(p *formPage) {
		p.Saved = r.URL.Query().Has("saved")
		s.addTools(r.Context(), p, session, c)
	})
}

func (s *Server) edit(w http.ResponseWriter, r *http.Request, session *Session) {
	if !s.form(w, r, session) {
		return
	}
	name := r.PathValue("name")
	_, stored, err := creds.LoadPublic(r.Context(), session.At.Store, name)
	switch {
	case errors.Is(err, creds.ErrNotFound):
		s.failDeleted(w, session, name)
		return
	case err != nil:
		s.failStore(w, session, err)
		return
	}
	s.handleForm(w, r, session, readForm(r.PostForm, name, stored))
}

// handleForm does what the pressed button says. All but "save" come back to the
// form, and change nothing.
func (s *Server) handleForm(w http.ResponseWriter, r *http.Request, session *Session, f *form) {
	switch action := r.PostForm.Get("action"); action {
	case "fields":
		s.renderForm(w, session, http.StatusOK, f, nil)
	case "preset":
		s.fillIn(w, session, f, r.PostForm.Get("preset"))
	case "scan":
		s.scan(w, r, session, f)
	case "accept":
		f.Values["host_key"] = r.PostForm.Get("scanned")
		s.renderForm(w, session, http.StatusOK, f, func(p *formPage) {
			p.Notes = append(p.Notes, []string{"The host keys are in the form. They count once you save."})
		})
	default:
		s.save(w, r, session, f)
	}
}

// fillIn applies a preset to what is in the form: what it says nothing of stays.
func (s *Server) fillIn(w http.ResponseWriter, session *Session, f *form, name string) {
	f.Preset = name
	wrong := func(field, problem string) {
		s.renderForm(w, session, http.StatusUnprocessableEntity, f, func(p *formPage) {
			p.problems([]creds.FieldError{{Field: field, Problem: problem}})
		})
	}
	preset, err := creds.FindPreset(name)
	switch {
	case err != nil:
		wrong("preset", "needs a tool")
		return
	case f.Protocol != creds.HTTPS || f.URL == "":
		wrong("url", "is needed before the rest can be filled in")
		return
	}
	filled := &creds.Credential{Name: f.Name, Version: f.Version, Protocol: creds.HTTPS, URL: f.URL, Authorization: f.Authorization}
	types, err := preset.Types(f.URL)
	if !slices.Contains(types, f.Authorization) {
		filled.Authorization = "" // the tool's own choice
	}
	var left creds.Left
	if err == nil {
		left, err = preset.Apply(filled)
	}
	if err != nil {
		wrong("url", strings.TrimPrefix(err.Error(), "applying the preset "+name+": the instance URL "))
		return
	}
	into := f.filled(filled, left.Headers)
	s.renderForm(w, session, http.StatusOK, into, func(p *formPage) {
		if !filled.LoginTemplate.IsZero() {
			p.template = filled.LoginTemplate.Reveal() // a preset's own: it holds no secret
		}
		p.Notes = append(p.Notes, presetNotes(preset, types, f.Authorization, filled.Authorization, left.Note))
	})
}

// filled is f with what a preset has set, and rows for the headers that it asks for.
func (f *form) filled(by *creds.Credential, headers []string) *form {
	into := formOf(by, f.Stored)
	into.Part, into.Placed = f.Part, f.Placed
	into.Preset, into.Hostname, into.Headers = f.Preset, f.Hostname, f.Headers
	for _, name := range headers {
		if !slices.ContainsFunc(f.Headers, func(h headerRow) bool { return strings.EqualFold(h.Name, name) }) {
			into.Headers = append(into.Headers, headerRow{Name: name})
		}
	}
	for _, field := range fields() {
		if field.secret == nil && into.Values[field.name] == "" {
			into.Values[field.name] = f.Values[field.name]
		}
	}
	return into
}

// presetNotes says what was filled in, what is left to give, and which other types
// the tool has.
func presetNotes(preset creds.Preset, types []creds.AuthorizationType, was, is creds.AuthorizationType, note string) []string {
	words := func(t creds.AuthorizationType) string { return typeWords(creds.HTTPS, t) }
	first := "Filled in for " + preset.Tool + ": " + words(is) + "."
	if was != "" && was != is {
		first = preset.Tool + " has no “" + words(was) + "” there. " + first
	}
	out := []string{first + " Nothing is saved yet."}
	if note != "" {
		out = append(out, sentence(note))
	}
	var others []string
	for _, t := range types {
		if t != is {
			others = append(others, words(t))
		}
	}
	if len(others) > 0 {
		out = append(out, "It also has: "+strings.Join(others, "; ")+". For one of these, choose the type and fill in again.")
	}
	return out
}

// save stores the form, and goes to a page that can be reloaded.
func (s *Server) save(w http.ResponseWriter, r *http.Request, session *Session, f *form) {
	c, keep := f.credential()
	isNew := f.Version == 0
	var old *creds.Credential
	if !isNew {
		old, _, _ = creds.LoadPublic(r.Context(), session.At.Store, c.Name)
	}
	if isNew && !f.Placed {
		f.problems = append(f.problems, creds.FieldError{Field: partParameter, Problem: "says where it is kept: choose one"})
	}
	err := c.ValidateKeeping(keep...)
	if err == nil && len(f.problems) == 0 {
		ctx, cancel := lasting(r)
		defer cancel()
		err = creds.Update(ctx, session.At.Store, c, keep)
	}
	if !isNew && errors.Is(err, creds.ErrConflict) {
		s.conflict(w, r, session, f, err)
		return
	}
	if errors.Is(err, creds.ErrConflict) {
		err = &creds.InvalidError{Fields: []creds.FieldError{{Field: "name", Problem: "is taken: there is a credential of that name already"}}}
	}
	what := "edit"
	if isNew {
		what = "create"
	}
	problems, err := f.invalid(err)
	if err != nil {
		s.audit(session.did(what, c.Name, f.given(c, old), err.Error()))
		s.failStore(w, session, err)
		return
	}
	if len(problems) > 0 {
		s.renderForm(w, session, http.StatusUnprocessableEntity, f, func(p *formPage) { p.problems(problems) })
		return
	}
	s.audit(session.did(what, c.Name, f.given(c, old), ""))
	s.changed(context.WithoutCancel(r.Context()))
	if isNew && c.Authorization == creds.AuthorizationCode {
		http.Redirect(w, r, session.address(c.Name, "", url.Values{"saved": {"1"}}), http.StatusSeeOther) // connecting comes next
		return
	}
	http.Redirect(w, r, session.withPart(session.At, "/", url.Values{"saved": {c.Name}}), http.StatusSeeOther)
}

// conflict shows who was faster, and what differs. The form below it holds what was
// typed, over the version that is stored now: saving it again writes it over that.
func (s *Server) conflict(w http.ResponseWriter, r *http.Request, session *Session, f *form, err error) {
	mine, _ := f.credential()
	var faster *creds.ConflictError
	conflict := &conflictView{}
	if errors.As(err, &faster) {
		conflict.By, conflict.At = faster.By, faster.At
	}
	theirs, stored, err := creds.LoadPublic(r.Context(), session.At.Store, f.Name)
	switch {
	case errors.Is(err, creds.ErrNotFound):
		s.failDeleted(w, session, f.Name)
		return
	case err != nil:
		s.failStore(w, session, err)
		return
	}
	conflict.Differences = differences(theirs, mine)
	conflict.Typed = len(f.typed()) > 0
	f.Version, f.Stored = theirs.Version, stored
	for i := range f.Headers {
		f.Headers[i].Stored = slices.Contains(stored, "header:"+f.Headers[i].Name)
	}
	s.renderForm(w, session, http.StatusConflict, f, func(p *formPage) { p.Conflict = conflict })
}

func (s *Server) failDeleted(w http.ResponseWriter, session *Session, name string) {
	s.fail(w, session, http.StatusConflict, name+" was deleted meanwhile", "Nothing was saved. To have it back, make it again.")
}

// conflictView is what the form shows of an edit that came too late.
type conflictView struct {
	By          string
	At          time.Time
	Differences []difference
	Typed       bool // secrets were typed, and must be typed again
}

// typed are the secrets that were typed.
func (f *form) typed() []string {
	var names []string
	for name, value := range f.secrets {
		if !value.IsZero() {
			names = append(names, name)
		}
	}
	return names
}
