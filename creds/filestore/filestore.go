// Package filestore keeps the records of pillion in one age-encrypted file, for
// one machine: several processes on it may share the file.
//
//	store, err := filestore.Open("/var/lib/pillion/store.age", "/var/lib/pillion/key.txt")
//	version, err := store.CAS(ctx, "credentials/jira", creds.NewSecret(`{"schema":"1.0"}`), 0)
//	record, err := store.Get(ctx, "credentials/jira")
//
// The first start makes the key file and an empty store. Both are in the formats
// of the stock age tool, so that a backup is two files and a look inside is
//
//	age -d -i key.txt store.age
//
// Beside them lies store.age.lock, and while somebody writes, .store.age.writing.
//
// What it does not do: it does not follow a network file system whose locks are
// not shared, it keeps no history, and it does not watch the file (Path is there
// for who does). Pillion only ever replaces the file by renaming. Who edits it by
// hand stops pillion first, since the lock cannot be taken from a shell, and
// since putting an older file back takes the versions back as well.
package filestore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"pillion/creds"
)

// Store is a creds.Store in one file. It is safe for concurrent use.
type Store struct {
	// Clock is the store's clock. If nil, time.Now. Processes that share the file
	// share the machine's clock as well, so it needs no other source. Set it
	// before first use.
	Clock func() time.Time

	path    string
	keyPath string
	extra   []age.Recipient
	turn    chan struct{} // held by the one goroutine that has, or waits for, the lock

	mu     sync.RWMutex
	cached *snapshot
}

var _ creds.Store = (*Store)(nil)

// Open opens the store at path with the identities in keyPath, and makes what is
// not there yet: the directory (0700), the key, an empty store. It never makes a
// key for a store that exists, and never replaces a file that it cannot read.
//
// The store is encrypted to every identity of the key file and to recipients
// ("age1...", for a recovery key kept elsewhere), from the next write on; all
// processes should be given the same ones, since each write names them anew.
func Open(path, keyPath string, recipients ...string) (*Store, error) {
	return open(path, keyPath, recipients, (*Store).prepare)
}

// ErrNoStore is what OpenExisting returns where nothing stands at the path.
var ErrNoStore = errors.New("there is no store yet")

// OpenExisting is Open for who only looks: it makes nothing, neither directory
// nor key nor store, and returns ErrNoStore where there is none.
func OpenExisting(path, keyPath string, recipients ...string) (*Store, error) {
	return open(path, keyPath, recipients, func(s *Store) error {
		if !exists(s.path) {
			return ErrNoStore
		}
		return checkDirectory(filepath.Dir(s.path))
	})
}

func open(path, keyPath string, recipients []string, prepare func(*Store) error) (*Store, error) {
	extra, err := parseRecipients(recipients)
	if err != nil {
		return nil, err
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, unavailable("finding the state directory: %w", err)
	}
	s := &Store{path: path, keyPath: keyPath, extra: extra, turn: make(chan struct{}, 1)}
	if err := prepare(s); err != nil {
		return nil, err
	}
	if _, err := s.current(); err != nil {
		return nil, err
	}
	return s, nil
}

// Path returns the store's file. It is replaced by renaming: watch its directory.
func (s *Store) Path() string { return s.path }

// Close lets go of the file that the store holds open for its cache.
func (s *Store) Close() error {
	s.keep(nil)
	return nil
}

// Get returns the record under key. With an unchanged file this costs one stat.
func (s *Store) Get(ctx context.Context, key string) (creds.Record, error) {
	if err := ctx.Err(); err != nil {
		return creds.Record{}, unavailable("reading %s: %w", key, err)
	}
	snap, err := s.current()
	if err != nil {
		return creds.Record{}, err
	}
	record, ok := snap.doc.records[key]
	if !ok {
		return creds.Record{}, fmt.Errorf("reading %s: %w", key, creds.ErrNotFound)
	}
	return record, nil
}

// List returns the keys that begin with prefix, sorted.
func (s *Store) List(ctx context.Context, prefix string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, unavailable("listing %s: %w", prefix, err)
	}
	snap, err := s.current()
	if err != nil {
		return nil, err
	}
	var keys []string
	for key := range snap.doc.records {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// Now returns the machine's time, without the monotonic reading, which Created
// does not have either.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, unavailable("reading the clock: %w", err)
	}
	return s.now(), nil
}

func (s *Store) now() time.Time {
	if s.Clock != nil {
		return s.Clock().UTC().Round(0)
	}
	return time.Now().UTC().Round(0)
}

// CAS writes data if the record still has that version.
func (s *Store) CAS(ctx context.Context, key string, data creds.Secret, version int) (int, error) {
	text, err := object(key, data.Reveal())
	if err != nil {
		return 0, err
	}
	return s.change(ctx, key, func(doc *document) (int, error) {
		if doc.records[key].Version != version {
			return 0, creds.ErrConflict
		}
		return doc.put(key, text, s.now()), nil
	})
}

// Patch merges data into the record by RFC 7396, or creates it.
func (s *Store) Patch(ctx context.Context, key string, data creds.Secret) (int, error) {
	patch, err := object(key, data.Reveal())
	if err != nil {
		return 0, err
	}
	return s.change(ctx, key, func(doc *document) (int, error) {
		merged, err := creds.MergePatch(doc.records[key].Data.Reveal(), patch)
		if err != nil {
			return 0, err
		}
		return doc.put(key, merged, s.now()), nil
	})
}

// Delete removes the record.
func (s *Store) Delete(ctx context.Context, key string) error {
	_, err := s.change(ctx, key, func(doc *document) (int, error) {
		doc.remove(key)
		return 0, nil
	})
	return err
}

// change runs edit on a copy of the newest content under the lock, and replaces
// the file if edit made a difference.
func (s *Store) change(ctx context.Context, key string, edit func(*document) (int, error)) (int, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return 0, fmt.Errorf("writing %s: %w", key, err)
	}
	defer unlock()
	keys, err := readKeys(s.keyPath)
	if err != nil {
		return 0, err
	}
	snap, err := s.readable(keys)
	if err != nil {
		return 0, err
	}
	if snap.doc.newer != "" {
		return 0, unavailable("%s was written by a newer pillion (store format %s): upgrade this one to change it", s.path, snap.doc.newer)
	}
	doc := snap.doc.clone()
	version, err := edit(doc)
	if err != nil {
		return 0, fmt.Errorf("writing %s: %w", key, err)
	}
	if !doc.changed {
		return version, nil
	}
	if err := s.replace(doc, keys); err != nil {
		return 0, err
	}
	return version, nil
}
