package sftpgw

import (
	"context"
	"log/slog"
	"time"
)

// Entry is what is known of one session when it is over: the log's one line, and
// what the live request log shows. It never holds a secret.
type Entry struct {
	Time       time.Time     `json:"time"`
	Credential string        `json:"credential,omitempty"`
	User       string        `json:"user"`   // as the client called itself
	Via        string        `json:"via"`    // user, connect, jump or listener
	Host       string        `json:"host"`   // and the port
	Client     string        `json:"client"` // the version that it announced
	Files      int           `json:"files"`  // opened, whatever became of them
	In         int64         `json:"in"`     // bytes from the client
	Out        int64         `json:"out"`    // bytes to the client
	Duration   time.Duration `json:"duration"`
	Upstream   time.Duration `json:"upstream"`         // until the server was reached and logged in to
	Error      string        `json:"error,omitempty"`  // the kind of refusal or loss
	Detail     string        `json:"detail,omitempty"` // its text
}

// entry begins what is told of a session.
func (n *conn) entry() Entry {
	e := Entry{Time: n.server.now(), Via: n.via, Host: n.target.Host}
	if n.ssh != nil {
		e.User, e.Client = short(n.ssh.User()), short(string(n.ssh.ClientVersion()))
	}
	return e
}

// short bounds what a stranger may write into a log line.
func short(text string) string {
	const most = 128
	if len(text) > most {
		return text[:most] + "..."
	}
	return text
}

// finish logs and counts a session that is over; r is nil if it ended well.
func (n *conn) finish(e Entry, r *refusal) {
	result := resultOK
	if r != nil {
		result, e.Error, e.Detail = r.kind, r.kind, r.sentence
		if r.detail != "" {
			e.Detail = r.detail
		}
	}
	e.Duration = n.server.now().Sub(e.Time)
	n.server.Metrics.count(&e, result)
	n.server.logSession(&e)
}

func (s *Server) logSession(e *Entry) {
	level := slog.LevelInfo
	if e.Error != "" {
		level = slog.LevelWarn
	}
	s.Log.LogAttrs(context.Background(), level, "sftp session",
		slog.String("credential", e.Credential),
		slog.String("user", e.User),
		slog.String("via", e.Via),
		slog.String("host", e.Host),
		slog.String("client", e.Client),
		slog.Int("files", e.Files),
		slog.Int64("in", e.In),
		slog.Int64("out", e.Out),
		slog.Float64("ms", milliseconds(e.Duration)),
		slog.Float64("upstream_ms", milliseconds(e.Upstream)),
		slog.String("error", e.Error),
		slog.String("detail", e.Detail),
	)
	if s.OnEntry != nil {
		s.OnEntry(*e)
	}
}

// logFile writes the line of one file that a client has written, or begun to.
// Its bytes are those that the server has confirmed.
func (s *Server) logFile(e *Entry, f File) {
	if f.Op != OpWrite {
		return
	}
	level := slog.LevelInfo
	if f.Error != "" {
		level = slog.LevelWarn
	}
	s.Log.LogAttrs(context.Background(), level, "sftp file",
		slog.String("credential", e.Credential),
		slog.String("host", e.Host),
		slog.String("path", f.Path),
		slog.Int64("bytes", f.Bytes),
		slog.Float64("ms", milliseconds(f.Duration)),
		slog.String("error", f.Error),
	)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
