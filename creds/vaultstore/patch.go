package vaultstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"pillion/creds"
)

// patchTries bounds the merging of one record by many at once.
const patchTries = 100

// Patch merges data into the record by RFC 7396, or creates it. Vault merges, so
// nobody has to read the record; only its version is asked for, because of
// cas_required. Where Vault or the policy knows no patch, it is read, merged and
// written by check-and-set.
func (s *Store) Patch(ctx context.Context, key string, data creds.Secret) (int, error) {
	version, err := s.patch(ctx, key, data)
	if err != nil {
		return 0, writing(key, err)
	}
	s.client.noteWriter(ctx, s, key, version)
	return version, nil
}

func (s *Store) patch(ctx context.Context, key string, data creds.Secret) (int, error) {
	if _, err := object(data); err != nil {
		return 0, err
	}
	if err := s.client.checkMount(ctx); err != nil {
		return 0, err
	}
	for range patchTries {
		current, exists, err := s.current(ctx, key)
		if err != nil {
			return 0, err
		}
		var version int
		if exists {
			version, err = s.merge(ctx, key, data, current)
		} else {
			version, err = s.create(ctx, key, data, current)
		}
		switch {
		case errors.Is(err, creds.ErrConflict): // somebody was faster: merge into what he wrote
		case errors.Is(err, errCAS): // perhaps it was us, but we may not look: merging twice is merging once
		case errors.Is(err, errUnsupported), isKind(err, Denied):
			return s.readMergeWrite(ctx, key, data, err)
		default:
			return version, err
		}
	}
	return 0, creds.ErrConflict
}

// merge lets Vault merge into exactly that version.
func (s *Store) merge(ctx context.Context, key string, data creds.Secret, over int) (int, error) {
	path, err := s.api("data", key)
	if err != nil {
		return 0, err
	}
	record, err := object(data)
	if err != nil {
		return 0, err
	}
	mark := newMark()
	// Vault merges the marks as well: the oldest goes, the new one comes.
	if record[markMember], err = encode(map[string]any{strconv.Itoa(over + 1): mark, strconv.Itoa(over + 1 - marksKept): nil}); err != nil {
		return 0, err
	}
	body := write{Data: record}
	body.Options.CAS = over
	version, err := s.send(ctx, key, mark, over, request{operation: "patch", method: "PATCH", path: path, body: body, merge: true})
	if errors.Is(err, errNothing) { // deleted since
		return 0, creds.ErrConflict
	}
	return version, err
}

// create writes a first record, without the nulls of the patch.
func (s *Store) create(ctx context.Context, key string, data creds.Secret, over int) (int, error) {
	text, err := creds.MergePatch("", data.Reveal())
	if err != nil {
		return 0, err
	}
	return s.put(ctx, key, creds.NewSecret(text), over)
}

// readMergeWrite is Patch for who may read the record. why is told to who may not.
func (s *Store) readMergeWrite(ctx context.Context, key string, data creds.Secret, why error) (int, error) {
	for range patchTries {
		current, err := s.read(ctx, key, 0)
		switch {
		case errors.Is(err, creds.ErrNotFound):
			current = stored{}
		case isKind(err, Denied):
			return 0, why
		case err != nil:
			return 0, err
		}
		text, err := creds.MergePatch(current.data.Reveal(), data.Reveal())
		if err != nil {
			return 0, err
		}
		version, err := s.put(ctx, key, creds.NewSecret(text), current.Version)
		if !errors.Is(err, creds.ErrConflict) {
			return version, err
		}
	}
	return 0, creds.ErrConflict
}

// metadata is what KV keeps about a record.
type metadata struct {
	Current  int                `json:"current_version"`
	Versions map[string]version `json:"versions"`
}

func (s *Store) metadata(ctx context.Context, key string) (metadata, error) {
	path, err := s.api("metadata", key)
	if err != nil {
		return metadata{}, err
	}
	a, err := s.client.call(ctx, request{operation: "metadata", method: "GET", path: path})
	if errors.Is(err, errNothing) {
		return metadata{}, creds.ErrNotFound
	}
	if err != nil {
		return metadata{}, err
	}
	var body struct {
		Data metadata `json:"data"`
	}
	if a.decode(&body) != nil {
		return metadata{}, s.client.problem(NotVault, "answers in a way that no Vault does: correct store.vault.address or VAULT_ADDR")
	}
	return body.Data, nil
}

// current returns the version to write over, and whether there is a record.
func (s *Store) current(ctx context.Context, key string) (over int, exists bool, err error) {
	m, err := s.metadata(ctx, key)
	if isKind(err, Denied) {
		found, readErr := s.read(ctx, key, 0)
		switch {
		case readErr == nil:
			return found.Version, !found.data.IsZero(), nil
		case !errors.Is(readErr, creds.ErrNotFound):
			return 0, false, err
		}
		return 0, false, nil
	}
	switch {
	case errors.Is(err, creds.ErrNotFound):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	}
	v := m.Versions[strconv.Itoa(m.Current)]
	gone := v.Destroyed || v.Deleted != "" && !later(v.Deleted)
	return m.Current, m.Current > 0 && !gone, nil
}

// later reports whether a deletion is yet to come (delete_version_after).
func later(deletion string) bool {
	t, err := time.Parse(time.RFC3339Nano, deletion)
	return err == nil && t.After(time.Now())
}

// The members of custom_metadata that say who wrote a record last.
const (
	noteBy      = "written_by"
	noteVersion = "written_version"
)

// noteWriter notes beside a credential who wrote it, for whoever meets a conflict
// later, and for people who look at it in Vault. It is a courtesy: what cannot be
// noted is not, and a note that names another version than the newest is stale.
func (c *Client) noteWriter(ctx context.Context, s *Store, key string, version int) {
	if !strings.HasPrefix(key, creds.KeyCredentials) || c.mayNotNote() {
		return
	}
	name := c.displayName(ctx)
	path, err := s.api("metadata", key)
	if name == "" || err != nil {
		return
	}
	_, err = c.call(ctx, request{operation: "note", method: "PATCH", path: path, merge: true, body: map[string]any{
		"custom_metadata": map[string]string{noteBy: name, noteVersion: strconv.Itoa(version)},
	}})
	if isKind(err, Denied) || errors.Is(err, errUnsupported) {
		c.session.mu.Lock()
		c.session.noNotes = c.session.number
		c.session.mu.Unlock()
	}
}

// mayNotNote reports whether notes were refused to this login.
func (c *Client) mayNotNote() bool {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.session.noNotes != 0 && c.session.noNotes == c.session.number
}
