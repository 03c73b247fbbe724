package sftpgw

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// hostPins are the pins of one credential during one dial.
type hostPins struct {
	addr       string
	pins       []creds.HostKey
	own        ssh.PublicKey // our own host key, or nil
	algorithms []string      // to offer
	untyped    bool          // a pin names no type: another of the server's keys may be the one

	shown      ssh.PublicKey   // by the server in the last key exchange
	mismatches []ssh.PublicKey // shown, and pinned by none
}

// newHostPins parses the pins. first is the type to offer first, or "".
func newHostPins(c *creds.Credential, target creds.Target, own ssh.PublicKey, first string) (*hostPins, error) {
	pins, err := creds.ParseHostKeys(c.HostKeys, target.Host, target.Port)
	if err != nil {
		return nil, &dialError{kind: dialConfig, sentence: full("the host key of credential " + c.Name + " " + strings.ReplaceAll(err.Error(), "\n", "; ")), err: err}
	}
	p := &hostPins{addr: target.Authority(), pins: pins, own: own, algorithms: creds.HostKeyAlgorithms(pins)}
	for _, pin := range pins {
		p.untyped = p.untyped || pin.Type == ""
		if own != nil && pin.Matches(own) {
			return nil, p.loop()
		}
	}
	if first != "" {
		p.prefer(first)
	}
	return p, nil
}

// prefer moves a type to the front: with a pin of unknown type that saves a
// connection for each type that is not the pinned one.
func (p *hostPins) prefer(keyType string) {
	of := creds.HostKeyAlgorithms([]creds.HostKey{{Type: keyType}})
	slices.SortStableFunc(p.algorithms, func(a, b string) int {
		return order(slices.Contains(of, b)) - order(slices.Contains(of, a))
	})
}

func order(first bool) int {
	if first {
		return 1
	}
	return 0
}

func (p *hostPins) loop() error {
	return &dialError{kind: dialLoop, sentence: p.addr + " is pillion's own host key: the credential points back at the gateway, not at the server."}
}

var errHostKey = errors.New("the host key is not the pinned one")

// check is the ssh.HostKeyCallback: it runs inside the key exchange, before a
// name or a password is sent.
func (p *hostPins) check(_ string, _ net.Addr, key ssh.PublicKey) error {
	if p.own != nil && string(key.Marshal()) == string(p.own.Marshal()) {
		return p.loop()
	}
	p.shown = key
	for _, pin := range p.pins {
		if pin.Matches(key) {
			return nil
		}
	}
	p.mismatches = append(p.mismatches, key)
	return errHostKey
}

// another drops the type of the key that was shown last, and reports whether
// it is worth another connection: only a pin without a type can be of another.
func (p *hostPins) another() bool {
	if !p.untyped || p.shown == nil {
		return false
	}
	seen := creds.HostKeyAlgorithms([]creds.HostKey{{Type: p.shown.Type()}})
	p.algorithms = slices.DeleteFunc(p.algorithms, func(a string) bool { return slices.Contains(seen, a) })
	p.shown = nil
	return len(p.algorithms) > 0
}

// mismatch is the error of a server whose keys are pinned by none. The line to
// set goes to the log only: a client is no place to accept a key.
func (p *hostPins) mismatch() *dialError {
	said := fmt.Sprintf("host key of %s is %s, but the credential pins %s; if the server's owner confirms the new key, ", p.addr, keys(p.mismatches), pinned(p.pins))
	return &dialError{
		kind:     dialHostKey,
		sentence: said + "change the fingerprint of the credential (pillion's log has the line).",
		detail:   said + "set the fingerprint to: " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p.mismatches[0]))),
		err:      errHostKey,
	}
}

// noCommon is the error of a server that has no key of a pinned type, or
// nothing else in common with us.
func (p *hostPins) noCommon(err *ssh.AlgorithmNegotiationError) *dialError {
	offers := quote(strings.Join(err.RequestedAlgorithms, ", "), creds.Secret{})
	if err.What != "host key" {
		return &dialError{kind: dialProtocol, sentence: full(fmt.Sprintf("%s and pillion have no %s in common: the server offers %s", p.addr, err.What, offers)), err: err}
	}
	if len(p.mismatches) > 0 {
		return p.mismatch()
	}
	return &dialError{kind: dialHostKey, err: err, sentence: full(fmt.Sprintf("%s has no host key of the pinned type: it offers %s, and the credential pins %s", p.addr, offers, pinned(p.pins)))}
}

func keys(list []ssh.PublicKey) string {
	var out []string
	for _, key := range list {
		out = append(out, key.Type()+" "+ssh.FingerprintSHA256(key))
	}
	return strings.Join(out, " and ")
}

func pinned(pins []creds.HostKey) string {
	var out []string
	for _, pin := range pins {
		out = append(out, strings.TrimSpace(pin.Type+" "+pin.SHA256))
	}
	return strings.Join(out, " and ")
}
