package creds

import (
	"strings"
	"time"
)

// Protocol is what a connector speaks to the tool.
type Protocol string

// The protocols.
const (
	HTTPS Protocol = "https"
	SFTP  Protocol = "sftp"
)

// AuthorizationType names how a request proves who sends it.
type AuthorizationType string

// The authorization types. What each needs stands in the table of validate.go;
// what each sends, in package token.
const (
	None              AuthorizationType = "none"
	Basic             AuthorizationType = "basic"
	Bearer            AuthorizationType = "bearer"
	APIKey            AuthorizationType = "api-key"
	ClientCredentials AuthorizationType = "oauth2-client-credentials"
	AuthorizationCode AuthorizationType = "oauth2-authorization-code"
	PasswordGrant     AuthorizationType = "oauth2-password"
	Login             AuthorizationType = "login"
)

// AuthStyle is where the client id and secret stand in a token request
// (RFC 6749 section 2.3.1). It is always stored, never tried out: trying sends
// a rotating refresh token twice.
type AuthStyle string

// The styles. The zero value means AuthStyleHeader, which RFC 6749 obliges
// every authorization server to accept.
const (
	AuthStyleHeader AuthStyle = "header"
	AuthStyleBody   AuthStyle = "body"
)

// DefaultHeaderPrefix precedes a bearer token in the Authorization header.
const DefaultHeaderPrefix = "Bearer"

// Credential is one entry of the page "Connector credentials": the instance URL
// of a tool, and what authorizes requests to it. A *Credential that a Table or a
// Store hands out is shared: treat it as read-only.
type Credential struct {
	Name          string // unique, like a DNS label: a-z, 0-9 and "-", at most 63
	Protocol      Protocol
	URL           string // instance URL: https://host[:port]/[prefix/] or sftp://host:port/
	Authorization AuthorizationType

	Username   string // basic, oauth2-password, login
	Password   Secret // basic, oauth2-password, login
	PrivateKey Secret // sftp, in the OpenSSH or PEM form
	HostKeys   []string

	Token        Secret  // bearer
	HeaderName   string  // bearer, oauth2-* and login: what carries the token; "" is Authorization
	HeaderPrefix *string // of the same: may be empty, or end in "=" to stand without a space; nil: see Prefix

	APIKey       Secret // api-key: sent in one of the two
	APIKeyHeader string
	APIKeyQuery  string

	ClientID         string // oauth2-*
	ClientSecret     Secret
	AccessTokenURL   string
	AuthorizationURL string // oauth2-authorization-code
	Scope            string
	AuthStyle        AuthStyle
	Params           map[string]string // extra parameters of the token request, such as resource; login: what its template refers to
	// AuthorizationParams are those of the address where a person consents, such as
	// prompt: another server's page, which need not know the token request's.
	AuthorizationParams map[string]string // oauth2-authorization-code
	// TokenLifetime is how long a token lives whose answer does not say so; 0 is a guess.
	TokenLifetime time.Duration // oauth2-* and login, in whole seconds
	// RefreshTokenLifetime is how long a refresh token lives whose answer does not say so,
	// from the consent or from the answer that replaced it; 0: nobody knows.
	RefreshTokenLifetime time.Duration // oauth2-authorization-code, in whole seconds
	// Unshared: each process asks for a token of its own and keeps it to itself,
	// instead of one for all in the store.
	Unshared bool // oauth2-client-credentials

	LoginTemplate Secret // login: the request that returns a token; see ParseLoginTemplate

	Headers []Header // extra header fields of every request

	// Version is the store's version of the record that this was read from:
	// 0 for one that was never stored. Save needs it to be the current one.
	Version int
}

// Header is an extra static header field, such as X-4me-Account.
type Header struct {
	Name  string
	Value Secret
}

// TokenHeader returns the name of the header field that carries a token.
func (c *Credential) TokenHeader() string {
	if c.HeaderName == "" {
		return "Authorization"
	}
	return c.HeaderName
}

// Prefix returns what precedes a token in its header field, with its separating
// space: "Bearer ", "AR-JWT ", "rest_api_key=", or "". By default that is "Bearer "
// in Authorization, and nothing in another field.
func (c *Credential) Prefix() string {
	prefix := ""
	switch {
	case c.HeaderPrefix != nil:
		prefix = *c.HeaderPrefix
	case strings.EqualFold(c.TokenHeader(), "Authorization"):
		prefix = DefaultHeaderPrefix
	}
	if prefix == "" || prefix[len(prefix)-1] == '=' {
		return prefix
	}
	return prefix + " "
}
