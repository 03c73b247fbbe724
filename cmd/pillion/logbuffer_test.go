package main

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type countedWriter struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
}

func (w *countedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	return w.text.Write(p)
}

func (w *countedWriter) get() (text string, writes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String(), w.writes
}

// Lines keep their order, come within logDelay, and none is lost.
func TestLogBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w countedWriter
		b := &logBuffer{w: &w}
		log := slog.New(flushing{slog.NewTextHandler(b, nil), b}).With("a", 1)
		expect := func(when, last string, writes int) {
			t.Helper()
			text, n := w.get()
			if n != writes || !strings.HasSuffix(strings.TrimSpace(text), last) {
				t.Errorf("%s: %d writes, want %d up to %s:\n%s", when, n, writes, last, text)
			}
		}
		log.Info("one")
		expect("unbuffered", "msg=one a=1", 1)
		b.hold()
		log.Info("two")
		log.Info("three")
		expect("held back", "msg=one a=1", 1)
		time.Sleep(logDelay + time.Millisecond) // of the bubble's clock
		expect("after the delay", "msg=three a=1", 2)
		log.Info("four")
		log.Warn("five")
		expect("a warning", "msg=five a=1", 3)
		log.Info(strings.Repeat("x", logBatch))
		expect("a whole batch", "a=1", 4)
		log.Info("six")
		b.release()
		expect("released", "msg=six a=1", 5)
		log.Info("seven")
		expect("unbuffered again", "msg=seven a=1", 6)
		text, _ := w.get()
		if lines := strings.Count(text, "\n"); lines != 8 {
			t.Errorf("%d lines, want 8", lines)
		}
	})
}
