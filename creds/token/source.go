package token

import (
	"context"
	"time"

	"pillion/creds"
)

// Source gives the authorization of one credential, for as long as that
// credential is not changed. It is safe for concurrent use.
type Source interface {
	// Authorization returns what a request may carry now; never one that has
	// expired. The error is a *creds.TokenError, or ctx's.
	Authorization(ctx context.Context) (*creds.Authorization, error)
	// Refused says that upstream answered 401 to the token with that fingerprint.
	// It returns an authorization with another one, or creds.ErrNoProgress.
	Refused(ctx context.Context, fingerprint string) (*creds.Authorization, error)
	// State tells how it stands, without asking anybody.
	State() State
	// Close ends it: who waits gets ReasonChanged, and what a token request under
	// way still brings is dropped, without an Event.
	Close()
}

// Status is how a credential's token stands, in a word.
type Status string

// The statuses.
const (
	StatusOK           Status = "ok"
	StatusDegraded     Status = "degraded"      // the last token request failed; an older token may still serve
	StatusNeedsConsent Status = "needs_consent" // a person must connect it again
	StatusConfigError  Status = "config_error"  // the provider says no: it stays so until somebody edits something
	StatusNone         Status = "none"          // there is no token: the kind has none, or nobody asked for one lately
)

// State is what Keeper.State returns.
type State struct {
	Status          Status
	Token           string    // fingerprint of the token that is held
	Issued, Expires time.Time // of that token

	LastError   *creds.TokenError // of the last token request, if it failed
	Detail      string            // more about LastError, in our own words; may be empty
	Failures    int               // in a row
	NextAttempt time.Time         // not before this, after a failure

	// GrantEnds is when a person has to connect the credential again at the latest,
	// as far as the provider or the credential tell; zero: they do not.
	GrantEnds time.Time
}

// Result is how a token request ended: a label of metrics.
type Result string

// The results.
const (
	Success Result = "success"
	Failure Result = "failure"
)

// EventKind is what an Event tells of.
type EventKind int

// The kinds of events.
const (
	EventRequest        EventKind = iota // a token request has ended
	EventLeaseConflict                   // another process was faster to claim the grant
	EventRescue                          // an answer was written over a claim that was laid meanwhile, or handed in from the journal
	EventUnknownOutcome                  // a request ended so that the provider may have acted on it
	EventBlindClaim                      // a claim was laid over one whose holder is silent
	EventState                           // the status that others read has changed
	EventJournalFailed                   // an answer is not in the journal: were this process to end before the store has it, it would be lost
	EventPublishFailed                   // people cannot be told how a token stands
)

// Event tells of one step that metrics count and the log shows. All but Kind,
// Credential and Grant are a request's alone; but State is an EventState's, and
// Detail that of both, of an EventJournalFailed and of an EventPublishFailed.
type Event struct {
	Kind       EventKind
	Credential string
	Grant      creds.AuthorizationType
	State      Status

	Result Result
	Took   time.Duration

	// Of a success.
	Token           string // fingerprint
	Issued, Expires time.Time

	// Of a failure.
	Reason string // one of Reasons
	Status int    // of the answer; 0 when there was none
	Code   string // the OAuth error code, if it is a known one
	Detail string // in our own words; may be empty
}
