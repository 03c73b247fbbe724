package token

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pillion/creds"
)

// journal keeps answers of token endpoints between their arrival and the store's
// word that it has them: what died in between is handed in at the next start. It
// holds one file for a credential's name and generation.
type journal interface {
	store(name string, gen int, data []byte) error // whole and durable, or not at all
	load(name string) (map[int][]byte, error)
	remove(name string, gen int) error
}

// directory is a journal of files:
//
//	DIR/NAME.GEN.journal  {"schema":"1.0", "parent": fingerprint, "sealed": base64}
//
// sealed is a *purchase under AES-256-GCM, with a key derived from what the answer
// was bought with: the refresh token, or code and verifier. So a file is worthless
// without the grant's record, and beside a record that has moved on.
type directory struct{ path string }

var _ journal = directory{}

const (
	journalSuffix  = ".journal"
	journalWriting = ".writing-"
)

func (d directory) file(name string, gen int) string {
	return filepath.Join(d.path, name+"."+strconv.Itoa(gen)+journalSuffix)
}

// store implements journal: a temporary file, renamed, all of it on the disk.
func (d directory) store(name string, gen int, data []byte) error {
	if err := d.write(d.file(name, gen), data); err != nil {
		return fmt.Errorf("writing the journal of %s: %w", name, err)
	}
	return nil
}

func (d directory) write(path string, data []byte) error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(d.path, journalWriting+"*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // renamed by then, if all is well
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return d.sync()
}

func (d directory) sync() error {
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// load implements journal.
func (d directory) load(name string) (map[int][]byte, error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal of %s: %w", name, err)
	}
	found := map[int][]byte{}
	for _, entry := range entries {
		middle, ok := strings.CutSuffix(strings.TrimPrefix(entry.Name(), name+"."), journalSuffix)
		gen, err := strconv.Atoi(middle)
		if !ok || err != nil || !strings.HasPrefix(entry.Name(), name+".") {
			continue
		}
		if found[gen], err = os.ReadFile(filepath.Join(d.path, entry.Name())); err != nil {
			return nil, fmt.Errorf("reading the journal of %s: %w", name, err)
		}
	}
	return found, nil
}

// sweep removes what nothing will come back for: files of credentials that are gone,
// and those that a write which was cut off has left.
func (d directory) sweep(now time.Time, gone func(name string, age time.Duration) bool) error {
	entries, err := os.ReadDir(d.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("sweeping the journal: %w", err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue // removed by now
		}
		age := now.Sub(info.ModTime())
		middle, ok := strings.CutSuffix(entry.Name(), journalSuffix)
		dot := strings.LastIndexByte(middle, '.')
		switch {
		case strings.HasPrefix(entry.Name(), journalWriting):
			if age < time.Hour {
				continue // somebody is at it
			}
		case !ok || dot < 0 || !gone(middle[:dot], age):
			continue
		}
		if err := os.Remove(filepath.Join(d.path, entry.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("sweeping the journal: %w", err)
		}
	}
	return nil
}

// sweepJournal removes what nobody will hand in any more, at a start: of credentials
// that no store has, and of those that are not looked after here, in the end.
func (r *Refresher) sweepJournal(ctx context.Context) {
	if r.Journal == "" {
		return
	}
	// What is left over lies there until the next start.
	_ = directory{r.Journal}.sweep(r.now(), func(name string, age time.Duration) bool {
		if _, ours := r.Table().ByName(name); ours {
			return false // handIn sees to it
		}
		return age > journalFor || r.unknown(ctx, name)
	})
}

// journalFor is how long an answer is kept of a credential that this process does not
// look after: a sidecar that was given another selection, say.
const journalFor = 30 * 24 * time.Hour

// unknown reports whether no store has the credential. One that does not answer may.
func (r *Refresher) unknown(ctx context.Context, name string) bool {
	for _, store := range r.Stores {
		ctx, cancel := context.WithTimeout(ctx, storePatience)
		_, err := store.Get(ctx, creds.KeyCredentials+name)
		cancel()
		if !errors.Is(err, creds.ErrNotFound) {
			return false
		}
	}
	return len(r.Stores) > 0
}

// remove implements journal.
func (d directory) remove(name string, gen int) error {
	if err := os.Remove(d.file(name, gen)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clearing the journal of %s: %w", name, err)
	}
	return nil
}

// journalEntry is the JSON of a journal's file.
type journalEntry struct {
	Schema string `json:"schema"`
	Parent string `json:"parent"` // fingerprint of what it was bought with, and is sealed with
	Sealed []byte `json:"sealed"` // nonce and ciphertext
}

var errJournalForm = errors.New("the journal's file is not whole, or not for this grant")

// seal makes a journal's file of what a parent has bought.
func seal(name string, b *purchase) ([]byte, error) {
	e := journalEntry{Schema: schema, Parent: b.parent.Fingerprint()}
	box, err := e.box(name, b.parent)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize())
	rand.Read(nonce) // never fails: crypto/rand ends the program instead
	e.Sealed = box.Seal(nonce, nonce, marshal(b), e.bound(name))
	return marshal(e), nil
}

// unseal reads a journal's file with the first of parents that it was sealed with.
func unseal(name string, data []byte, parents ...creds.Secret) (*purchase, error) {
	var e journalEntry
	if json.Unmarshal(data, &e) != nil {
		return nil, errJournalForm
	}
	i := slices.IndexFunc(parents, func(p creds.Secret) bool { return !p.IsZero() && p.Fingerprint() == e.Parent })
	if i < 0 {
		return nil, errJournalForm
	}
	box, err := e.box(name, parents[i])
	if err != nil || len(e.Sealed) < box.NonceSize() {
		return nil, errJournalForm
	}
	text, err := box.Open(nil, e.Sealed[:box.NonceSize()], e.Sealed[box.NonceSize():], e.bound(name))
	b := &purchase{parent: parents[i]}
	if err != nil || json.Unmarshal(text, b) != nil {
		return nil, errJournalForm
	}
	return b, nil
}

func (e journalEntry) box(name string, parent creds.Secret) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(parent.Reveal()), nil, "pillion journal of "+name, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// bound is what a file says in the clear, and cannot be changed.
func (e journalEntry) bound(name string) []byte {
	return []byte(name + "\n" + e.Schema + "\n" + e.Parent)
}
