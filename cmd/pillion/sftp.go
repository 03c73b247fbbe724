package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"pillion/creds"
	"pillion/sftpgw"
)

const sftpRole = "sftp"

// roleOf is the role of a listener for one credential, in logs and status.
func roleOf(credential string) string { return sftpRole + ":" + credential }

// sftpPlaces are the listeners of the gateway.
func (c *config) sftpPlaces() []place {
	places := []place{{sftpRole, c.SFTP.Listen, "sftp.listen or " + envSFTPListen}}
	for _, name := range sortedKeys(c.SFTP.Listeners) {
		places = append(places, place{roleOf(name), c.SFTP.Listeners[name], "sftp.listeners." + name})
	}
	return places
}

// openSFTP makes the gateway beside the proxy, whose way out and whose rule about
// clients it shares, and whose CONNECT leads to it.
func (d *daemon) openSFTP() error {
	c := d.config.Load()
	if !c.servesSFTP() {
		return nil
	}
	key, err := sftpgw.LoadHostKey(c.State)
	if err != nil {
		return err
	}
	d.sftp = &sftpgw.Server{
		Table:    d.live.Table,
		StoreErr: d.live.StoreErr,
		Dial:     d.server.DialContext,
		HostKey:  key,
		Allow:    d.server.Admit,
		Policy:   func() sftpgw.Policy { return d.config.Load().sftpPolicy },
		Log:      d.log,
		Metrics:  d.metrics.sftp,
		OnEntry:  d.requests.addSession,
		Reuse:    c.SFTP.Reuse,
	}
	d.server.SSH = func(ctx context.Context, conn net.Conn, host string, port uint16, chosen string) {
		d.sftp.ServeConn(ctx, conn, sftpgw.Target{Name: chosen, Host: host, Port: port})
	}
	return nil
}

// startSFTP serves on the gateway's listeners.
func (d *daemon) startSFTP(serve func(role string, f func() error)) {
	for role, l := range d.listeners {
		switch name, one := strings.CutPrefix(role, roleOf("")); {
		case role == sftpRole:
			serve("SFTP", func() error { return d.sftp.Serve(l) })
		case one:
			serve("SFTP for "+name, func() error { return d.sftp.ServeFor(l, name) })
		}
	}
}

// publishSFTP writes what SFTP clients need to know of us, which changes with the
// credentials. Before the listeners are open nobody could use it.
func (d *daemon) publishSFTP(table *creds.Table) error {
	if d.sftp == nil || d.own.Load() == nil {
		return nil
	}
	d.clients.Lock()
	defer d.clients.Unlock()
	p := sftpgw.Published{HostKey: d.sftp.HostKey.PublicKey(), Table: table, Listeners: map[string]netip.AddrPort{}}
	for role, l := range d.listeners {
		address := l.Addr().(*net.TCPAddr).AddrPort() //nolint:forcetypeassert // listen opens no other
		switch name, one := strings.CutPrefix(role, roleOf("")); {
		case role == sftpRole:
			p.Listener = address
		case one:
			p.Listeners[name] = address
		}
	}
	return sftpgw.Publish(d.config.Load().Publish, p)
}

// idle reports for how long neither requests nor sessions have been under way.
func (d *daemon) idle() time.Duration {
	if d.sftp == nil {
		return d.server.Idle()
	}
	return min(d.server.Idle(), d.sftp.Idle())
}

func (d *daemon) inFlight() int {
	if d.sftp == nil {
		return d.server.InFlight()
	}
	return d.server.InFlight() + d.sftp.InFlight()
}

// shutdown ends proxy and gateway at the same time: what came by CONNECT to the
// gateway is waited for by both.
func (d *daemon) shutdown(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() {
		if d.sftp == nil {
			ended <- nil
			return
		}
		ended <- d.sftp.Shutdown(ctx)
	}()
	err := d.server.Shutdown(ctx)
	return errors.Join(err, <-ended)
}
