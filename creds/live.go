package creds

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Live keeps a Table in step with a Store. Whoever learns that the store changed
// (a file watch, a signal, a write of this process) calls Reload; over a store
// that tells nobody, a Poller calls Poll. Requests call Table. The zero value but
// for Store works; a Live must not be copied.
type Live struct {
	Store Store
	// More are further stores whose credentials are used as well, such as the
	// part that several teams share. A name that an earlier one has is skipped.
	More []Store
	// Names are the credentials to use; if empty, all. Others are never read.
	Names []string
	// WithoutGrants leaves client secrets unread, for a sidecar that may not
	// read grants/ and gets its tokens from refreshers.
	WithoutGrants bool
	// MaxStale is how long what was read last may be used while the store does
	// not answer, and MaxDenied while it refuses (ErrStoreDenied); StoreErr
	// judges. If zero, without limit.
	MaxStale, MaxDenied time.Duration
	// OnChange, if not nil, is called after a Reload that changed the table, by
	// one goroutine at a time, when Table already returns the new one.
	// Credentials that did not change are the same pointers in both.
	OnChange func(old, new *Table)
	// Now is the clock of all ages. If nil, time.Now.
	Now func() time.Time

	state   atomic.Pointer[liveState]
	started atomic.Uint64 // Reloads begun
	gate    gate          // held by the one Reload that runs; guards what follows
	ended   uint64        // the number, in started, of the last Reload that ended
	lastErr error         // its result
	parts   []part        // what each store holds
}

// liveState is what readers see, swapped as a whole.
type liveState struct {
	table   *Table
	parts   []part // never changed once it stands here
	bad     []BadRecord
	err     error
	loaded  bool
	success time.Time
	denied  time.Time // of the first refusal since success
	swept   time.Time // of the last sweep, of the store whose is oldest; zero: none
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

// StoreOf returns the store of that part which holds the credential called name,
// and so its grant and its tokens; nil if there is none of that name in use.
func (l *Live) StoreOf(name string) Store {
	for i, p := range l.now().parts {
		switch {
		case p[name].credential == nil:
		case i == 0:
			return l.Store
		default:
			return l.More[i-1]
		}
	}
	return nil
}

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
	err := l.update(ctx, readAll)
	l.ended, l.lastErr = number, err
	return err
}

// interrupted is the end of somebody else's context, which is no answer to us.
func interrupted(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Poll is Reload for a store that is asked again and again over a network: while
// nothing changes it costs one read of the index, however many credentials there
// are. What never reached the index it does not find; see Poller.
func (l *Live) Poll(ctx context.Context) error { return l.pass(ctx, readChanged) }

// Recheck is Reload that also finds what other tools changed behind the index's
// back. It costs a read a credential: a sweep, which one process makes for all,
// is better wherever the store lets somebody write the index.
func (l *Live) Recheck(ctx context.Context) error { return l.pass(ctx, readVersions) }

func (l *Live) pass(ctx context.Context, depth depth) error {
	if err := l.gate.enter(ctx); err != nil {
		return err
	}
	defer l.gate.leave()
	if len(l.parts) == 0 {
		depth = readAll
	}
	return l.update(ctx, depth)
}

// update reads all stores and swaps the table, or keeps everything and notes why.
func (l *Live) update(ctx context.Context, depth depth) error {
	previous := l.now()
	next := *previous
	parts, swept, err := l.read(ctx, depth)
	if err != nil {
		next.err = fmt.Errorf("reading the credentials: %w", err)
		if errors.Is(err, ErrStoreDenied) && next.denied.IsZero() {
			next.denied = l.clock()
		}
		if !errors.Is(ctx.Err(), context.Canceled) { // a caller that left says nothing of the store
			l.state.Store(&next)
		}
		return next.err
	}
	l.take(parts, liveState{loaded: true, success: l.clock(), swept: swept})
	return nil
}

// take makes parts what is used, with the rest of the new state as it is given.
func (l *Live) take(parts []part, next liveState) {
	previous := l.now()
	usable, bad := usable(parts)
	next.table, next.parts, next.bad = previous.table, parts, bad
	changed := !previous.loaded || !sameCredentials(previous.table, usable)
	if changed {
		next.table = NewTable(usable)
	}
	l.parts = parts
	l.state.Store(&next)
	if changed && l.OnChange != nil {
		l.OnChange(previous.table, next.table)
	}
}

func sameCredentials(table *Table, credentials []*Credential) bool {
	if table.Len() != len(credentials) {
		return false
	}
	for _, c := range credentials {
		if old, ok := table.ByName(c.Name); !ok || old != c {
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

// StoreErr says why no credential may be used: none was ever read, or what was
// read last is older than MaxStale or MaxDenied allow. Nil while they may be.
// The error is an ErrStoreUnavailable.
func (l *Live) StoreErr() error {
	s := l.now()
	if !s.loaded {
		if s.err == nil {
			return ErrStoreUnavailable
		}
		return unavailable(s.err)
	}
	if s.err == nil && l.MaxStale == 0 {
		return nil
	}
	now := l.clock()
	switch {
	case l.MaxDenied > 0 && !s.denied.IsZero() && now.Sub(s.denied) > l.MaxDenied:
		return fmt.Errorf("the store refuses since %s, longer than the %v that are allowed: %w", stamp(s.denied), l.MaxDenied, unavailable(s.err))
	case l.MaxStale > 0 && now.Sub(s.success) > l.MaxStale && s.err != nil:
		return fmt.Errorf("the credentials were last read at %s, longer ago than the %v that are allowed: %w", stamp(s.success), l.MaxStale, unavailable(s.err))
	case l.MaxStale > 0 && now.Sub(s.success) > l.MaxStale:
		return fmt.Errorf("the credentials were last read at %s, longer ago than the %v that are allowed: %w", stamp(s.success), l.MaxStale, ErrStoreUnavailable)
	}
	return nil
}

// ServesUntil returns when StoreErr will say that no credential may be used, if
// nothing more is read until then; a zero time: never, or nothing was read yet.
func (l *Live) ServesUntil() time.Time {
	s := l.now()
	if !s.loaded {
		return time.Time{}
	}
	var until time.Time
	if l.MaxStale > 0 {
		until = s.success.Add(l.MaxStale)
	}
	if !s.denied.IsZero() && l.MaxDenied > 0 {
		if denied := s.denied.Add(l.MaxDenied); until.IsZero() || denied.Before(until) {
			until = denied
		}
	}
	return until
}

// Stale returns since when older credentials serve, and why; a zero time while
// the store answers.
func (l *Live) Stale() (since time.Time, why error) {
	s := l.now()
	if s.err == nil {
		return time.Time{}, nil
	}
	return s.success, s.err
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func unavailable(err error) error {
	if errors.Is(err, ErrStoreUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrStoreUnavailable, err)
}
