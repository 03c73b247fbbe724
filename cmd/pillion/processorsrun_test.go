package main_test

import (
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A running pillion has one processor, unless its environment names another number.
func TestProcessorsOfARunningSidecar(t *testing.T) {
	if runtime.NumCPU() == 1 {
		t.Skip("there is one processor only")
	}
	s := newSidecar(t, startOrigin(t, "tool.example"))
	for _, row := range []struct {
		environment []string
		want        string
	}{{nil, "1"}, {[]string{"GOMAXPROCS=2"}, "2"}} {
		s.start(t, append([]string{"env"}, row.environment...)...)
		want := "\ngo_sched_gomaxprocs_threads " + row.want + "\n"
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a slow start may have asked for more
			_, metrics := get(t, "http://"+s.metrics+"/metrics")
			if strings.Contains(metrics, want) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("with %q the metrics do not say %q", row.environment, want)
			}
		}
		s.signal(t, syscall.SIGTERM)
		if err := s.end(t, 10*time.Second); err != nil {
			t.Error(err)
		}
	}
}
