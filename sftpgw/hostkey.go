package sftpgw

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
)

// hostKeyFile is in the state directory, which clients never see.
const hostKeyFile = "ssh_host_ecdsa_key"

// LoadHostKey returns the gateway's own host key from the state directory, and
// makes it at the first start, mode 0600. Several processes may start at once:
// they end up with the same key.
//
// It is one ECDSA P-256 key. All clients know the type, and a second type would
// have rclone 1.60 ask for the one that its known_hosts file lacks.
func LoadHostKey(dir string) (ssh.Signer, error) {
	path := filepath.Join(dir, hostKeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeHostKey(path); err == nil || errors.Is(err, fs.ErrExist) {
			text, err = os.ReadFile(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("loading the SSH host key: %w", err)
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the SSH host key %s can be read by other users (mode %04o): chmod 600 it, or remove it for a new one", path, info.Mode().Perm())
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil || key.PublicKey().Type() != ssh.KeyAlgoECDSA256 {
		// The parser's own words might hold what is in the file.
		return nil, fmt.Errorf("the SSH host key %s is not an ECDSA P-256 key in the OpenSSH form: remove it for a new one, which clients have to be told", path)
	}
	return key, nil
}

func makeHostKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making the SSH host key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(key, "pillion")
	if err != nil {
		return fmt.Errorf("making the SSH host key: %w", err)
	}
	return placeFile(path, pem.EncodeToMemory(block), 0o600, os.Link)
}

// placeFile makes a file whole or not at all: by os.Link, if there is none of the
// name yet, or by os.Rename.
func placeFile(path string, data []byte, mode fs.FileMode, place func(from, to string) error) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err == nil {
		err = place(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the new name survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
