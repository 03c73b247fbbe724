package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// listen opens the listeners. The proxy's comes last, so that who can connect
// to it finds everything else in place.
func (d *daemon) listen() error {
	c := d.config.Load()
	places := []place{{"metrics", c.Metrics.Listen, "metrics.listen or " + envMetricsListen}}
	places = append(places, c.sftpPlaces()...)
	places = append(places, place{"console", c.Console.Listen, "console.listen or " + envConsoleListen})
	places = append(places, place{"proxy", c.Proxy.Listen, "proxy.listen or " + envProxyListen})
	for _, p := range places {
		if p.address == off {
			continue
		}
		listener, err := net.Listen("tcp", p.address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("the %s address %s is taken: end what listens there, or choose another one with %s", p.role, p.address, p.key)
		}
		if err != nil {
			return fmt.Errorf("listening on the %s address %s (%s): %w", p.role, p.address, p.key, err)
		}
		d.listeners[p.role] = listener
		d.log.Info("listening", "role", p.role, "address", listener.Addr().String())
	}
	var own []netip.AddrPort
	for _, l := range d.listeners {
		if tcp, ok := l.Addr().(*net.TCPAddr); ok {
			own = append(own, tcp.AddrPort())
		}
	}
	d.own.Store(&own)
	return d.publishSFTP(d.live.Table())
}

// place is where a role listens, and the key that says so.
type place struct{ role, address, key string }

// start serves on all listeners; an error of one ends the program.
func (d *daemon) start(ctx context.Context, admin net.Listener, failed chan<- error) {
	serve := func(role string, f func() error) {
		go func() {
			if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				failed <- fmt.Errorf("serving %s: %w", role, err)
			}
		}()
	}
	adminHandler := (&adminServer{reload: d.reload, status: d.status, link: d.consoleLink, log: d.requests, pprof: d.config.Load().Admin.PProf}).handler()
	serve("the admin socket", func() error {
		return (&http.Server{Handler: adminHandler, ReadHeaderTimeout: 5 * time.Second, ErrorLog: d.serverLog()}).Serve(admin)
	})
	if l := d.listeners["metrics"]; l != nil {
		server := metricsServer(metricsHandler(d.metrics.registry, func() (bool, any) { r := d.readiness(); return r.Ready, r }))
		server.ErrorLog = d.serverLog()
		serve("metrics", func() error { return server.Serve(l) })
	}
	d.startSFTP(serve)
	d.startConsole(serve)
	if l := d.listeners["proxy"]; l != nil {
		serve("the proxy", func() error { return d.server.Serve(l) })
	}
	if d.refresher != nil {
		d.refresher.start(ctx)
		go d.watchGrants(ctx)
	} else {
		go d.watchTokens(ctx)
	}
	if d.vault != nil {
		go d.followVault(ctx)
	} else {
		go d.keepIndex(ctx)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		d.log.Warn("changed files are noticed late: file events are not available", "error", err.Error())
		watcher = nil
	}
	go watch(ctx, watcher, func() []string { return d.config.Load().watchedDirs() }, func() { d.reloadIfChanged(ctx) })
}

// serverLog takes what net/http says of broken connections.
func (d *daemon) serverLog() *log.Logger { return slog.NewLogLogger(d.log.Handler(), slog.LevelDebug) }
