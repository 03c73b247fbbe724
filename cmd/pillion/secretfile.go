package main

import (
	"bytes"
	"errors"
	"io"
	"os"

	"pillion/creds"
)

// maxSecret is far above any key or token, and keeps a wrong path (a disk
// image, a device) out of memory.
const maxSecret = 1 << 20

// secretReader reads secrets from files, one of them from standard input.
type secretReader struct {
	stdin io.Reader
	used  bool
}

// read returns the content of file, or of standard input for "-".
func (r *secretReader) read(file string) (creds.Secret, error) {
	if file != "-" {
		return readSecretFile(file)
	}
	if r.used {
		return creds.Secret{}, usagef("standard input holds one secret: put the others into files")
	}
	r.used = true
	data, err := io.ReadAll(io.LimitReader(r.stdin, maxSecret+1))
	if err != nil {
		return creds.Secret{}, errors.New("standard input cannot be read")
	}
	return secretOf(data)
}

// readSecretFile returns the content of file. Its errors do not repeat the path:
// it may be the secret itself, put in the wrong place.
func readSecretFile(file string) (creds.Secret, error) {
	data, err := readLimited(file)
	if err != nil {
		return creds.Secret{}, errors.New(fileProblem(err) + ": name a file that holds the secret")
	}
	return secretOf(data)
}

// secretOf drops one line end, which editors and echo put there.
func secretOf(data []byte) (creds.Secret, error) {
	if len(data) > maxSecret {
		return creds.Secret{}, errors.New("it is larger than 1 MiB: that is no secret")
	}
	data = bytes.TrimSuffix(data, []byte("\n"))
	data = bytes.TrimSuffix(data, []byte("\r"))
	if len(data) == 0 {
		return creds.Secret{}, errors.New("it is empty: write the secret into it")
	}
	return creds.NewSecret(string(data)), nil
}

func readLimited(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSecret+1))
}
