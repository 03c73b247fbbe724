package creds

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Secret holds a value that must not reach a log, a metric, a page or an error:
// a password, a token, a client secret, a private key, a stored record.
//
// It prints as "[secret]" in every verb of fmt and refuses to be marshalled.
// It is pointer-backed because fmt reads unexported struct fields by
// reflection, without calling String: of a pointer it prints an address.
// Reveal is the one way out, so that every use can be found by its name.
type Secret struct {
	_     [0]func() // so that == does not compile: it would compare addresses
	value *string
}

const redacted = "[secret]"

var errMarshalSecret = errors.New("a creds.Secret refuses to be marshalled: use Reveal in a store's own record")

// NewSecret wraps value. The empty string gives the zero Secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{value: &value}
}

// Reveal returns the value itself. What receives it must not print it.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether there is no value.
func (s Secret) IsZero() bool { return s.value == nil }

// Equal compares in time that does not depend on where the values differ.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// Fingerprint returns the first six bytes of the value's SHA-256 in hex: enough
// to tell two tokens of one log apart, worthless to somebody who wants one back.
// A value that people chose (a password) must not be fingerprinted: it could be
// guessed from it.
func (s Secret) Fingerprint() string {
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:6])
}

// String returns "[secret]".
func (Secret) String() string { return redacted }

// GoString returns "[secret]".
func (Secret) GoString() string { return redacted }

// Format prints "[secret]" whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue makes slog print "[secret]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText always fails; encoding/json, encoding/xml and YAML call it.
func (Secret) MarshalText() ([]byte, error) { return nil, errMarshalSecret }

// MarshalJSON always fails.
func (Secret) MarshalJSON() ([]byte, error) { return nil, errMarshalSecret }

// MarshalYAML always fails.
func (Secret) MarshalYAML() (any, error) { return nil, errMarshalSecret }

// MarshalBinary always fails; encoding/gob calls it.
func (Secret) MarshalBinary() ([]byte, error) { return nil, errMarshalSecret }
