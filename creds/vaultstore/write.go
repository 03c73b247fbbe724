package vaultstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"pillion/creds"
)

// A write whose answer is lost (a timeout, a broken connection, a 502 of what
// stands between) may have been applied or not, and both guesses are wrong:
// repeating it looks like a conflict with itself, giving it up loses it.
//
// So every write carries a mark, a random text under the version that it makes, in
// a member of the record that Get takes away again:
//
//	"_write": {"6": "9f2c41d0", "7": "03a1b2c3"}
//
// After an unclear end the version that the write would have made is read: our
// mark, it was applied; another, somebody was faster; no such version, the same
// write is sent again, which is safe, for check-and-set lets at most one of them
// through. The marks of the versions before stand there as well, since KV keeps
// only a few versions, and many writers make those in no time.
//
// This needs read access to the record; where a role may only write (the page, for
// grants), a merge patch, which may be repeated, is used.

const (
	// markMember is the member of a stored record that holds the marks.
	markMember = "_write"
	// marksKept is how many versions back they go, at 17 bytes each: a writer on a
	// busy machine may be overtaken by dozens before it can look.
	marksKept = 64
)

// marks are the marks of the newest versions, by version.
type marks map[string]string

// newMark makes a mark. It is only ever compared with that of another writer of
// the same version, so that it can be short.
func newMark() string {
	var mark [4]byte
	rand.Read(mark[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(mark[:])
}

// with returns m and a mark of the version, without those that are too old.
func (m marks) with(version int, mark string) marks {
	next := marks{strconv.Itoa(version): mark}
	for known, text := range m {
		if v, err := strconv.Atoi(known); err == nil && v < version && v > version-marksKept {
			next[known] = text
		}
	}
	return next
}

// history remembers the marks of what was read or written last, by path.
type history struct {
	mu    sync.Mutex
	known map[string]struct {
		version int
		marks   marks
	}
}

func (h *history) note(path string, version int, m marks) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known == nil {
		h.known = map[string]struct {
			version int
			marks   marks
		}{}
	}
	h.known[path] = struct {
		version int
		marks   marks
	}{version, m}
}

// of returns the marks of a record at that version; nil if they are not known.
func (h *history) of(path string, version int) marks {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known := h.known[path]; known.version == version {
		return known.marks
	}
	return nil
}

var errNoObject = errors.New("the record must be one JSON object")

// object decodes a record that is to be written. Errors quote nothing.
func object(data creds.Secret) (map[string]json.RawMessage, error) {
	var record map[string]json.RawMessage
	raw := []byte(data.Reveal())
	// json.Valid lets through what Vault would change.
	if !utf8.Valid(raw) || !json.Valid(raw) || json.Unmarshal(raw, &record) != nil || record == nil {
		return nil, errNoObject
	}
	return record, nil
}

// unmark returns a record as it was written, and its marks.
func unmark(raw json.RawMessage) (creds.Secret, marks, error) {
	var record map[string]json.RawMessage
	if json.Unmarshal(raw, &record) != nil {
		return creds.Secret{}, nil, errNoObject
	}
	var m marks
	if text, ok := record[markMember]; ok {
		_ = json.Unmarshal(text, &m) // what another tool made of it is no mark
		delete(record, markMember)
		var err error
		if raw, err = encode(record); err != nil {
			return creds.Secret{}, nil, errNoObject
		}
	}
	return creds.NewSecret(string(raw)), m, nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// write is the body of a write.
type write struct {
	Options struct {
		CAS int `json:"cas"`
	} `json:"options"`
	Data map[string]json.RawMessage `json:"data"`
}

// CAS writes data if the record still has that version. A record that another
// tool has deleted, but not its history, counts as none: it takes version 0, and
// the new version is higher than 1.
func (s *Store) CAS(ctx context.Context, key string, data creds.Secret, version int) (int, error) {
	next, err := s.cas(ctx, key, data, version)
	if err != nil {
		return 0, writing(key, err)
	}
	s.client.noteWriter(ctx, s, key, next)
	return next, nil
}

func writing(key string, err error) error { return fmt.Errorf("writing %s: %w", key, err) }

func (s *Store) cas(ctx context.Context, key string, data creds.Secret, version int) (int, error) {
	if _, err := object(data); err != nil {
		return 0, err
	}
	if err := s.client.checkMount(ctx); err != nil {
		return 0, err
	}
	next, err := s.put(ctx, key, data, version)
	if !errors.Is(err, creds.ErrConflict) {
		return next, err
	}
	current, readErr := s.read(ctx, key, 0)
	switch {
	case readErr != nil: // it may be gone, or not for us to read
		return 0, creds.ErrConflict
	case version == 0 && current.data.IsZero():
		return s.put(ctx, key, data, current.Version)
	}
	return 0, &creds.ConflictError{By: current.by(), At: current.Created}
}

// put writes over exactly that version.
func (s *Store) put(ctx context.Context, key string, data creds.Secret, over int) (int, error) {
	path, err := s.api("data", key)
	if err != nil {
		return 0, err
	}
	record, err := object(data)
	if err != nil {
		return 0, err
	}
	mark := newMark()
	all := s.client.history.of(path, over).with(over+1, mark)
	if record[markMember], err = encode(all); err != nil {
		return 0, err
	}
	body := write{Data: record}
	body.Options.CAS = over
	version, err := s.send(ctx, key, mark, over, request{operation: "cas", method: "POST", path: path, body: body})
	if err == nil {
		s.client.history.note(path, version, all)
	}
	return version, err
}

// send does a write over a version, and finds out what became of it.
func (s *Store) send(ctx context.Context, key, mark string, over int, q request) (int, error) {
	deadline := s.client.clarifyUntil(ctx)
	lost := false // an answer
	for try := 0; ; try++ {
		a, err := s.client.call(ctx, q)
		switch {
		case err == nil:
			if version, ok := versionOf(a); ok {
				return version, nil
			}
			err = s.client.problem(Broken, "confirmed a write without a version")
		case errors.Is(err, errCAS) && !lost:
			return 0, creds.ErrConflict
		case !errors.Is(err, errCAS) && !unclear(err) && !lost:
			return 0, err
		}
		lost = true
		if version, known, fate := s.fate(ctx, key, mark, over+1); known {
			return version, fate
		}
		if errors.Is(err, errCAS) || !s.client.pause(ctx, try, deadline) {
			return 0, s.client.neverKnown(err)
		}
	}
}

// fate reads the version that a write would have made. It is known when that is
// there, or its mark in the newest one; what is not there may still come.
func (s *Store) fate(ctx context.Context, key, mark string, version int) (int, bool, error) {
	found, err := s.read(ctx, key, version)
	if err != nil || found.data.IsZero() {
		if found, err = s.read(ctx, key, 0); err != nil {
			return 0, false, nil
		}
	}
	switch found.marks[strconv.Itoa(version)] {
	case mark:
		return version, true, nil
	case "":
		// Somebody wrote it without a mark, or it is too long ago to tell.
		known := found.Version == version && !found.data.IsZero()
		return 0, known, creds.ErrConflict
	}
	return 0, true, creds.ErrConflict
}

// neverKnown is the end of a write of which nothing could be found out.
func (c *Client) neverKnown(err error) error {
	e := c.problem(Timeout, "took a write and its answer was lost: look whether it took place before you repeat it")
	e.Unclear = true
	if errors.Is(err, errCAS) {
		e.cause = errCAS
	}
	var last *Error
	if errors.As(err, &last) {
		e.Kind, e.cause = last.Kind, last.cause
		e.Problem = last.Problem + "; whether the write took place is not known: look before you repeat it"
	}
	return e
}

func versionOf(a answer) (int, bool) {
	var body struct {
		Data version `json:"data"`
	}
	if a.decode(&body) != nil || body.Data.Version == 0 {
		return 0, false
	}
	return body.Data.Version, true
}

// clarify is how long a write tries to find out what became of it, when its
// caller sets no earlier end.
const clarify = 30 * time.Second

func (c *Client) clarifyUntil(ctx context.Context) time.Time {
	end := time.Now().Add(clarify)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		return deadline
	}
	return end
}

// pause waits before another try, and reports whether there is time for it.
func (c *Client) pause(ctx context.Context, try int, deadline time.Time) bool {
	wait := backOff(try)
	if try == 0 {
		wait /= 10 // most answers are lost alone
	}
	if time.Now().Add(wait).After(deadline) {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
