package sftpgw

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// scanTypes are the types of host keys that a pin may have.
var scanTypes = [...]string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA}

// scanTimeout is how long a server may take for one key.
const scanTimeout = 20 * time.Second

// ScanHostKeys returns the host keys that a server offers, of each type that a
// pin may have: one connection a type, each ended inside the key exchange, so
// that no name and no password is ever sent. A server shows one key a
// connection, the first type that it is asked for.
//
// The server proves that it has these keys, not who it is: compare them with
// what its owner says before one is pinned.
func ScanHostKeys(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr string) ([]creds.HostKey, error) {
	var found []creds.HostKey
	var offers string
	for _, keyType := range scanTypes {
		key, err := scanOne(ctx, dial, addr, keyType)
		var negotiation *ssh.AlgorithmNegotiationError
		switch {
		case key != nil:
			found = append(found, creds.HostKey{Type: key.Type(), Key: key, SHA256: ssh.FingerprintSHA256(key)})
		case errors.As(err, &negotiation) && negotiation.What == "host key":
			offers = quote(fmt.Sprint(negotiation.RequestedAlgorithms), creds.Secret{})
		default:
			return found, err
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no host key of a type that can be pinned: it offers %s", addr, offers)
	}
	return found, nil
}

var errScanned = errors.New("the host key has been seen")

// scanOne returns the server's key of that type, proved by its signature.
func scanOne(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), addr, keyType string) (ssh.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, networkError(addr, err)
	}
	watched := &watchedConn{Conn: conn}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var shown ssh.PublicKey
	supported := ssh.SupportedAlgorithms()
	_, _, _, err = ssh.NewClientConn(watched, addr, &ssh.ClientConfig{
		Config:            ssh.Config{KeyExchanges: supported.KeyExchanges, Ciphers: upstreamCiphers(), MACs: supported.MACs},
		ClientVersion:     clientVersion,
		HostKeyAlgorithms: creds.HostKeyAlgorithms([]creds.HostKey{{Type: keyType}}),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error { // after its signature was verified
			shown = key
			return errScanned
		},
	})
	var negotiation *ssh.AlgorithmNegotiationError
	switch {
	case errors.Is(err, errScanned):
		return shown, nil
	case errors.As(err, &negotiation) && negotiation.What == "host key":
		return nil, err
	case errors.As(err, &negotiation):
		return nil, (&hostPins{addr: addr}).noCommon(negotiation)
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	return nil, silent(err, &hostPins{addr: addr}, watched, scanTimeout)
}
