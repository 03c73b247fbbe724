package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"pillion/creds"
	"pillion/creds/console"
	"pillion/sftpgw"
)

// consoleServer is the page, served.
type consoleServer struct {
	page  *console.Server
	links *console.Links // nil over Vault
	http  *http.Server
}

// openConsole makes the page, once the listeners are open: its address follows from
// where it listens.
func (d *daemon) openConsole() error {
	listener := d.listeners["console"]
	if listener == nil {
		return nil
	}
	c := d.config.Load()
	key := make([]byte, minSessionKey) // nobody else has it: sessions end with the process
	rand.Read(key)
	if c.Console.SessionKeyFile != "" {
		var err error
		if key, err = c.Console.sessionKey(); err != nil {
			return fmt.Errorf("console.session_key_file: %w", err)
		}
	}
	s := &consoleServer{}
	s.page = &console.Server{
		URL: c.Console.address(listener.Addr()), SessionKey: key, SessionTime: c.Console.Session.Absolute, IdleTime: c.Console.Session.Idle,
		Grants: consoleGrants{d}, ScanHostKeys: d.scanHostKeys,
		Changed: d.consoleChanged, Audit: d.auditConsole,
	}
	switch {
	case c.Console.Prometheus != "":
		s.page.Live = newPrometheusLive(c.Console.Prometheus, d.log)
	case c.Proxy.Listen != off || c.servesSFTP(): // otherwise no request ever comes by here
		s.page.Live = consoleLive{d}
	}
	if d.vault != nil {
		s.page.Login = &vaultLogin{client: d.vault, prefixes: c.vault.Prefixes, userpass: c.Console.Vault.Userpass}
		if oidc := c.Console.Vault.OIDC; oidc != nil {
			s.page.Provider = &vaultProvider{client: d.vault, config: *oidc}
		}
	} else {
		s.links = &console.Links{Embedded: d.live.Store}
		s.page.Login = s.links
	}
	handler, err := s.page.Handler()
	if err != nil {
		return err
	}
	s.http = boundedServer(d.faultless(handler))
	s.http.ErrorLog = d.serverLog()
	if c.Console.TLS.Cert != "" {
		files := &certificateFiles{what: "console.tls", cert: c.Console.TLS.Cert, key: c.Console.TLS.Key}
		s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: files.certificate}
	}
	d.console = s
	return nil
}

// boundedServer serves people: a head within 5 s and 32 KiB, a form within 30 s (of
// 256 KiB, which the page sees to), an answer within two minutes, since a test may
// take 90 s.
func boundedServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10,
	}
}

// faultless turns a fault of the page into an answer and a line of the log. What was
// handled may be a secret: the line says where the fault is, and not what.
func (d *daemon) faultless(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			fault := recover()
			if fault == nil {
				return
			}
			_, file, line, _ := runtime.Caller(2)
			d.log.Error("a fault in the page", "method", r.Method, "type", fmt.Sprintf("%T", fault), "at", fmt.Sprintf("%s:%d", filepath.Base(file), line))
			http.Error(w, "This is a fault in pillion: its log says where.", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// startConsole serves the page, and says how to open it.
func (d *daemon) startConsole(serve func(role string, f func() error)) {
	if d.console == nil {
		return
	}
	s := d.console
	serve("the console", func() error {
		if s.http.TLSConfig != nil {
			return s.http.ServeTLS(d.listeners["console"], "", "")
		}
		return s.http.Serve(d.listeners["console"])
	})
	if s.links == nil {
		d.log.Info("the page is open: people log in with Vault", "url", s.page.URL)
		return
	}
	d.log.Info("the page is open: the link is good once, for 10 minutes; pillion console-link makes another", "link", d.consoleLink())
}

// consoleLink makes a one-time link to the page; "" where there is none.
func (d *daemon) consoleLink() string {
	if d.console == nil || d.console.links == nil {
		return ""
	}
	return d.console.page.URL + d.console.links.New()
}

// consoleChanged makes a change count for the next request, as credential set does.
func (d *daemon) consoleChanged(ctx context.Context) {
	look := d.live.Reload
	if d.vault != nil {
		look = d.live.Poll // what changed, and not all that there is
	}
	if err := look(ctx); err != nil {
		d.log.Error("the credential store cannot be read: what was read last serves", "problem", oneLine(err.Error()))
	}
}

// auditConsole writes the line of the log that tells who did what.
func (d *daemon) auditConsole(a console.Action) {
	attrs := []any{"who", a.Who, "action", a.What}
	if a.Credential != "" {
		attrs = append(attrs, "credential", a.Credential)
	}
	if a.Prefix != nil {
		attrs = append(attrs, "prefix", *a.Prefix)
	}
	if len(a.Fields) > 0 {
		attrs = append(attrs, "fields", a.Fields)
	}
	if a.Problem != "" {
		d.log.Warn("console", append(attrs, "problem", oneLine(a.Problem))...)
		return
	}
	d.log.Info("console", attrs...)
}

// scanHostKeys asks an SFTP server for its host keys, by the guarded way out.
func (d *daemon) scanHostKeys(ctx context.Context, host string, port uint16) ([]creds.HostKey, error) {
	return sftpgw.ScanHostKeys(ctx, d.server.DialContext, net.JoinHostPort(host, strconv.Itoa(int(port))))
}
