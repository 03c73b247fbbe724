package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	logDelay = 50 * time.Millisecond // how late a line may come
	logBatch = 32 << 10              // bytes that are not kept waiting
)

// logBuffer writes lines together: a write for each request is a fourteenth of
// what the request costs. It begins unbuffered; hold begins to wait, and release
// ends that. What is lost when the process is killed is logDelay old at most, and
// never a warning (flushing).
type logBuffer struct {
	w io.Writer

	mu      sync.Mutex
	holding bool
	pending []byte
	timer   *time.Timer // running while something is pending; nil before hold
}

// Write implements io.Writer. A failed write of what was held back is nobody's
// line: its error is dropped, as slog drops that of any line.
func (b *logBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.holding {
		return b.w.Write(line)
	}
	if len(b.pending) == 0 {
		b.timer.Reset(logDelay)
	}
	b.pending = append(b.pending, line...)
	if len(b.pending) >= logBatch {
		b.write()
	}
	return len(line), nil
}

// WriteLine implements proxy.LineWriter.
func (b *logBuffer) WriteLine(line []byte) { _, _ = b.Write(line) }

// write empties the buffer; the caller holds mu.
func (b *logBuffer) write() {
	if len(b.pending) > 0 {
		_, _ = b.w.Write(b.pending)
		b.pending = b.pending[:0]
	}
}

func (b *logBuffer) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write()
}

func (b *logBuffer) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = time.AfterFunc(logDelay, b.flush)
	b.holding = true
}

func (b *logBuffer) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write()
	b.holding = false
}

// flushing has warnings and errors written at once, with what came before them.
type flushing struct {
	slog.Handler
	buffer *logBuffer
}

// Handle implements slog.Handler.
func (h flushing) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.buffer.flush()
	}
	return err
}

// WithAttrs implements slog.Handler.
func (h flushing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return flushing{h.Handler.WithAttrs(attrs), h.buffer}
}

// WithGroup implements slog.Handler.
func (h flushing) WithGroup(name string) slog.Handler {
	return flushing{h.Handler.WithGroup(name), h.buffer}
}
