package filestore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"pillion/creds"
)

// firstStartWait is how long Open waits for another process that is making the
// key and the store; that takes it milliseconds.
const firstStartWait = 10 * time.Second

// prepare makes whatever a first start finds missing, and removes what a killed
// writer left behind.
func (s *Store) prepare() error {
	if err := ownDirectory(filepath.Dir(s.path)); err != nil {
		return err
	}
	if exists(s.path) && exists(s.keyPath) && !exists(s.tmpPath()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), firstStartWait)
	defer cancel()
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	_ = os.Remove(s.tmpPath())
	_ = os.Remove(tmpOf(s.keyPath))
	if !exists(s.keyPath) && !exists(s.path) {
		if err := makeKey(s.keyPath, s.now()); err != nil {
			return err
		}
	}
	k, err := readKeys(s.keyPath)
	if err != nil || exists(s.path) {
		return err
	}
	return s.replace(&document{records: map[string]creds.Record{}}, k)
}

// exists reports whether anything stands at path, or might: what cannot be
// looked at is not made anew.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// ownDirectory makes the state directory, or checks the one that is there.
func ownDirectory(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return unavailable("making the state directory %s: %w: make it, and its owner uid %d", path, cause(err), os.Geteuid())
	}
	return checkDirectory(path)
}

// checkDirectory checks that the state directory is ours alone to write. Otherwise another user could exchange the key or the store; and root
// writing into a service's directory would leave it a store that it cannot read.
// Others may look into it: what clients need may lie below.
func checkDirectory(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return unavailable("looking at the state directory %s: %w: make uid %d its owner", path, cause(err), os.Geteuid())
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return unavailable("the state directory %s belongs to uid %d and this is uid %d: run pillion as its owner", path, stat.Uid, os.Geteuid())
	}
	if info.Mode().Perm()&0o022 != 0 {
		return unavailable("others can write to the state directory %s (mode %04o): chmod go-w %s, or name a directory of its own inside it", path, info.Mode().Perm(), path)
	}
	return nil
}

func (s *Store) tmpPath() string { return tmpOf(s.path) }

// tmpOf is one fixed name, since only the lock's holder writes there: so what a
// killed writer left can be told, and there is never more than one of it. It is
// not PATH.tmp, which people take for copies of their own.
func tmpOf(path string) string {
	dir, base := filepath.Split(path)
	return filepath.Join(dir, "."+base+".writing")
}

// replace makes doc the store's content: all of it or, after an error, nothing of
// it. The caller holds the lock.
func (s *Store) replace(doc *document, k *keys) error {
	plain, err := doc.encode()
	if err != nil {
		return unavailable("writing %s: %w", s.path, err)
	}
	sealed, err := seal(plain, slices.Concat(k.recipients, s.extra))
	if err != nil {
		return unavailable("encrypting %s: %w: look at the key file %s and the other recipients", s.path, err, s.keyPath)
	}
	if len(sealed) > maxSize {
		return unavailable("writing %s: it would grow beyond %d MiB: delete credentials that nobody uses", s.path, maxSize>>20)
	}
	file, err := writeFile(s.tmpPath(), sealed)
	if err != nil {
		return cannotWrite(s.path, err)
	}
	info, err := file.Stat()
	if err == nil {
		err = os.Rename(s.tmpPath(), s.path)
	}
	if err != nil {
		_ = file.Close()
		_ = os.Remove(s.tmpPath())
		return cannotWrite(s.path, err)
	}
	s.keep(&snapshot{file: file, id: identify(info), doc: doc, keyText: k.text})
	return syncDirectory(s.path)
}

// writeFile makes a new file, durable but for its name, and returns it open. What
// stood there is removed first; after an error there is nothing.
func writeFile(path string, text []byte) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = file.Write(text); err == nil {
		err = file.Sync()
	}
	if err != nil {
		_ = file.Close()
		_ = os.Remove(path)
		return nil, err
	}
	return file, nil
}

// syncDirectory makes the new name of path durable.
func syncDirectory(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err == nil {
		err = dir.Sync()
		_ = dir.Close()
	}
	if err != nil {
		return unavailable("syncing the directory of %s: %w: it is written, but may be lost with the power; look after its disk", path, cause(err))
	}
	return nil
}
