package sftpgw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
	"pillion/proxy/socket"
)

// dialer makes connections to servers: pinned first, then logged in.
//
//	reach the address     again for retryFor, while nothing is decided
//	exchange keys         with the algorithms of the pins; the key is judged here
//	log in                once; a refusal is remembered
//
// The zero value of every field works but network. Do not copy it after first use.
type dialer struct {
	network func(ctx context.Context, network, addr string) (net.Conn, error) // the guard's
	now     func() time.Time                                                  // nil: time.Now
	own     ssh.PublicKey                                                     // our own host key, which no server has; may be nil
	reuse   bool                                                              // keep connections for the next session

	handshake time.Duration // from the connection to the end of the login; 0: 20 s
	retryFor  time.Duration // how long what may pass by itself is tried again; 0: 30 s, negative: never
	memory    time.Duration // how long a refused login is not tried again; 0: 60 s
	keepalive time.Duration // of silence until the server is asked whether it lives; 0: 15 s
	idle      time.Duration // how long a connection without a session is kept for reuse; 0: 60 s
	sessions  int           // that share a connection where reuse is on; 0: 10, OpenSSH's MaxSessions

	mu       sync.Mutex
	accounts map[string]*account // by the credential's name
}

func (d *dialer) clock() func() time.Time {
	if d.now != nil {
		return d.now
	}
	return time.Now
}

// dial returns a connection that is logged in, a new one or one that has room
// for another session. It must be closed. The errors are *dialError and ctx's.
func (d *dialer) dial(ctx context.Context, c *creds.Credential) (*upstream, error) {
	target, err := c.Instance()
	if err != nil {
		return nil, &dialError{kind: dialConfig, sentence: full("the URL of credential " + c.Name + " " + err.Error()), err: err}
	}
	a := d.account(c)
	if known := a.refusal(); known != nil {
		return nil, known
	}
	if u := a.reserve(); u != nil {
		return u, nil
	}
	deadline := time.Now().Add(cmp.Or(d.retryFor, 30*time.Second))
	for delay := 250 * time.Millisecond; ; delay *= 2 {
		u, err := d.connect(ctx, c, target, a)
		if err == nil || !isTransient(err) {
			return u, err
		}
		wait := delay/2 + rand.N(delay) // several sessions do not come back at once
		if time.Until(deadline) < wait {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func isTransient(err error) bool {
	var failed *dialError
	return errors.As(err, &failed) && failed.transient
}

// connect makes one connection, or one for each type of host key where a pin
// does not say its type.
func (d *dialer) connect(ctx context.Context, c *creds.Credential, target creds.Target, a *account) (*upstream, error) {
	a.mu.Lock()
	keyType := a.keyType
	a.mu.Unlock()
	pins, err := newHostPins(c, target, d.own, keyType)
	if err != nil {
		return nil, err
	}
	for {
		u, err := d.attempt(ctx, c, pins, a)
		if errors.Is(err, errHostKey) && pins.another() {
			continue
		}
		return u, err
	}
}

// attempt is one connection with one attempt to log in.
func (d *dialer) attempt(ctx context.Context, c *creds.Credential, pins *hostPins, a *account) (*upstream, error) {
	limit := cmp.Or(d.handshake, 20*time.Second)
	dialing, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := d.network(dialing, "tcp", pins.addr)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, networkError(pins.addr, err)
	}
	conn = socket.Quiet(conn)
	l, err := newLogin(c, a)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer func() { l.release() }()
	watched := &watchedConn{Conn: conn}
	stop := context.AfterFunc(dialing, func() { conn.Close() })
	gathered := gather(watched)
	sshConn, channels, requests, err := ssh.NewClientConn(gathered, pins.addr, d.config(dialing, c, pins, l))
	if !stop() { // closed meanwhile, whatever came of it
		err = context.Cause(dialing)
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, d.failed(err, pins, l, watched, limit)
	}
	gathered.begin(sshConn)
	a.accepted(pins.shown)
	return d.newUpstream(pins.addr, watched, gathered, sshConn, channels, requests, l), nil
}

const clientVersion = "SSH-2.0-pillion"

// config offers what is safe. The pins decide about the types of host keys;
// certificates are none of them.
func (d *dialer) config(ctx context.Context, c *creds.Credential, pins *hostPins, l *login) *ssh.ClientConfig {
	supported := ssh.SupportedAlgorithms()
	return &ssh.ClientConfig{
		Config:            ssh.Config{KeyExchanges: supported.KeyExchanges, Ciphers: upstreamCiphers(), MACs: supported.MACs},
		User:              c.Username,
		ClientVersion:     clientVersion,
		HostKeyCallback:   pins.check,
		HostKeyAlgorithms: slices.Clone(pins.algorithms), // kept by connections that have failed
		BannerCallback:    l.keepBanner,
		AuthCallback: func(state *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			return l.next(ctx, state)
		},
	}
}

// failed sorts the error of a handshake by how far it came.
func (d *dialer) failed(err error, pins *hostPins, l *login, conn *watchedConn, limit time.Duration) error {
	var negotiation *ssh.AlgorithmNegotiationError
	var own *dialError
	switch {
	case errors.As(err, &own) && own.kind != dialLogin:
		return own
	case errors.Is(err, errHostKey):
		return pins.mismatch()
	case errors.As(err, &negotiation):
		return pins.noCommon(negotiation)
	}
	if refused := l.refused(pins.addr, err); refused != nil {
		if refused.kind == dialLogin {
			l.account.rejected(refused, cmp.Or(d.memory, time.Minute))
		}
		return refused
	}
	return silent(err, pins, conn, limit)
}

// silent is the error of a handshake that ended before a login was tried.
func silent(err error, pins *hostPins, conn *watchedConn, limit time.Duration) *dialError {
	said := conn.firstLine()
	inTime := !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err)
	switch {
	case said != "" && !strings.HasPrefix(said, "SSH-"):
		busy := strings.HasPrefix(said, "Exceeded MaxStartups")
		return &dialError{kind: dialProtocol, err: err, transient: busy, sentence: full(fmt.Sprintf("%s does not answer as an SSH server does; it says: %s", pins.addr, said))}
	case !inTime && said == "":
		return &dialError{kind: dialTimeout, err: err, sentence: full(fmt.Sprintf("%s takes connections, but says nothing within %s", pins.addr, limit))}
	case !inTime:
		return &dialError{kind: dialTimeout, err: err, sentence: full(fmt.Sprintf("%s did not complete the SSH handshake within %s", pins.addr, limit))}
	}
	return &dialError{kind: dialUnreachable, err: err, transient: pins.shown == nil, sentence: full(pins.addr + " " + lost(err) + " before the login"), detail: pins.addr + ": " + err.Error()}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// close ends what is kept for reuse, at shutdown.
func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.accounts {
		a.empty()
	}
}
