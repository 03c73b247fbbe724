package creds

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Live keeps a Table in step with a Store. Whoever learns that the store changed
// (a file watch, a poll, a signal) calls Reload; requests call Table. The zero
// value but for Store works; a Live must not be copied.
type Live struct {
	Store Store
	// Names are the credentials to use; if empty, all. Others are never read.
	Names []string
	// WithoutGrants leaves client secrets unread, for a sidecar that may not
	// read grants/ and gets its tokens from refreshers.
	WithoutGrants bool
	// OnChange, if not nil, is called after a Reload that changed the table, by
	// one goroutine at a time, when Table already returns the new one.
	// Credentials that did not change are the same pointers in both.
	OnChange func(old, new *Table)
	// Now is the clock of LastSuccess. If nil, time.Now.
	Now func() time.Time

	state   atomic.Pointer[liveState]
	started atomic.Uint64 // Reloads begun
	gate    gate          // held by the one Reload that runs; guards what follows
	ended   uint64        // the number, in started, of the last Reload that ended
	lastErr error         // its result
	cache   map[string]cached
}

// liveState is what readers see, swapped as a whole.
type liveState struct {
	table   *Table
	bad     []BadRecord
	err     error
	loaded  bool
	success time.Time
}

// cached is a good credential and the index revision that it was read at.
type cached struct {
	credential *Credential
	revision   string // "" when the index did not have it: read again every time
}

var emptyState = &liveState{table: NewTable(nil)}

func (l *Live) now() *liveState {
	if s := l.state.Load(); s != nil {
		return s
	}
	return emptyState
}

// Table returns the table of the last successful Reload, an empty one before
// the first. It never blocks.
func (l *Live) Table() *Table { return l.now().table }

// Bad returns the stored credentials that were skipped because they cannot be
// used, sorted by name.
func (l *Live) Bad() []BadRecord { return l.now().bad }

// Err returns the error of the last Reload, or nil.
func (l *Live) Err() error { return l.now().err }

// Loaded reports whether any Reload was successful.
func (l *Live) Loaded() bool { return l.now().loaded }

// LastSuccess returns when the last successful Reload ended.
func (l *Live) LastSuccess() time.Time { return l.now().success }

// Reload reads what changed in the store and swaps the table. On an error the
// old table stays. A record that cannot be used is skipped and shown by Bad; it
// is no error.
//
// One Reload runs at a time. Callers that come meanwhile wait and share the next
// one, since the running one may have read before what they heard of.
func (l *Live) Reload(ctx context.Context) error {
	before := l.started.Load()
	if err := l.gate.enter(ctx); err != nil {
		return err
	}
	defer l.gate.leave()
	if l.ended > before && !interrupted(l.lastErr) {
		return l.lastErr // begun after we came, ended while we waited
	}
	number := l.started.Add(1)
	err := l.reload(ctx)
	l.ended, l.lastErr = number, err
	return err
}

// interrupted is the end of somebody else's context, which is no answer to us.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func (l *Live) reload(ctx context.Context) error {
	previous := l.now()
	next := *previous
	cache, bad, err := l.read(ctx)
	if err != nil {
		next.err = fmt.Errorf("reading the credentials: %w", err)
		l.state.Store(&next)
		return next.err
	}
	changed := !previous.loaded || !l.sameCredentials(cache)
	if changed {
		next.table = tableOf(cache)
	}
	l.cache = cache
	next.bad, next.err, next.loaded, next.success = bad, nil, true, l.clock()
	l.state.Store(&next)
	if changed && l.OnChange != nil {
		l.OnChange(previous.table, next.table)
	}
	return nil
}

// read returns all good credentials, those that did not change from the cache.
//
// The index is read first: what is written after it changes it again, so nothing
// is missed for long. The list is read every time, which finds credentials that
// never reached the index. For a store that is polled over a network, reading
// the index alone, and the list in the sweep that repairs it, is enough.
func (l *Live) read(ctx context.Context) (cache map[string]cached, bad []BadRecord, err error) {
	revisions, _, err := readIndex(ctx, l.Store)
	var broken *badIndexError
	if err != nil && !errors.As(err, &broken) { // without an index everything is read
		return nil, nil, err
	}
	names, listed := sortedSet(l.Names), len(l.Names) > 0
	if !listed {
		if names, err = listNames(ctx, l.Store); err != nil {
			return nil, nil, err
		}
	}
	cache = make(map[string]cached, len(names))
	for _, name := range names {
		revision := revisions[name]
		if old, ok := l.cache[name]; ok && revision != "" && old.revision == revision {
			cache[name] = old
			continue
		}
		c, err := load(ctx, l.Store, name, !l.WithoutGrants)
		var broken *BadRecord
		switch {
		case err == nil:
			cache[name] = cached{l.unlessSame(c), revision}
		case errors.As(err, &broken):
			bad = append(bad, *broken)
		case errors.Is(err, ErrNotFound):
			if listed {
				bad = append(bad, BadRecord{name, "is asked for by the configuration, but there is none of that name"})
			}
		default:
			return nil, nil, err
		}
	}
	return cache, bad, nil
}

// unlessSame returns the cached pointer when the record was read again without
// having changed, so that what others hold by that pointer (tokens) stays.
func (l *Live) unlessSame(c *Credential) *Credential {
	if old, ok := l.cache[c.Name]; ok && old.credential.equal(c) {
		return old.credential
	}
	return c
}

func (l *Live) sameCredentials(cache map[string]cached) bool {
	if len(cache) != len(l.cache) {
		return false
	}
	for name, c := range cache {
		if l.cache[name].credential != c.credential {
			return false
		}
	}
	return true
}

func (l *Live) clock() time.Time {
	if l.Now != nil {
		return l.Now()
	}
	return time.Now()
}

func tableOf(cache map[string]cached) *Table {
	credentials := make([]*Credential, 0, len(cache))
	for _, c := range cache {
		credentials = append(credentials, c.credential)
	}
	return NewTable(credentials)
}
