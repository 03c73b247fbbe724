package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestProgressBar(t *testing.T) {
	b := &progressBar{name: printableName("report\x1b[2J.csv")}
	for _, row := range []struct {
		confirmed, size int64
		want            string
	}{
		{0, 4 << 20, "report?[2J.csv             0% [                        ] 0 B of 4.0 MiB, 0 B/s"},
		{1 << 20, 4 << 20, "report?[2J.csv            25% [======                  ] 1.0 MiB of 4.0 MiB, 1.0 MiB/s, 3s left"},
		{4 << 20, 4 << 20, "report?[2J.csv           100% [========================] 4.0 MiB of 4.0 MiB, 4.0 MiB/s"},
		{0, 0, "report?[2J.csv           100% [========================] 0 B of 0 B, 0 B/s"},
	} {
		if got := b.line(row.confirmed, row.size, time.Second); got != row.want {
			t.Errorf("%q, want\n%q", got, row.want)
		}
	}
	if name := printableName(strings.Repeat("long", 20)); len(name) != 24 || !strings.HasSuffix(name, "...") {
		t.Error(name)
	}
	var out bytes.Buffer // no terminal: nothing
	quiet := newProgressBar(&out, "up", false)
	quiet.show(1, 2)
	quiet.end()
	if out.Len() > 0 {
		t.Errorf("%q", out.String())
	}
	shown := &progressBar{w: &out, name: "up", begin: time.Now(), first: -1}
	for confirmed := range int64(1001) { // as fast as it can
		shown.show(confirmed, 1000)
	}
	shown.end()
	if n := strings.Count(out.String(), "\r"); n < 3 || n > 100 || !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Errorf("%d times, %q", n, out.String())
	}
}
