package sftpgw

import (
	"fmt"
	"time"
)

// The operations of File.Op.
const (
	OpWrite = "write"
	OpRead  = "read"
)

// File is what is known of one file when a client is done with it.
type File struct {
	Path     string
	Op       string        // write, also for a file that is read beside; or read
	Bytes    int64         // written and confirmed by the server, or read
	Duration time.Duration // from OPEN to the answer to CLOSE
	Error    string        // "" only where the server confirmed every write and the closing
}

// maxFiles bounds the files that are followed at once. Servers stop earlier.
const maxFiles = 4096

// file is a file that a client has open, or asked for.
type file struct {
	path    string
	op      string
	start   time.Time
	bytes   int64
	waiting int    // WRITE and READ requests without an answer
	closed  bool   // the server confirmed CLOSE
	code    uint32 // the first status other than OK, and EOF of a read
	untold  bool   // an answer could not be told from another's
	index   int    // in files.live
}

// files are those that a session has open.
type files struct {
	byHandle map[string]*file
	live     []*file
	done     []File
	now      func() time.Time
}

// open begins to follow a file, or returns nil when there are too many.
func (fs *files) open(h *head) *file {
	if len(fs.live) >= maxFiles {
		return nil
	}
	f := &file{path: string(h.text), op: OpRead, start: fs.now(), index: len(fs.live)}
	if openNeeds(h.flags)&AllowWrite != 0 {
		f.op = OpWrite
	}
	fs.live = append(fs.live, f)
	return f
}

// opened takes in the handle that the server gave.
func (fs *files) opened(f *file, handle []byte) {
	if fs.byHandle == nil {
		fs.byHandle = make(map[string]*file)
	}
	if other := fs.byHandle[string(handle)]; other != nil {
		other.untold = true // a server that gives one handle twice confirms nothing
		f.untold = true
	}
	fs.byHandle[string(handle)] = f
}

// status takes in an answer that is not OK.
func (f *file) status(code uint32) {
	if f.code == 0 {
		f.code = code
	}
}

// settle ends a file that is closed and has no answers coming.
func (fs *files) settle(f *file) {
	if f.closed && f.waiting == 0 {
		fs.finish(f, "")
	}
}

// forget drops a file that was never opened.
func (fs *files) forget(f *file) {
	last := len(fs.live) - 1
	fs.live[f.index] = fs.live[last]
	fs.live[f.index].index = f.index
	fs.live[last] = nil
	fs.live = fs.live[:last]
}

func (fs *files) finish(f *file, problem string) {
	switch {
	case f.code != 0:
		problem = "the server answered " + statusName(f.code)
	case f.untold:
		problem = "the answers cannot be told apart: a request id or a handle was used twice"
	}
	fs.done = append(fs.done, File{Path: f.path, Op: f.op, Bytes: f.bytes, Duration: fs.now().Sub(f.start), Error: problem})
	fs.forget(f)
}

// unfinishedFile is the error of a file that was still open.
const unfinishedFile = "the session ended before the server confirmed the file"

// finishAll ends what is open when the session ends.
func (fs *files) finishAll() {
	for len(fs.live) > 0 {
		fs.finish(fs.live[len(fs.live)-1], unfinishedFile)
	}
	clear(fs.byHandle)
}

// The status codes of SFTP version 3.
const (
	statusOK               = 0
	statusEOF              = 1
	statusPermissionDenied = 3
)

var statusNames = [...]string{"OK", "end of file", "no such file", "permission denied", "failure", "bad message", "no connection", "connection lost", "operation unsupported"}

func statusName(code uint32) string {
	if code < uint32(len(statusNames)) {
		return statusNames[code]
	}
	return fmt.Sprintf("status %d", code)
}
