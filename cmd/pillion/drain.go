package main

import (
	"context"
	"os"
	"time"

	"pillion/creds"
)

const (
	// idleBeforeEnd is how long nothing may be under way before a draining
	// pillion ends: long enough for the next request of a busy connector, which
	// is still served.
	idleBeforeEnd = 2 * time.Second
	// lastAnswers is what requests still get when drain is over.
	lastAnswers = 2 * time.Second
)

// drain lets the work under way end. The listeners go on accepting, because a
// load balancer or a connector notices late that it should go elsewhere; each
// answer then closes its connection. A second signal ends it at once.
func (d *daemon) drain(signals <-chan os.Signal) error {
	d.draining.Store(true)
	d.ready.Store(false)
	d.server.Drain()
	if d.sftp != nil {
		d.sftp.Drain()
	}
	if d.refresher != nil {
		d.refresher.stop() // begins nothing new by itself; requests are still served
	}
	limit := d.config.Load().Drain
	d.log.Info("draining", "at most", limit.String())
	d.notify("STOPPING=1", "STATUS=draining, at most "+limit.String())
	over := time.After(limit)
	begun := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for waiting := limit > 0; waiting; {
		select {
		case <-signals:
			d.log.Warn("ended by a second signal")
			return nil
		case <-over:
			waiting = false
		case <-tick.C:
			waiting = min(d.idle(), time.Since(begun)) < idleBeforeEnd
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastAnswers)
	defer cancel()
	err := d.shutdown(ctx)
	if d.refresher != nil {
		// A token request under way ends, whoever began it, and what it brings is
		// written: a provider that rotates has no second answer.
		over := make(chan struct{})
		go func() {
			defer close(over)
			<-d.refresher.done
			_ = d.refresher.Close(context.Background())
		}()
		select {
		case <-over:
		case <-signals:
			d.log.Warn("ended by a second signal while a token was renewed")
			return nil
		}
	}
	d.log.Info("ended", "cut", err != nil)
	return nil
}

// status is what the admin socket tells.
func (d *daemon) status() status {
	c := d.config.Load()
	s := status{
		Version: version, PID: os.Getpid(), Started: d.started, Ready: d.readiness().Ready, Draining: d.draining.Load(),
		Listeners: map[string]string{}, Publish: c.Publish, SFTP: d.sftp != nil, Unmatched: c.Proxy.Unmatched,
		InFlight: d.inFlight(), Credentials: []credentialStatus{}, Problems: d.lastProblems(),
	}
	for role, l := range d.listeners {
		s.Listeners[role] = l.Addr().String()
	}
	for _, credential := range d.live.Table().All() {
		one := credentialStatus{Name: credential.Name, URL: credential.URL, Authorization: string(credential.Authorization), Token: d.tokenState(credential)}
		one.Requests, one.Errors, one.P50 = d.requests.of(credential.Name)
		s.Credentials = append(s.Credentials, one)
	}
	for _, bad := range d.live.Bad() {
		s.Skipped = append(s.Skipped, skippedRecord{bad.Name, oneLine(bad.Problem)})
	}
	return s
}

func (d *daemon) tokenState(c *creds.Credential) tokenState {
	if !hasToken(c) {
		return tokenState{State: staticState}
	}
	return tokenStateOf(d.stateOf(c.Name))
}

// isReady reports whether requests are served: a store that is away does not matter
// while what was read of it may serve.
func (d *daemon) isReady() bool { return d.ready.Load() && d.live.StoreErr() == nil }

// readiness is what /readyz tells.
func (d *daemon) readiness() readiness {
	r := readiness{
		Ready: d.isReady(), Draining: d.draining.Load(), Store: "ok", Config: "ok", Tokens: "ok",
		Credentials: d.live.Table().Len(), Skipped: len(d.live.Bad()),
	}
	switch {
	case d.live.StoreErr() != nil:
		r.Store = "unavailable"
	case d.live.Err() != nil:
		r.Store = "stale"
	}
	if d.configOld.Load() {
		r.Config = "old"
	}
	if _, why := d.unrenewed(); why != "" {
		r.Tokens = why
	}
	return r
}

// lastProblems are why the last reload was refused; none when it was not.
func (d *daemon) lastProblems() []string {
	if problems := d.problems.Load(); problems != nil {
		return *problems
	}
	return nil
}
