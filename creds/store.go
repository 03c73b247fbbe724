package creds

import (
	"context"
	"time"
)

// Store keeps records: JSON objects under keys such as "credentials/jira", each
// with a version that grows by every write. All writes of pillion go through
// check-and-set, so that two pages, a page and a refresher, or two refreshers
// never undo one another. It is safe for concurrent use, and several processes
// may open the same one.
//
// Errors: ErrNotFound, ErrConflict, and ErrStoreUnavailable around whatever
// keeps the store from answering (with ErrStoreDenied when it is well and
// refuses). No error holds a record's content.
type Store interface {
	// Get returns the record under key, or ErrNotFound.
	Get(ctx context.Context, key string) (Record, error)
	// CAS writes data if the record still has that version, and returns the new
	// one. Version 0 means that there must be no record. Otherwise ErrConflict.
	CAS(ctx context.Context, key string, data Secret, version int) (int, error)
	// Patch merges data into the record (RFC 7396: null removes a member), or
	// creates it, without anybody reading it, and returns the new version.
	Patch(ctx context.Context, key string, data Secret) (int, error)
	// List returns the keys below prefix ("credentials/"), sorted, whole.
	List(ctx context.Context, prefix string) ([]string, error)
	// Delete removes the record and its history. One that is not there is no error.
	Delete(ctx context.Context, key string) error
	// Now is the store's clock, which all its users share; only differences of
	// its own values and Created mean anything.
	Now(ctx context.Context) (time.Time, error)
}

// Record is what a Store keeps under a key.
type Record struct {
	Data    Secret    // one JSON object
	Version int       // 1 for the first write
	Created time.Time // when this version was written, by the store's clock
	By      string    // who wrote it, where the store knows
}

// The keys of a store. NAME is a credential's name.
//
//	credentials/NAME  the public fields, and by what id each secret is found
//	secrets/NAME      secrets of static kinds: sidecars read, the page never does
//	grants/NAME       client secret and refresh token: refreshers only
//	tokens/NAME       the access token that every sidecar uses
//	states/NAME       how the token stands, without it: for people who may not read tokens/
//	requests/NAME     what the page asks of a refresher
//	consents/NAME     consents that a person has been sent away for, by a page
//	index             {NAME: version of credentials/NAME}: what pollers read
//	sweep             who repairs the index, and when that was done last
const (
	KeyCredentials = "credentials/"
	KeySecrets     = "secrets/"
	KeyGrants      = "grants/"
	KeyTokens      = "tokens/"
	KeyStates      = "states/"
	KeyRequests    = "requests/"
	KeyConsents    = "consents/"
	KeyIndex       = "index"
	KeySweep       = "sweep"
)
