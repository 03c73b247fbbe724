package vaultstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"pillion/creds"
)

// Store is the part of a Vault that lies under one prefix, as a creds.Store. It
// is safe for concurrent use.
type Store struct {
	client *Client
	prefix string
}

var _ creds.Store = (*Store)(nil)

// version is what KV keeps about one version of a record.
type version struct {
	Version   int               `json:"version"`
	Created   time.Time         `json:"created_time"`
	Deleted   string            `json:"deletion_time"`
	Destroyed bool              `json:"destroyed"`
	Custom    map[string]string `json:"custom_metadata"`
}

// stored is the answer to a read of data/.
type stored struct {
	data  creds.Secret // without the marks; zero when the version was deleted
	marks marks        // see write.go
	version
}

// api returns the path of key in KV's own tree: "data", "metadata".
func (s *Store) api(tree, key string) (string, error) {
	trimmed := strings.TrimSuffix(key, "/")
	if !cleanPath(trimmed) && trimmed != "" {
		return "", fmt.Errorf("the key %q cannot be one: %w", key, creds.ErrNotFound)
	}
	parts := []string{s.client.config.Mount, tree}
	for _, p := range []string{s.prefix, trimmed} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/"), nil
}

// Get returns the record under key. One that was deleted by another tool, but
// whose history stands, is ErrNotFound.
func (s *Store) Get(ctx context.Context, key string) (creds.Record, error) {
	if err := s.client.checkMount(ctx); err != nil {
		return creds.Record{}, reading(key, err)
	}
	found, err := s.read(ctx, key, 0)
	if err != nil {
		return creds.Record{}, reading(key, err)
	}
	if found.data.IsZero() {
		return creds.Record{}, reading(key, creds.ErrNotFound)
	}
	return creds.Record{Data: found.data, Version: found.Version, Created: found.Created, By: found.by()}, nil
}

func reading(key string, err error) error { return fmt.Errorf("reading %s: %w", key, err) }

// by returns who wrote that version, if its writer left a note and nobody has
// written since without one.
func (v version) by() string {
	if v.Custom[noteVersion] != strconv.Itoa(v.Version) {
		return ""
	}
	return v.Custom[noteBy]
}

// read returns a version of a record; number 0 is the newest. A version without
// data is one that was deleted. creds.ErrNotFound says that there is none.
func (s *Store) read(ctx context.Context, key string, number int) (stored, error) {
	path, err := s.api("data", key)
	if err != nil {
		return stored{}, err
	}
	q := request{operation: "get", method: "GET", path: path}
	if number != 0 {
		q.query = map[string]string{"version": strconv.Itoa(number)}
	}
	a, err := s.client.call(ctx, q)
	if err != nil && !errors.Is(err, errNothing) {
		return stored{}, err
	}
	var body struct {
		Data *struct {
			Data     json.RawMessage `json:"data"`
			Metadata version         `json:"metadata"`
		} `json:"data"`
	}
	if decodeErr := a.decode(&body); decodeErr != nil && err == nil {
		return stored{}, s.client.problem(NotVault, "answers in a way that no Vault does: correct store.vault.address or VAULT_ADDR")
	}
	if body.Data == nil || body.Data.Metadata.Version == 0 {
		return stored{}, creds.ErrNotFound
	}
	found := stored{version: body.Data.Metadata}
	if err != nil || string(body.Data.Data) == "null" {
		return found, nil
	}
	if found.data, found.marks, err = unmark(body.Data.Data); err != nil {
		return stored{}, err
	}
	if number == 0 {
		s.client.history.note(path, found.Version, found.marks)
	}
	return found, nil
}

// List returns the keys below prefix, sorted.
func (s *Store) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.client.checkMount(ctx); err != nil {
		return nil, fmt.Errorf("listing %s: %w", prefix, err)
	}
	keys, err := s.list(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", prefix, err)
	}
	slices.Sort(keys)
	return keys, nil
}

// list does not go down into folders, which only other tools make: they are shown
// as a key that ends in a slash, which cannot be a credential's.
func (s *Store) list(ctx context.Context, prefix string) ([]string, error) {
	path, err := s.api("metadata", prefix)
	if err != nil {
		return nil, err
	}
	a, err := s.client.call(ctx, request{
		// Not LIST: what sits on a connection that Vault has closed is sent again by
		// net/http for methods that it knows.
		operation: "list", method: "GET", path: path, query: map[string]string{"list": "true"},
	})
	if errors.Is(err, errNothing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var body struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	if err := a.decode(&body); err != nil {
		return nil, s.client.problem(NotVault, "answers in a way that no Vault does: correct store.vault.address or VAULT_ADDR")
	}
	for i, key := range body.Data.Keys {
		body.Data.Keys[i] = prefix + key
	}
	return body.Data.Keys, nil
}

// Delete removes the record with its whole history, so that nothing of a secret
// stays behind.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.delete(ctx, key); err != nil {
		return fmt.Errorf("deleting %s: %w", key, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, key string) error {
	if err := s.client.checkMount(ctx); err != nil {
		return err
	}
	path, err := s.api("metadata", key)
	if err != nil {
		return err
	}
	deadline := s.client.clarifyUntil(ctx)
	for try := 0; ; try++ {
		_, err = s.client.call(ctx, request{operation: "delete", method: "DELETE", path: path})
		switch {
		case err == nil, errors.Is(err, errNothing):
			return nil
		case !unclear(err) || !s.client.pause(ctx, try, deadline):
			return err
		}
		// It may be gone already, and made anew by somebody: then leave it alone.
		if _, err := s.metadata(ctx, key); errors.Is(err, creds.ErrNotFound) {
			return nil
		}
	}
}

// Now returns Vault's time: that of its last answer and what has passed since, or
// when that is older than a minute, of a new one.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	c := s.client
	if err := ctx.Err(); err != nil {
		return time.Time{}, fmt.Errorf("reading the clock: %w", c.cancelled(request{operation: "now", path: "sys/health"}, err))
	}
	if now, ok := c.clock.read(time.Minute); ok {
		return now, nil
	}
	_, err := c.send(ctx, request{operation: "now", method: "GET", path: "sys/health", root: true})
	if now, ok := c.clock.read(time.Minute); ok {
		return now, nil // whatever the answer was, it had a date
	}
	if err == nil {
		err = c.problem(NotVault, "does not tell its time: look at what stands between")
	}
	return time.Time{}, fmt.Errorf("reading the clock: %w", err)
}

// Others returns the stores of the client's other prefixes, in order.
func (s *Store) Others() []creds.Store {
	var all []creds.Store
	for _, p := range s.client.config.Prefixes {
		if p != s.prefix {
			all = append(all, s.client.Store(p))
		}
	}
	return all
}

// Prefix returns the path inside the mount; "" for its root.
func (s *Store) Prefix() string { return s.prefix }

// Client returns the login that the store is read by.
func (s *Store) Client() *Client { return s.client }
