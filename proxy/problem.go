package proxy

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"pillion/creds"
)

// A kind is one sort of refusal: what its problem document (RFC 9457) and its
// Proxy-Status field (RFC 9209) say.
type kind struct {
	name   string // urn:pillion:error:NAME, the log's "error", the metric's label
	status int
	title  string
	proxy  string // RFC 9209 section 2.3 error type
}

// The kinds. docs/errors.md explains each to the reader of a problem document.
var (
	kindNoCredential     = &kind{"no-credential", 403, "No credential for this URL", "http_request_denied"}
	kindAmbiguous        = &kind{"ambiguous-credential", 409, "Several credentials for this URL", "http_request_denied"}
	kindMisdirected      = &kind{"misdirected", 421, "The request names another host than its tunnel", "http_request_error"}
	kindNeedsConsent     = &kind{"needs-consent", 502, "The credential needs consent", "proxy_configuration_error"}
	kindTokenUnavailable = &kind{"token-unavailable", 502, "No token can be had now", "proxy_configuration_error"}
	kindUnreachable      = &kind{"upstream-unreachable", 502, "The tool cannot be reached", "destination_unavailable"}
	kindTimeout          = &kind{"upstream-timeout", 504, "The tool did not answer in time", "http_response_timeout"}
	kindStoreUnavailable = &kind{"store-unavailable", 503, "The credential store does not answer", "proxy_internal_error"}
	kindForbiddenTarget  = &kind{"forbidden-target", 403, "This address may not be reached", "destination_ip_prohibited"}
	kindBadRequest       = &kind{"bad-request", 400, "The request is malformed", "http_request_error"}
	kindProxyAuth        = &kind{"proxy-auth-required", 407, "The proxy asks for its token", "http_request_denied"}
	kindForbiddenClient  = &kind{"forbidden-client", 403, "This client may not use the proxy", "http_request_denied"}
	kindMethodRefused    = &kind{"method-refused", 405, "The method is refused", "http_request_denied"}
	kindHeadTooLarge     = &kind{"head-too-large", 431, "The request's header is too large", "http_request_error"}
	kindOverloaded       = &kind{"overloaded", 503, "Too many connections", "connection_limit_reached"}
	kindLoop             = &kind{"loop", 508, "The request leads back to pillion", "proxy_loop_detected"}
	kindInternal         = &kind{"internal", 500, "pillion has a fault", "proxy_internal_error"}

	// kindClientGone is for the log alone: nobody is left to be told.
	kindClientGone = &kind{"client-gone", 499, "The client left", "http_request_error"}
)

// kinds in the order of docs/errors.md.
var kinds = []*kind{
	kindNoCredential, kindAmbiguous, kindMisdirected, kindNeedsConsent, kindTokenUnavailable, kindUnreachable,
	kindTimeout, kindStoreUnavailable, kindForbiddenTarget, kindBadRequest, kindProxyAuth, kindForbiddenClient,
	kindMethodRefused, kindHeadTooLarge, kindOverloaded, kindLoop, kindInternal, kindClientGone,
}

// problem is a refusal: an error that knows how it is told to the client.
// detail says what is wrong and what to do; it never holds a secret.
type problem struct {
	*kind
	detail     string
	retryAfter time.Duration
}

func (p *problem) Error() string { return p.name + ": " + p.detail }

// problemOf finds the one answer to an error of any stage of the pipeline.
func problemOf(err error) *problem {
	var (
		p         *problem
		noMatch   *creds.NoMatchError
		ambiguous *creds.AmbiguousError
		path      *creds.AmbiguousPathError
		token     *creds.TokenError
		invalid   *creds.InvalidError
		forbidden *ForbiddenTargetError
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &noMatch):
		return &problem{kind: kindNoCredential, detail: noMatch.Error() + ". " + noMatchAdvice(noMatch)}
	case errors.As(err, &ambiguous):
		return &problem{kind: kindAmbiguous, detail: ambiguous.Error() + "."}
	case errors.As(err, &path):
		return &problem{kind: kindBadRequest, detail: path.Error()}
	case errors.Is(err, creds.ErrNeedsConsent):
		return needsConsent(err)
	case errors.As(err, &token):
		return tokenProblem(token)
	case errors.As(err, &invalid):
		return &problem{kind: kindTokenUnavailable, detail: "The credential cannot be sent, and must be entered again: " + strings.ReplaceAll(invalid.Error(), "\n", "")}
	case errors.Is(err, creds.ErrStoreUnavailable):
		return &problem{kind: kindStoreUnavailable, detail: "The credential store does not answer, and what this request needs of it is not loaded. The log of pillion says why.", retryAfter: 5 * time.Second}
	case errors.As(err, &forbidden):
		return forbiddenProblem(forbidden)
	case errors.Is(err, context.Canceled):
		return &problem{kind: kindClientGone, detail: "The client left before the answer."}
	}
	return upstreamProblem(err)
}

