package credstest

import (
	"bytes"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// LossyVault stands before a Vault and loses what it answers: the request was
// done, and whoever sent it sees its connection end. It also delays, answers in
// Vault's place, and counts. Without being told to it passes everything on.
type LossyVault struct {
	// Addr is what a client takes for Vault's address; without TLS.
	Addr string

	mu       sync.Mutex
	requests []VaultRequest
	next     int                            // answers to lose
	matches  func(method, path string) bool // of which requests
	share    float64                        // of the answers to writes
	delay    time.Duration
	reply    http.HandlerFunc
}

// VaultRequest is what went to Vault.
type VaultRequest struct {
	Method    string // LIST also where it came as GET with list=true
	Path      string // without /v1/
	Namespace string
	At        time.Time
	Status    int  // what Vault answered
	Lost      bool // whether the client never saw it
}

// Write says whether the request was one that changes something.
func (r VaultRequest) Write() bool { return r.Method != http.MethodGet && r.Method != "LIST" }

// Lossy starts a LossyVault before v that ends with the test.
func (v *Vault) Lossy(t testing.TB) *LossyVault {
	t.Helper()
	target, err := url.Parse(v.Addr)
	if err != nil {
		t.Fatal(err)
	}
	l := &LossyVault{}
	passOn := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:      v.client.Transport,
		ModifyResponse: l.answered,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		delay, reply := l.delay, l.reply
		l.mu.Unlock()
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
			}
		}
		if reply != nil {
			l.note(r, 0, false)
			reply(w, r)
			return
		}
		passOn.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // a lost answer is no error here
	server.Start()
	t.Cleanup(server.Close)
	l.Addr = server.URL
	return l
}

// LoseNext loses the answers to the next n requests that match; a nil match takes
// every write. path is without /v1/.
func (l *LossyVault) LoseNext(n int, match func(method, path string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next, l.matches = n, match
}

// LoseShare loses that share, 0 to 1, of the answers to writes, at random.
func (l *LossyVault) LoseShare(share float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.share = share
}

// Delay holds every request for so long before Vault gets it.
func (l *LossyVault) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Answer lets reply answer in Vault's place; nil ends that. See VaultError.
func (l *LossyVault) Answer(reply http.HandlerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reply = reply
}

// VaultError is an answer as Vault gives it: a status and its reasons.
func VaultError(status int, reasons ...string) http.HandlerFunc {
	for i, reason := range reasons {
		reasons[i] = strconv.Quote(reason)
	}
	return Reply(status, "application/json", `{"errors":[`+strings.Join(reasons, ",")+`]}`)
}

// Requests returns what has gone through, in order.
func (l *LossyVault) Requests() []VaultRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]VaultRequest(nil), l.requests...)
}

// Count says how many requests had a path that begins so; "" counts all.
func (l *LossyVault) Count(prefix string) int {
	n := 0
	for _, r := range l.Requests() {
		if strings.HasPrefix(r.Path, prefix) {
			n++
		}
	}
	return n
}

// Lost says how many answers were lost.
func (l *LossyVault) Lost() int {
	n := 0
	for _, r := range l.Requests() {
		if r.Lost {
			n++
		}
	}
	return n
}

// Reset forgets the requests so far.
func (l *LossyVault) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = nil
}

// answered decides on an answer of Vault's. The whole body is there before the
// answer is dropped: Vault is done with the request.
func (l *LossyVault) answered(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if l.note(resp.Request, resp.StatusCode, true) {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// note records a request, and says whether its answer is to be lost.
func (l *LossyVault) note(r *http.Request, status int, mayLose bool) (lost bool) {
	seen := VaultRequest{
		Method: r.Method, Path: strings.TrimPrefix(r.URL.Path, "/v1/"),
		Namespace: r.Header.Get("X-Vault-Namespace"), At: time.Now(), Status: status,
	}
	if r.URL.Query().Get("list") == "true" {
		seen.Method = "LIST"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if mayLose {
		seen.Lost = l.loses(seen)
	}
	l.requests = append(l.requests, seen)
	return seen.Lost
}

func (l *LossyVault) loses(r VaultRequest) bool {
	matches := r.Write()
	if l.matches != nil {
		matches = l.matches(r.Method, r.Path)
	}
	if l.next > 0 && matches {
		l.next--
		return true
	}
	return r.Write() && l.share > 0 && rand.Float64() < l.share
}
