package vaultstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"pillion/creds"
)

// Kind sorts what keeps Vault from doing what it was asked; a metric label.
type Kind string

// The kinds. Denied, NoMount and Emptied are decisions of a Vault that is well
// (creds.ErrStoreDenied); the others pass, or are ours to mend.
const (
	Unreachable Kind = "unreachable" // nobody answers at the address
	Untrusted   Kind = "tls"         // its certificate is not trusted, or it speaks no TLS
	NotVault    Kind = "not_vault"   // something else answers
	Timeout     Kind = "timeout"     // it has the request, and is silent
	Sealed      Kind = "sealed"
	Broken      Kind = "server_error" // 5xx
	Busy        Kind = "quota"        // 429
	Denied      Kind = "denied"       // a policy
	NoMount     Kind = "no_mount"     // nothing is mounted there, or KV version 1
	BadToken    Kind = "bad_token"    // our token is not accepted
	BadLogin    Kind = "bad_login"    // the login is refused
	BadRequest  Kind = "bad_request"  // 400 for a reason of its own
	Cancelled   Kind = "cancelled"    // by the caller
)

// Error is a refusal or an outage of Vault, in words for an administrator that
// never quote Vault's: those may hold what was sent.
type Error struct {
	Kind    Kind
	Problem string // what is wrong, and what to do
	// Unclear says that a write may have been applied all the same.
	Unclear bool
	cause   error // creds' sentinels, or the caller's context
}

func (e *Error) Error() string { return e.Problem }

// Unwrap returns what errors.Is asks for: creds.ErrStoreUnavailable always,
// creds.ErrStoreDenied when it is a decision.
func (e *Error) Unwrap() []error {
	all := []error{creds.ErrStoreUnavailable}
	if e.Kind == Denied || e.Kind == NoMount {
		all = append(all, creds.ErrStoreDenied)
	}
	if e.cause != nil {
		all = append(all, e.cause)
	}
	return all
}

// errNothing is Vault's 404 for a path that holds nothing; the answer may tell
// of a version that was deleted.
var errNothing = errors.New("Vault has nothing there")

// errCAS is Vault's refusal of a check-and-set.
var errCAS = errors.New("Vault has another version")

func (c *Client) problem(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Problem: "Vault at " + c.config.Address + " " + fmt.Sprintf(format, args...)}
}

func (c *Client) cancelled(q request, err error) error {
	return &Error{Kind: Cancelled, Problem: q.act() + " of " + q.path + " was given up: " + err.Error(), Unclear: true, cause: err}
}

// problemOf sorts the end of a request that did not succeed.
func (c *Client) problemOf(q request, a answer, err error) error {
	if a.status == 0 || a.status < 300 {
		return c.problemOfWire(err)
	}
	texts, isVault := a.errorsOf()
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(texts, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("http request to an https server"):
		return c.problem(Untrusted, "speaks TLS: write https:// in store.vault.address or VAULT_ADDR")
	case a.status == http.StatusServiceUnavailable && has("sealed"):
		return c.problem(Sealed, "is sealed: unseal it")
	case a.status == http.StatusServiceUnavailable && has("not initialized"):
		return c.problem(Sealed, "is not initialised: set it up")
	case a.status == http.StatusBadRequest && has("upgrading from non-versioned"):
		return c.problem(Broken, "is preparing the mount %s/: wait a moment", c.config.Mount)
	case a.status >= 500:
		e := c.problem(Broken, "has a problem of its own (status %d): look into its log", a.status)
		e.Unclear = true
		return e
	case a.status == http.StatusTooManyRequests, a.status == 473, a.status == 472:
		return c.problem(Busy, "takes no more requests now (status %d): look at its quotas, and at whether this node is a standby", a.status)
	case a.status >= 300 && a.status < 400:
		return c.problem(NotVault, "sends us elsewhere (status %d): write the address of Vault itself in store.vault.address or VAULT_ADDR", a.status)
	case !isVault:
		return c.problem(NotVault, "is not a Vault (status %d): correct store.vault.address or VAULT_ADDR", a.status)
	case a.status == http.StatusForbidden && has("invalid token", "bad token", "missing client token"):
		return c.problem(BadToken, "does not accept our token: it has expired or was revoked")
	case a.status == http.StatusForbidden:
		return c.denied(q)
	case a.status == http.StatusNotFound && has("no handler for route", "route entry not found", "unsupported path"):
		return c.problem(NoMount, "has nothing mounted at %s: correct store.vault.mount or store.vault.namespace, or mount KV version 2 there", c.mountOf(q))
	case a.status == http.StatusNotFound:
		return errNothing
	case a.status == http.StatusBadRequest && has("check-and-set"):
		return errCAS
	case a.status == http.StatusMethodNotAllowed || has("unsupported operation"):
		return errUnsupported
	}
	return c.problem(BadRequest, "refuses the %s of %s (status %d): look into its audit log", q.act(), q.path, a.status)
}

