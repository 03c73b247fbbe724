package creds

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// BadRecord says why a stored credential cannot be used. It is shown to
// administrators and holds no secret.
type BadRecord struct{ Name, Problem string }

func (b *BadRecord) Error() string { return "stored credential " + b.Name + " " + b.Problem }

// LoadCredential reads a credential with its secrets. The error is ErrNotFound,
// a *BadRecord, or the store's own.
func LoadCredential(ctx context.Context, store Store, name string) (*Credential, error) {
	c, err := load(ctx, store, name, true)
	if err != nil {
		return nil, fmt.Errorf("reading credential %s: %w", name, err)
	}
	return c, nil
}

// LoadPublic reads a credential without its secrets, and the names of those
// that are stored: "password", "header:X-Foo". It needs credentials/ alone.
func LoadPublic(ctx context.Context, store Store, name string) (c *Credential, stored []string, err error) {
	record, version, err := readRecord(ctx, store, name)
	if err != nil {
		return nil, nil, fmt.Errorf("reading credential %s: %w", name, err)
	}
	return record.credential(version), sortedKeys(record.Secrets), nil
}

func listNames(ctx context.Context, store Store) ([]string, error) {
	keys, err := store.List(ctx, KeyCredentials)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = strings.TrimPrefix(key, KeyCredentials)
	}
	return names, nil
}

// readRecord reads credentials/NAME, its secrets left where they are.
func readRecord(ctx context.Context, store Store, name string) (*credentialRecord, int, error) {
	if name == "" {
		return nil, 0, ErrNotFound
	}
	if !validName(name) {
		return nil, 0, &BadRecord{name, "has a name that no credential can have"}
	}
	stored, err := store.Get(ctx, KeyCredentials+name)
	if err != nil {
		return nil, 0, err
	}
	var record credentialRecord
	if err := decodeRecord(stored.Data, &record); err != nil {
		return nil, 0, &BadRecord{name, err.Error()}
	}
	if record.Name != name {
		return nil, 0, &BadRecord{name, "holds another name than the one it is stored under"}
	}
	return &record, stored.Version, nil
}

// load reads a credential. Its records are read one after the other, so an edit
// in between can take a secret away that the first one refers to: then it reads
// again. Without grants, what only token requests carry stays zero.
func load(ctx context.Context, store Store, name string, grants bool) (*Credential, error) {
	for lastVersion := 0; ; {
		record, version, err := readRecord(ctx, store, name)
		if err != nil {
			return nil, err
		}
		c := record.credential(version)
		missing, err := fillSecrets(ctx, store, c, record, grants)
		if err != nil {
			return nil, err
		}
		if missing != "" && version != lastVersion {
			lastVersion = version
			continue
		}
		if missing != "" {
			return nil, &BadRecord{name, "refers to a stored " + missing + " that is not there: enter it again"}
		}
		var unread []string
		if !grants {
			unread = sortedKeys(record.Secrets)
		}
		var invalid *InvalidError
		if err := c.ValidateKeeping(unread...); errors.As(err, &invalid) {
			return nil, &BadRecord{name, problemLine(invalid)}
		}
		return c, nil
	}
}

func problemLine(invalid *InvalidError) string {
	var parts []string
	for _, f := range invalid.Fields {
		parts = append(parts, f.Field+" "+f.Problem)
	}
	return "is not valid: " + strings.Join(parts, "; ")
}

// fillSecrets sets c's secrets from their records and returns the name of the
// first one that is missing, if one is.
func fillSecrets(ctx context.Context, store Store, c *Credential, record *credentialRecord, grants bool) (missing string, err error) {
	records := map[string]map[string]*secretEntry{}
	known := 0
	for _, field := range c.secretFields() {
		id, ok := record.Secrets[field.name]
		if !ok {
			continue
		}
		known++
		at := c.placeOf(field.name)
		if at.key == KeyGrants && !grants {
			continue
		}
		if records[at.key] == nil {
			if records[at.key], err = readSecrets(ctx, store, at.key, c.Name); err != nil {
				return "", err
			}
		}
		entry := records[at.key][id]
		if entry == nil {
			return field.name, nil
		}
		if entry.For != at.purpose {
			return "", &BadRecord{c.Name, "is for " + c.URL + ", but its stored " + field.name + " was given for another server: enter it again"}
		}
		*field.value = NewSecret(entry.Value)
	}
	if known != len(record.Secrets) && record.Schema == currentSchema { // a newer minor may have added kinds
		return "", &BadRecord{c.Name, "refers to a secret of a kind that is not known here"}
	}
	return "", nil
}

// readSecrets returns the entries of secrets/NAME or grants/NAME, none when
// there is no such record. The rest of a grant is the business of package token.
func readSecrets(ctx context.Context, store Store, key, name string) (map[string]*secretEntry, error) {
	stored, err := store.Get(ctx, key+name)
	switch {
	case errors.Is(err, ErrNotFound):
		return map[string]*secretEntry{}, nil
	case err != nil:
		return nil, err
	}
	var record secretsRecord
	if key == KeyGrants {
		err = decodeGrantSecrets(stored.Data, &record)
	} else {
		err = decodeRecord(stored.Data, &record)
	}
	if err != nil {
		return nil, &BadRecord{name, "has a record " + key + name + " that " + err.Error()}
	}
	if record.Secrets == nil {
		record.Secrets = map[string]*secretEntry{}
	}
	return record.Secrets, nil
}
