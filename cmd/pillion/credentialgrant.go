package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"pillion/creds"
	"pillion/creds/token"
)

// grantWork is what a command does with the grant of one credential. Over the
// embedded store this process does it. Over Vault the refreshers do: the person who
// runs the command may write a grant, and need not be able to read one.
type grantWork struct {
	store      creds.Store
	credential *creds.Credential
	refresher  *token.Refresher // nil: ask others
	by         string
}

// journalDir is where answers of token endpoints lie that the store has not got yet.
func (c *config) journalDir() string { return filepath.Join(c.State, "journal") }

func (a *app) openGrant(ctx context.Context, name string) (*grantWork, error) {
	cfg, store, err := a.lookIntoStore()
	if err != nil {
		return nil, err
	}
	g := &grantWork{store: store, by: a.getenv("USER")}
	if cfg.vault != nil {
		g.credential, _, err = creds.LoadPublic(ctx, store, name)
	} else {
		g.credential, err = creds.LoadCredential(ctx, store, name)
	}
	if err != nil {
		return nil, noSuchCredential(name, err)
	}
	if cfg.vault != nil {
		return g, nil
	}
	keeper, err := a.keeper(cfg)
	if err != nil {
		return nil, err
	}
	table := creds.NewTable([]*creds.Credential{g.credential})
	g.refresher = &token.Refresher{
		HTTP: keeper.HTTP, Table: func() *creds.Table { return table }, Store: func(string) creds.Store { return store },
		Stores: []creds.Store{store}, Journal: cfg.journalDir(),
	}
	return g, nil
}

// do has op done, and returns the report of it.
func (g *grantWork) do(ctx context.Context, op token.Op) (token.Report, error) {
	if g.refresher != nil {
		return g.refresher.Do(ctx, g.credential, token.Ask{Op: op, By: g.by, At: time.Now()}), nil
	}
	id, err := token.AskFor(ctx, g.store, g.credential.Name, op, g.by)
	if err != nil {
		return token.Report{}, err
	}
	return g.answer(ctx, id)
}

// exchange hands a code over, and returns what came of it.
func (g *grantWork) exchange(ctx context.Context, consent token.Consent) (token.Report, error) {
	consent.By = g.by
	id, err := token.PutConsent(ctx, g.store, g.credential.Name, consent)
	if err != nil {
		return token.Report{}, err
	}
	if g.refresher != nil {
		return g.refresher.Do(ctx, g.credential, token.Ask{ID: id, Op: token.OpExchange, By: g.by, At: time.Now()}), nil
	}
	return g.answer(ctx, id)
}

const (
	// answerWait bounds the wait for a refresher: one looks every 2 s, and a token
	// request takes 15 s at most.
	answerWait = 45 * time.Second
	answerPoll = 500 * time.Millisecond
)

// answer waits for what a refresher says.
func (g *grantWork) answer(ctx context.Context, id string) (token.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	tick := time.NewTicker(answerPoll)
	defer tick.Stop()
	for {
		report, ok, err := token.Answer(ctx, g.store, g.credential.Name, id)
		if errors.Is(err, creds.ErrStoreDenied) {
			return report, errAnswerDenied
		}
		if ok || err != nil && ctx.Err() == nil {
			return report, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return token.Report{}, fmt.Errorf("no refresher has answered within %v: %w", answerWait, errNoRefresher)
		}
	}
}

var (
	errNoRefresher  = errors.New("see that one runs over this store (refresher.enabled: true), and what its log says")
	errAnswerDenied = errors.New("the refreshers were asked, but this login may not read what they answer, as a sidecar's may not: " +
		"run this where a refresher runs, or with a login of your own (vault login, or VAULT_TOKEN); a refresher's log tells the outcome as well")
)

// told prints a report, and makes an error of a bad one.
func (a *app) told(report token.Report, err error) error {
	for _, line := range report.Lines {
		fmt.Fprintln(a.stdout, line)
	}
	if err == nil && !report.OK {
		err = errors.New("that did not work: the reason stands above")
	}
	return err
}
