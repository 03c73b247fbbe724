//go:build !linux

package proxy

import (
	"errors"
	"net/netip"
)

// peerUID is for Linux; elsewhere nobody can be told apart, so nobody is served
// where proxy.allow_uids is set.
func peerUID(_, _ netip.AddrPort) (uint32, error) {
	return 0, errors.New("looking up the process behind a connection works on Linux only: remove proxy.allow_uids, or set proxy.client_token_file")
}
