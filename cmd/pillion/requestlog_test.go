package main

import (
	"fmt"
	"testing"
	"time"

	"pillion/proxy"
)

func TestRequestLogLooksBack(t *testing.T) {
	l := newRequestLog()
	for i := range keptEntries + 7 {
		l.add(proxy.Entry{Path: fmt.Sprint("/", i), Credential: "c", Status: 200 + 300*(i%2), Duration: time.Duration(i) * time.Millisecond})
	}
	past, _, stop := l.follow(3)
	defer stop()
	if len(past) != 3 || past[0].Path != fmt.Sprint("/", keptEntries+4) || past[2].Path != fmt.Sprint("/", keptEntries+6) {
		t.Errorf("the last three are %v", past)
	}
	if all, _, stop := l.follow(10 * keptEntries); len(all) != keptEntries || all[0].Path != "/7" {
		t.Errorf("%d lines, the first %v", len(all), all[0])
	} else {
		stop()
	}
	requests, failed, p50 := l.of("c")
	if requests != keptEntries+7 || failed != (keptEntries+7)/2 || p50 < keptEntries+7-keptDurations || p50 > keptEntries+7 {
		t.Errorf("%d requests, %d errors, median %v", requests, failed, p50)
	}
	l.forget("c")
	if requests, _, _ := l.of("c"); requests != 0 {
		t.Error("a credential that went is counted on")
	}
}

// TestRequestLogNeverWaits: a watcher that does not read loses lines.
func TestRequestLogNeverWaits(t *testing.T) {
	l := newRequestLog()
	_, live, stop := l.follow(0)
	for i := range 3 * subscriberQueue {
		l.add(proxy.Entry{Status: i})
	}
	for i := range subscriberQueue {
		if line := <-live; line.Status != i {
			t.Fatalf("line %d is %d", i, line.Status)
		}
	}
	select {
	case line := <-live:
		t.Errorf("a line beyond the queue: %v", line)
	default:
	}
	stop()
	l.add(proxy.Entry{})
	if len(live) != 0 {
		t.Error("a watcher that left still gets lines")
	}
}

func BenchmarkRequestLog(b *testing.B) {
	l := newRequestLog()
	e := proxy.Entry{Credential: "c", Method: "GET", Host: "h.example", Path: "/", Status: 200, Duration: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		l.add(e)
	}
}
