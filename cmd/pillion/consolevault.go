package main

import (
	"context"
	"errors"
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
	client *vaultstore.Client // lends its connections, and never its login
	prefix string

	mu     sync.Mutex
	stores map[string]*personalStore // by the token's fingerprint
}

var _ console.Login = (*vaultLogin)(nil)

// personalStore is kept between requests, for what it knows of its mount and clock.
type personalStore struct {
	store creds.Store
	token creds.Secret
	used  time.Time
}

const (
	// userpassPath is where people's passwords are known.
	userpassPath = "userpass"
	// keptStores bounds the stores of people who are logged in.
	keptStores = 500
)

// Ways are a user name with its password, and a token.
func (l *vaultLogin) Ways() []console.Way {
	return []console.Way{console.WayPassword, console.WayToken}
}

// LogIn asks Vault.
func (l *vaultLogin) LogIn(ctx context.Context, way console.Way, form url.Values) (console.Person, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var p vaultstore.Person
	var err error
	if way == console.WayPassword {
		p, err = l.client.LogInWithPassword(ctx, userpassPath, strings.TrimSpace(form.Get("username")), creds.NewSecret(form.Get("password")))
	} else {
		token := creds.NewSecret(strings.TrimSpace(form.Get("token")))
		if token.IsZero() {
			return console.Person{}, &console.BadLogin{Problem: "enter a token"}
		}
		p, err = l.client.LookUp(ctx, token)
	}
	if known, ok := errors.AsType[*vaultstore.Error](err); ok && known.Kind == vaultstore.BadLogin {
		return console.Person{}, &console.BadLogin{Problem: known.Problem}
	}
	if err != nil {
		return console.Person{}, err
	}
	if p.Name == "" {
		p.Name = "somebody"
	}
	return console.Person{Who: p.Name, Token: p.Token, Expires: p.Expires, Own: way == console.WayPassword}, nil
}

// Store returns the person's own.
func (l *vaultLogin) Store(p console.Person) (creds.Store, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := p.Token.Fingerprint()
	if known := l.stores[key]; known != nil && known.token.Equal(p.Token) {
		known.used = time.Now()
		return known.store, nil
	}
	as, err := l.client.As(p.Token)
	if err != nil {
		return nil, err
	}
	if l.stores == nil {
		l.stores = map[string]*personalStore{}
	}
	for len(l.stores) >= keptStores {
		l.dropOldest()
	}
	fresh := &personalStore{as.Store(l.prefix), p.Token, time.Now()}
	l.stores[key] = fresh
	return fresh.store, nil
}

func (l *vaultLogin) dropOldest() {
	oldest := ""
	for key, one := range l.stores {
		if oldest == "" || one.used.Before(l.stores[oldest].used) {
			oldest = key
		}
	}
	delete(l.stores, oldest)
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
	delete(l.stores, p.Token.Fingerprint())
	l.mu.Unlock()
	if p.Own {
		_ = l.client.Revoke(ctx, p.Token) // it ends by itself otherwise
	}
}
