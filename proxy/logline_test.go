package proxy

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

type lineRecorder struct{ bytes.Buffer }

func (l *lineRecorder) WriteLine(line []byte) { l.Write(line) }

// What stands in the log does not depend on who wrote it.
func TestFastLogLineIsSlogs(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 8))
	text := func() string {
		return []string{"", "tool", "a.example:8443", "/api/x;y=%20", "/\"", "/\\", "/é", "/\x7f", "/<&>", "/\u2028"}[dice.IntN(10)]
	}
	duration := func() time.Duration {
		return []time.Duration{0, 1, 999, 1000, 123456, time.Millisecond, 1234567891, time.Hour, 90 * 24 * time.Hour}[dice.IntN(9)]
	}
	written := 0
	for range 5000 {
		e := &Entry{
			Credential: text(), Method: "GET", Host: text(), Path: text(), Status: 200, In: dice.Int64N(1 << 40), Out: dice.Int64N(100),
			Duration: duration(), Upstream: duration(), Protocol: "HTTP/1.1", TokenAge: duration(),
		}
		var want bytes.Buffer
		var got lineRecorder
		now := time.Unix(dice.Int64N(1<<32), dice.Int64N(1e9))
		s := &Server{Lines: &got, Log: slog.New(timed{slog.NewJSONHandler(&want, nil), now})}
		if !s.logLine(e, now) {
			continue
		}
		written++
		s.Lines = nil
		s.log(e, now)
		if got.String() != want.String() {
			t.Fatalf("got  %swant %s", got.String(), want.String())
		}
	}
	if written < 500 {
		t.Errorf("only %d lines were written", written)
	}
	var got lineRecorder
	s := &Server{Lines: &got, Log: slog.New(slog.NewJSONHandler(&got, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	s.log(&Entry{}, time.Now())
	s.log(&Entry{Error: "loop"}, time.Now())
	if n := strings.Count(got.String(), "\n"); n != 1 {
		t.Errorf("%d lines at level warn, not the refusal alone", n)
	}
}

// timed gives every record one time.
type timed struct {
	slog.Handler
	now time.Time
}

func (h timed) Handle(ctx context.Context, r slog.Record) error {
	r.Time = h.now
	return h.Handler.Handle(ctx, r)
}
