package creds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// indexRecord is the JSON of the key index. A revision is the version of
// credentials/NAME, a dot, and a nonce of the write: versions start again when
// a credential is removed and created anew, and must not look unchanged then.
//
//	{"schema":"1.0", "revisions": {"jira": "3.9f2c41d0a1b2c3d4"}}
type indexRecord struct {
	Schema    string            `json:"schema"`
	Revisions map[string]string `json:"revisions"`
}

// indexTries bounds the merging of the index. Every conflict means that another
// writer got ahead, so this many are never met by honest traffic.
const indexTries = 100

// badIndexError says that the index cannot be read. Nothing is lost by it: it
// only saves reading, and is written anew.
type badIndexError struct{ problem error }

func (e *badIndexError) Error() string { return "the record index " + e.problem.Error() }
func (e *badIndexError) Unwrap() error { return e.problem }

// readIndex returns the revisions; none when there is no index yet, and none
// with its version beside a *badIndexError.
func readIndex(ctx context.Context, store Store) (revisions map[string]string, version int, err error) {
	stored, err := store.Get(ctx, KeyIndex)
	switch {
	case errors.Is(err, ErrNotFound):
		return map[string]string{}, 0, nil
	case err != nil:
		return nil, 0, err
	}
	var index indexRecord
	if err := decodeRecord(stored.Data, &index); err != nil {
		return map[string]string{}, stored.Version, &badIndexError{err}
	}
	if index.Revisions == nil {
		index.Revisions = map[string]string{}
	}
	return index.Revisions, stored.Version, nil
}

// mergeIndex applies change to the index by check-and-set, and again when
// another writer got ahead.
func mergeIndex(ctx context.Context, store Store, change func(revisions map[string]string) error) error {
	for range indexTries {
		revisions, version, err := readIndex(ctx, store)
		var broken *badIndexError
		if err != nil && !(errors.As(err, &broken) && !errors.Is(err, errNewer)) {
			return err
		}
		before := maps.Clone(revisions)
		if err := change(revisions); err != nil {
			return err
		}
		if maps.Equal(before, revisions) {
			return nil
		}
		_, err = store.CAS(ctx, KeyIndex, encode(indexRecord{currentSchema, revisions}), version)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("merging the index: %w", ErrConflict)
}

func announce(ctx context.Context, store Store, name string, version int) error {
	revision := newRevision(version)
	return mergeIndex(ctx, store, func(revisions map[string]string) error {
		revisions[name] = revision
		return nil
	})
}

func forget(ctx context.Context, store Store, name string) error {
	return mergeIndex(ctx, store, func(revisions map[string]string) error {
		delete(revisions, name)
		return nil
	})
}

func newRevision(version int) string { return strconv.Itoa(version) + "." + newSecretID() }

// RepairIndex brings the index in step with the credentials that are there:
// after a crash between a credential's write and the index's, and after edits
// by other tools. It reads every credentials/ record, so run it now and then
// only. It returns the names whose entries it changed, sorted.
func RepairIndex(ctx context.Context, store Store) (repaired []string, err error) {
	err = mergeIndex(ctx, store, func(revisions map[string]string) error {
		// Read after the index: whatever is written from here on changes the
		// index afterwards, and so either makes our write conflict or undoes it.
		versions, err := storedVersions(ctx, store)
		if err != nil {
			return err
		}
		repaired = repairRevisions(revisions, versions)
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
