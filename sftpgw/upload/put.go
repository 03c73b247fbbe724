package upload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/pkg/sftp"
)

// File is one file to send.
type File struct {
	Source string // here
	Target string // on the server; its directory exists
	// Progress is told how many bytes the server has confirmed; nil: nobody is.
	Progress func(confirmed, size int64)
}

// Result is what Put has done.
type Result struct {
	Size    int64
	Resumed int64 // bytes that were there from an earlier Put
}

// Put sends a file, which stands under its name only once it is whole.
//
//	stat, open                 the temporary file, of an earlier Put or new
//	write                      window chunks at a time
//	close, compare sizes
//	rename                     over an older one
//
// An error leaves the temporary file for the next Put, unless the source changed.
func (s *Session) Put(ctx context.Context, f File) (Result, error) {
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	result, err := s.put(f)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return result, err
}

func (s *Session) put(f File) (Result, error) {
	source, err := os.Open(f.Source)
	if err != nil {
		return Result{}, err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return Result{}, err
	}
	if !info.Mode().IsRegular() {
		return Result{}, fmt.Errorf("%s is not a regular file", f.Source)
	}
	result := Result{Size: info.Size()}
	temporary := temporaryName(f, info)
	if result.Resumed, err = s.write(source, temporary, f.Progress, info.Size()); err != nil {
		return result, err
	}
	if now, err := source.Stat(); err != nil || now.Size() != info.Size() || !now.ModTime().Equal(info.ModTime()) {
		_ = s.sftp.Remove(temporary) // of no use to anybody
		return result, fmt.Errorf("%s was changed while it was sent: send it again", f.Source)
	}
	return result, s.place(temporary, f.Target)
}

// temporaryName is that of this source alone, as it is now: another file of the
// same name, or an older state, is never gone on with.
func temporaryName(f File, info fs.FileInfo) string {
	source, err := filepath.Abs(f.Source)
	if err != nil {
		source = f.Source
	}
	digest := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d", source, info.Size(), info.ModTime().UnixNano()))
	dir, base := path.Split(f.Target)
	return dir + "." + base + "." + hex.EncodeToString(digest[:4]) + ".part"
}

// Chunks are what any server takes in one request. No chunk is sent before the one
// that lies a window before it is confirmed, so that of a file that was cut all
// but the last window is there without a hole. An earlier version's window must
// not be larger than this one's.
const (
	chunk  = 32 << 10
	window = 64
)

// write sends the source from where the temporary file can be relied on.
func (s *Session) write(source io.ReaderAt, name string, progress func(int64, int64), size int64) (from int64, err error) {
	flags := os.O_WRONLY | os.O_CREATE
	if info, err := s.sftp.Stat(name); err == nil && info.Mode().IsRegular() && info.Size() <= size {
		from = max(0, info.Size()/chunk-window) * chunk
	}
	if from == 0 {
		flags |= os.O_TRUNC
	}
	file, err := s.sftp.OpenFile(name, flags)
	if err != nil {
		return 0, s.opening(name, err)
	}
	if err := s.stream(source, file, from, size, progress); err != nil {
		_ = file.Close() // the first error says more
		return from, err
	}
	if err := file.Close(); err != nil {
		return from, fmt.Errorf("closing the file on the server: %w", s.why(err))
	}
	info, err := s.sftp.Stat(name)
	if err != nil {
		return from, fmt.Errorf("looking at the file on the server: %w", s.why(err))
	}
	if info.Size() != size {
		_ = s.sftp.Remove(name)
		return from, fmt.Errorf("the server has %d bytes of %d, although it confirmed all: send it again", info.Size(), size)
	}
	return from, nil
}

func (s *Session) opening(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the server has no directory %s", path.Dir(name))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the server, or sftp.allow, permits no new file in %s", path.Dir(name))
	}
	return s.why(err)
}

// stream sends source from the offset to its end.
func (s *Session) stream(source io.ReaderAt, file *sftp.File, from, size int64, progress func(int64, int64)) error {
	var slots [window]struct {
		buf  []byte
		done chan error // nil: nothing under way
		end  int64
	}
	confirm := func(i int) error {
		slot := &slots[i%window]
		if slot.done == nil {
			return nil
		}
		err := <-slot.done
		slot.done = nil
		if err == nil && progress != nil {
			progress(slot.end, size)
		}
		return err
	}
	i := 0
	var failed error
	for offset := from; offset < size && failed == nil; i++ {
		if failed = confirm(i); failed != nil {
			break
		}
		slot := &slots[i%window]
		if slot.buf == nil {
			slot.buf = make([]byte, chunk)
		}
		n := int(min(chunk, size-offset))
		if _, err := source.ReadAt(slot.buf[:n], offset); err != nil {
			failed = fmt.Errorf("reading the file: %w", err)
			break
		}
		slot.done, slot.end = make(chan error, 1), offset+int64(n)
		go func(at int64, data []byte, done chan<- error) {
			_, err := file.WriteAt(data, at)
			done <- err
		}(offset, slot.buf[:n], slot.done)
		offset += int64(n)
	}
	for range window {
		if err := confirm(i); err != nil && failed == nil {
			failed = err
		}
		i++
	}
	if failed != nil {
		return s.why(failed)
	}
	if progress != nil {
		progress(size, size)
	}
	return nil
}

// place gives the file its name. Servers that cannot rename over an older file
// have it removed first: for a moment there is none, and never half a one.
func (s *Session) place(temporary, target string) error {
	if _, ok := s.sftp.HasExtension("posix-rename@openssh.com"); ok {
		if err := s.sftp.PosixRename(temporary, target); err != nil {
			return s.renaming(temporary, target, err)
		}
		return nil
	}
	err := s.sftp.Rename(temporary, target)
	if err == nil {
		return nil
	}
	if _, missing := s.sftp.Stat(target); missing != nil {
		return s.renaming(temporary, target, err)
	}
	if err := s.sftp.Remove(target); err != nil {
		return fmt.Errorf("removing the older %s (the new one is complete, as %s): %w", target, temporary, s.why(err))
	}
	if err := s.sftp.Rename(temporary, target); err != nil {
		return s.renaming(temporary, target, err)
	}
	return nil
}

func (s *Session) renaming(temporary, target string, err error) error {
	return fmt.Errorf("renaming to %s (it is complete, as %s): %w", target, temporary, s.why(err))
}
