package creds

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Listed is what may be seen of a store's credentials.
type Listed struct {
	Credentials []*Credential // sorted by name, without their secrets
	Bad         []BadRecord   // that cannot be read
	Hidden      int           // that the store does not show to whoever asks
}

// ListPublic is LoadPublic for all credentials.
func ListPublic(ctx context.Context, store Store) (Listed, error) {
	return (&Listing{Store: store}).Read(ctx)
}

// Listing is ListPublic for one who asks again and again: it reads what is new by
// the index, and keeps the rest. It is safe for concurrent use.
//
//	the first time   the index, a list, and one read a credential, some at a time
//	later            the index, a list, one call of Rights, and what changed
//
// It is for one login: what was kept is shown only while that may read what it might
// when it was read.
type Listing struct {
	Store Store
	// Rights returns a digest of what whoever asks may read: another one, or an error,
	// has everything read anew. If nil, nothing is kept.
	Rights func(context.Context) (string, error)
	// Now is the clock. If nil, time.Now.
	Now func() time.Time

	mu   sync.Mutex
	last reading
}

// reading is what a Read has brought.
type reading struct {
	kept   map[string]public // by name
	rights string            // that it was read with; "" if they are not known
	since  time.Time         // when everything was read
}

// keptListing bounds what a change of rights costs that Rights does not tell of.
const keptListing = 5 * time.Minute

// public is what reading a credential brought, when the index had that revision.
type public struct {
	revision   string
	credential *Credential
	bad        *BadRecord
	hidden     bool
}

// readersAtOnce keeps a long list from being a long wait, and a store from a rush.
const readersAtOnce = 16

// Read returns what may be seen now. What another tool wrote past the index is seen
// after the next sweep.
func (l *Listing) Read(ctx context.Context) (Listed, error) {
	// Read first: what is written from here on changes it, and is read the next time.
	index, _, err := readIndex(ctx, l.Store)
	var broken *badIndexError
	if err != nil && !errors.As(err, &broken) && !errors.Is(err, ErrStoreDenied) { // without an index there is more to read
		return Listed{}, fmt.Errorf("listing credentials: %w", err)
	}
	names, err := listNames(ctx, l.Store)
	if err != nil {
		return Listed{}, fmt.Errorf("listing credentials: %w", err)
	}
	now := l.unchanged(ctx, names, index.Revisions)
	if err := l.readRest(ctx, names, index.Revisions, now.kept); err != nil {
		return Listed{}, fmt.Errorf("listing credentials: %w", err)
	}
	l.mu.Lock()
	l.last = now
	l.mu.Unlock()
	listed := Listed{}
	for _, name := range names {
		switch one, there := now.kept[name]; {
		case !there: // it went since the listing
		case one.hidden:
			listed.Hidden++
		case one.bad != nil:
			listed.Bad = append(listed.Bad, *one.bad)
		default:
			listed.Credentials = append(listed.Credentials, one.credential)
		}
	}
	return listed, nil
}

// unchanged returns what was kept and holds still: neither the index nor the rights
// have changed. The rights are asked for before anything is read by them.
func (l *Listing) unchanged(ctx context.Context, names []string, revisions map[string]string) reading {
	next := reading{kept: map[string]public{}, since: l.now()}
	if l.Rights == nil {
		return next
	}
	var err error
	if next.rights, err = l.Rights(ctx); err != nil {
		next.rights = ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if next.rights == "" || next.rights != l.last.rights || next.since.Sub(l.last.since) > keptListing {
		return next
	}
	next.since = l.last.since
	for _, name := range names {
		if one, ok := l.last.kept[name]; ok && one.revision != "" && one.revision == revisions[name] {
			next.kept[name] = one
		}
	}
	return next
}

func (l *Listing) now() time.Time {
	if l.Now == nil {
		return time.Now()
	}
	return l.Now()
}

// readRest reads what now does not have yet.
func (l *Listing) readRest(ctx context.Context, names []string, revisions map[string]string, now map[string]public) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var missing []string
	for _, name := range names {
		if _, ok := now[name]; !ok {
			missing = append(missing, name)
		}
	}
	var mu sync.Mutex // of now
	InParallel(missing, func(name string) {
		if ctx.Err() != nil {
			return
		}
		one := public{revision: revisions[name]}
		var err error
		one.credential, _, err = LoadPublic(ctx, l.Store, name)
		switch {
		case errors.As(err, &one.bad), err == nil:
		case errors.Is(err, ErrNotFound):
			return
		case errors.Is(err, ErrStoreDenied):
			one.hidden = true
		default:
			cancel(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		now[name] = one
	})
	return context.Cause(ctx)
}

// InParallel calls do for every item, for several at a time, and returns when all
// calls have.
func InParallel[T any](items []T, do func(T)) {
	var work sync.WaitGroup
	turn := make(chan struct{}, readersAtOnce)
	for _, item := range items {
		turn <- struct{}{}
		work.Go(func() {
			defer func() { <-turn }()
			do(item)
		})
	}
	work.Wait()
}
