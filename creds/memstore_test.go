package creds

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// memStore is the contract of Store in a map, with a knob to cut it short.
type memStore struct {
	mu      sync.Mutex
	records map[string]Record
	reads   map[string]int // Gets by key
	writes  int
	// failAfter, if not negative, is how many writes succeed before all fail.
	failAfter int
	// lost makes the first failing write take effect although it is reported
	// as failed: the answer got lost.
	lost bool
	down bool
	// before, if not nil, is called at the start of every operation.
	before func(op, key string)
}

func newMemStore() *memStore {
	return &memStore{records: map[string]Record{}, reads: map[string]int{}, failAfter: -1}
}

func (s *memStore) enter(op, key string) {
	if s.before != nil {
		s.before(op, key)
	}
	s.mu.Lock()
}

var errCut = fmt.Errorf("cut: %w", ErrStoreUnavailable)

// write applies change unless the store is to fail by now.
func (s *memStore) write(change func()) error {
	if s.down {
		return errCut
	}
	s.writes++
	if s.failAfter < 0 || s.writes <= s.failAfter {
		change()
		return nil
	}
	if s.lost && s.writes == s.failAfter+1 {
		change()
	}
	return errCut
}

func (s *memStore) Get(_ context.Context, key string) (Record, error) {
	s.enter("get", key)
	defer s.mu.Unlock()
	s.reads[key]++
	if s.down {
		return Record{}, errCut
	}
	r, ok := s.records[key]
	if !ok {
		return Record{}, ErrNotFound
	}
	return r, nil
}

func (s *memStore) CAS(_ context.Context, key string, data Secret, version int) (int, error) {
	s.enter("cas", key)
	defer s.mu.Unlock()
	if s.records[key].Version != version {
		return 0, ErrConflict
	}
	return version + 1, s.write(func() { s.records[key] = Record{Data: data, Version: version + 1} })
}

func (s *memStore) Patch(_ context.Context, key string, data Secret) (int, error) {
	s.enter("patch", key)
	defer s.mu.Unlock()
	var old, patch map[string]any
	if r, ok := s.records[key]; ok {
		if err := json.Unmarshal([]byte(r.Data.Reveal()), &old); err != nil {
			return 0, err
		}
	}
	if err := json.Unmarshal([]byte(data.Reveal()), &patch); err != nil {
		return 0, err
	}
	version := s.records[key].Version + 1
	return version, s.write(func() { s.records[key] = Record{Data: encode(mergePatch(old, patch)), Version: version} })
}

// mergePatch is RFC 7396.
func mergePatch(old, patch map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range old {
		out[k] = v
	}
	for k, v := range patch {
		inner, isObject := v.(map[string]any)
		switch {
		case v == nil:
			delete(out, k)
		case isObject:
			before, _ := out[k].(map[string]any)
			out[k] = mergePatch(before, inner)
		default:
			out[k] = v
		}
	}
	return out
}

func (s *memStore) List(_ context.Context, prefix string) ([]string, error) {
	s.enter("list", prefix)
	defer s.mu.Unlock()
	if s.down {
		return nil, errCut
	}
	var keys []string
	for key := range s.records {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (s *memStore) Delete(_ context.Context, key string) error {
	s.enter("delete", key)
	defer s.mu.Unlock()
	return s.write(func() { delete(s.records, key) })
}

func (s *memStore) Now(context.Context) (time.Time, error) { return time.Unix(0, 0), nil }

// put writes a record as no pillion would.
func (s *memStore) put(key, json string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[key] = Record{Data: NewSecret(json), Version: s.records[key].Version + 1}
}

// edit replaces text inside a record, its version unchanged.
func (s *memStore) edit(t *testing.T, key, old, new string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[key]
	text := strings.Replace(r.Data.Reveal(), old, new, 1)
	if text == r.Data.Reveal() {
		t.Fatalf("%s has no %q", key, old)
	}
	s.records[key] = Record{Data: NewSecret(text), Version: r.Version}
}

func (s *memStore) text(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records[key].Data.Reveal()
}

// clone copies the content; the knobs start anew.
func (s *memStore) clone() *memStore {
	out := newMemStore()
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.records {
		out.records[k] = v
	}
	return out
}

var _ Store = (*memStore)(nil)
