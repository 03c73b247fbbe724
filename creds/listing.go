package creds

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
//	later            the index, a list, one call of Readable, and what changed
//
// It is for one login: what was kept is shown only if the store would show it now.
type Listing struct {
	Store Store
	// Readable returns those of the keys that the store would show to whoever asks. If
	// nil, or when it fails, everything is read anew.
	Readable func(ctx context.Context, keys []string) (map[string]bool, error)

	mu   sync.Mutex
	kept map[string]public // by name
}

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
	if err := l.readRest(ctx, names, index.Revisions, now); err != nil {
		return Listed{}, fmt.Errorf("listing credentials: %w", err)
	}
	l.mu.Lock()
	l.kept = now
	l.mu.Unlock()
	listed := Listed{}
	for _, name := range names {
		switch one, there := now[name]; {
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

// unchanged returns what was kept and holds still: the index has not changed, and
// the store shows it, or hides it, as it did.
func (l *Listing) unchanged(ctx context.Context, names []string, revisions map[string]string) map[string]public {
	still := map[string]public{}
	if l.Readable == nil {
		return still
	}
	l.mu.Lock()
	kept := l.kept
	l.mu.Unlock()
	var keys []string
	for _, name := range names {
		if one, ok := kept[name]; ok && one.revision != "" && one.revision == revisions[name] {
			keys = append(keys, KeyCredentials+name)
		}
	}
	if len(keys) == 0 {
		return still
	}
	shown, err := l.Readable(ctx, keys)
	if err != nil {
		return still
	}
	for _, key := range keys {
		name := key[len(KeyCredentials):]
		if one := kept[name]; one.hidden != shown[key] {
			still[name] = one
		}
	}
	return still
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
