package filestore

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// snapshot is the decrypted content of one file, and what tells that the store's
// path still leads to that file.
//
// Its file stays open as long as the snapshot may be compared. That is what makes
// the comparison sound: the inode of an open file is not given to another one, so
// however fast two writers rename after each other, within one tick of mtime and
// with equal sizes, another file has another inode number. mtime and size are for
// tools that write into the file itself, which pillion never does. The price is
// one descriptor, and the room of one replaced file until the process reads again.
//
// Two are never mixed up: a reader compares under s.mu, which whoever closes the
// file holds alone.
type snapshot struct {
	file    *os.File
	id      identity
	doc     *document // never changed
	keyText []byte
}

type identity struct {
	dev, ino uint64
	size     int64
	mtime    time.Time
}

func identify(info fs.FileInfo) identity {
	id := identity{size: info.Size(), mtime: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		id.dev, id.ino = uint64(stat.Dev), stat.Ino //nolint:unconvert // Dev is an int32 on macOS
	}
	return id
}

// maxSize bounds what is read into memory: fifty thousand credentials of 1 KiB.
const maxSize = 64 << 20

// current returns the content as of now, decrypted only if the file has changed.
func (s *Store) current() (*snapshot, error) {
	s.mu.RLock()
	snap := s.cached
	hit := snap != nil && snap.isAt(s.path)
	s.mu.RUnlock()
	if hit {
		return snap, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cached != nil && s.cached.isAt(s.path) {
		return s.cached, nil // another goroutine has read it while we waited
	}
	k, err := readKeys(s.keyPath)
	if err != nil {
		return nil, err
	}
	return s.load(k)
}

// readable returns the content as of now, decrypted with exactly these keys. A
// writer needs that: a key file exchanged behind our back must be found not to
// open the store, not be what the store is encrypted to from then on.
func (s *Store) readable(k *keys) (*snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cached != nil && s.cached.isAt(s.path) && bytes.Equal(s.cached.keyText, k.text) {
		return s.cached, nil
	}
	return s.load(k)
}

// load reads the file into the cache. The caller holds s.mu.
func (s *Store) load(k *keys) (*snapshot, error) {
	file, err := os.OpenFile(s.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, s.cannotRead(err)
	}
	snap, err := s.read(file, k)
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	s.swap(snap)
	return snap, nil
}

func (s *Store) read(file *os.File, k *keys) (*snapshot, error) {
	// The identity is taken first: a change while we read makes the next
	// comparison fail, instead of passing for what we have not seen.
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, s.cannotRead(err)
	case !info.Mode().IsRegular():
		return nil, unavailable("%s is not a regular file: name another file", s.path)
	case info.Size() > maxSize:
		return nil, unavailable("%s is larger than a store can be (%d MiB): name another file, or restore the store from a backup", s.path, maxSize>>20)
	}
	sealed, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, s.cannotRead(err)
	}
	plain, err := unseal(sealed, k, s.keyPath)
	if err != nil {
		return nil, unavailable("%s %w", s.path, err)
	}
	doc, err := decode(plain)
	if err != nil {
		return nil, unavailable("%s %w", s.path, err)
	}
	return &snapshot{file: file, id: identify(info), doc: doc, keyText: k.text}, nil
}

func (s *Store) cannotRead(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return unavailable("%s is gone: restore it from a backup, or start again for an empty one", s.path)
	case errors.Is(err, unix.ELOOP):
		return unavailable("%s is a symbolic link, which a write would replace: name the file that it leads to", s.path)
	}
	return unavailable("%s cannot be read by uid %d (%w): make that user its owner", s.path, os.Geteuid(), cause(err))
}

func (n *snapshot) isAt(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && identify(info) == n.id
}

// keep makes snap what the cache holds.
func (s *Store) keep(snap *snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swap(snap)
}

func (s *Store) swap(snap *snapshot) {
	if s.cached != nil {
		_ = s.cached.file.Close()
	}
	s.cached = snap
}
