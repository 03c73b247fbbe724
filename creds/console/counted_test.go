package console

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pillion/creds"
)

// counted is a store in memory: what the page itself takes, without a disk.
type counted struct {
	mu      sync.Mutex
	records map[string]creds.Record
}

func (s *counted) Get(_ context.Context, key string) (creds.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	record, ok := s.records[key]
	if !ok {
		return record, creds.ErrNotFound
	}
	return record, nil
}

func (s *counted) CAS(_ context.Context, key string, data creds.Secret, version int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records[key].Version != version {
		return 0, creds.ErrConflict
	}
	s.records[key] = creds.Record{Data: data, Version: version + 1, Created: time.Now()}
	return version + 1, nil
}

// Patch puts members beside those that there are, one level deep: as much as Save needs here.
func (s *counted) Patch(_ context.Context, key string, data creds.Secret) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	members, fresh := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	old := s.records[key]
	if old.Version > 0 {
		_ = json.Unmarshal([]byte(old.Data.Reveal()), &members)
	}
	if err := json.Unmarshal([]byte(data.Reveal()), &fresh); err != nil {
		return 0, err
	}
	maps.Copy(members, fresh)
	text, err := json.Marshal(members)
	if err != nil {
		return 0, err
	}
	s.records[key] = creds.Record{Data: creds.NewSecret(string(text)), Version: old.Version + 1, Created: time.Now()}
	return old.Version + 1, nil
}

func (s *counted) List(_ context.Context, prefix string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.records)), func(key string) bool { return !strings.HasPrefix(key, prefix) }), nil
}

func (s *counted) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, key)
	return nil
}

// multiply makes n credentials of the one whose name ends in 0000. To save each would
// write the index as often, with all that are in it.
func (s *counted) multiply(t *testing.T, name string, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var index struct {
		Schema    string            `json:"schema"`
		Revisions map[string]string `json:"revisions"`
	}
	if err := json.Unmarshal([]byte(s.records[creds.KeyIndex].Data.Reveal()), &index); err != nil || index.Revisions[name] == "" {
		t.Fatalf("the index holds %v: %v", index, err)
	}
	like := s.records[creds.KeyCredentials+name]
	for i := range n {
		numbered := func(text string) string { return strings.ReplaceAll(text, "0000", fmt.Sprintf("%04d", i)) }
		another := like
		another.Data = creds.NewSecret(numbered(like.Data.Reveal()))
		s.records[creds.KeyCredentials+numbered(name)] = another
		index.Revisions[numbered(name)] = index.Revisions[name]
	}
	text, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	s.records[creds.KeyIndex] = creds.Record{Data: creds.NewSecret(string(text)), Version: 2, Created: like.Created}
}

func (*counted) Now(context.Context) (time.Time, error) { return time.Now(), nil }
