package creds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// part is what one store of a Live holds, by name.
type part map[string]cached

// cached is what a record was found to be, and the index revision that it was
// read at: a credential, or why there is none.
type cached struct {
	credential *Credential
	problem    string
	missing    bool      // the configuration names it, and there is none
	revision   string    // "" when the index did not have it
	asked      time.Time // when the store last refused to show it
	denied     time.Time // since when it refuses
}

// depth is how much of a store is read.
type depth int

const (
	// readAll lists the store, which finds credentials that never reached the
	// index, and reads again what was bad.
	readAll depth = iota
	// readChanged believes the index.
	readChanged
	// readVersions lists the store and looks at the version of every credential:
	// what a sweep does, for who may not write the index.
	readVersions
)

// deniedPause is how long a record that the store refuses is left alone: a role
// that may read five of a hundred credentials must not ask for the others every
// minute.
const deniedPause = 10 * time.Minute

// errEmptied is a store whose index is gone with all that it named. Pillion's own
// removals leave an index, so the store was emptied, or replaced, from outside.
var errEmptied = fmt.Errorf("%w (%w): the index and every credential that it named are gone; if that is meant, restart, else restore them", ErrStoreUnavailable, ErrStoreDenied)

// read returns what all stores hold, and when the one that was not swept for
// longest was.
func (l *Live) read(ctx context.Context, depth depth) (parts []part, swept time.Time, err error) {
	for i, store := range append([]Store{l.Store}, l.More...) {
		var old part
		if i < len(l.parts) {
			old = l.parts[i]
		}
		found, at, err := l.readPart(ctx, store, old, depth)
		if err != nil {
			return nil, time.Time{}, err
		}
		parts = append(parts, found)
		if i == 0 || at.Before(swept) {
			swept = at
		}
	}
	return parts, swept, nil
}

// readPart returns what store holds, what did not change from old, and when the
// store was swept last.
//
// The index is read first: what is written after it changes it again, so nothing
// is missed for long.
func (l *Live) readPart(ctx context.Context, store Store, old part, depth depth) (part, time.Time, error) {
	index, version, err := readIndex(ctx, store)
	var broken *badIndexError
	switch {
	case errors.As(err, &broken):
		depth = readAll // an index that cannot be read only saves reading
	case err != nil:
		return nil, time.Time{}, err
	}
	swept, sweptErr := l.sweptAt(ctx, store, index)
	if sweptErr != nil {
		return nil, time.Time{}, sweptErr
	}
	lost := err == nil && version == 0 && old.indexed()
	if lost {
		depth = readAll
	}
	found, err := l.readNames(ctx, store, index.Revisions, old, depth)
	if err == nil && lost && l.MaxDenied > 0 && !found.hasCredentials() && old.hasCredentials() {
		err = errEmptied
	}
	return found, swept, err
}

// sweptAt is when store was swept last, by our own clock; zero when nobody has, as
// far as the index tells.
func (l *Live) sweptAt(ctx context.Context, store Store, index indexRecord) (time.Time, error) {
	if index.Swept.IsZero() {
		return time.Time{}, nil
	}
	now, err := store.Now(ctx)
	if err != nil {
		return time.Time{}, err
	}
	age := now.Sub(index.Swept)
	if age < -time.Minute { // by no clock of the store: as if there were none
		return time.Time{}, nil
	}
	return l.clock().Add(-max(0, age)), nil
}

// readNames returns the credentials of store by what the index says of them.
func (l *Live) readNames(ctx context.Context, store Store, revisions map[string]string, old part, depth depth) (part, error) {
	names, err := l.namesOf(ctx, store, revisions, old, depth)
	if err != nil {
		return nil, err
	}
	found := part{}
	for _, name := range names {
		revision := revisions[name]
		known, ok := old[name]
		if ok && l.unchanged(known, revision, depth) {
			found[name] = known
			continue
		}
		if ok && depth == readVersions {
			same, err := sameVersion(ctx, store, name, known)
			if err != nil {
				return nil, err
			}
			if same {
				known.revision = revision
				found[name] = known
				continue
			}
		}
		now, exists, err := l.readOne(ctx, store, name, known)
		if err != nil {
			return nil, err
		}
		if exists {
			now.revision = revision
			found[name] = now
		}
	}
	return found, nil
}

