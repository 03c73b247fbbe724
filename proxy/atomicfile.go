package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// createFile makes a file that does not exist, complete or not at all: the
// error is fs.ErrExist when the name is taken. It needs a file system with hard
// links, as a rename would replace what another process just made.
func createFile(path string, data []byte, mode fs.FileMode) error {
	return placeFile(path, data, mode, os.Link)
}

// replaceFile puts data at path by rename: readers see the old or the new file.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	return placeFile(path, data, mode, os.Rename)
}

// updateFile is replaceFile unless the file has this content and mode already:
// clients that watch the file are not woken for nothing.
func updateFile(path string, data []byte, mode fs.FileMode) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode() == mode {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
			return nil
		}
	}
	return replaceFile(path, data, mode)
}

func placeFile(path string, data []byte, mode fs.FileMode, place func(from, to string) error) (err error) {
	dir, name := filepath.Split(path)
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	temp, err := os.CreateTemp(dir, "."+name+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err != nil {
		return err
	}
	if err := place(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the new name survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
