package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime joins the several events of one edit.
	settleTime = 100 * time.Millisecond
	// pollInterval finds what events do not tell: on a network file system, where
	// inotify has run out, behind a symbolic link to another directory.
	pollInterval = 30 * time.Second
)

// watch calls changed when a file that the configuration depends on may have
// changed, until ctx ends. It watches directories, because editors, ConfigMaps
// and our own store replace files by renaming. dirs is asked again after every
// change. Without a watcher (inotify has run out) it polls.
func watch(ctx context.Context, watcher *fsnotify.Watcher, dirs func() []string, changed func()) {
	var events <-chan fsnotify.Event
	var overflows <-chan error
	if watcher != nil {
		defer watcher.Close()
		events, overflows = watcher.Events, watcher.Errors
	}
	follow := func() {
		for _, dir := range dirs() {
			if watcher != nil {
				_ = watcher.Add(dir) // one that is not there is found by polling
			}
		}
	}
	follow()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-events:
			if event.Op != fsnotify.Chmod {
				settled = time.After(settleTime)
			}
		case <-overflows: //nolint:errcheck // whatever was lost, something changed
			settled = time.After(settleTime)
		case <-poll.C:
			changed()
			follow()
		case <-settled:
			settled = nil
			changed()
			follow()
		}
	}
}

// inputs are the files that the configuration is made of.
func (c *config) inputs() []string {
	var files []string
	for _, f := range []string{c.file, c.Upstream.CAFile, c.Proxy.ClientTokenFile} {
		if f != "" {
			files = append(files, f)
		}
	}
	return files
}

// watchedDirs are the directories of all files whose change counts.
func (c *config) watchedDirs() []string {
	seen := map[string]bool{}
	var dirs []string
	files := c.inputs()
	if c.vault == nil {
		files = append(files, c.Store.File.Path)
	}
	for _, f := range files {
		if dir := filepath.Dir(f); !seen[dir] {
			seen[dir] = true
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// fingerprint tells whether anything changed, and what: the content of the inputs,
// and which file the store is now (its content is for the store to read). The two
// are told apart since the store changes with every token that it keeps.
type fingerprint struct{ inputs, store string }

func (c *config) fingerprint() fingerprint {
	var f fingerprint
	h := sha256.New()
	for _, file := range c.inputs() {
		data, err := os.ReadFile(file)
		fmt.Fprintf(h, "%s\x00%d\x00%v\x00", file, len(data), err != nil)
		h.Write(data)
	}
	f.inputs = string(h.Sum(nil))
	if info, err := os.Stat(c.Store.File.Path); err == nil && c.vault == nil {
		f.store = fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
	}
	return f
}
