package token

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"pillion/creds"
)

// timings are the waits of the protocol. They follow the lifetime of the tokens, so
// that a claim and its rescue fit into what is left of one when it is renewed.
//
//	          one hour   share of a life   at least
//	request     15 s          1/5           2 s      from before the claim to the last byte of the answer
//	lease       25 s     5/3 of request     3.5 s    the holder's alone
//	settle       3 s          1/20          0.5 s    a blind claim waits so long before its request
//	rescue      60 s          1/2           4 s      a silent holder is watched for so long
//
// request is shorter than lease by more than one write takes; a holder's pause
// between two writes is shorter than settle; rescue holds many such pauses.
type timings struct{ request, lease, settle, rescue time.Duration }

func timingsOf(life, timeout time.Duration) timings {
	if life <= 0 {
		life = time.Hour
	}
	if timeout <= 0 {
		timeout = 15 * time.Second
	}
	request := min(timeout, max(life/5, 2*time.Second))
	return timings{
		request: request,
		lease:   request + max(request*2/3, 1500*time.Millisecond),
		settle:  between(500*time.Millisecond, life/20, 3*time.Second),
		rescue:  between(4*time.Second, life/2, 60*time.Second),
	}
}

func between(low, d, high time.Duration) time.Duration { return min(max(low, d), high) }

// poll is the pause between two looks at a lease of that age: most requests are
// over within a second.
func (t timings) poll(age time.Duration) time.Duration {
	return between(50*time.Millisecond, age/4, min(time.Second, t.rescue/8))
}

// gap is how far apart two looks may lie without breaking a watch.
func (t timings) gap() time.Duration { return t.rescue / 4 }

// watch is how long this process has seen the same lease, look after look. A holder
// writes its answer as soon as the store lets it; so a lease may be called dead only
// by one for whom the store has answered all that time.
type watch struct {
	lease       string
	since, last time.Time // by this machine's clock: no other can be set back or forth meanwhile
}

// see notes a look and returns how long the lease has been watched.
func (w *watch) see(l *lease, now time.Time, gap time.Duration) time.Duration {
	if l == nil {
		*w = watch{}
		return 0
	}
	if w.lease != l.ID || elapsed(w.last, now) > gap {
		*w = watch{lease: l.ID, since: now}
	}
	w.last = now
	return now.Sub(w.since)
}

// ownLease is what this process knows about a lease that it laid itself.
type ownLease struct {
	id string
	// sent: a request went out under it, and its outcome is not known. Otherwise
	// none did, and the claim may be repeated at once.
	sent   bool
	blind  bool         // laid over a silent holder, who may have an answer yet
	failed *recordError // how that request ended
}

// want is why a renewal is asked for.
type want struct {
	refused string        // fingerprint of a token that upstream refused with a 401
	force   bool          // a person asks
	ahead   bool          // renew although the token is still good, once that makes sense
	wanted  time.Duration // keep renewing ahead for so long
}

// situation is everything that decide looks at.
type situation struct {
	stored  bool // there is a record
	record  grantRecord
	now     time.Time     // by the store's clock, as all times of records
	since   int           // the generation when this renewal began
	age     time.Duration // of the record's newest version, and so at most of its lease
	watched time.Duration // for how long this process has seen the lease without a break
	own     ownLease

	purpose, asked string
	consent        bool // the first token takes a person
	want           want
	times          timings
}

// move is what to do next.
type move int

const (
	useToken    move = iota // the record holds what is wanted
	wait                    // for pause, then look again
	claimLease              // nobody holds the grant: claim it, ask for a token
	claimBlind              // a holder is silent: claim over it, let it speak up, then ask
	claimOwn                // the outcome of our own request is unclear, and its time is up: ask again
	needConsent             // only a person can help
	backOff                 // no request before retry
	noProgress              // a refresh was forced only just now
	gone                    // there is no record, and it is not ours to make one
)

// decision is a move with its time.
type decision struct {
	move  move
	pause time.Duration
	retry time.Time // of backOff
}

// decide is the protocol's one place of judgement: pure, so that every row of it
// can be tested.
func decide(s situation) decision {
	token := s.record.Token
	good := token.usable(s.purpose, s.now)
	switch {
	case good && !s.due():
		return decision{move: useToken}
	case !s.stored && s.consent:
		return decision{move: needConsent}
	case !s.stored:
		return decision{move: gone}
	case good && s.want.refused != "" && s.record.Lease == nil && s.now.Before(fromMillis(s.record.ForcedAt).Add(forcedEvery)):
		return decision{move: noProgress} // under a lease the next token is on its way
	case s.consent && s.spends().IsZero():
		return decision{move: needConsent}
	}
	next := decision{move: claimLease}
	if s.record.Lease != nil {
		next = s.overLease()
	}
	if until, held := s.record.held(s.now, s.asked); held && !s.want.force && next.move != wait {
		return decision{move: backOff, retry: until}
	}
	return next
}

