package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// Only what is the program's own file, and cannot be written, is given back.
func TestUnwritable(t *testing.T) {
	const program = "/usr/local/bin/pillion"
	for line, want := range map[string]bool{
		"00400000-00c93000 r-xp 00000000 fe:00 131 /usr/local/bin/pillion":                  true,
		"00c93000-015aa000 r--p 00893000 fe:00 131                  /usr/local/bin/pillion": true,
		"015aa000-01640000 rw-p 011aa000 fe:00 131                  /usr/local/bin/pillion": false,
		"00400000-00c93000 r-xs 00000000 fe:00 131 /usr/local/bin/pillion":                  false,
		"00400000-00c93000 ---p 00000000 fe:00 131 /usr/local/bin/pillion":                  false,
		"00400000-00c93000 r-xp 00000000 fe:00 131 /opt/usr/local/bin/pillion":              false,
		"00400000-00c93000 r-xp 00000000 fe:00 131 /usr/local/bin/pillion (deleted)":        false,
		"1fd0bc800000-1fd0bd800000 rw-p 00000000 00:00 0 ":                                  false,
		"7ffc1000-7ffc2000 r-xp 00000000 00:00 0 [vdso]":                                    false,
		"": false,
		"no-such r-xp 0 0 0 /usr/local/bin/pillion": false,
	} {
		if start, end, ok := unwritable(line, program); ok != want || ok && start >= end {
			t.Errorf("%q: %x-%x %v, want %v", line, start, end, ok, want)
		}
	}
}

// A program that gave its pages back goes on, with fewer of them.
func TestReleaseProgram(t *testing.T) {
	before := mappedOfProgram(t)
	released := releaseProgram()
	if after := mappedOfProgram(t); released == 0 || after > before {
		t.Errorf("released %d bytes: %d KiB resident before, %d after", released, before, after)
	}
}

func mappedOfProgram(t *testing.T) (kib int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "RssFile:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatal("no RssFile in /proc/self/status")
	return 0
}
