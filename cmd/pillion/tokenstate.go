package main

import (
	"context"
	"errors"
	"time"

	"pillion/creds"
	"pillion/creds/token"
)

// stateOf tells how a token stands: as the refresher of this process has seen it, by
// which requests get theirs and which looks again when nobody asks; or else as
// requests have found it here.
func (d *daemon) stateOf(name string) token.State {
	if d.refresher != nil {
		if state := d.refresher.State(name); state.Status != token.StatusNone {
			return state
		}
	}
	return d.keeper.State(name)
}

const (
	// grantWarning is how long before a grant ends the log begins to say so.
	grantWarning = 14 * 24 * time.Hour
	// grantLook is how often that is looked at: a start says it soon, when the first
	// looks at the records are over.
	grantLook = time.Minute
)

// watchGrants says once a day which grants end soon. Those who renew them say it: of a
// fleet of sidecars each would.
func (d *daemon) watchGrants(ctx context.Context) {
	tick := time.NewTicker(grantLook)
	defer tick.Stop()
	said := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			d.warnOfGrants(now, said)
		}
	}
}

// warnOfGrants logs what ends soon; said holds what was logged, and when.
func (d *daemon) warnOfGrants(now time.Time, said map[string]time.Time) {
	for _, c := range d.live.Table().All() {
		if !hasToken(c) {
			continue
		}
		ends := d.stateOf(c.Name).GrantEnds
		if ends.IsZero() || ends.Sub(now) > grantWarning || now.Sub(said[c.Name]) < 24*time.Hour {
			continue
		}
		said[c.Name] = now
		d.log.Warn("a consent ends soon: run pillion credential connect "+c.Name,
			"credential", c.Name, "ends", ends.UTC().Format(time.RFC3339), "days", int(max(0, ends.Sub(now)).Hours()/24))
	}
}

// unknownState is that of a token which nobody here can tell of.
const unknownState = "not known"

// tokenStates tells how tokens stand: as the pillion that runs with this state
// directory says, and where that does not use one, by the record in the store, as far
// as whoever asks may read it.
func tokenStates(ctx context.Context, running status, store creds.Store, all []*creds.Credential) map[string]tokenState {
	states := map[string]tokenState{}
	for _, c := range running.Credentials {
		states[c.Name] = c.Token
	}
	for _, c := range all {
		found, ok := states[c.Name]
		switch {
		case !hasToken(c):
			states[c.Name] = tokenState{State: staticState}
		case ok && found.State != string(token.StatusNone):
		case c.Unshared && !ok:
			states[c.Name] = tokenState{State: unknownState} // each process knows its own
		case !c.Unshared:
			states[c.Name] = storedState(ctx, store, c)
		}
	}
	return states
}

func storedState(ctx context.Context, store creds.Store, c *creds.Credential) tokenState {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	state, err := token.Stored(ctx, store, c)
	if errors.Is(err, creds.ErrStoreDenied) { // a person's: refreshers tell people
		state, err = token.Published(ctx, store, c)
	}
	switch {
	case errors.Is(err, creds.ErrStoreDenied):
		return tokenState{State: unknownState, Error: "the store does not let this login read tokens/ or states/"}
	case err != nil:
		return tokenState{State: unknownState, Error: oneLine(err.Error())}
	}
	return tokenStateOf(state)
}

// grantNote says when a grant ends that does so soon.
func grantNote(t tokenState, now time.Time) string {
	if t.GrantEnds == nil || t.GrantEnds.Sub(now) > grantWarning {
		return ""
	}
	return "the consent ends on " + t.GrantEnds.UTC().Format("2006-01-02") + ": connect it again before"
}