// errUnsupported is a Vault that does not know an operation, such as patch.
var errUnsupported = errors.New("Vault does not know that operation")

func (c *Client) mountOf(q request) string {
	if strings.HasPrefix(q.path, c.config.Mount+"/") {
		return c.config.Mount + "/"
	}
	return q.path
}

// act is what a request does, in words for people.
func (q request) act() string {
	switch q.operation {
	case "get", "metadata", "mount", "capabilities", "now":
		return "read"
	case "list":
		return "listing"
	case "cas", "patch", "note":
		return "write"
	case "delete":
		return "deletion"
	}
	return q.operation // login, renew
}

// denied names the path and what a policy would have to say.
func (c *Client) denied(q request) *Error {
	capability := map[string]string{
		"get": "read", "list": "list", "cas": "create and update", "patch": "patch", "delete": "delete",
		"metadata": "read", "note": "patch",
	}[q.operation]
	if capability == "" {
		return c.problem(Denied, "denies the %s of %q", q.act(), q.path)
	}
	path := q.path
	if q.operation == "list" {
		path += "/" // as policies name it
	}
	return c.problem(Denied, "denies the %s: the policy of %s needs %s on %q", q.act(), c.who(), capability, path)
}

func (c *Client) who() string {
	if c.config.Auth.Role != "" {
		return "the role " + c.config.Auth.Role
	}
	return "this login"
}

// problemOfWire sorts what ended a request before an answer was whole.
func (c *Client) problemOfWire(err error) error {
	var (
		dns       *net.DNSError
		op        *net.OpError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
	)
	dialling := errors.As(err, &op) && op.Op == "dial"
	switch {
	case errors.As(err, &dns):
		return c.problem(Unreachable, "cannot be reached: its name cannot be resolved: correct store.vault.address or VAULT_ADDR, or look at DNS")
	case errors.As(err, &authority):
		return c.problem(Untrusted, "has a certificate of an authority that is not trusted here: name that authority in store.vault.ca_file or VAULT_CACERT")
	case errors.As(err, &host):
		return c.problem(Untrusted, "has a certificate for another name: correct the address, or set VAULT_TLS_SERVER_NAME")
	case errors.As(err, &invalid):
		return c.problem(Untrusted, "has a certificate that is not valid now or not for servers: renew it, and look at the clocks")
	case errors.As(err, &verify):
		return c.problem(Untrusted, "has a certificate that cannot be verified: name its authority in store.vault.ca_file or VAULT_CACERT")
	case errors.As(err, &record), err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return c.problem(Untrusted, "does not speak TLS there: correct the port, or write http:// if it is a Vault for tests")
	case dialling && errors.Is(err, syscall.ECONNREFUSED):
		return c.problem(Unreachable, "cannot be reached (connection refused): start it, or correct store.vault.address or VAULT_ADDR")
	case dialling:
		return c.problem(Unreachable, "cannot be reached: look at the network between, or correct store.vault.address or VAULT_ADDR")
	case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
		e := c.problem(Timeout, "did not answer within %v: look whether it is overloaded or stopped", c.vault.ClientTimeout())
		e.Unclear = true
		return e
	}
	e := c.problem(Unreachable, "broke the connection off: look into its log and at what stands between")
	e.Unclear = true
	return e
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// isKind reports whether err is of one of the kinds.
func isKind(err error, kinds ...Kind) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, k := range kinds {
		if e.Kind == k {
			return true
		}
	}
	return false
}

// unclear reports whether a write that ended so may have been applied.
func unclear(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Unclear
}
