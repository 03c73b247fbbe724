package console

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"sync"
	"time"
)

// sealer turns small values into text that only holders of the key can read or
// make: cookies, and nonces in links. A purpose is bound in, so that one kind is
// never taken for another.
type sealer struct{ aead cipher.AEAD }

var errSeal = errors.New("was not made here, or is cut")

func newSealer(key []byte) (*sealer, error) {
	if len(key) < 32 {
		return nil, errors.New("must have at least 32 random bytes")
	}
	derived, err := hkdf.Key(sha256.New, key, nil, "pillion console seal v1", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &sealer{aead}, nil
}

func (s *sealer) seal(purpose string, value any) string {
	plain, err := json.Marshal(value)
	if err != nil {
		panic("console: sealing a value of ours: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, plain, []byte(purpose)))
}

func (s *sealer) open(purpose, text string, value any) error {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return errSeal
	}
	plain, err := s.aead.Open(nil, nil, sealed, []byte(purpose))
	if err != nil || json.Unmarshal(plain, value) != nil {
		return errSeal
	}
	return nil
}

func newID() string { return rand.Text() }

// onceSet remembers what was used up, until it would not be accepted anyway. It is
// this process's own: another replica does not know of it, and what must hold there
// too is bound to more (a consent to its record in the store, a session and a login to
// Vault, which takes a state once).
type onceSet struct {
	now  func() time.Time
	mu   sync.Mutex
	ends map[string]time.Time
}

// use reports whether id was not used before.
func (o *onceSet) use(id string, until time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	for known, end := range o.ends {
		if end.Before(now) {
			delete(o.ends, known)
		}
	}
	if _, used := o.ends[id]; used {
		return false
	}
	if o.ends == nil {
		o.ends = map[string]time.Time{}
	}
	o.ends[id] = until
	return true
}

func (o *onceSet) has(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, used := o.ends[id]
	return used
}
