package creds

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A store over a network tells nobody of a change, so pollers believe the index.
// What did not reach it (an edit by another tool, a crash between a credential
// and the index) is brought in by a sweep, RepairIndex, which costs a read a
// credential. So that a fleet makes one sweep and not a thousand, the one who
// sweeps holds a lease:
//
//	sweep   {"schema":"1.0", "holder": RANDOM, "done": true}
//
// The lease's age is the store's time since that version was written, so no
// sweeper's clock matters. It is taken and marked done by check-and-set. That a
// sweep was made stands in the index as well, where pollers see it for nothing.
type sweepRecord struct {
	Schema string `json:"schema"`
	Holder string `json:"holder"`
	Done   bool   `json:"done"`
}

// sweepTime is how long a sweep that is not done keeps others waiting: its
// holder may have died.
const sweepTime = time.Minute

// sweep repairs the index and notes there when it began, unless the lease says that
// somebody has begun to within every: then done is false. A store that refuses
// (most roles may not write) is ErrStoreDenied.
func sweep(ctx context.Context, store Store, every time.Duration) (done, repaired bool, err error) {
	age, version, err := lastSweep(ctx, store)
	if err != nil {
		return false, false, fmt.Errorf("looking for the last sweep: %w", err)
	}
	if age < every {
		return false, false, nil
	}
	holder := newSecretID()
	version, err = store.CAS(ctx, KeySweep, encode(sweepRecord{currentSchema, holder, false}), version)
	if errors.Is(err, ErrConflict) {
		return false, false, nil // somebody else does it now
	}
	if err != nil {
		return false, false, fmt.Errorf("taking the sweep lease: %w", err)
	}
	begun, err := store.Now(ctx)
	if err != nil {
		return false, false, err
	}
	names, err := repairIndex(ctx, store, begun)
	if err != nil {
		return false, false, err
	}
	_, err = store.CAS(ctx, KeySweep, encode(sweepRecord{currentSchema, holder, true}), version)
	if err != nil && !errors.Is(err, ErrConflict) {
		return false, len(names) > 0, fmt.Errorf("ending the sweep lease: %w", err)
	}
	return true, len(names) > 0, nil
}

// never is an age above all others.
const never = time.Duration(1<<63 - 1)

// lastSweep returns the age of the last sweep, and the version of its record. A
// record that cannot be read counts as none.
func lastSweep(ctx context.Context, store Store) (age time.Duration, version int, err error) {
	stored, err := store.Get(ctx, KeySweep)
	if errors.Is(err, ErrNotFound) {
		return never, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	now, err := store.Now(ctx)
	if err != nil {
		return 0, 0, err
	}
	age = max(0, now.Sub(stored.Created))
	var record sweepRecord
	broken := decodeRecord(stored.Data, &record) != nil
	if broken || !record.Done && age > sweepTime {
		return never, stored.Version, nil
	}
	return age, stored.Version, nil
}
