package proxy

import (
	"context"
	"log/slog"
	"time"
)

// Entry is what is known of one request when it is over: the log's one line, and
// what the live request log shows. It never holds a header or a query.
type Entry struct {
	Time       time.Time     `json:"time"`
	Credential string        `json:"credential,omitempty"`
	Method     string        `json:"method"`
	Host       string        `json:"host"` // with the port, unless it is 443
	Path       string        `json:"path"`
	Status     int           `json:"status"`
	In         int64         `json:"in"`  // bytes of the request's body
	Out        int64         `json:"out"` // bytes of the response's body
	Duration   time.Duration `json:"duration"`
	Upstream   time.Duration `json:"upstream"`            // until the head of the tool's answer; 0 when it was not asked
	Protocol   string        `json:"protocol"`            // HTTP/1.1 or HTTP/2.0, of the client
	TokenAge   time.Duration `json:"token_age,omitempty"` // 0 for static credentials
	Error      string        `json:"error,omitempty"`     // the kind of problem
	Detail     string        `json:"detail,omitempty"`    // its text
}

// log writes the one line of a request that is over now: always the same keys.
func (s *Server) log(e *Entry, now time.Time) {
	if !s.logLine(e, now) {
		s.slog(e)
	}
	if s.OnEntry != nil {
		s.OnEntry(*e)
	}
}

func (s *Server) slog(e *Entry) {
	level := slog.LevelInfo
	if e.Error != "" {
		level = slog.LevelWarn
	}
	s.Log.LogAttrs(context.Background(), level, "request",
		slog.String("credential", e.Credential),
		slog.String("method", e.Method),
		slog.String("host", e.Host),
		slog.String("path", e.Path),
		slog.Int("status", e.Status),
		slog.Int64("in", e.In),
		slog.Int64("out", e.Out),
		slog.Float64("ms", milliseconds(e.Duration)),
		slog.Float64("upstream_ms", milliseconds(e.Upstream)),
		slog.String("protocol", e.Protocol),
		slog.Float64("token_age_s", e.TokenAge.Seconds()),
		slog.String("error", e.Error),
		slog.String("detail", e.Detail),
	)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
