package creds

import "time"

// Authorization is what a request carries for its credential: the fields to set
// in place of whatever the client sent under those names. It is shared by many
// requests and never changed.
type Authorization struct {
	Headers []AuthorizationField // names in canonical form (net/textproto)
	Query   []AuthorizationField

	// Token identifies the token inside by its fingerprint, for the log and for
	// telling Refused which one upstream did not take. Empty for static kinds.
	Token string
	// Issued and Expires of that token; zero for static kinds.
	Issued, Expires time.Time
}

// AuthorizationField is one header field or query parameter to set.
type AuthorizationField struct {
	Name  string
	Value Secret
}
