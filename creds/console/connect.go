package console

import (
	"context"
	"crypto/subtle"
	"net/http"
	"net/url"
	"time"

	"pillion/creds"
)

// toolsView is what can be done with a stored credential.
type toolsView struct {
	Name      string
	Chip      chip
	Used      moment
	Source    string // whose requests Used is about; "" where nobody counts
	Refreshed moment
	Expires   moment
	GrantEnds moment
	Can       bool // a Grants is there
	Fetched   bool // it has a token that is fetched
	Consents  bool // a person consents to it
	Connected bool
	HTTPS     bool
	Connect   string // address that begins a consent, good once
	Spare     string
}

// connectNonce is what the link that begins a consent carries: bound to session and
// credential, so that no other page can begin one.
type connectNonce struct {
	ID, Session, Name, Part string
	Spare                   bool
	Expires                 time.Time
}

const (
	purposeNonce = "connect nonce"
	nonceTime    = time.Hour
	consentTime  = 10 * time.Minute
)

func (s *Server) addTools(ctx context.Context, p *formPage, session *Session, c *creds.Credential) {
	state, now := s.stateOf(ctx, session, c), s.now()
	t := &toolsView{
		Name: c.Name, Chip: chipOf(c, state), Used: s.usedOf(c.Name, now), Refreshed: refreshOf(c, state, now), Expires: expiryOf(c, state, now),
		Can: s.Grants != nil, Fetched: hasFetched(c), Consents: c.Authorization == creds.AuthorizationCode, HTTPS: c.Protocol == creds.HTTPS,
	}
	if s.Live != nil {
		t.Source = s.Live.Source()
	}
	t.GrantEnds = moment{Words: "no end known"}
	if !state.GrantEnds.IsZero() {
		t.GrantEnds = moment{state.GrantEnds, until(now, state.GrantEnds)}
	}
	t.Connected = state.Condition == Good || state.Condition == Expiring || state.Condition == Ending
	if t.Consents && t.Can {
		t.Connect, t.Spare = s.connectLink(session, c.Name, false), s.connectLink(session, c.Name, true)
	}
	p.Tools = t
}

func (s *Server) connectLink(session *Session, name string, spare bool) string {
	nonce := s.sealer.seal(purposeNonce, connectNonce{newID(), session.id, name, session.At.Name, spare, s.now().Add(nonceTime)})
	return session.address(name, "/connect", url.Values{"nonce": {nonce}})
}

// consentCookie is a consent that is under way, sealed, in the browser that began it.
type consentCookie struct {
	Session, Name, Part, URL, State, Verifier string
	Started                                   time.Time
	Spare                                     bool
}

// connect sends the browser to the provider.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, session *Session) {
	name := r.PathValue("name")
	var nonce connectNonce
	if s.sealer.open(purposeNonce, r.URL.Query().Get("nonce"), &nonce) != nil || nonce.Session != session.id || nonce.Name != name || nonce.Part != session.At.Name ||
		s.now().After(nonce.Expires) || !s.used.use(nonce.ID, nonce.Expires) {
		s.fail(w, session, http.StatusForbidden, "This link is used up", "Open the credential, and begin again there.")
		return
	}
	c, _, err := creds.LoadPublic(r.Context(), session.At.Store, name)
	if err != nil {
		s.failStore(w, session, err)
		return
	}
	if s.Grants == nil {
		s.fail(w, session, http.StatusNotImplemented, "Consents cannot be begun here", "Use the command pillion credential connect.")
		return
	}
	consent, err := s.Grants.Begin(c, s.RedirectURL())
	if err != nil {
		s.fail(w, session, http.StatusUnprocessableEntity, "This cannot be connected", sentence(err.Error()))
		return
	}
	if err := beginConsent(r.Context(), session.At.Store, name, consent.State.Reveal()); err != nil {
		s.failStore(w, session, err)
		return
	}
	now := s.now()
	held := consentCookie{session.id, name, session.At.Name, consent.URL, consent.State.Reveal(), consent.Verifier.Reveal(), now, nonce.Spare}
	s.setCookie(w, cookieConsent, s.sealer.seal(cookieConsent, held), now.Add(consentTime))
	http.Redirect(w, r, consent.URL, http.StatusSeeOther)
}

// connected is the redirect URL. Whoever sends a browser here without the state that
// it went away with ends nothing.
func (s *Server) connected(w http.ResponseWriter, r *http.Request, session *Session) {
	stray := func() {
		s.fail(w, session, http.StatusBadRequest, "This answer belongs to nothing that was asked",
			"No consent that was begun in this browser is waiting for it: it is over, was used, or was never begun here. Nothing was changed.",
			"Open the credential, and begin again there.")
	}
	cookie, err := r.Cookie(s.cookieName(cookieConsent))
	var held consentCookie
	if err != nil || s.sealer.open(cookieConsent, cookie.Value, &held) != nil || held.Session != session.id || !session.enter(held.Part) {
		stray()
		return
	}
	query := r.URL.Query()
	if held.State == "" || len(query["state"]) != 1 || subtle.ConstantTimeCompare([]byte(held.State), []byte(query.Get("state"))) != 1 {
		stray()
		return
	}
	ctx, cancel := lasting(r)
	defer cancel()
	switch pending, err := endConsent(ctx, session.At.Store, held.Name, held.State); {
	case err != nil:
		s.failStore(w, session, err)
		return
	case !pending:
		stray()
		return
	}
	s.setCookie(w, cookieConsent, "", time.Time{})
	c, _, err := creds.LoadPublic(ctx, session.At.Store, held.Name)
	if err != nil {
		s.failStore(w, session, err)
		return
	}
	report, err := s.Grants.Finish(ctx, session, c, Consent{
		URL: held.URL, State: creds.NewSecret(held.State), Verifier: creds.NewSecret(held.Verifier),
		RedirectURL: s.RedirectURL(), Started: held.Started, Spare: held.Spare,
	}, query)
	s.report(w, session, "connect", held.Name, report, err)
}
