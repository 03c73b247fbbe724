package main

import (
	"context"
	"time"

	"pillion/creds"
)

// repairEvery is how long what the index of the embedded store does not tell may
// stay unseen: an edit that was cut between a credential and the index, of which
// every reload believes the index.
const repairEvery = 10 * time.Minute

// keepIndex repairs the index of the embedded store now and then, until ctx ends.
// Over Vault the Poller does so.
func (d *daemon) keepIndex(ctx context.Context) {
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !d.repairIndex(ctx) {
				continue
			}
			if err := d.live.Reload(ctx); err != nil {
				d.log.Error("the credentials cannot be read", "problem", oneLine(err.Error()))
			}
		}
	}
}

// repairIndex reports whether there was anything to repair. With nothing to do it
// costs a look at memory for each credential. A store that cannot be written is no
// reason not to serve.
func (d *daemon) repairIndex(ctx context.Context) bool {
	names, err := creds.RepairIndex(ctx, d.store)
	text := ""
	if err != nil && ctx.Err() == nil {
		text = oneLine(err.Error())
	}
	if text != "" && text != d.saidOfSweep {
		d.log.Warn("the index of the credentials could not be repaired", "problem", text)
	}
	d.saidOfSweep = text
	if err == nil && len(names) > 0 {
		d.log.Info("the index of the credentials was repaired", "credentials", names)
	}
	return err == nil && len(names) > 0
}
