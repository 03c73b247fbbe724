package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"pillion/creds"
)

// unavailable is every reason that keeps the store from answering: one line that
// ends with what to do, and errors.Is finds creds.ErrStoreUnavailable in it.
// Decoding errors are never among args: encoding/json and age quote their input.
func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: %w", creds.ErrStoreUnavailable, fmt.Errorf(format, args...))
}

// cause drops the operation and path that package os puts before an errno, since
// the sentence around it already names the file.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// cannotWrite says what happened to a file that could not be written. The caller
// has made sure that the old one stands.
func cannotWrite(path string, err error) error {
	err = cause(err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return unavailable("writing %s: %w: make room on its disk; nothing was changed", path, err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return unavailable("writing %s: %w: let uid %d write to its directory; nothing was changed", path, err, os.Geteuid())
	}
	return unavailable("writing %s: %w: look after its disk; nothing was changed", path, err)
}
