package sftpgw

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"unicode"

	"pillion/creds"
)

// The kinds of dialError: values of a metric's label, in the words of the proxy's.
const (
	dialConfig      = "bad-credential"       // the credential itself: its URL, a pin or its key cannot be read
	dialHostKey     = "host-key-mismatch"    // the server is not the pinned one
	dialLogin       = "login-refused"        // it refused the login
	dialUnreachable = "upstream-unreachable" // no connection, or it ended before the login
	dialTimeout     = "upstream-timeout"     // silent until the deadline
	dialForbidden   = "forbidden-target"     // the guard refused the address
	dialProtocol    = "upstream-protocol"    // what answers is no SSH server, or has nothing in common with us, or no SFTP
	dialLoop        = "loop"                 // the server is pillion itself
)

// dialError says why there is no session with a server.
type dialError struct {
	kind     string
	sentence string // for the client: complete, with its full stop
	detail   string // for the log, if that is more
	err      error  // may be nil

	transient bool // nothing was decided by anybody: trying again is worth it
}

// Error returns the sentence.
func (e *dialError) Error() string { return e.sentence }

func (e *dialError) Unwrap() error { return e.err }

// networkError sorts what a dial returned.
func networkError(addr string, err error) error {
	var own interface{ Forbidden() bool }
	var dns *net.DNSError
	var timeout net.Error
	failed := &dialError{kind: dialUnreachable, err: err, detail: addr + " cannot be reached: " + err.Error(), transient: true}
	var reason string
	switch {
	case errors.As(err, &own) && own.Forbidden():
		return &dialError{kind: dialForbidden, sentence: full(err.Error()), err: err}
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &dns) && dns.IsNotFound:
		// A name that nobody knows is decided; a server of names that does not
		// answer is not.
		reason, failed.transient = "its name is not known (DNS)", false
	case errors.As(err, &dns):
		reason = "its name cannot be looked up (DNS)"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		reason = "it does not answer"
	case errors.Is(err, syscall.ECONNREFUSED):
		reason = "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		reason = "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		reason = "there is no route to it"
	default:
		failed.sentence, failed.transient = full(addr+" cannot be reached: "+err.Error()), false
		return failed
	}
	failed.sentence = full(addr + " cannot be reached: " + reason)
	return failed
}

// full ends a sentence with its full stop.
func full(sentence string) string {
	return strings.TrimRight(sentence, ". \n") + "."
}

// lost tells a connection that ended from one that was silent too long.
func lost(err error) string {
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return "closed the connection"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "broke the connection (reset)"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "did not answer in time"
	}
	return "ended the connection: " + quote(strings.TrimPrefix(err.Error(), "ssh: "), creds.Secret{})
}

// maxQuote bounds what is repeated of a server's words.
const maxQuote = 300

// quote makes a stranger's words fit to be shown: one line, printable, bounded,
// and without the secret, which a server may send back.
func quote(words string, secret creds.Secret) string {
	if !secret.IsZero() {
		words = strings.ReplaceAll(words, secret.Reveal(), "[secret]")
	}
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, words)
	clean = strings.Join(strings.Fields(clean), " ")
	if len(clean) > maxQuote {
		clean = strings.ToValidUTF8(clean[:maxQuote], "") + "..."
	}
	return clean
}
