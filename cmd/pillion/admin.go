package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"pillion/creds/token"
)

// The admin socket: HTTP over a unix socket in the state directory, mode 0600,
// for the administrator's commands on the same machine.
//
//	POST /reload    read configuration and store again; answers reloadAnswer
//	GET  /status    status
//	POST /console-link  a new one-time link to the page
//	GET  /log       the last requests and every new one, a JSON object a line
//	GET  /debug/pprof/...   only with admin.pprof: true
//
// It answers no secret: who may open it could read the store anyway, but what
// it answers ends up in terminals and tickets.

// reloadAnswer is empty when everything was taken over.
type reloadAnswer struct {
	Problems []string `json:"problems,omitempty"` // the old configuration stays
	Notes    []string `json:"notes,omitempty"`    // what needs a restart
}

// status is what a running pillion says of itself.
type status struct {
	Version     string             `json:"version"`
	PID         int                `json:"pid"`
	Started     time.Time          `json:"started"`
	Ready       bool               `json:"ready"`
	Draining    bool               `json:"draining,omitempty"`
	Listeners   map[string]string  `json:"listeners"`
	Publish     string             `json:"publish"`
	SFTP        bool               `json:"sftp"` // the gateway serves, be it by CONNECT alone
	Unmatched   string             `json:"unmatched"`
	InFlight    int                `json:"in_flight"`
	Credentials []credentialStatus `json:"credentials"`
	Skipped     []skippedRecord    `json:"skipped,omitempty"`
	Problems    []string           `json:"problems,omitempty"` // of the last reload
}

// credentialStatus is one credential in use.
type credentialStatus struct {
	Name          string     `json:"name"`
	URL           string     `json:"url"`
	Authorization string     `json:"authorization"`
	Token         tokenState `json:"token"`
	Requests      uint64     `json:"requests"`
	Errors        uint64     `json:"errors"` // refused, or answered 4xx or 5xx
	P50           float64    `json:"p50_ms"`
}

// tokenState is what is known of a credential's token.
type tokenState struct {
	State     string     `json:"state"` // ok, degraded, needs_consent, config_error, none; static: there is no token
	Issued    *time.Time `json:"issued,omitempty"`
	Expires   *time.Time `json:"expires,omitempty"`
	GrantEnds *time.Time `json:"grant_ends,omitempty"` // when a person has to connect it again
	Error     string     `json:"error,omitempty"`
}

// staticState is that of a credential without a token.
const staticState = "static"

func tokenStateOf(s token.State) tokenState {
	t := tokenState{State: string(s.Status)}
	if !s.Expires.IsZero() {
		t.Issued, t.Expires = &s.Issued, &s.Expires
	}
	if !s.GrantEnds.IsZero() {
		t.GrantEnds = &s.GrantEnds
	}
	t.Error = s.Detail
	if s.LastError != nil {
		t.Error = s.LastError.Error()
		if s.Detail != "" {
			t.Error += ": " + s.Detail
		}
	}
	return t
}

type skippedRecord struct {
	Name    string `json:"name"`
	Problem string `json:"problem"`
}

// adminServer answers on the socket; the functions are run's.
type adminServer struct {
	reload func(context.Context) reloadAnswer
	status func() status
	link   func() string // a one-time link to the page; "" where there is none
	log    *requestLog
	pprof  bool
}

func (s *adminServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, s.reload(r.Context())) })
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.status()) })
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /log", s.serveLog)
	mux.HandleFunc("POST /console-link", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, linkAnswer{s.link()}) })
	if s.pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// serveLog sends the last n requests (?n=10), then each new one (?follow=true).
func (s *adminServer) serveLog(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || n < 0 {
		n = 10
	}
	w.Header().Set("Content-Type", "application/jsonl")
	past, live, stop := s.log.follow(n)
	defer stop()
	encoder := json.NewEncoder(w)
	for _, line := range past {
		if encoder.Encode(line) != nil {
			return
		}
	}
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	if r.URL.Query().Get("follow") != "true" {
		return
	}
	for {
		select {
		case line := <-live:
			if encoder.Encode(line) != nil || flush.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// listenAdmin opens the socket. One that a dead process left is replaced; one
// that answers belongs to a pillion that runs. The lock beside it keeps two that
// start at once from replacing each other's.
func listenAdmin(path string) (net.Listener, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the admin socket's lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another pillion runs with the state directory %s: stop it, or give this one a directory of its own with --state", filepath.Dir(path))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		lock.Close()
		return nil, fmt.Errorf("removing the admin socket of a pillion that ended: %w", err)
	}
	address, done, err := socketAddress(path)
	if err != nil {
		lock.Close()
		return nil, err
	}
	defer done()
	listener, err := net.Listen("unix", address)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("opening the admin socket %s: %w", path, err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		lock.Close()
		return nil, fmt.Errorf("closing the admin socket to other users: %w", err)
	}
	return &adminListener{listener, path, lock}, nil
}

// adminListener holds the lock as long as the socket.
type adminListener struct {
	net.Listener
	path string
	lock *os.File
}

func (l *adminListener) Close() error {
	err := l.Listener.Close()
	if err == nil { // the first Close alone: afterwards the path may be another's
		_ = os.Remove(l.path)
		l.lock.Close()
	}
	return err
}

// socketAddress returns an address for path that fits into the 108 bytes that
// the kernel has for one: longer ones go through the open directory.
func socketAddress(path string) (address string, done func(), err error) {
	if len(path) < 100 {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, fmt.Errorf("opening the state directory: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}
