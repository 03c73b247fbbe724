package creds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Save writes a credential with all its secrets. With c.Version 0 it creates
// it, and ErrConflict says that the name is taken; otherwise ErrConflict says
// that somebody changed or removed it since c was read. The error is an
// *InvalidError when c is not valid. Afterwards c.Version is the stored one.
//
// The store knows no transactions, so the order of the writes makes the edit
// whole: wherever it is cut, readers see the old credential or the new one.
//
//  1. the new secrets, under IDs that nothing refers to yet
//  2. credentials/NAME by check-and-set: from here on it is the new one
//  3. the index, which tells pollers
//  4. the replaced secrets go
//
// A cut after 1 or before 4 leaves a secret behind that nothing refers to.
func Save(ctx context.Context, store Store, c *Credential) error {
	return Update(ctx, store, c, nil)
}

// Update is Save for an editor that never reads secrets: those named in keep
// (see LoadPublic), where c has none, stay as they are stored. A secret whose
// server changed (the host, the port, the token URL, the pinned host key)
// cannot be kept: it was given for another one.
func Update(ctx context.Context, store Store, c *Credential, keep []string) error {
	if err := update(ctx, store, c, keep); err != nil {
		return fmt.Errorf("saving credential %s: %w", c.Name, err)
	}
	return nil
}

// errNameTaken is an ErrConflict with a better sentence.
var errNameTaken error = nameTakenError{}

type nameTakenError struct{}

func (nameTakenError) Error() string        { return "there is a credential of that name already" }
func (nameTakenError) Is(target error) bool { return target == ErrConflict }

func update(ctx context.Context, store Store, c *Credential, keep []string) error {
	previous, err := readPrevious(ctx, store, c)
	if err != nil {
		return err
	}
	record := publicRecord(c)
	if err := keepSecrets(c, keep, previous, record); err != nil {
		return err
	}
	added := newSecrets(c, record)
	if err := patchSecrets(ctx, store, c.Name, added); err != nil {
		return err
	}
	version, err := store.CAS(ctx, KeyCredentials+c.Name, encode(record), c.Version)
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrStoreDenied) {
		// Only now is it sure that nothing will ever refer to them. When this
		// fails too, they stay behind unused.
		_ = patchSecrets(ctx, store, c.Name, added.removal())
	}
	if err != nil {
		return err
	}
	c.Version = version
	if err := announce(ctx, store, c.Name, version); err != nil {
		return fmt.Errorf("it is saved, but not announced to others yet: %w", err)
	}
	if err := patchSecrets(ctx, store, c.Name, replaced(previous, record)); err != nil {
		return fmt.Errorf("it is saved, but the replaced secrets are still stored: %w", err)
	}
	return nil
}

// readPrevious returns the record that c replaces; nil when c is new. A name
// that is taken, or a version that is not the stored one, is a conflict before
// anything is written.
func readPrevious(ctx context.Context, store Store, c *Credential) (*credentialRecord, error) {
	if !validName(c.Name) {
		return nil, c.Validate()
	}
	stored, err := store.Get(ctx, KeyCredentials+c.Name)
	switch {
	case errors.Is(err, ErrNotFound) && c.Version == 0:
		return nil, nil
	case errors.Is(err, ErrNotFound):
		return nil, ErrConflict
	case err != nil:
		return nil, err
	case c.Version == 0:
		return nil, errNameTaken
	case stored.Version != c.Version:
		return nil, &ConflictError{By: stored.By, At: stored.Created}
	}
	var record credentialRecord
	if err := decodeRecord(stored.Data, &record); err != nil {
		return nil, &BadRecord{c.Name, err.Error() + "; remove it, then create it again"}
	}
	return &record, nil
}

