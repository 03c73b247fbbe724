package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	"pillion/proxy"
)

// proxySettings are the part of the configuration that the proxy takes over
// while it runs.
func (d *daemon) proxySettings(c *config) (proxy.Config, error) {
	guard, err := c.guard()
	if err != nil {
		return proxy.Config{}, err
	}
	guard.Own = func() []netip.AddrPort {
		if own := d.own.Load(); own != nil {
			return *own
		}
		return nil
	}
	s := proxy.Config{
		Guard: guard, Tunnel: c.Proxy.Unmatched == "tunnel", BaseURL: c.Proxy.BaseURL, Fast: c.Proxy.Fast != off,
		AllowUIDs: c.allowUIDs(d.app.getenv),
	}
	if s.RootCAs, err = c.rootCAs(); err != nil {
		return proxy.Config{}, err
	}
	if s.ClientToken, err = c.clientToken(); err != nil {
		return proxy.Config{}, fmt.Errorf("proxy.client_token_file: %w", err)
	}
	if c.Upstream.Proxy != "" {
		if s.UpstreamProxy, err = url.Parse(c.Upstream.Proxy); err != nil {
			return proxy.Config{}, errors.New("upstream.proxy: this is no URL")
		}
	}
	return s, nil
}

// guard is the way out as the configuration bounds it.
func (c *config) guard() (*proxy.Guard, error) {
	allow, err := proxy.ParseAllow(c.Upstream.Allow)
	if err != nil {
		return nil, err
	}
	resolve, err := proxy.ParseResolve(c.Upstream.Resolve)
	if err != nil {
		return nil, err
	}
	var store []string
	if c.vault != nil {
		store = []string{c.vault.Authority()}
	}
	return &proxy.Guard{
		Store: store, Allow: allow, Resolve: resolve, Private: c.Upstream.Private,
		Dialer: net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second},
	}, nil
}

// rootCAs returns nil, which means the system's, unless there is an extra file.
func (c *config) rootCAs() (*x509.CertPool, error) {
	if c.Upstream.CAFile == "" {
		return nil, nil //nolint:nilnil // documented
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	data, err := readCertificates(c.Upstream.CAFile)
	if err != nil {
		return nil, fmt.Errorf("upstream.ca_file: %w", err)
	}
	pool.AppendCertsFromPEM(data)
	return pool, nil
}

// allowUIDs returns whose sockets are served; nil means anybody's. In a pod the
// network namespace is the boundary, and its containers have uids of their own.
func (c *config) allowUIDs(getenv func(string) string) []uint32 {
	switch {
	case c.Proxy.AllowUIDs != nil:
		return *c.Proxy.AllowUIDs
	case getenv("KUBERNETES_SERVICE_HOST") != "":
		return nil
	default:
		return []uint32{uint32(os.Geteuid())} //nolint:gosec // a uid is one
	}
}

// reloadIfChanged is for the watch, whose events often mean nothing.
func (d *daemon) reloadIfChanged(ctx context.Context) {
	d.reloading.Lock()
	was := d.fingerprint
	d.reloading.Unlock()
	switch now := d.config.Load().fingerprint(); {
	case now.inputs != was.inputs:
		d.reload(ctx)
	case now.store != was.store:
		d.reloadStore(ctx, now.store)
	}
}

// reloadStore reads a store that changed, without a word if that changed no
// credential: it holds tokens as well, and they come and go.
func (d *daemon) reloadStore(ctx context.Context, now string) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	d.fingerprint.store = now
	before := d.live.Table()
	if err := d.live.Reload(ctx); err != nil {
		d.log.Error("the credential store cannot be read: what was read last serves", "problem", oneLine(err.Error()))
		return
	}
	d.logSkippedOnce()
	if d.live.Table() == before {
		return
	}
	if !d.configOld.Load() {
		d.problems.Store(&[]string{})
		d.metrics.reloaded(true, time.Now())
	}
	d.log.Info("reloaded", "credentials", d.live.Table().Len())
}