func noMatchAdvice(err *creds.NoMatchError) string {
	if err.Name != "" {
		return "The client chose it as its proxy user (HTTP_PROXY=http://NAME@...): correct the name there, or leave it out."
	}
	return "Add one, or correct its instance URL; \"pillion explain " + err.Target.URL() + "\" shows the nearest misses."
}

func needsConsent(err error) *problem {
	p := &problem{kind: kindNeedsConsent, detail: "A person must log in at the provider and agree: an administrator connects the credential."}
	if token, ok := errors.AsType[*creds.TokenError](err); ok {
		p.detail = "A person must log in at the provider and agree: \"pillion credential connect " + token.Credential + "\" begins that."
	}
	return p
}

func tokenProblem(err *creds.TokenError) *problem {
	return &problem{
		kind:       kindTokenUnavailable,
		detail:     "There is " + err.Error() + ". The log and \"pillion explain\" say more; \"pillion credential test " + err.Credential + "\" tries it.",
		retryAfter: err.RetryAfter,
	}
}

func forbiddenProblem(err *ForbiddenTargetError) *problem {
	if err.Loop {
		return &problem{kind: kindLoop, detail: err.Error()}
	}
	return &problem{kind: kindForbiddenTarget, detail: err.Error()}
}

// upstreamProblem tells failures of dialling, TLS and HTTP apart. Texts of our
// own only: an error of a library may quote what it received.
func upstreamProblem(err error) *problem {
	var (
		dns      *net.DNSError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		dial     *net.OpError
	)
	unreachable := func(format string, args ...any) *problem {
		return &problem{kind: kindUnreachable, detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case errors.As(err, &dns):
		return unreachable("The name %s was not found by DNS. Is the instance URL right, and does this machine resolve it?", dns.Name)
	case errors.As(err, &unknown):
		return unreachable("The tool's certificate is signed by an authority that is not trusted here. If it is your company's, put its certificate in a file and name that in upstream.ca_file.")
	case errors.As(err, &hostname):
		return unreachable("The tool's certificate is not for %s. Is the instance URL right?", hostname.Host)
	case errors.As(err, &invalid):
		return unreachable("The tool's certificate is not valid: %s.", certificateReason(invalid.Reason))
	case isTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return &problem{kind: kindTimeout, detail: "The tool did not answer in time."}
	case errors.As(err, &dial) && dial.Op == "dial":
		return unreachable("The tool refuses connections, or no route leads to it (%s).", dialReason(dial))
	}
	return unreachable("The connection to the tool broke before its answer was complete.")
}

func certificateReason(reason x509.InvalidReason) string {
	if reason == x509.Expired {
		return "it has expired or is not valid yet (is this machine's clock right?)"
	}
	return "reason " + strconv.Itoa(int(reason)) + " of crypto/x509"
}

func dialReason(err *net.OpError) string {
	if err.Addr != nil {
		return err.Addr.String()
	}
	return "no address"
}

// document is the body of a refusal (RFC 9457 section 3).
type document struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func (p *problem) body() []byte {
	b, err := json.Marshal(document{"urn:pillion:error:" + p.name, p.title, p.status, p.detail})
	if err != nil {
		return nil // strings and a number: cannot happen
	}
	return append(b, '\n')
}

// header of the answer, its length aside.
func (p *problem) header(h http.Header) {
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Proxy-Status", fmt.Sprintf("pillion; error=%s; details=%q", p.proxy, p.name))
	switch p.kind {
	case kindProxyAuth:
		h.Set("Proxy-Authenticate", `Basic realm="pillion", charset="UTF-8"`)
	case kindMethodRefused:
		h.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	if p.retryAfter > 0 {
		seconds := (p.retryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
}

// respond answers a request with the problem, and returns how much body was
// written. closing ends the connection after it.
func (p *problem) respond(w http.ResponseWriter, closing bool) int {
	body := p.body()
	h := w.Header()
	clear(h)
	p.header(h)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if closing {
		h.Set("Connection", "close")
	}
	w.WriteHeader(p.status)
	n, _ := w.Write(body) // the client may be gone: the log line says what it would have read
	return n
}

// raw is the whole answer for a connection on which net/http does not answer, and
// which ends with it.
func (p *problem) raw() []byte { return p.answer(http.MethodGet, true) }

// answer is the whole answer to a request of that method.
func (p *problem) answer(method string, closing bool) []byte {
	body := p.body()
	h := http.Header{}
	p.header(h)
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if closing {
		h.Set("Connection", "close")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", p.status, http.StatusText(p.status))
	_ = h.Write(&b) // into memory
	b.WriteString("\r\n")
	if method != http.MethodHead {
		b.Write(body)
	}
	return []byte(b.String())
}