// keepSecrets moves the IDs of kept secrets into record, and validates.
func keepSecrets(c *Credential, keep []string, previous, record *credentialRecord) error {
	var kept []string
	var problems []FieldError
	for _, field := range c.secretFields() {
		if !field.value.IsZero() || !slices.Contains(keep, field.name) || previous == nil {
			continue
		}
		id, ok := previous.Secrets[field.name]
		if !ok {
			continue // nothing to keep: validation says that it is required, if it is
		}
		kept = append(kept, field.name)
		if previous.credential(0).placeOf(field.name) != c.placeOf(field.name) {
			name, isHeader := strings.CutPrefix(field.name, headerSecret)
			problem := FieldError{field.name, "must be entered again: the stored one was given for another server"}
			if previous.credential(0).placeOf(field.name).purpose == c.placeOf(field.name).purpose {
				problem.Problem = "must be entered again: it is kept in another record then"
			}
			if isHeader {
				problem = FieldError{"header", name + ": " + problem.Problem}
			}
			problems = append(problems, problem)
			continue
		}
		record.Secrets[field.name] = id
	}
	err := c.ValidateKeeping(kept...)
	var invalid *InvalidError
	switch {
	case len(problems) == 0:
		return err
	case errors.As(err, &invalid):
		problems = append(invalid.Fields, problems...)
	}
	return &InvalidError{Name: c.Name, Fields: problems}
}

// secretsPatch is what to merge into secrets/NAME and grants/NAME, by key.
type secretsPatch map[string]map[string]*secretEntry

func (p secretsPatch) set(key, id string, entry *secretEntry) {
	if p[key] == nil {
		p[key] = map[string]*secretEntry{}
	}
	p[key][id] = entry
}

// removal takes away what p adds.
func (p secretsPatch) removal() secretsPatch {
	out := secretsPatch{}
	for key, entries := range p {
		for id := range entries {
			out.set(key, id, nil)
		}
	}
	return out
}

// newSecrets gives every secret of c a new ID, noted in record.
func newSecrets(c *Credential, record *credentialRecord) secretsPatch {
	patch := secretsPatch{}
	for _, field := range c.secretFields() {
		if field.value.IsZero() {
			continue
		}
		id, at := newSecretID(), c.placeOf(field.name)
		record.Secrets[field.name] = id
		patch.set(at.key, id, &secretEntry{Value: field.value.Reveal(), For: at.purpose})
	}
	return patch
}

// replaced removes what previous refers to and record does not.
func replaced(previous, record *credentialRecord) secretsPatch {
	patch := secretsPatch{}
	if previous == nil {
		return patch
	}
	old := previous.credential(0)
	for name, id := range previous.Secrets {
		if record.Secrets[name] != id {
			patch.set(old.placeOf(name).key, id, nil)
		}
	}
	return patch
}

func patchSecrets(ctx context.Context, store Store, name string, patch secretsPatch) error {
	for _, key := range sortedKeys(patch) {
		if _, err := store.Patch(ctx, key+name, encode(secretsRecord{currentSchema, patch[key]})); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes a credential and all that belongs to it: secrets, grant,
// token. ErrNotFound says that there is none; what a removal that was cut
// short left behind is cleared even then.
func Remove(ctx context.Context, store Store, name string) error {
	if err := remove(ctx, store, name); err != nil {
		return fmt.Errorf("removing credential %s: %w", name, err)
	}
	return nil
}

func remove(ctx context.Context, store Store, name string) error {
	if !validName(name) {
		return ErrNotFound
	}
	_, found := store.Get(ctx, KeyCredentials+name)
	if found != nil && !errors.Is(found, ErrNotFound) {
		return found
	}
	// The public record goes first: without it the others are nobody's.
	if err := store.Delete(ctx, KeyCredentials+name); err != nil {
		return err
	}
	if err := forget(ctx, store, name); err != nil {
		return fmt.Errorf("it is removed, but not announced to others yet: %w", err)
	}
	for _, key := range []string{KeySecrets, KeyGrants, KeyTokens, KeyStates, KeyRequests, KeyConsents} {
		if err := store.Delete(ctx, key+name); err != nil {
			return fmt.Errorf("it is removed, but not all that belongs to it: %w", err)
		}
	}
	return found
}
