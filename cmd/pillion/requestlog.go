package main

import (
	"slices"
	"sync"
	"time"

	"pillion/proxy"
	"pillion/sftpgw"
)

const (
	keptEntries     = 512 // what `pillion logs -n` can look back on
	keptDurations   = 64  // of each credential, for the median
	subscriberQueue = 256 // lines that a slow reader may be behind
)

// requestLog keeps the last requests and sessions, and hands new ones to whoever watches. It
// is called by every request, so it only copies: a watcher that is too slow
// loses lines, a request never waits.
type requestLog struct {
	mu          sync.Mutex
	ring        [keptEntries]logged
	written     uint64
	subscribers map[chan logLine]bool
	counts      map[string]*credentialCount
	hour        lastHour
}

// logged is a request, or a session of SFTP.
type logged struct {
	request proxy.Entry
	session *sftpgw.Entry
}

// credentialCount is what `pillion top` shows of one credential.
type credentialCount struct {
	requests, errors uint64
	durations        [keptDurations]time.Duration
	last             time.Time
}

func newRequestLog() *requestLog {
	return &requestLog{subscribers: map[chan logLine]bool{}, counts: map[string]*credentialCount{}}
}

// add is proxy.Server.OnEntry.
func (l *requestLog) add(e proxy.Entry) {
	l.keep(logged{request: e}, e.Credential, e.Duration, e.Status >= 400 || e.Error != "")
}

// addSession is sftpgw.Server.OnEntry.
func (l *requestLog) addSession(e sftpgw.Entry) {
	l.keep(logged{session: &e}, e.Credential, e.Duration, e.Error != "")
}

func (l *requestLog) keep(e logged, credential string, took time.Duration, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring[l.written%keptEntries] = e
	l.written++
	now := time.Now()
	l.hour.count(now, failed)
	if credential != "" {
		l.count(credential, now, took, failed)
	}
	for s := range l.subscribers {
		select {
		case s <- lineOf(e):
		default:
		}
	}
}

func (l *requestLog) count(credential string, now time.Time, took time.Duration, failed bool) {
	c := l.counts[credential]
	if c == nil {
		c = &credentialCount{}
		l.counts[credential] = c
	}
	c.durations[c.requests%keptDurations] = took
	c.requests++
	c.last = now
	if failed {
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

// logLine is a request or a session as `pillion logs` prints it: the keys of the
// log on standard error. A session is of protocol SFTP and has no method, path and
// status, but the last four.
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

	User   string `json:"user,omitempty"`
	Via    string `json:"via,omitempty"`
	Client string `json:"client,omitempty"`
	Files  *int   `json:"files,omitempty"`
}

const protocolSFTP = "SFTP"

func lineOf(l logged) logLine {
	if s := l.session; s != nil {
		return logLine{
			Time: s.Time, Credential: s.Credential, Host: s.Host, In: s.In, Out: s.Out,
			MS: milliseconds(s.Duration), UpstreamMS: milliseconds(s.Upstream), Protocol: protocolSFTP, Error: s.Error, Detail: s.Detail,
			User: s.User, Via: s.Via, Client: s.Client, Files: &s.Files,
		}
	}
	e := &l.request
	return logLine{
		Time: e.Time, Credential: e.Credential, Method: e.Method, Host: e.Host, Path: e.Path, Status: e.Status, In: e.In, Out: e.Out,
		MS: milliseconds(e.Duration), UpstreamMS: milliseconds(e.Upstream), Protocol: e.Protocol, TokenAge: e.TokenAge.Seconds(), Error: e.Error, Detail: e.Detail,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
