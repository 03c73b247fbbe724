package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pillion/creds"
	"pillion/creds/filestore"
	"pillion/creds/token"
	"pillion/creds/vaultstore"
	"pillion/proxy"
	"pillion/sftpgw"
)

// daemon is a running pillion.
type daemon struct {
	app     *app
	log     *slog.Logger
	lines   *logBuffer // what log writes to
	level   slog.LevelVar
	started time.Time

	store     creds.Store
	vault     *vaultstore.Client // nil over the embedded store
	cache     *vaultCache        // nil unless store.vault.cache
	live      *creds.Live
	keeper    *token.Keeper
	refresher *refresher // nil where others renew the tokens
	ca        *proxy.CA
	server    *proxy.Server
	console   *consoleServer // nil: off
	sftp      *sftpgw.Server // nil where the role is off
	metrics   *metrics
	requests  *requestLog

	listeners map[string]net.Listener // "proxy", "metrics", "sftp", "sftp:NAME": complete before ready
	clients   sync.Mutex              // what SFTP clients find in the published folder is written by one at a time
	own       atomic.Pointer[[]netip.AddrPort]
	ready     atomic.Bool
	draining  atomic.Bool

	config   atomic.Pointer[config]   // stored by reload alone, read by anybody
	problems atomic.Pointer[[]string] // of the last reload

	configOld atomic.Bool // the last reload refused the configuration

	said, saidOfSweep string                 // by the poller, so that it says a thing once
	skipped           atomic.Pointer[string] // the same of skipped credentials

	reloading   sync.Mutex // one reload at a time; guards fingerprint
	fingerprint fingerprint
}

// newDaemon reads configuration and credentials, and publishes what clients
// need: all that can fail without a listener.
func (a *app) newDaemon(ctx context.Context) (*daemon, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	if problems := c.checkFiles(); len(problems) > 0 {
		return nil, &problemsError{"the configuration", problems}
	}
	d := &daemon{app: a, started: time.Now(), metrics: newMetrics(c.Metrics.PerCredential), requests: newRequestLog(), listeners: map[string]net.Listener{}}
	d.config.Store(c)
	d.lines = &logBuffer{w: a.stderr}
	d.log = newLogger(d.lines, c.Log.Format, &d.level)
	d.level.Set(levelOf(c.Log.Level))
	for _, note := range c.notes {
		d.log.Warn(note)
	}
	d.fingerprint = c.fingerprint()
	if err := d.makeState(); err != nil {
		return nil, err
	}
	if err := d.openCredentials(ctx); err != nil {
		return nil, err
	}
	d.openTokens()
	if err := d.openProxy(); err != nil {
		return nil, err
	}
	if err := d.openSFTP(); err != nil {
		return nil, err
	}
	d.metrics.watch(watched{
		live: d.live, token: d.stateOf, ready: d.isReady, vault: d.vault, ca: d.ca, tunnels: d.server.MaxTunnels,
		renews: func(c *creds.Credential) bool { return d.refresher != nil || c.Unshared },
	})
	d.metrics.reloaded(true, time.Now())
	return d, nil
}

func newLogger(lines *logBuffer, format string, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(flushing{slog.NewTextHandler(lines, options), lines})
	}
	return slog.New(flushing{slog.NewJSONHandler(lines, options), lines})
}

func levelOf(name string) slog.Level {
	return map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[name]
}

// makeState makes the state directory, and closes one that others may enter:
// its files are closed in any case.
func (d *daemon) makeState() error {
	dir := d.config.Load().State
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w; name another with --state or %s", err, envState)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the state directory: %w", err)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory
		d.log.Warn("others may list the state directory: run chmod 700 on it", "state", dir)
	}
	return nil
}

// openCredentials opens the store and reads it for the first time.
func (d *daemon) openCredentials(ctx context.Context) error {
	c := d.config.Load()
	if c.vault != nil {
		return d.openFromVault(ctx, c)
	}
	store, err := filestore.Open(c.Store.File.Path, c.Store.File.KeyFile)
	if err != nil {
		return fmt.Errorf("opening the credential store: %w", err)
	}
	d.store = store
	d.live = &creds.Live{Store: countedStore{store, d.metrics}, OnChange: d.credentialsChanged}
	d.live.Names = c.names()
	if err := d.live.Reload(ctx); err != nil {
		return fmt.Errorf("reading the credentials: %w", err)
	}
	d.logSkippedOnce()
	d.repairIndex(ctx) // for those that run: a start reads everything
	return nil
}

func (d *daemon) logSkipped() {
	for _, bad := range d.live.Bad() {
		d.log.Warn("a stored credential is skipped", "credential", bad.Name, "problem", bad.Problem)
	}
}

// credentialsChanged is creds.Live.OnChange.
func (d *daemon) credentialsChanged(old, current *creds.Table) {
	for _, c := range old.All() {
		now, ok := current.ByName(c.Name)
		if now != c { // removed or edited; Live keeps the pointer of what did not change
			d.keeper.Forget(c)
		}
		if !ok {
			d.requests.forget(c.Name)
		}
	}
	d.metrics.follow(old, current)
	d.notify(d.statusLine())
	if err := d.publishSFTP(current); err != nil {
		d.log.Error("SFTP clients do not know the new credentials", "problem", err.Error())
	}
}

// openProxy makes the CA, publishes it, and makes the proxy around everything.
func (d *daemon) openProxy() error {
	c := d.config.Load()
	var err error
	if d.ca, err = proxy.LoadOrCreateCA(c.State, time.Now()); err != nil {
		return err
	}
	if err := d.publish(c); err != nil {
		return err
	}
	d.server = &proxy.Server{
		Table:      d.live.Table,
		StoreErr:   d.live.StoreErr,
		Authorizer: d.keeper,
		CA:         d.ca,
		Log:        d.log,
		Metrics:    d.metrics.proxy,
		OnEntry:    d.requests.add,
		MaxTunnels: maxTunnels(),
	}
	if c.Log.Format == "json" {
		d.server.Lines = d.lines
	}
	d.keeper.HTTP = d.server.Upstream()
	if d.refresher != nil {
		d.refresher.HTTP = d.server.Upstream()
	}
	settings, err := d.proxySettings(c)
	if err != nil {
		return err
	}
	d.server.Configure(settings)
	return nil
}

// maxTunnels leaves each tunnel two descriptors (client and tool), and the rest
// of the process some.
func maxTunnels() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 512 {
		return 128
	}
	return int(min(limit.Cur, 1<<20)-128) / 2 //nolint:gosec // bounded
}

func (d *daemon) publish(c *config) error {
	var extra []byte
	if c.Upstream.CAFile != "" {
		var err error
		if extra, err = readCertificates(c.Upstream.CAFile); err != nil {
			return fmt.Errorf("reading upstream.ca_file: %w", err)
		}
	}
	err := d.ca.Publish(c.Publish, extra)
	if errors.Is(err, proxy.ErrNoSystemRoots) {
		d.log.Warn(err.Error())
		return nil
	}
	if err != nil {
		return fmt.Errorf("publishing the certificates: %w", err)
	}
	return nil
}

func (d *daemon) close() {
	for _, l := range d.listeners {
		l.Close()
	}
	if closer, ok := d.store.(io.Closer); ok {
		closer.Close()
	}
}
