package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"pillion/creds"
)

// The reasons why there is no token: labels of metrics, and the Reason of a
// *creds.TokenError.
const (
	ReasonInvalidGrant    = "invalid_grant"
	ReasonInvalidClient   = "invalid_client"
	ReasonOther4xx        = "other_4xx"
	ReasonServer5xx       = "server_5xx"
	ReasonTimeout         = "timeout"
	ReasonNetwork         = "network"
	ReasonBadResponse     = "bad_response"
	ReasonRedirect        = "redirect"
	ReasonForbiddenTarget = "forbidden_target"

	// The last four come without a token request, and so never in an Event.

	// ReasonUnsupported: no such type of authorization is known here.
	ReasonUnsupported = "unsupported"
	// ReasonChanged: the credential was edited or removed while its token was
	// asked for. What came of that is thrown away; match the request again.
	ReasonChanged = "changed"
	// ReasonNoRefresher: this process may not ask for tokens, and none that may has
	// brought one in time.
	ReasonNoRefresher = "no_refresher"
	// ReasonBadRecord: the grant's record in the store cannot be read.
	ReasonBadRecord = "bad_record"
)

// Reasons returns those that an Event may have, so that every series of a metric
// can begin at 0.
func Reasons() []string {
	return []string{
		ReasonInvalidGrant, ReasonInvalidClient, ReasonOther4xx, ReasonServer5xx, ReasonTimeout,
		ReasonNetwork, ReasonBadResponse, ReasonRedirect, ReasonForbiddenTarget,
	}
}

// failure is why one token request brought no token. Nothing in it was written
// by the token endpoint: code is from a list, detail from this package.
type failure struct {
	reason, code string
	status       int
	detail       string
	retryAfter   time.Duration
	// unknown: the request may have reached the provider, and it may have acted on
	// it: a refresh token that rotates must not be sent again at once.
	unknown bool
	// refresh is the next refresh token, of an answer without a usable access token.
	refresh creds.Secret
}

func (f *failure) Error() string { return f.reason }

// final reports whether only an edit, here or at the provider, can help: asking
// again soon would be noise in the provider's log.
func (f *failure) final() bool {
	switch f.reason {
	case ReasonInvalidClient, ReasonInvalidGrant, ReasonRedirect, ReasonForbiddenTarget, ReasonBadRecord:
		return true
	}
	switch f.code {
	case "invalid_request", "invalid_scope", "invalid_target", "unauthorized_client", "unsupported_grant_type", "access_denied":
		return true
	}
	return false
}

// tokenError is f as callers get it.
func (f *failure) tokenError(credential string, retryAfter time.Duration) *creds.TokenError {
	return &creds.TokenError{
		Credential: credential, Reason: f.reason, Status: f.status, Code: f.code, RetryAfter: retryAfter,
	}
}

// badResponse is for a 2xx without a usable token: a provider that rotates may
// have done so all the same.
func badResponse(status int, detail string) *failure {
	return &failure{reason: ReasonBadResponse, status: status, detail: detail, unknown: true}
}

// knownCode returns an error code of RFC 6749, its extensions or OpenID Connect,
// and "" for any other: a code is written by the provider, and may be anything.
func knownCode(code string) string {
	switch code {
	case "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
		"invalid_scope", "invalid_target", "access_denied", "server_error", "temporarily_unavailable", "slow_down",
		"login_required", "consent_required", "interaction_required":
		return code
	}
	return ""
}

// classifyAnswer sorts a refusal by its code first: Atlassian says invalid_grant
// with a 403, others with a 200.
func classifyAnswer(status int, code string) *failure {
	f := &failure{status: status, code: knownCode(code)}
	switch {
	case f.code == "invalid_grant":
		f.reason = ReasonInvalidGrant
	case f.code == "invalid_client":
		f.reason = ReasonInvalidClient
	case f.code == "server_error" && status == http.StatusUnauthorized:
		// ServiceNow, of a wrong client, user or refresh token alike.
		f.reason, f.detail = ReasonInvalidClient, "the provider calls it an error of its own, with a status that says otherwise: client, user or refresh token are wrong"
	case f.code == "server_error", f.code == "temporarily_unavailable":
		f.reason = ReasonServer5xx
	case f.code != "":
		f.reason = ReasonOther4xx
	case status >= 300 && status < 400:
		f.reason, f.detail = ReasonRedirect, "redirects are never followed: the next address would get the client secret"
	case status == http.StatusUnauthorized:
		f.reason = ReasonInvalidClient
	case status >= 500:
		f.reason = ReasonServer5xx
	case status >= 400:
		f.reason = ReasonOther4xx
	default:
		f.reason, f.detail = ReasonBadResponse, "the answer is an error of its own kind, without a token"
	}
	f.unknown = mayHaveActed(status, f.code)
	return f
}

// mayHaveActed reports whether a refusal can come from something in front of the
// provider, or from the provider after it has rotated. An OAuth code is its own
// word that it gave nothing; 501, 503 and 505 say that it did not begin. Any other
// 5xx, and a 2xx with an error of its own kind, say nothing at all.
func mayHaveActed(status int, code string) bool {
	switch {
	case code != "" && code != "server_error":
		return false
	case status == http.StatusNotImplemented, status == http.StatusServiceUnavailable, status == http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500 || status < 300
}

// classifyTransport sorts what kept an answer from coming; unknown is set where the
// request may have been written, which the caller knows better. The error itself
// goes no further: it may hold the URL, and with it a key in a query.
func classifyTransport(err error) *failure {
	var guarded interface{ Forbidden() bool }
	var timeout net.Error
	switch {
	case errors.As(err, &guarded) && guarded.Forbidden():
		return &failure{reason: ReasonForbiddenTarget, detail: "its address is one that pillion does not connect to"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return &failure{reason: ReasonTimeout, unknown: true}
	}
	return &failure{reason: ReasonNetwork, detail: networkDetail(err), unknown: true}
}

// networkDetail puts the usual causes into words of our own.
func networkDetail(err error) string {
	var (
		dns      *net.DNSError
		name     x509.HostnameError
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		protocol tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &dns):
		return "its host name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused"
	case errors.As(err, &name):
		return "its certificate is for another host name"
	case errors.As(err, &unknown):
		return "its certificate comes from an authority that is not trusted here: add it to upstream.ca_file"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired, or a clock is wrong"
	case errors.As(err, &verify):
		return "its certificate was not accepted"
	case errors.As(err, &protocol):
		return "it does not speak TLS on that port"
	}
	return "the connection broke"
}

// retryAfter reads the Retry-After field: seconds, or a date by the provider's
// own clock, which its Date field tells.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return max(0, at.Sub(now))
}
