package main

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/url"
	"strings"
	"sync"
	"time"

	"pillion/creds"
	"pillion/creds/console"
	"pillion/creds/vaultstore"
)

// vaultLogin lets in who can log in at Vault, and has everybody act with a token of
// his own: what he may do is for Vault's policies to say.
type vaultLogin struct {
	client   *vaultstore.Client // lends its connections, and never its login
	prefixes []string
	userpass string // where the method is mounted that knows people's passwords; off: there is none

	mu     sync.Mutex
	people map[string]*personalParts // by the token's fingerprint
}

var _ console.Login = (*vaultLogin)(nil)

// personalParts are kept between requests, for what they know of the mount, of the
// clock, and of what was listed.
type personalParts struct {
	parts []console.Part
	token creds.Secret
	used  time.Time
}

const (
	// keptPeople and keptFor bound what is kept of people who are logged in.
	keptPeople = 200
	keptFor    = time.Hour
)

// Ways are a user name with its password, and a token.
func (l *vaultLogin) Ways() []console.Way {
	if l.userpass == off {
		return []console.Way{console.WayToken}
	}
	return []console.Way{console.WayPassword, console.WayToken}
}

// LogIn asks Vault.
func (l *vaultLogin) LogIn(ctx context.Context, way console.Way, form url.Values) (console.Person, error) {
	ctx, cancel := context.WithTimeout(ctx, loginPatience)
	defer cancel()
	var p vaultstore.Person
	var err error
	if way == console.WayPassword {
		p, err = l.client.LogInWithPassword(ctx, l.userpass, strings.TrimSpace(form.Get("username")), creds.NewSecret(form.Get("password")))
	} else {
		token := creds.NewSecret(strings.TrimSpace(form.Get("token")))
		if token.IsZero() {
			return console.Person{}, &console.BadLogin{Problem: "enter a token"}
		}
		p, err = l.client.LookUp(ctx, token)
	}
	return personOf(p, way == console.WayPassword, err)
}

// personOf is who has logged in, or why nobody has.
func personOf(p vaultstore.Person, own bool, err error) (console.Person, error) {
	if err != nil {
		return console.Person{}, loginError(err)
	}
	return console.Person{Who: cmp.Or(p.Name, "somebody"), Token: p.Token, Expires: p.Expires, Own: own}, nil
}

// loginError tells a login that was refused from a Vault that is away.
func loginError(err error) error {
	if known, ok := errors.AsType[*vaultstore.Error](err); ok && known.Kind == vaultstore.BadLogin {
		return &console.BadLogin{Problem: known.Problem}
	}
	return err
}

// Parts returns the person's own.
func (l *vaultLogin) Parts(p console.Person) ([]console.Part, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, key := time.Now(), p.Token.Fingerprint()
	if known := l.people[key]; known != nil && known.token.Equal(p.Token) {
		known.used = now
		return known.parts, nil
	}
	as, err := l.client.As(p.Token)
	if err != nil {
		return nil, err
	}
	fresh := &personalParts{token: p.Token, used: now}
	for _, prefix := range l.prefixes {
		store := as.Store(prefix)
		fresh.parts = append(fresh.parts, console.Part{
			Name: prefix, Store: store, Listing: &creds.Listing{Store: store, Rights: as.Rights},
		})
	}
	if l.people == nil {
		l.people = map[string]*personalParts{}
	}
	l.dropOld(now)
	l.people[key] = fresh
	return fresh.parts, nil
}

// dropOld forgets people who have not come for long, and makes room for one more.
func (l *vaultLogin) dropOld(now time.Time) {
	maps.DeleteFunc(l.people, func(_ string, p *personalParts) bool { return now.Sub(p.used) > keptFor })
	for len(l.people) >= keptPeople {
		oldest := ""
		for key, one := range l.people {
			if oldest == "" || one.used.Before(l.people[oldest].used) {
				oldest = key
			}
		}
		delete(l.people, oldest)
	}
}

// Ended reports whether Vault does not take the person's token any more.
func (l *vaultLogin) Ended(err error) bool {
	known, ok := errors.AsType[*vaultstore.Error](err)
	return ok && (known.Kind == vaultstore.BadToken || known.Kind == vaultstore.BadLogin)
}

// LogOut ends a token that was made for the session, so that a copy of its cookie is
// worth nothing in any replica. One that the person brought is his.
func (l *vaultLogin) LogOut(ctx context.Context, p console.Person) {
	l.mu.Lock()
	delete(l.people, p.Token.Fingerprint())
	l.mu.Unlock()
	if p.Own {
		_ = l.client.Revoke(ctx, p.Token) // it ends by itself otherwise
	}
}
