package filestore

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The lock is flock(2) on a file of its own, since the store's file is replaced
// by every write. It goes with the process that holds it, however that ends.
//
// It is called directly rather than through github.com/gofrs/flock: that package
// honours a context only by polling, which makes eight writers wait for timers
// and starves some, while the kernel wakes the next waiter at once. What it would
// add, Windows, nothing else here supports.

type locked struct {
	file *os.File
	err  error
}

// lock waits until no other goroutine and no other process writes, or ctx ends.
// A blocked flock cannot be interrupted, so it runs aside; who stops waiting
// leaves it there to release what it gets. Only the holder of s.turn starts one,
// so a hung holder in another process costs each Store one blocked thread at most.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	waiting := func() error {
		return unavailable("waiting for the lock %s: %w: another process holds it", s.lockPath(), ctx.Err())
	}
	if ctx.Err() != nil {
		return nil, waiting()
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, waiting()
	}
	got := make(chan locked, 1)
	go func() { got <- flock(s.lockPath()) }()
	select {
	case l := <-got:
		if l.err != nil {
			<-s.turn
			return nil, unavailable("locking %s: %w: let uid %d write it", s.lockPath(), cause(l.err), os.Geteuid())
		}
		return func() { s.release(l) }, nil
	case <-ctx.Done():
		go func() { s.release(<-got) }()
		return nil, waiting()
	}
}

func (s *Store) lockPath() string { return s.path + ".lock" }

func (s *Store) release(l locked) {
	if l.file != nil {
		// Said explicitly: a child process being forked right now has a copy of
		// the descriptor for a moment, and closing ours alone would not unlock.
		_ = unix.Flock(int(l.file.Fd()), unix.LOCK_UN)
		_ = l.file.Close()
	}
	<-s.turn
}

// flock opens the file at path and locks it. Somebody may have removed the file
// meanwhile: a lock on a file that is gone excludes nobody, so it starts again.
func flock(path string) locked {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return locked{err: err}
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		for errors.Is(err, unix.EINTR) {
			err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			_ = file.Close()
			return locked{err: err}
		}
		if isAt(file, path) {
			return locked{file: file}
		}
		_ = file.Close()
	}
}

// isAt reports whether file is what stands at path.
func isAt(file *os.File, path string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(ours, there)
}
