package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"pillion/creds"
	"pillion/creds/credstest"
)

// simStore is the contract of creds.Store in a map, with a clock of its own choice.
// It is no stand-in for a real store in tests of the protocol over one store: it is
// there to be stepped, and to be read by ten thousand sidecars in one process.
type simStore struct {
	clock func() time.Time
	// wrote hears of every write, under the lock, if not nil.
	wrote func(key string, record creds.Record)

	mu      sync.Mutex
	records map[string]creds.Record
	last    map[string]int // the last version of what was deleted: versions never come again
	reads   map[string]int // by the key's first part; a list counts as one
	writes  map[string]int
}

func newSimStore(clock func() time.Time) *simStore {
	return &simStore{
		clock: clock, records: map[string]creds.Record{}, last: map[string]int{},
		reads: map[string]int{}, writes: map[string]int{},
	}
}

var _ creds.Store = (*simStore)(nil)

func (s *simStore) Get(ctx context.Context, key string) (creds.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return creds.Record{}, ctx.Err()
	}
	s.reads[kindOfKey(key)]++
	record, ok := s.records[key]
	if !ok {
		return creds.Record{}, creds.ErrNotFound
	}
	return record, nil
}

func (s *simStore) CAS(ctx context.Context, key string, data creds.Secret, version int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayWrite(ctx, data); err != nil {
		return 0, err
	}
	s.writes[kindOfKey(key)]++
	if s.records[key].Version != version {
		return 0, creds.ErrConflict
	}
	return s.write(key, data), nil
}

func (s *simStore) Patch(ctx context.Context, key string, data creds.Secret) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayWrite(ctx, data); err != nil {
		return 0, err
	}
	s.writes[kindOfKey(key)]++
	var old string
	if record, ok := s.records[key]; ok {
		old = record.Data.Reveal()
	}
	merged, err := creds.MergePatch(old, data.Reveal())
	if err != nil {
		return 0, err
	}
	return s.write(key, creds.NewSecret(merged)), nil
}

func (s *simStore) mayWrite(ctx context.Context, data creds.Secret) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var object map[string]json.RawMessage
	text := data.Reveal()
	if json.Unmarshal([]byte(text), &object) != nil || object == nil || !utf8.ValidString(text) {
		return errors.New("the record is not a JSON object")
	}
	return nil
}

func (s *simStore) write(key string, data creds.Secret) int {
	version := max(s.records[key].Version, s.last[key]) + 1
	s.records[key] = creds.Record{Data: data, Version: version, Created: s.clock()}
	if s.wrote != nil {
		s.wrote(key, s.records[key])
	}
	return version
}

func (s *simStore) List(ctx context.Context, prefix string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s.reads[kindOfKey(prefix)]++
	var keys []string
	for key := range s.records {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (s *simStore) Delete(ctx context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if record, ok := s.records[key]; ok {
		s.writes[kindOfKey(key)]++
		s.last[key] = record.Version
		delete(s.records, key)
	}
	return nil
}

func (s *simStore) Now(ctx context.Context) (time.Time, error) { return s.clock(), ctx.Err() }

// totals returns the reads and writes under prefixes such as "tokens".
func (s *simStore) totals(kinds ...string) (reads, writes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kind := range kinds {
		reads, writes = reads+s.reads[kind], writes+s.writes[kind]
	}
	return reads, writes
}

func kindOfKey(key string) string {
	kind, _, _ := strings.Cut(key, "/")
	return kind
}

func TestTheSimulatedStoreKeepsTheContract(t *testing.T) {
	store := newSimStore(time.Now)
	credstest.TestStore(t, func(*testing.T) creds.Store { return store })
	if reads, writes := store.totals("tokens"); reads == 0 || writes == 0 {
		t.Error(fmt.Sprint("it counted nothing: ", reads, writes))
	}
}
