// Package upload sends files through the gateway: the client behind pillion put.
//
//	session, err := upload.Connect(ctx, conn, "sftp.acme.example:22", hostKey)
//	result, err := session.Put(ctx, upload.File{Source: "report.csv", Target: "in/report.csv"})
//
// A file arrives under a temporary name beside its own, is compared in size, and
// then renamed: who watches the directory sees whole files alone, and what is cut
// in the middle leaves none. The next Put of the same file goes on where the
// temporary one ends.
//
// It knows no credential: conn leads to the gateway, which has them.
package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// Session is an SFTP session through the gateway, for one file at a time.
type Session struct {
	conn   *ssh.Client
	sftp   *sftp.Client
	said   *lastWords
	silent chan struct{} // closed when nothing more will be said
}

// Connect logs in to the gateway on conn, which it closes if that fails. user
// names the target, unless a CONNECT has done so. hostKey must accept the key that
// the gateway publishes.
func Connect(ctx context.Context, conn net.Conn, user string, hostKey ssh.HostKeyCallback) (*Session, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	s, err := connect(conn, user, hostKey)
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return s, nil
}

func connect(conn net.Conn, user string, hostKey ssh.HostKeyCallback) (*Session, error) {
	sshConn, channels, requests, err := ssh.NewClientConn(conn, hostName+":22", &ssh.ClientConfig{
		User: user, HostKeyCallback: hostKey, ClientVersion: "SSH-2.0-pillion-put",
		HostKeyAlgorithms: []string{ssh.KeyAlgoECDSA256}, // the gateway's one key
	})
	if err != nil {
		return nil, fmt.Errorf("reaching pillion's SFTP gateway: %w", err)
	}
	s := &Session{conn: ssh.NewClient(sshConn, channels, requests), said: &lastWords{}, silent: make(chan struct{})}
	session, err := s.conn.NewSession()
	if err != nil {
		return nil, fmt.Errorf("opening a session at pillion's SFTP gateway: %w", err)
	}
	in, err1 := session.StdinPipe()
	out, err2 := session.StdoutPipe()
	words, err3 := session.StderrPipe()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(s.said, words) // ends with the session
		close(s.silent)
	}()
	if err := session.RequestSubsystem("sftp"); err != nil {
		return nil, fmt.Errorf("asking pillion's SFTP gateway for SFTP: %w", err)
	}
	if s.sftp, err = sftp.NewClientPipe(out, in); err != nil {
		return nil, s.why(err)
	}
	return s, nil
}

// hostName is the gateway's own in the known_hosts that it publishes.
const hostName = "pillion"

// Close ends the session and its connection.
func (s *Session) Close() { _ = s.conn.Close() }

// Lost reports whether the session has ended: no further file can be sent.
func (s *Session) Lost() bool {
	select {
	case <-s.silent:
		return true
	default:
		return false
	}
}

// IsDir reports whether there is a directory path on the server. Of a path that
// does not exist it says no; the error tells of a session that does not work.
func (s *Session) IsDir(path string) (bool, error) {
	info, err := s.sftp.Stat(path)
	switch {
	case err == nil:
		return info.IsDir(), nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return false, nil
	}
	return false, s.why(err)
}

// lastWords keeps what comes on the session's error output.
type lastWords struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const mostWords = 4 << 10

func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if left := mostWords - w.text.Len(); left > 0 {
		w.text.Write(p[:min(len(p), left)])
	}
	return len(p), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(w.text.String())
}

// why is err in the gateway's words, where it has said any: as the answer to a
// request when there is no session, on the error output when one was lost.
func (s *Session) why(err error) error {
	var status *sftp.StatusError
	if errors.As(err, &status) {
		return saidError{sentence(status), err}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	timer := time.NewTimer(time.Second) // its words come just before the end
	defer timer.Stop()
	select {
	case <-s.silent:
	case <-timer.C:
	}
	if words := s.said.String(); words != "" {
		return saidError{withoutPrefix(words), err}
	}
	return err
}

// saidError is an error in the words of the gateway or the server.
type saidError struct {
	words string
	err   error
}

// Error implements error.
func (e saidError) Error() string { return e.words }

func (e saidError) Unwrap() error { return e.err }

// sentence is the message of a status, which pkg/sftp gives in quotes only:
// sftp: "MESSAGE" (CODE).
func sentence(status *sftp.StatusError) string {
	text := strings.TrimPrefix(status.Error(), "sftp: ")
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil {
		return text
	}
	message, err := strconv.Unquote(quoted)
	if err != nil || message == "" {
		return text
	}
	return withoutPrefix(message)
}

// withoutPrefix leaves out the name, under which whoever shows it speaks anyway.
func withoutPrefix(words string) string { return strings.TrimPrefix(words, "pillion: ") }
