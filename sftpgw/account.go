package sftpgw

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// account is what is known of one credential's login until it changes.
type account struct {
	digest   [sha256.Size]byte
	now      func() time.Time
	password creds.Secret  // for cutting it out of what a server says
	try      chan struct{} // of one: the turn to try a login that is not known to be good

	mu      sync.Mutex
	good    bool       // the last login was accepted
	refused *dialError // the last login was refused, and until when that is remembered
	until   time.Time
	keyType string      // of the host key that matched: offered first the next time
	pool    []*upstream // connections that may take another session
}

// digestOf tells whether a credential changed in what a login depends on. It is
// kept in memory only.
func digestOf(c *creds.Credential) [sha256.Size]byte {
	h := sha256.New()
	var size [8]byte
	add := func(value string) {
		binary.BigEndian.PutUint64(size[:], uint64(len(value)))
		h.Write(size[:])
		h.Write([]byte(value))
	}
	add(c.URL)
	add(c.Username)
	add(c.Password.Reveal())
	add(c.PrivateKey.Reveal())
	for _, key := range c.HostKeys {
		add(key)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// account returns that of c. Connections of a credential that changed are not
// used again, and what was refused is forgotten.
func (d *dialer) account(c *creds.Credential) *account {
	digest := digestOf(c)
	d.mu.Lock()
	a := d.accounts[c.Name]
	if a != nil && a.digest == digest {
		d.mu.Unlock()
		return a
	}
	old := a
	a = &account{digest: digest, now: d.clock(), password: c.Password, try: make(chan struct{}, 1)}
	if d.accounts == nil {
		d.accounts = make(map[string]*account)
	}
	d.accounts[c.Name] = a
	d.mu.Unlock()
	if old != nil {
		old.empty()
	}
	return a
}

// refusal returns the error that is remembered.
func (a *account) refusal() *dialError {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refused != nil && a.now().Before(a.until) {
		return a.refused
	}
	return nil
}

// turn returns at once for an account that is known to be good, else when no
// other connection is trying it. release must be called when the outcome is
// known. A refusal that came meanwhile is returned instead of being repeated.
func (a *account) turn(ctx context.Context) (release func(), known *dialError, err error) {
	a.mu.Lock()
	good := a.good
	a.mu.Unlock()
	if good {
		return func() {}, a.refusal(), nil
	}
	select {
	case a.try <- struct{}{}:
		return func() { <-a.try }, a.refusal(), nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// accepted and rejected take in the outcome of a login.
func (a *account) accepted(hostKey ssh.PublicKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.good, a.refused, a.keyType = true, nil, hostKey.Type()
}

func (a *account) rejected(err *dialError, memory time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == a.refused {
		return // found, not tried: it does not last longer for that
	}
	a.good, a.refused, a.until = false, err, a.now().Add(memory)
}
