package main

import (
	"slices"
	"sync"
	"time"

	"pillion/proxy"
)

const (
	keptEntries     = 512 // what `pillion logs -n` can look back on
	keptDurations   = 64  // of each credential, for the median
	subscriberQueue = 256 // lines that a slow reader may be behind
)

// requestLog keeps the last requests and hands new ones to whoever watches. It
// is called by every request, so it only copies: a watcher that is too slow
// loses lines, a request never waits.
type requestLog struct {
	mu          sync.Mutex
	ring        [keptEntries]proxy.Entry
	written     uint64
	subscribers map[chan logLine]bool
	counts      map[string]*credentialCount
}

// credentialCount is what `pillion top` shows of one credential.
type credentialCount struct {
	requests, errors uint64
	durations        [keptDurations]time.Duration
}

func newRequestLog() *requestLog {
	return &requestLog{subscribers: map[chan logLine]bool{}, counts: map[string]*credentialCount{}}
}

// add is proxy.Server.OnEntry.
func (l *requestLog) add(e proxy.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring[l.written%keptEntries] = e
	l.written++
	if e.Credential != "" {
		l.count(e)
	}
	for s := range l.subscribers {
		select {
		case s <- lineOf(e):
		default:
		}
	}
}

func (l *requestLog) count(e proxy.Entry) {
	c := l.counts[e.Credential]
	if c == nil {
		c = &credentialCount{}
		l.counts[e.Credential] = c
	}
	c.durations[c.requests%keptDurations] = e.Duration
	c.requests++
	if e.Status >= 400 || e.Error != "" {
		c.errors++
	}
}

// follow returns the last n lines and a channel of those to come.
func (l *requestLog) follow(n int) (past []logLine, live <-chan logLine, stop func()) {
	ch := make(chan logLine, subscriberQueue)
	l.mu.Lock()
	defer l.mu.Unlock()
	count := min(uint64(n), l.written, keptEntries)
	for i := l.written - count; i < l.written; i++ {
		past = append(past, lineOf(l.ring[i%keptEntries]))
	}
	l.subscribers[ch] = true
	return past, ch, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subscribers, ch)
	}
}

// of returns how often a credential was used, how often that went wrong, and
// the median of its last durations in milliseconds.
func (l *requestLog) of(name string) (requests, errors uint64, p50 float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts[name]
	if c == nil {
		return 0, 0, 0
	}
	last := slices.Clone(c.durations[:min(c.requests, keptDurations)])
	slices.Sort(last)
	return c.requests, c.errors, milliseconds(last[len(last)/2])
}

// forget drops the counts of a credential that went.
func (l *requestLog) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.counts, name)
}

// logLine is an Entry as `pillion logs` prints it: the keys of the log on
// standard error.
type logLine struct {
	Time       time.Time `json:"time"`
	Credential string    `json:"credential"`
	Method     string    `json:"method"`
	Host       string    `json:"host"`
	Path       string    `json:"path"`
	Status     int       `json:"status"`
	In         int64     `json:"in"`
	Out        int64     `json:"out"`
	MS         float64   `json:"ms"`
	UpstreamMS float64   `json:"upstream_ms"`
	Protocol   string    `json:"protocol"`
	TokenAge   float64   `json:"token_age_s"`
	Error      string    `json:"error"`
	Detail     string    `json:"detail"`
}

func lineOf(e proxy.Entry) logLine {
	return logLine{
		e.Time, e.Credential, e.Method, e.Host, e.Path, e.Status, e.In, e.Out,
		milliseconds(e.Duration), milliseconds(e.Upstream), e.Protocol, e.TokenAge.Seconds(), e.Error, e.Detail,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
