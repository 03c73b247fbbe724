package filestore

import (
	"bytes"
	"path/filepath"
	"testing"

	"pillion/creds/credstest"
)

func TestSealer(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key.txt")
	s, err := OpenSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	plain := credstest.Canary("sealed")
	sealed, err := s.Seal(plain)
	if err != nil || bytes.Contains(sealed, []byte(plain.Reveal())) {
		t.Fatalf("%v", err)
	}
	again, err := OpenSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Unseal(sealed); err != nil || !got.Equal(plain) {
		t.Errorf("%v", err)
	}
	other, err := OpenSealer(filepath.Join(t.TempDir(), "key.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Unseal(sealed); err == nil {
		t.Error("another key opens it")
	}
	if _, err := s.Unseal(sealed[:len(sealed)-1]); err == nil {
		t.Error("a damaged one is opened")
	}
}
