package console

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"pillion/creds"
)

// consentsRecord is the JSON of consents/NAME: the consents that are under way for a
// credential, in the store that all replicas of the page share, so that each ends
// once, whichever of them the browser comes back to.
//
//	{"schema":"1.0", "pending": {SHA-256 of the state: when it began, by the store's clock}}
//
// The state itself, and the verifier, are in the browser that began, sealed.
type consentsRecord struct {
	Schema  string               `json:"schema"`
	Pending map[string]time.Time `json:"pending"`
}

const consentsSchema = "1.0"

// consentTries bounds the merging of consents/NAME with those of other people.
const consentTries = 20

func stateDigest(state string) string {
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:])
}

// beginConsent notes that a consent with that state is under way.
func beginConsent(ctx context.Context, store creds.Store, name, state string) error {
	return mergeConsents(ctx, store, name, func(pending map[string]time.Time, now time.Time) bool {
		pending[stateDigest(state)] = now.UTC().Round(0)
		return true
	})
}

// endConsent takes the consent with that state away, and reports whether it was under
// way: nobody else ends it then.
func endConsent(ctx context.Context, store creds.Store, name, state string) (was bool, err error) {
	err = mergeConsents(ctx, store, name, func(pending map[string]time.Time, _ time.Time) bool {
		_, was = pending[stateDigest(state)]
		delete(pending, stateDigest(state))
		return was
	})
	return was && err == nil, err
}

// mergeConsents applies change by check-and-set; change reports whether there is
// something to write. What took too long is not under way any more.
func mergeConsents(ctx context.Context, store creds.Store, name string, change func(pending map[string]time.Time, now time.Time) bool) error {
	for range consentTries {
		stored, err := store.Get(ctx, creds.KeyConsents+name)
		if err != nil && !errors.Is(err, creds.ErrNotFound) {
			return err
		}
		now, err := store.Now(ctx)
		if err != nil {
			return err
		}
		var record consentsRecord
		if stored.Version == 0 || json.Unmarshal([]byte(stored.Data.Reveal()), &record) != nil || record.Pending == nil {
			record.Pending = map[string]time.Time{} // nothing that is worth keeping is lost
		}
		maps.DeleteFunc(record.Pending, func(_ string, begun time.Time) bool { return now.Sub(begun).Abs() > consentTime })
		if !change(record.Pending, now) {
			return nil
		}
		record.Schema = consentsSchema
		text, err := json.Marshal(record)
		if err != nil {
			return err
		}
		_, err = store.CAS(ctx, creds.KeyConsents+name, creds.NewSecret(string(text)), stored.Version)
		if !errors.Is(err, creds.ErrConflict) {
			return err
		}
	}
	return creds.ErrConflict
}
