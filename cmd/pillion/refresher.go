package main

import (
	"context"
	"time"

	"pillion/creds"
	"pillion/creds/token"
)

// refresherConfig is the section refresher.
type refresherConfig struct {
	Enabled string `yaml:"enabled"`
}

// refreshes reports whether this process gets access tokens itself: reads client
// secrets and refresh tokens, and speaks to token endpoints. Left to itself a
// pillion over the embedded store does, since there is nobody else; one over Vault
// does not, so that a sidecar holds no secret from which tokens are made.
func (c *config) refreshes() bool {
	switch c.Refresher.Enabled {
	case "true":
		return true
	case "false":
		return false
	}
	return c.vault == nil
}

// refresher is a token.Refresher that runs.
type refresher struct {
	*token.Refresher
	stop context.CancelFunc
	done chan struct{} // closed when what was under way has ended, after stop
}

func (r *refresher) start(ctx context.Context) {
	ctx, r.stop = context.WithCancel(ctx)
	go func() {
		defer close(r.done)
		r.Run(ctx)
	}()
}

// openTokens makes what brings tokens: shared through the store's records by all that
// read it, and renewed here if this process may.
func (d *daemon) openTokens() {
	d.keeper = &token.Keeper{
		OnEvent: d.tokenEvent,
		Current: func(name string) (*creds.Credential, bool) { return d.live.Table().ByName(name) },
		Store:   d.live.StoreOf,
	}
	c := d.config.Load()
	if !c.refreshes() {
		return
	}
	d.refresher = &refresher{done: make(chan struct{}), Refresher: &token.Refresher{
		OnEvent: d.tokenEvent, Table: d.live.Table, Store: d.live.StoreOf,
		Stores: append([]creds.Store{d.live.Store}, d.live.More...), Journal: c.journalDir(), Publish: c.vault != nil,
	}}
	d.keeper.Refresher = d.refresher.Refresher
}

// tokenEvent is OnEvent of keeper and refresher: a line of the log, and the metrics.
func (d *daemon) tokenEvent(e token.Event) {
	d.metrics.tokenEvent(e)
	attrs := []any{"credential", e.Credential, "grant", string(e.Grant)}
	switch e.Kind {
	case token.EventRequest:
		d.logTokenRequest(e, append(attrs, "ms", milliseconds(e.Took)))
	case token.EventState:
		d.logTokenState(e, attrs)
	case token.EventRescue:
		d.log.Warn("a token that was nearly lost is written", attrs...)
	case token.EventUnknownOutcome:
		d.log.Warn("a token request ended without an answer: the provider may have acted on it", attrs...)
	case token.EventBlindClaim:
		d.log.Warn("a refresher is silent while it holds a grant: taking over", attrs...)
	case token.EventJournalFailed:
		d.log.Warn("the journal of tokens cannot be written: were pillion to end now, a credential might need consent", append(attrs, "problem", e.Detail)...)
	case token.EventPublishFailed:
		d.log.Warn("the page and credential list cannot be told how tokens stand", append(attrs, "problem", oneLine(e.Detail))...)
	case token.EventLeaseConflict:
		d.log.Debug("another refresher was faster", attrs...)
	}
}

func (d *daemon) logTokenRequest(e token.Event, attrs []any) {
	if e.Result == token.Success {
		d.log.Info("token", append(attrs, "token", e.Token, "expires", e.Expires)...)
		return
	}
	d.log.Warn("no token", append(attrs, "reason", e.Reason, "status", e.Status, "code", e.Code, "detail", e.Detail, "advice", token.Advice(e.Reason, e.Code))...)
}

func (d *daemon) logTokenState(e token.Event, attrs []any) {
	attrs = append(attrs, "state", string(e.State))
	if e.Detail != "" {
		attrs = append(attrs, "problem", e.Detail)
	}
	switch e.State {
	case token.StatusNeedsConsent:
		d.log.Error("a credential needs consent: run pillion credential connect "+e.Credential, attrs...)
	case token.StatusOK:
		d.log.Info("the grant is well", attrs...)
	default:
		d.log.Warn("the grant is not well", attrs...)
	}
}

// unrenewed returns the credentials whose tokens nobody renews, and why.
func (d *daemon) unrenewed() (names []string, why string) {
	if d.refresher != nil {
		return nil, ""
	}
	for _, c := range d.live.Table().All() {
		if !hasToken(c) {
			continue
		}
		if state := d.keeper.State(c.Name); isUnrenewed(state) {
			names, why = append(names, c.Name), state.Detail
		}
	}
	return names, why
}

// isUnrenewed reports whether a reader misses a token that no refresher brings.
func isUnrenewed(state token.State) bool {
	return state.Detail == token.NoRefresher || state.Detail == token.RingDenied
}

// watchTokens says in the log, once, when nobody renews what this process needs.
func (d *daemon) watchTokens(ctx context.Context) {
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		names, why := d.unrenewed()
		switch {
		case why != "" && why != said:
			d.log.Error("tokens are not renewed", "credentials", names, "problem", why)
		case why == "" && said != "":
			d.log.Info("no token is missed any more")
		}
		said = why
	}
}
