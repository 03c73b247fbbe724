package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// madeUp is a run with round figures: floor 20, nginx 40, pillion 24, squid 100, goproxy 800 microseconds.
func madeUp() *report {
	r := &report{
		machine: machine{CPU: "A <fast> CPU", Cores: 2, Go: "go1.26", Date: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Command: "make bench"},
		plan:    plan{Rounds: 3, Measure: time.Second, Scenarios: scenarios()[:2], Peers: peers()},
	}
	r.results.Missing = map[string]string{}
	cpu := map[string]float64{peerDirect: nan, peerFloor: 20, peerPillion: 24, peerNginx: 40, peerSquid: 100, peerGoproxy: 800}
	for round := 1; round <= 3; round++ {
		for _, p := range peers() {
			r.results.Samples = append(r.results.Samples, sample{Round: round, Scenario: "h1-1k", Peer: p.Name, Requests: 100,
				CPU: cpu[p.Name] * float64(round), Rate: 1000, P50: 100, P99: 200, RSS: 10 << 20, Peak: 12 << 20, Allocations: nan})
		}
		r.results.Beginnings = append(r.results.Beginnings, beginning{round, peerPillion, 120 * time.Millisecond, 60 * time.Millisecond, 10 << 20})
	}
	r.results.Tunnels = tunnels{Count: 100, Alive: 100, Limit: 20000, OpenFiles: 120, Before: 10 << 20, After: 10<<20 + 100*20000, Each: 20000}
	return r
}

func TestTablesHoldMediansAndRatios(t *testing.T) {
	text := madeUp().markdown()
	for _, want := range []string{
		"| HTTP/1.1, 1 KiB | 40.0 ± 50 % | 48.0 ± 50 % | 80.0 ± 50 % | 200 ± 50 % | 1600 ± 50 % | 1.20 | 0.60 |",
		"| HTTP/1.1, 1 KiB | pillion | 48.0 ± 50 % | 1.20 | 0.60 | 1000 | 100 |  | 200 | 10.0 | 12.0 | n/a |",
		"| HTTP/1.1, 100 KiB down | failed |",
		"Measured on 2026-11-22: A <fast> CPU, 2 cores",
		"**20.0 KB each**; 100 of them answered",
		"| pillion, first start (makes its keys) | 120 |",
		"- PASS  HTTP/1.1 CPU a request, to nginx: 0.60 x (at most 0.75 x)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the tables lack %q:\n%s", want, text)
		}
	}
}

func TestTablesAreRectangular(t *testing.T) {
	columns := 0
	for line := range strings.Lines(madeUp().markdown()) {
		if !strings.HasPrefix(line, "|") {
			columns = 0
			continue
		}
		n := strings.Count(line, "|")
		if columns != 0 && n != columns {
			t.Errorf("a row of %d cells in a table of %d: %s", n-1, columns-1, line)
		}
		columns = n
	}
}

func TestNotesSayWhatFailedOnOneLine(t *testing.T) {
	r := madeUp()
	r.results.Missing[peerSquid] = "squid is not installed"
	r.results.Samples = append(r.results.Samples, sample{Round: 2, Scenario: "h1-1k", Peer: peerNginx, Err: "status 502:\n a | b"})
	text := r.markdown()
	for _, want := range []string{"squid (ssl-bump) was left out: squid is not installed.", "nginx, h1-1k, round 2: failed: status 502: a / b."} {
		if !strings.Contains(text, want) {
			t.Errorf("the notes lack %q", want)
		}
	}
	if strings.Contains(text, "| squid (ssl-bump) |") {
		t.Error("a peer that was left out has a column")
	}
}

func TestProseAroundTheMarkersIsKept(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "performance.md")
	if err := os.WriteFile(file, []byte("# Above\n\n"+beginMark+"\nold\n"+endMark+"\n\nBelow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // twice, since a second run must not add to the first
		if err := madeUp().write(dir, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	page := read(t, file)
	if !strings.HasPrefix(page, "# Above\n\n"+beginMark) || !strings.HasSuffix(page, endMark+"\n\nBelow\n") || strings.Contains(page, "old") {
		t.Errorf("the page became:\n%s", page)
	}
	if strings.Count(page, "### Every load") != 1 {
		t.Error("the tables stand there twice")
	}
}

func TestAPageWithoutMarkersIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "performance.md")
	if err := os.WriteFile(file, []byte("prose alone\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := madeUp().write(dir, io.Discard)
	if err == nil || !strings.Contains(err.Error(), beginMark) {
		t.Errorf("error %v", err)
	}
	if read(t, file) != "prose alone\n" {
		t.Error("the page was overwritten")
	}
}

func TestAMissingPageIsMade(t *testing.T) {
	dir := t.TempDir()
	if err := madeUp().write(dir, io.Discard); err != nil {
		t.Fatal(err)
	}
	if page := read(t, filepath.Join(dir, "performance.md")); !strings.HasPrefix(page, "# Performance\n") {
		t.Errorf("the page is:\n%s", page)
	}
}

func TestThePlotIsWellFormed(t *testing.T) {
	text := madeUp().plot()
	decoder := xml.NewDecoder(strings.NewReader(text))
	rects := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
			rects++
		}
	}
	if rects != 5 { // the second load was never measured
		t.Errorf("%d bars, want 5", rects)
	}
	for _, want := range []string{`class="p"`, `class="cut"`, "A &lt;fast&gt; CPU", ">1600<", "prefers-color-scheme: dark"} {
		if !strings.Contains(text, want) {
			t.Errorf("the plot lacks %q", want)
		}
	}
	if strings.Contains(text, "NaN") {
		t.Error("the plot holds NaN")
	}
}

func TestNumber(t *testing.T) {
	for _, row := range []struct {
		v    float64
		want string
	}{{nan, "n/a"}, {0, "0.00"}, {1.234, "1.23"}, {12.34, "12.3"}, {123.4, "123"}, {-4, "-4.00"}} {
		if got := number(row.v); got != row.want {
			t.Errorf("number(%v) is %q, want %q", row.v, got, row.want)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
