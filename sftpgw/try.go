package sftpgw

import (
	"context"
	"errors"
	"net"

	"pillion/creds"
)

// Try does once with a credential what a session does: host key, login, subsystem.
// It returns how the server calls itself. The error is a sentence for an
// administrator; a refused login must not be tried in a loop.
func Try(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), c *creds.Credential) (version string, err error) {
	d := &dialer{network: dial, retryFor: -1}
	up, err := d.dial(ctx, c)
	if err != nil {
		return "", forAdministrator(err)
	}
	defer up.close()
	session, err := up.open(ctx)
	if err != nil {
		return "", forAdministrator(err)
	}
	session.close()
	return short(string(up.conn.ServerVersion())), nil
}

// forAdministrator prefers what clients are not told, such as the new key's line.
func forAdministrator(err error) error {
	var failed *dialError
	if errors.As(err, &failed) && failed.detail != "" {
		return errors.New(failed.detail)
	}
	return err
}