// namesOf returns the names to look at, sorted.
func (l *Live) namesOf(ctx context.Context, store Store, revisions map[string]string, old part, depth depth) ([]string, error) {
	switch {
	case len(l.Names) > 0:
		return sortedSet(l.Names), nil
	case depth != readChanged:
		return listNames(ctx, store)
	}
	return sortedSet(append(sortedKeys(revisions), sortedKeys(old)...)), nil
}

// unchanged reports whether a record need not be read again.
func (l *Live) unchanged(known cached, revision string, depth depth) bool {
	switch {
	case !known.denied.IsZero():
		return depth == readChanged && known.credential == nil && known.revision == revision && l.clock().Sub(known.asked) < deniedPause
	case depth == readChanged:
		return known.revision == revision // both may be "": the sweep brings it into the index
	case depth == readVersions:
		return false
	}
	return known.credential != nil && revision != "" && known.revision == revision
}

// sameVersion reports whether a credential is still the one that was read. What
// was bad, or cannot be looked at, is read again.
func sameVersion(ctx context.Context, store Store, name string, known cached) (bool, error) {
	if known.credential == nil || !known.denied.IsZero() {
		return false, nil
	}
	stored, err := store.Get(ctx, KeyCredentials+name)
	switch {
	case err == nil:
		return stored.Version == known.credential.Version, nil
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrStoreDenied):
		return false, nil
	}
	return false, err
}

// readOne reads a credential. What cannot be used is no error: it is cached with
// its problem. A credential that the store refuses to show serves on for
// MaxDenied.
func (l *Live) readOne(ctx context.Context, store Store, name string, known cached) (now cached, exists bool, err error) {
	c, err := load(ctx, store, name, !l.WithoutGrants)
	var broken *BadRecord
	switch {
	case err == nil:
		if known.credential != nil && known.credential.equal(c) {
			c = known.credential // what others hold by that pointer (tokens) stays
		}
		return cached{credential: c}, true, nil
	case errors.As(err, &broken):
		return cached{problem: broken.Problem}, true, nil
	case errors.Is(err, ErrNotFound) && len(l.Names) > 0:
		return cached{problem: "is asked for by the configuration, but there is none of that name", missing: true}, true, nil
	case errors.Is(err, ErrNotFound):
		return cached{}, false, nil
	case errors.Is(err, ErrStoreDenied):
		return l.refused(known, err), true, nil
	}
	return cached{}, false, err
}

func (l *Live) refused(known cached, err error) cached {
	clock := l.clock()
	since := known.denied
	if since.IsZero() {
		since = clock
	}
	now := cached{asked: clock, denied: since, problem: "is not used: " + err.Error()}
	if known.credential != nil && clock.Sub(since) < l.MaxDenied {
		now.credential = known.credential // and it is read again at every poll
	}
	return now
}

// indexed reports whether the index named any of them.
func (p part) indexed() bool {
	for _, c := range p {
		if c.revision != "" {
			return true
		}
	}
	return false
}

func (p part) hasCredentials() bool {
	for _, c := range p {
		if c.credential != nil {
			return true
		}
	}
	return false
}

// usable returns the credentials of all parts, and what is skipped, sorted.
func usable(parts []part) (credentials []*Credential, bad []BadRecord) {
	from, missing := map[string]bool{}, map[string]string{}
	for _, p := range parts {
		for _, name := range sortedKeys(p) {
			switch c := p[name]; {
			case c.missing:
				missing[name] = c.problem
			case c.credential == nil:
				bad = append(bad, BadRecord{name, c.problem})
			case from[name]:
				bad = append(bad, BadRecord{name, "has the name of one in an earlier part of the store, which is used: rename one of them"})
			default:
				from[name] = true
				credentials = append(credentials, c.credential)
			}
		}
	}
	for name, problem := range missing {
		known := from[name] || slices.ContainsFunc(bad, func(b BadRecord) bool { return b.Name == name })
		if !known {
			bad = append(bad, BadRecord{name, problem})
		}
	}
	slices.SortStableFunc(bad, func(a, b BadRecord) int { return strings.Compare(a.Name, b.Name) })
	return credentials, bad
}
