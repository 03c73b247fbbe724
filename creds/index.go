package creds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// indexRecord is the JSON of the key index. A revision is the version of
// credentials/NAME, a dot, and a nonce of the write: versions start again when
// a credential is removed and created anew, and must not look unchanged then.
// Swept is when the last sweep began, by the store's clock: it stands here because
// every poller reads this record anyway.
//
//	{"schema":"1.0", "revisions": {"jira": "3.9f2c41d0a1b2c3d4"}, "swept": "2025-01-31T12:00:00Z"}
type indexRecord struct {
	Schema    string            `json:"schema"`
	Revisions map[string]string `json:"revisions"`
	Swept     time.Time         `json:"swept,omitzero"`
}

// indexTries bounds the merging of the index. Every conflict means that another
// writer got ahead, so this many are never met by honest traffic.
const indexTries = 100

// badIndexError says that the index cannot be read. Nothing is lost by it: it
// only saves reading, and is written anew.
type badIndexError struct{ problem error }

func (e *badIndexError) Error() string { return "the record index " + e.problem.Error() }
func (e *badIndexError) Unwrap() error { return e.problem }

// readIndex returns the index; an empty one when there is none yet, and an empty
// one with its version beside a *badIndexError.
func readIndex(ctx context.Context, store Store) (index indexRecord, version int, err error) {
	empty := indexRecord{Revisions: map[string]string{}}
	stored, err := store.Get(ctx, KeyIndex)
	switch {
	case errors.Is(err, ErrNotFound):
		return empty, 0, nil
	case err != nil:
		return empty, 0, err
	}
	if err := decodeRecord(stored.Data, &index); err != nil {
		return empty, stored.Version, &badIndexError{err}
	}
	if index.Revisions == nil {
		index.Revisions = map[string]string{}
	}
	return index, stored.Version, nil
}

// mergeIndex applies change to the index by check-and-set, and again when
// another writer got ahead.
func mergeIndex(ctx context.Context, store Store, change func(*indexRecord) error) error {
	for range indexTries {
		index, version, err := readIndex(ctx, store)
		var broken *badIndexError
		if err != nil && !(errors.As(err, &broken) && !errors.Is(err, errNewer)) {
			return err
		}
		before, swept := maps.Clone(index.Revisions), index.Swept
		if err := change(&index); err != nil {
			return err
		}
		if maps.Equal(before, index.Revisions) && swept.Equal(index.Swept) {
			return nil
		}
		index.Schema = currentSchema
		_, err = store.CAS(ctx, KeyIndex, encode(index), version)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("merging the index: %w", ErrConflict)
}

func announce(ctx context.Context, store Store, name string, version int) error {
	revision := newRevision(version)
	return mergeIndex(ctx, store, func(index *indexRecord) error {
		index.Revisions[name] = revision
		return nil
	})
}

func forget(ctx context.Context, store Store, name string) error {
	return mergeIndex(ctx, store, func(index *indexRecord) error {
		delete(index.Revisions, name)
		return nil
	})
}

func newRevision(version int) string { return strconv.Itoa(version) + "." + newSecretID() }

// RepairIndex brings the index in step with the credentials that are there:
// after a crash between a credential's write and the index's, and after edits
// by other tools. It reads every credentials/ record, so run it now and then
// only. It returns the names whose entries it changed, sorted.
func RepairIndex(ctx context.Context, store Store) (repaired []string, err error) {
	return repairIndex(ctx, store, time.Time{})
}

// repairIndex is RepairIndex that notes when it was begun, unless that is zero.
func repairIndex(ctx context.Context, store Store, begun time.Time) (repaired []string, err error) {
	err = mergeIndex(ctx, store, func(index *indexRecord) error {
		// Read after the index: whatever is written from here on changes the
		// index afterwards, and so either makes our write conflict or undoes it.
		versions, err := storedVersions(ctx, store)
		if err != nil {
			return err
		}
		repaired = repairRevisions(index.Revisions, versions)
		if !begun.IsZero() {
			index.Swept = begun.UTC().Round(0)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("repairing the index: %w", err)
	}
	return repaired, nil
}

func repairRevisions(revisions map[string]string, versions map[string]int) (repaired []string) {
	for _, name := range sortedKeys(versions) {
		if version, _, _ := strings.Cut(revisions[name], "."); version != strconv.Itoa(versions[name]) {
			revisions[name] = newRevision(versions[name])
			repaired = append(repaired, name)
		}
	}
	for _, name := range sortedKeys(revisions) {
		if _, ok := versions[name]; !ok {
			delete(revisions, name)
			repaired = append(repaired, name)
		}
	}
	slices.Sort(repaired)
	return repaired
}

func storedVersions(ctx context.Context, store Store) (map[string]int, error) {
	names, err := listNames(ctx, store)
	if err != nil {
		return nil, err
	}
	versions := map[string]int{}
	for _, name := range names {
		stored, err := store.Get(ctx, KeyCredentials+name)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		versions[name] = stored.Version
	}
	return versions, nil
}
