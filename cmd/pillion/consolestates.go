package main

import (
	"context"
	"errors"
	"time"

	"pillion/creds"
	"pillion/creds/console"
	"pillion/creds/token"
)

// States says how tokens stand in this process, and by the store, where this process
// has not looked at them yet or does not use them.
func (g consoleGrants) States(ctx context.Context, at console.Part, list []*creds.Credential) []console.TokenState {
	states := make([]console.TokenState, len(list))
	var others []int
	for i, c := range list {
		if !hasToken(c) {
			continue
		}
		known := token.State{Status: token.StatusNone}
		if g.uses(at, c.Name) {
			known = g.d.stateOf(c.Name)
		}
		states[i] = tokenStateOnPage(known)
		if known.Status == token.StatusNone {
			others = append(others, i)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statesPatience)
	defer cancel()
	creds.InParallel(others, func(i int) {
		if g.d.vault != nil {
			states[i] = publishedOnPage(ctx, at, list[i])
		} else if stored, err := token.Stored(ctx, at.Store, list[i]); err == nil { // otherwise it is not known
			states[i] = tokenStateOnPage(stored)
		}
	})
	return states
}

// statesPatience bounds how long a page waits for states: the rest of it is as good
// without.
const statesPatience = 5 * time.Second

// publishedOnPage is what the refreshers tell people of a token.
func publishedOnPage(ctx context.Context, at console.Part, c *creds.Credential) console.TokenState {
	unknown := func(why string) console.TokenState {
		return console.TokenState{Condition: console.Unknown, Detail: why}
	}
	if c.Unshared {
		return unknown("each pillion has a token of its own (share: false)")
	}
	state, err := token.Published(ctx, at.Store, c)
	switch {
	case errors.Is(err, creds.ErrStoreDenied):
		return unknown("your login may not read how its token stands (states/)")
	case err != nil:
		return unknown(oneLine(err.Error()))
	}
	s := tokenStateOnPage(state)
	if s.Condition == console.Unknown {
		s.Condition, s.Detail = console.Idle, "nobody has used it lately: the first request fetches a token"
	}
	return s
}

// expiringSoon is how near the end of a token is worth a word: it should have been
// renewed by then.
const expiringSoon = time.Minute

func tokenStateOnPage(k token.State) console.TokenState {
	s := console.TokenState{Refreshed: k.Issued, Expires: k.Expires, GrantEnds: k.GrantEnds, Condition: console.Unknown}
	if k.LastError != nil {
		s.Detail = k.LastError.Error()
	}
	if k.Detail != "" {
		s.Detail = k.Detail
	}
	switch k.Status {
	case token.StatusOK:
		s.Condition = console.Good
		if !k.Expires.IsZero() && time.Until(k.Expires) < expiringSoon {
			s.Condition = console.Expiring
		}
		if note := grantNote(tokenState{GrantEnds: &k.GrantEnds}, time.Now()); !k.GrantEnds.IsZero() && note != "" {
			s.Condition, s.Detail = console.Ending, note
		}
	case token.StatusDegraded:
		s.Condition = console.Failing
	case token.StatusNeedsConsent:
		s.Condition = console.NeedsConsent
	case token.StatusConfigError:
		s.Condition = console.Wrong
	}
	return s
}
