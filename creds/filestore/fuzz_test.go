package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pillion/creds"
	"pillion/creds/credstest"
)

// FuzzOpen gives a store file of a stranger to two processes: one with the key of
// the seeds, one with a key that opens nothing.
func FuzzOpen(f *testing.F) {
	p := newPlace(f)
	wrong := newKey(f)
	seeds := storeSeeds(f, p)
	mustHaveSeeds(f, p, seeds)
	for _, seed := range seeds {
		f.Add(seed)
	}
	key, err := os.ReadFile(p.key)
	check(f, err)
	f.Fuzz(func(t *testing.T, file []byte) {
		dir := t.TempDir()
		check(t, os.Chmod(dir, 0o700))
		path, wrongPath := filepath.Join(dir, "store.age"), filepath.Join(dir, "wrong.txt")
		mustPut(t, path, file)
		mustPut(t, filepath.Join(dir, "key.txt"), key)
		mustPut(t, wrongPath, []byte(wrong.String()))

		_, err := Open(path, wrongPath)
		if err == nil {
			t.Error("a key that belongs to nothing opens the store")
		}
		wantSentence(t, err)
		store, err := openIn(dir)
		wantSentence(t, err)
		if err == nil {
			keys, err := store.List(t.Context(), "")
			check(t, err)
			for _, key := range keys {
				_, err := store.Get(t.Context(), key)
				check(t, err)
			}
			check(t, store.Close())
		}
		after, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(after, file) {
			t.Error("opening the file has changed it")
		}
	})
}

func wantSentence(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if !errors.Is(err, creds.ErrStoreUnavailable) || strings.ContainsAny(err.Error(), "\n\r") {
		t.Errorf("not one sentence about an unavailable store: %q", err)
	}
	credstest.FindCanaries(t, []byte(err.Error()))
}

// storeSeeds are a valid store and what is nearly one.
func storeSeeds(f *testing.F, p place) [][]byte {
	valid, err := os.ReadFile(p.store)
	check(f, err)
	seeds := [][]byte{valid, nil, []byte(intro), []byte(armored), []byte(p.canary), valid[:len(valid)/2], append(bytes.Clone(valid), valid...)}
	for n := 0; n < len(valid); n += 16 {
		mutated := bytes.Clone(valid)
		mutated[n] ^= 0x20
		seeds = append(seeds, mutated)
	}
	for _, plain := range documentSeeds {
		seeds = append(seeds, sealFor(f, p.recipient, plain), sealFor(f, newKey(f).Recipient().String(), plain))
	}
	return seeds
}

// mustHaveSeeds: seeds that all fail in the same way would test nothing.
func mustHaveSeeds(f *testing.F, p place, seeds [][]byte) {
	f.Helper()
	opened, sentences := 0, map[string]bool{}
	k, err := readKeys(p.key)
	check(f, err)
	for _, seed := range seeds {
		plain, err := unseal(seed, k, p.key)
		if err == nil {
			_, err = decode(plain)
		}
		if err == nil {
			opened++
		} else {
			sentences[err.Error()] = true
		}
	}
	if len(seeds) < 20 || opened < 2 || len(sentences) < 8 {
		f.Fatalf("%d seeds, of which %d open, and %d kinds of refusal: too few to mean anything", len(seeds), opened, len(sentences))
	}
}

var documentSeeds = []string{
	`{"format":"pillion-store","version":"1.0","deleted":3,"records":{"a":{"version":1,"created":"2025-01-01T00:00:00.000000001Z","data":{"a":[1,"<é>",null]}}}}`,
	`{"format":"pillion-store","version":"1.0","records":{}}`,
	`{"format":"pillion-store","version":"1.9","records":{},"new":[]}`,
	`{"format":"pillion-store","version":"2.0","records":{}}`,
	`{"format":"pillion-store","version":"1.0","records":{"a":{"version":0,"created":"2025-01-01T00:00:00Z","data":{}}}}`,
	`{"format":"pillion-store","version":"1.0","records":{"a":{"version":1,"created":"x","data":{}}}}`,
	`{"format":"other"}`,
	`{"format":`,
	`[]`,
	`null`,
	``,
}

// FuzzDecode reaches what FuzzOpen cannot, since no mutation passes age's seal.
// Whatever is understood is written so that it is understood in the same way.
func FuzzDecode(f *testing.F) {
	for _, seed := range documentSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		doc, err := decode(plain)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("not one line: %q", err)
			}
			return
		}
		text, err := doc.encode()
		check(t, err)
		again, err := decode(text)
		check(t, err)
		if again.deleted != doc.deleted || !reflect.DeepEqual(plainly(again), plainly(doc)) {
			t.Errorf("%s is read back as %s", plainly(doc), plainly(again))
		}
	})
}

func plainly(doc *document) map[string]string {
	all := map[string]string{}
	for key, r := range doc.records {
		all[key] = fmt.Sprint(r.Version, r.Created.UTC(), r.Data.Reveal())
	}
	return all
}
