package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"pillion/creds"
)

type deletePage struct {
	page
	Name  string
	Known bool // who used it is known here
	Usage Usage
	Used  moment
	From  string // whose requests these are
}

func (s *Server) showDelete(w http.ResponseWriter, r *http.Request, session *Session) {
	name := r.PathValue("name")
	_, _, err := creds.LoadPublic(r.Context(), session.At.Store, name)
	var broken *creds.BadRecord
	if err != nil && !errors.As(err, &broken) { // what cannot be read can be deleted
		s.failStore(w, session, err)
		return
	}
	p := deletePage{page: s.pageOf(session, "Delete "+name), Name: name}
	if s.Live != nil {
		p.Usage, p.Known = s.Live.Usage(name)
		p.Used, p.From = s.usedOf(name, s.now()), s.Live.Source()
	}
	s.render(w, http.StatusOK, "delete", p)
}

func (s *Server) delete(w http.ResponseWriter, r *http.Request, session *Session) {
	name := r.PathValue("name")
	ctx, cancel := lasting(r)
	defer cancel()
	err := creds.Remove(ctx, session.At.Store, name)
	if err != nil && !errors.Is(err, creds.ErrNotFound) { // what is gone is what was wanted
		s.audit(session.did("delete", name, nil, err.Error()))
		s.failStore(w, session, err)
		return
	}
	s.audit(session.did("delete", name, nil, ""))
	s.changed(context.WithoutCancel(r.Context()))
	http.Redirect(w, r, session.withPart(session.At, "/", url.Values{"deleted": {name}}), http.StatusSeeOther)
}
