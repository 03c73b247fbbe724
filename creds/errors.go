package creds

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// What stores and sources return, to be told apart by errors.Is.
var (
	ErrNotFound         = errors.New("not found")
	ErrConflict         = errors.New("the record was changed meanwhile: read it again, then repeat the change")
	ErrStoreUnavailable = errors.New("the credential store does not answer")
	// ErrStoreDenied is in the ErrStoreUnavailable of a store that is well and
	// refuses: somebody has decided so, by a policy or by removing what was there.
	ErrStoreDenied  = errors.New("the credential store refuses")
	ErrNeedsConsent = errors.New("the credential needs consent: connect it again")
	// ErrNoProgress is what Refused returns when there is no newer token to try.
	ErrNoProgress = errors.New("no newer token")
)

// ConflictError is an ErrConflict that knows who was faster.
type ConflictError struct {
	By string // the display name of a login; "" when the store does not know
	At time.Time
}

func (e *ConflictError) Error() string {
	if e.At.IsZero() {
		return ErrConflict.Error()
	}
	by := e.By
	if by == "" {
		by = "somebody"
	}
	return fmt.Sprintf("%s changed the record meanwhile, at %s: read it again, then repeat the change", by, e.At.UTC().Format(time.RFC3339))
}

// Is makes it an ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// AmbiguousError says that several credentials have the same instance URL.
type AmbiguousError struct {
	Target Target
	Names  []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s matches several credentials (%s): give them different instance URLs, or name one as the proxy user", e.Target.URL(), strings.Join(e.Names, ", "))
}

// TokenError says that no token can be had now. Its text comes from a fixed
// vocabulary: never from the token endpoint's answer, which may hold secrets.
type TokenError struct {
	Credential string
	// Reason is a metric label: invalid_grant, invalid_client, other_4xx,
	// server_5xx, timeout, network, bad_response, redirect, forbidden_target; or,
	// without a token request, unsupported (no such type), changed (the credential,
	// meanwhile), no_refresher (that answers) or bad_record (of the grant, in the store).
	Reason string
	Status int    // of the token endpoint's answer; 0 when there was none
	Code   string // its OAuth error code (RFC 6749 section 5.2), if it is a known one
	// RetryAfter is when another attempt makes sense; 0 when that is not known.
	RetryAfter time.Duration
}

func (e *TokenError) Error() string {
	text := "no token for " + e.Credential + ": " + e.Reason
	if e.Status != 0 {
		text += fmt.Sprintf(", status %d", e.Status)
	}
	if e.Code != "" {
		text += ", " + e.Code
	}
	return text
}

// FieldError is one problem of one field, in words for an administrator.
type FieldError struct {
	Field   string // as in the import file: "access_token_url"
	Problem string // never the value of a secret
}

// InvalidError lists everything that is wrong with a credential.
type InvalidError struct {
	Name   string
	Fields []FieldError
}

func (e *InvalidError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "credential %q is not valid:", e.Name)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "\n  %s: %s", f.Field, f.Problem)
	}
	return b.String()
}
