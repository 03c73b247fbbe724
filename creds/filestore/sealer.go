package filestore

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"pillion/creds"
)

// Sealer encrypts what other parts of the program keep in the state directory
// with the key of the store, so that there is one key to look after.
type Sealer struct{ keyPath string }

// OpenSealer returns a Sealer with the key file at keyPath, and makes the key
// when there is none yet.
func OpenSealer(keyPath string) (*Sealer, error) {
	if _, err := os.Lstat(keyPath); errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(keyPath, time.Now()); err != nil {
			if _, again := os.Lstat(keyPath); again != nil { // another process was not faster
				return nil, err
			}
		}
	}
	if _, err := readKeys(keyPath); err != nil {
		return nil, err
	}
	return &Sealer{keyPath}, nil
}

// Seal encrypts plain in the format of age.
func (s *Sealer) Seal(plain creds.Secret) ([]byte, error) {
	k, err := readKeys(s.keyPath)
	if err != nil {
		return nil, err
	}
	return seal([]byte(plain.Reveal()), k.recipients)
}

// Unseal decrypts what Seal made. Its errors complete the sentence "FILE ...".
func (s *Sealer) Unseal(sealed []byte) (creds.Secret, error) {
	k, err := readKeys(s.keyPath)
	if err != nil {
		return creds.Secret{}, err
	}
	plain, err := unseal(sealed, k, s.keyPath)
	if err != nil {
		return creds.Secret{}, err
	}
	return creds.NewSecret(string(plain)), nil
}
