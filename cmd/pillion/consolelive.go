package main

import (
	"slices"
	"time"

	"pillion/creds/console"
)

// consoleLive is what the page tells of requests: those of this process.
type consoleLive struct{ d *daemon }

var _ console.Live = consoleLive{}

// Source says since when there is something to tell.
func (l consoleLive) Source() string {
	return "requests through this pillion since " + l.d.started.UTC().Format("2006-01-02 15:04 UTC")
}

// Usage returns who used a credential. Connectors are processes of this machine or
// pod, without names of their own.
func (l consoleLive) Usage(name string) (console.Usage, bool) {
	requests, last := l.d.requests.usedBy(name)
	return console.Usage{Last: last, Requests: requests}, true
}

// Requests returns the last n, the newest first.
func (l consoleLive) Requests(n int) []console.Request {
	past, _, stop := l.d.requests.follow(n)
	stop()
	slices.Reverse(past)
	out := make([]console.Request, 0, len(past))
	for _, line := range past {
		out = append(out, console.Request{
			Time: line.Time, Credential: line.Credential, Method: line.Method, Host: line.Host, Path: line.Path, Status: line.Status,
			Duration: time.Duration(line.MS * float64(time.Millisecond)).Round(time.Millisecond), Error: line.Error,
		})
	}
	return out
}

// Minutes returns the last hour.
func (l consoleLive) Minutes() []console.Minute { return l.d.requests.minutes(time.Now()) }

// lastHour counts requests by the minute, in a ring.
type lastHour [60]struct {
	minute           int64 // since 1970
	requests, errors int
}

func (h *lastHour) count(now time.Time, failed bool) {
	minute := now.Unix() / 60
	at := &h[minute%int64(len(h))]
	if at.minute != minute {
		at.minute, at.requests, at.errors = minute, 0, 0
	}
	at.requests++
	if failed {
		at.errors++
	}
}

func (l *requestLog) minutes(now time.Time) []console.Minute {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]console.Minute, len(l.hour))
	for i := range out {
		minute := now.Unix()/60 - int64(len(out)-1-i)
		if at := l.hour[minute%int64(len(out))]; at.minute == minute {
			out[i] = console.Minute{Requests: at.requests, Errors: at.errors}
		}
	}
	return out
}

// usedBy returns how often a credential was used since the start, and when last.
func (l *requestLog) usedBy(name string) (requests int, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.counts[name]; c != nil {
		return int(c.requests), c.last //nolint:gosec // a count
	}
	return 0, time.Time{}
}
