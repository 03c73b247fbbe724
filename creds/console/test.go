package console

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"pillion/creds"
)

type resultPage struct {
	page
	Name  string
	OK    bool
	Lines []string
}

// results are the titles of what was tried, when it worked and when it did not.
var results = map[string][2]string{
	"connect": {"Connected", "Not connected"},
	"refresh": {"Refreshed", "Not refreshed"},
	"test":    {"The test went well", "The test failed"},
}

// commandOfConsent is what the command line is told to do, and the page has a button for.
var commandOfConsent = regexp.MustCompile(`: (run )?pillion credential connect [A-Za-z0-9-]+`)

// report shows what came of something, and notes it.
func (s *Server) report(w http.ResponseWriter, session *Session, what, name string, report Report, err error) {
	action := session.did(what, name, nil, "")
	lines := slices.Clone(report.Lines)
	switch {
	case errors.Is(err, creds.ErrNeedsConsent):
		lines = append(lines, "a person must consent before it can be used: press Connect on its page")
	case err != nil:
		lines = append(lines, err.Error())
	}
	ok := report.OK && err == nil
	title := results[what][0]
	if !ok {
		action.Problem, title = "did not work", results[what][1]
	}
	for i, line := range lines {
		line = commandOfConsent.ReplaceAllString(line, "")
		if lines[i] = sentence(line); strings.HasPrefix(line, name) {
			lines[i] = line[:1] + lines[i][1:] // a name stays as it is
		}
	}
	s.audit(action)
	s.render(w, http.StatusOK, "result", resultPage{s.pageOf(session, title), name, ok, lines})
}

// refresh has a new token fetched.
func (s *Server) refresh(w http.ResponseWriter, r *http.Request, session *Session) {
	s.do(w, r, session, "refresh", func(ctx context.Context, c *creds.Credential) (Report, error) {
		return s.Grants.Refresh(ctx, session, c)
	})
}

// test tries a credential out as it is stored, at its own address: what is typed
// into the form but not saved does not count.
func (s *Server) test(w http.ResponseWriter, r *http.Request, session *Session) {
	if !s.form(w, r, session) {
		return
	}
	s.do(w, r, session, "test", func(ctx context.Context, c *creds.Credential) (Report, error) {
		return s.Grants.Test(ctx, session, c, r.PostForm.Get("path"))
	})
}

func (s *Server) do(w http.ResponseWriter, r *http.Request, session *Session, what string, act func(context.Context, *creds.Credential) (Report, error)) {
	ctx, cancel := lasting(r)
	defer cancel()
	name := r.PathValue("name")
	c, _, err := creds.LoadPublic(ctx, session.At.Store, name)
	if err != nil {
		s.failStore(w, session, err)
		return
	}
	if s.Grants == nil {
		s.fail(w, session, http.StatusNotImplemented, "This cannot be done here", "Use the command pillion credential "+what+".")
		return
	}
	report, err := act(ctx, c)
	s.report(w, session, what, name, report, err)
}