// reload reads configuration and credentials again. Each is taken over whole or
// not at all: a mistake in the file does not keep a new credential out.
func (d *daemon) reload(ctx context.Context) reloadAnswer {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	d.fingerprint = d.config.Load().fingerprint() // before reading: a later change counts again
	var answer reloadAnswer
	notes, err := d.reloadConfig()
	if err != nil {
		answer.Problems = append(answer.Problems, problemLines(err)...)
	}
	d.configOld.Store(err != nil)
	answer.Notes = notes
	if err := d.live.Reload(ctx); err != nil {
		answer.Problems = append(answer.Problems, "reading the credentials: "+oneLine(err.Error()))
	}
	d.problems.Store(&answer.Problems)
	d.metrics.reloaded(len(answer.Problems) == 0, time.Now())
	d.notify(d.statusLine())
	for _, p := range answer.Problems {
		d.log.Error("reload refused, the old configuration stays", "problem", p)
	}
	for _, n := range notes {
		d.log.Warn(n)
	}
	d.logSkipped()
	if len(answer.Problems) == 0 {
		d.log.Info("reloaded", "credentials", d.live.Table().Len())
	}
	return answer
}

func problemLines(err error) []string {
	var all *problemsError
	if errors.As(err, &all) {
		return all.lines()
	}
	return []string{oneLine(err.Error())}
}

// reloadConfig takes a new configuration over. It returns what of it needs a
// restart.
func (d *daemon) reloadConfig() ([]string, error) {
	c, err := d.app.loadConfig()
	if err != nil {
		return nil, err
	}
	if problems := c.checkFiles(); len(problems) > 0 {
		return nil, &problemsError{"the configuration", problems}
	}
	settings, err := d.proxySettings(c)
	if err != nil {
		return nil, err
	}
	notes := c.keepFixed(d.config.Load())
	if err := d.publish(c); err != nil {
		return nil, err
	}
	d.server.Configure(settings)
	d.level.Set(levelOf(c.Log.Level))
	if !slices.Equal(c.inputs(), d.config.Load().inputs()) {
		d.fingerprint.inputs = "" // of other files: the watch looks at them once more
	}
	d.config.Store(c)
	return notes, nil
}

// keepFixed puts the running values back where only a restart changes them, and
// says so.
func (c *config) keepFixed(running *config) []string {
	var notes []string
	fixed := func(key string, now, wanted *string) {
		if *now != *wanted {
			notes = append(notes, fmt.Sprintf("%s stays %q until a restart: %q is not taken over by a reload", key, *now, *wanted))
			*wanted = *now
		}
	}
	fixed("proxy.listen", &running.Proxy.Listen, &c.Proxy.Listen)
	fixed("sftp.listen", &running.SFTP.Listen, &c.SFTP.Listen)
	if fmt.Sprint(c.SFTP.Listeners, c.SFTP.Reuse) != fmt.Sprint(running.SFTP.Listeners, running.SFTP.Reuse) {
		notes = append(notes, "sftp.listeners and sftp.reuse stay as they are until a restart")
		c.SFTP.Listeners, c.SFTP.Reuse = running.SFTP.Listeners, running.SFTP.Reuse
	}
	fixed("metrics.listen", &running.Metrics.Listen, &c.Metrics.Listen)
	if fmt.Sprintf("%+v", c.Console) != fmt.Sprintf("%+v", running.Console) {
		notes = append(notes, "console stays as it is until a restart")
		c.Console = running.Console
	}
	fixed("refresher.enabled", &running.Refresher.Enabled, &c.Refresher.Enabled)
	fixed("state", &running.State, &c.State)
	if fmt.Sprintf("%+v", c.vault) != fmt.Sprintf("%+v", running.vault) {
		notes = append(notes, "store.vault and the VAULT_ variables stay as they are until a restart")
		c.vault, c.Store.Vault = running.vault, running.Store.Vault
	}
	fixed("store.file.path", &running.Store.File.Path, &c.Store.File.Path)
	fixed("store.file.key_file", &running.Store.File.KeyFile, &c.Store.File.KeyFile)
	fixed("publish", &running.Publish, &c.Publish)
	fixed("log.format", &running.Log.Format, &c.Log.Format)
	if fmt.Sprint(c.names()) != fmt.Sprint(running.names()) {
		notes = append(notes, "store.credentials stays as it is until a restart")
		c.Store.Credentials = running.Store.Credentials
	}
	if c.Metrics.PerCredential != running.Metrics.PerCredential {
		notes = append(notes, "metrics.per_credential stays as it is until a restart")
		c.Metrics.PerCredential = running.Metrics.PerCredential
	}
	if c.Admin != running.Admin {
		notes = append(notes, "admin.pprof stays as it is until a restart")
		c.Admin = running.Admin
	}
	return notes
}

// names are the credentials that may be used; nil means all.
func (c *config) names() []string {
	if c.Store.Credentials == nil {
		return nil
	}
	return *c.Store.Credentials
}
