package console

import (
	"context"
	"net/url"
	"time"

	"pillion/creds"
)

// Grants does what needs a secret, which the page never has: it does so itself where
// the program may, or asks a refresher. It is safe for concurrent use.
type Grants interface {
	// Begin makes the address where a person consents.
	Begin(c *creds.Credential, redirectURL string) (Consent, error)
	// Finish takes the code out of the query that the browser came back with, and has
	// it exchanged. Of a bad query the error says what is wrong, quoting nothing.
	Finish(ctx context.Context, s *Session, c *creds.Credential, consent Consent, query url.Values) (Report, error)
	// Refresh has a new token fetched now.
	Refresh(ctx context.Context, s *Session, c *creds.Credential) (Report, error)
	// Test tries the stored credential out, at path below its instance URL and at no
	// other address.
	Test(ctx context.Context, s *Session, c *creds.Credential, path string) (Report, error)
	// States says how the tokens of these credentials of a part stand, in their order,
	// as far as it is known here and the person may know it.
	States(ctx context.Context, at Part, list []*creds.Credential) []TokenState
}

// Consent is one that a person has been sent away for.
type Consent struct {
	URL             string // where the person consents
	State, Verifier creds.Secret
	RedirectURL     string
	Started         time.Time
	Spare           bool // keep it for the day that the present one is lost
}

// Report is what came of something, in lines for a person.
type Report struct {
	OK    bool
	Lines []string
}

// Condition is how a credential stands, in a word.
type Condition string

// The conditions.
const (
	Static       Condition = ""              // nothing is fetched: there is no state
	Good         Condition = "ok"            // a token serves
	Expiring     Condition = "expiring"      // it ends soon, and was not renewed yet
	Ending       Condition = "ending"        // a token serves, and the consent behind it ends soon
	Failing      Condition = "failing"       // the last token request failed
	NeedsConsent Condition = "needs_consent" // a person must connect it
	Wrong        Condition = "config_error"  // the provider says no until something is edited
	Idle         Condition = "none"          // nobody needs a token: the next request fetches one
	Unknown      Condition = "unknown"       // nobody here can tell; Detail says why
)

// TokenState is what is known of a credential's token.
type TokenState struct {
	Condition Condition
	Refreshed time.Time // zero: not known
	Expires   time.Time // zero: not known
	GrantEnds time.Time // when a person has to consent again; zero: not known
	Detail    string    // of a failure, in words; may be ""
}

// Live knows of requests. It is safe for concurrent use.
type Live interface {
	// Source says whose requests they are: "requests through this pillion since 08:12".
	Source() string
	// Usage returns who used a credential lately; false while nobody can tell.
	Usage(name string) (Usage, bool)
	// Requests returns the last n, the newest first; nil where single ones are not kept.
	Requests(n int) []Request
	// Minutes returns the last 60 minutes, the present one last; nil while nobody can tell.
	Minutes() []Minute
}

// Usage tells who used a credential.
type Usage struct {
	Last     time.Time // zero: not since Source began
	Requests int
	Clients  []string // pods or clients, where that is known
}

// Request is one line of the live view.
type Request struct {
	Time       time.Time
	Credential string
	Method     string
	Host, Path string
	Status     int
	Duration   time.Duration
	Error      string
}

// Minute is what the plots draw.
type Minute struct{ Requests, Errors int }