// due reports whether a good token is to be renewed all the same, unless that has
// happened since this renewal began.
func (s situation) due() bool {
	renewed := s.record.Gen != s.since
	switch token := s.record.Token; {
	case s.want.force && !renewed, s.want.refused == token.fingerprint() && !renewed:
		return true
	case s.want.ahead:
		return s.record.Asked != s.asked || !s.now.Before(fromMillis(token.RenewAt))
	}
	return false
}

// spends returns the refresh token that a request would spend.
func (s situation) spends() creds.Secret { return s.record.Refresh.secret(s.purpose) }

// overLease judges a lease. One is over at its ttl where a second request costs
// nothing; where it would spend a refresh token twice, a strict provider may end the
// grant, so its holder gets all the time that the living access token leaves, and a
// whole watch in any case.
func (s situation) overLease() decision {
	l := s.record.Lease
	ttl := between(0, time.Duration(l.TTL)*time.Millisecond, maxLease)
	mine := l.ID == s.own.id
	alive := s.record.Token != nil && s.now.Before(fromMillis(s.record.Token.ExpiresAt))
	age := max(s.age, s.watched) // a store's clock that was set back makes nobody wait for ever
	left := ttl - age
	switch {
	case mine && !s.own.sent && s.own.blind:
		// An outage may have kept us from hearing the holder, and the holder from
		// being heard: it gets its time again.
		return decision{move: claimBlind}
	case mine && !s.own.sent:
		return decision{move: claimLease}
	case mine && left <= 0:
		// Nobody has an answer to hand in. Asking again soon is what heals it where
		// the provider did not act, or takes a token twice within half a minute.
		return decision{move: claimOwn}
	case left <= 0 && s.spends().IsZero():
		return decision{move: claimLease}
	case left <= 0 && !mine && !(alive && age < ttl+s.times.rescue) && s.watched >= s.times.rescue:
		return decision{move: claimBlind}
	case left <= 0:
		left = s.times.rescue // looks go on without a gap
	}
	return decision{move: wait, pause: min(left, s.times.poll(age))}
}

// maxLease bounds what a record may say of a lease.
const maxLease = 5 * time.Minute

// held reports whether the shared back-off forbids a request, and until when; a
// person may ask at any time. An edit lifts what only an edit can. One that is too
// long comes of a clock that was set back.
func (g *grantRecord) held(now time.Time, asked string) (until time.Time, yes bool) {
	until = fromMillis(g.NotBefore)
	last := g.LastError
	edited := last != nil && last.failure().final() && g.Tried != asked
	ahead := until.Sub(now)
	return until, ahead > 0 && ahead <= maxRetryAfter && !edited
}

// usable reports whether the token may be sent for that purpose.
func (t *tokenRecord) usable(purpose string, now time.Time) bool {
	if t == nil || t.AccessToken.secret(purpose).IsZero() {
		return false
	}
	expires := fromMillis(t.ExpiresAt)
	return now.Before(expires.Add(-min(margin, t.life()/10)))
}

func (t *tokenRecord) life() time.Duration {
	if t == nil {
		return 0
	}
	return time.Duration(t.ExpiresAt-t.IssuedAt) * time.Millisecond
}

func (t *tokenRecord) fingerprint() string {
	if t == nil || t.AccessToken == nil {
		return ""
	}
	return creds.NewSecret(t.AccessToken.Value).Fingerprint()
}

// pauseAfter is the shared back-off after one more failure than fails: 0.5 s, 1 s,
// 2 s up to 60 s; where only an edit can help 60 s growing to 10 min, since nothing
// tells us of an edit at the provider. A part of it is drawn.
func pauseAfter(fails int, f *failure) time.Duration {
	pause := firstBackoff << min(fails, 7)
	if f.final() {
		pause = maxBackoff << min(fails, 4)
		return min(pause, 10*time.Minute) + mathrand.N(maxBackoff/10)
	}
	pause = min(pause, maxBackoff)
	return max(pause/2+mathrand.N(pause/2), min(f.retryAfter, maxRetryAfter))
}

func newNonce() string {
	var nonce [8]byte
	rand.Read(nonce[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(nonce[:])
}

// askedOf digests what shapes a token, beside the purpose that it is bound to.
func askedOf(c *creds.Credential) string {
	parts := []string{
		c.Scope, string(c.AuthStyle), c.TokenLifetime.String(),
		c.ClientSecret.Reveal(), c.Password.Reveal(), c.LoginTemplate.Reveal(),
	}
	for _, name := range slices.Sorted(maps.Keys(c.Params)) {
		parts = append(parts, name, c.Params[name])
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:8])
}
