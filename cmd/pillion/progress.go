package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progressBar shows how far a file has come, on a terminal.
type progressBar struct {
	w     io.Writer // nil: nowhere
	name  string
	begin time.Time
	first int64 // what was there before
	last  time.Time
}

const (
	barWidth    = 24
	barInterval = 100 * time.Millisecond
)

func newProgressBar(w io.Writer, name string, quiet bool) *progressBar {
	b := &progressBar{name: printableName(name), begin: time.Now(), first: -1}
	if !quiet && isTerminal(w) {
		b.w = w
	}
	return b
}

// printableName keeps control characters off the terminal, and the line short.
func printableName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, name)
	if runes := []rune(name); len(runes) > 24 {
		return string(runes[:21]) + "..."
	}
	return name
}

// show is upload.File.Progress.
func (b *progressBar) show(confirmed, size int64) {
	if b.w == nil {
		return
	}
	now := time.Now()
	if b.first < 0 {
		b.first = confirmed
	}
	if now.Sub(b.last) < barInterval && confirmed < size {
		return
	}
	b.last = now
	fmt.Fprintf(b.w, "\r%s\x1b[K", b.line(confirmed, size, now.Sub(b.begin)))
}

func (b *progressBar) line(confirmed, size int64, took time.Duration) string {
	part := 1.0
	if size > 0 {
		part = float64(confirmed) / float64(size)
	}
	full := int(part * barWidth)
	rate := float64(confirmed-b.first) / max(took.Seconds(), 0.001)
	text := fmt.Sprintf("%-24s %3.0f%% [%s%s] %s of %s, %s/s", b.name, part*100, strings.Repeat("=", full), strings.Repeat(" ", barWidth-full),
		bytesText(confirmed), bytesText(size), bytesText(int64(rate)))
	if rate > 0 && confirmed < size {
		text += ", " + (time.Duration(float64(size-confirmed)/rate) * time.Second).Round(time.Second).String() + " left"
	}
	return text
}

// end takes the bar away: what came of it stands in a line of its own.
func (b *progressBar) end() {
	if b.w != nil && !b.last.IsZero() {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
