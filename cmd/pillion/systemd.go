package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd how we are, where it has started us with Type=notify;
// elsewhere it does nothing. The words are those of sd_notify(3).
func (d *daemon) notify(words ...string) {
	if _, err := systemd.SdNotify(false, strings.Join(words, "\n")); err != nil {
		d.log.Warn("systemd does not hear from us", "error", err.Error())
	}
}

// notifyReloading says that a reload was asked for; notifyReady ends it.
func (d *daemon) notifyReloading() {
	words := []string{systemd.SdNotifyReloading}
	if now := systemd.SdNotifyMonotonicUsec(); now != "" {
		words = append(words, now)
	}
	d.notify(words...)
}

func (d *daemon) notifyReady() { d.notify(systemd.SdNotifyReady, d.statusLine()) }

// statusLine is what `systemctl status` shows.
func (d *daemon) statusLine() string {
	text := fmt.Sprintf("serving %d credentials", d.live.Table().Len())
	switch {
	case !d.live.Loaded():
		text = "waiting for the credential store"
	case len(d.lastProblems()) > 0:
		text += "; the last reload was refused: see the log, or pillion check"
	}
	return "STATUS=" + text
}

// keepAlive answers systemd's watchdog (WatchdogSec=) until ctx ends, as long as
// we answer on our own admin socket: whoever could not be reached there is started
// anew. Neither the store nor any tool matters to it.
func (d *daemon) keepAlive(ctx context.Context) {
	within, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("the watchdog's variables make no sense", "error", err.Error())
	}
	if within == 0 {
		return
	}
	self := newAdminClient(d.config.Load().adminSocket())
	tick := time.NewTicker(within / 3)
	defer tick.Stop()
	for {
		if err := self.alive(ctx, within/3); err != nil {
			if ctx.Err() == nil {
				d.log.Error("no answer on the admin socket: the watchdog is not told that all is well", "error", err.Error())
			}
		} else {
			d.notify(systemd.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
