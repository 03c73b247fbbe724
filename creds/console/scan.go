package console

import (
	"context"
	"net/http"
	"time"

	"pillion/creds"
)

// scan reads the host keys that a server shows. They are taken over by a second
// click only: who answers may be anybody.
func (s *Server) scan(w http.ResponseWriter, r *http.Request, session *Session, f *form) {
	wrong := func(problem string) {
		s.renderForm(w, session, http.StatusUnprocessableEntity, f, func(p *formPage) {
			p.problems([]creds.FieldError{{Field: "url", Problem: problem}})
		})
	}
	if s.ScanHostKeys == nil {
		wrong("cannot be asked for its host keys from here: ask its owner, or paste what ssh-keyscan prints")
		return
	}
	probe := creds.Credential{Protocol: creds.SFTP, URL: f.Hostname}
	if f.Protocol != creds.SFTP || creds.ProtocolOf(f.Hostname) != creds.SFTP {
		wrong("the prefix and the port need to be included: sftp://host:22/")
		return
	}
	instance, err := probe.Instance()
	if err != nil {
		wrong(err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	keys, err := s.ScanHostKeys(ctx, instance.Host, instance.Port)
	if err != nil {
		wrong("does not show its host keys: " + err.Error())
		return
	}
	found := &scanView{Server: f.Hostname}
	for _, key := range keys {
		found.Keys = append(found.Keys, key)
		found.Lines += key.String() + "\n"
	}
	s.renderForm(w, session, http.StatusOK, f, func(p *formPage) { p.Scan = found })
}

// scanView are the host keys that a server shows.
type scanView struct {
	Server string
	Keys   []creds.HostKey
	Lines  string
}
