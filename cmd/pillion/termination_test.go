package main_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The plain container of a pod: SIGTERM comes to pillion and to the connector at
// once, and the connector, which has its own work to end, goes on for a while. None
// of its requests may fail.
func TestTerminationUnderLoadLosesNothing(t *testing.T) {
	const (
		rate   = 500 // a second, of all clients together
		before = time.Second
		after  = 1500 * time.Millisecond // less than drain
	)
	sidecar := newSidecar(t, startStreamOrigin(t))
	sidecar.run(t, "secret-token", "credential", "set", "stream", "--url", "https://stream.example/", "--authorization", "bearer", "--token-file", "-")
	sidecar.start(t)

	fresh := sidecar.httpClient(t, false)
	fresh.Transport.(*http.Transport).DisableKeepAlives = true
	load := &load{clients: []loadClient{
		{"HTTP/1.1 in a tunnel", sidecar.httpClient(t, false), "https://stream.example/up"},
		{"HTTP/2 in a tunnel", sidecar.httpClient(t, true), "https://stream.example/up"},
		{"a tunnel for each request", fresh, "https://stream.example/up"},
		{"plain, kept alive", sidecar.httpClient(t, false), "http://stream.example/up"},
	}}
	load.run(rate, before)
	began := time.Now()
	sidecar.signal(t, syscall.SIGTERM)
	answered := load.answered.Load()
	load.run(rate, after)
	load.wait()
	stopped := time.Now()
	if err := sidecar.end(t, 10*time.Second); err != nil {
		t.Errorf("pillion ended with %v", err)
	}

	for name, failures := range load.failures {
		t.Errorf("%s: %d requests failed, such as: %s", name, len(failures), failures[0])
	}
	t.Logf("%d requests answered, %d of them after SIGTERM; it ended %.1f s after the last, %.1f s after SIGTERM",
		load.answered.Load(), load.answered.Load()-answered, time.Since(stopped).Seconds(), time.Since(began).Seconds())
}

// load sends requests at a rate, whatever the answers take.
type load struct {
	clients  []loadClient
	sent     int
	running  sync.WaitGroup
	answered atomic.Int64

	mu       sync.Mutex
	failures map[string][]string // by client
}

type loadClient struct {
	name string
	*http.Client
	url string
}

// run sends for a while; each client has its turn.
func (l *load) run(rate int, duration time.Duration) {
	begin := time.Now()
	for i := range int(float64(rate) * duration.Seconds()) {
		// Late ones follow at once: on a slow machine the load is as large.
		time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		client := l.clients[l.sent%len(l.clients)]
		l.sent++
		l.running.Go(func() { l.send(client) })
	}
}

// send posts what Go's client cannot send again by itself: a request that it lost
// counts as lost.
func (l *load) send(c loadClient) {
	const text = "a line of an export\n"
	request, err := http.NewRequest(http.MethodPost, c.url, io.MultiReader(strings.NewReader(text)))
	if err == nil {
		request.ContentLength = int64(len(text))
		err = expect(c.Client, request, fmt.Sprint(len(text)))
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.failures == nil {
			l.failures = map[string][]string{}
		}
		l.failures[c.name] = append(l.failures[c.name], err.Error())
		return
	}
	l.answered.Add(1)
}

// wait returns when all answers are there.
func (l *load) wait() { l.running.Wait() }

func expect(client *http.Client, request *http.Request, want string) error {
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && string(answer) != want {
		err = fmt.Errorf("%s: %.100s", response.Status, answer)
	}
	return err
}

// Who does not want to wait says so once more.
func TestASecondSignalEndsAtOnce(t *testing.T) {
	sidecar := newSidecar(t, startStreamOrigin(t))
	sidecar.run(t, "secret-token", "credential", "set", "stream", "--url", "https://stream.example/", "--authorization", "bearer", "--token-file", "-")
	sidecar.start(t)
	upload, rest := io.Pipe()
	defer rest.Close()
	go func() {
		response, err := sidecar.httpClient(t, false).Post("https://stream.example/up", "text/plain", upload)
		if err == nil {
			response.Body.Close()
		}
		upload.CloseWithError(io.ErrClosedPipe)
	}()
	if _, err := io.WriteString(rest, "the beginning of an upload"); err != nil {
		t.Fatal(err)
	}
	sidecar.signal(t, syscall.SIGTERM)
	for ready := true; ready; {
		response, err := http.Get("http://" + sidecar.metrics + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		ready = response.StatusCode == http.StatusOK
	}
	began := time.Now()
	sidecar.signal(t, syscall.SIGTERM)
	if err := sidecar.end(t, 10*time.Second); err != nil {
		t.Errorf("pillion ended with %v", err)
	}
	if took := time.Since(began); took > 5*time.Second { // of 20
		t.Errorf("it took %s to end", took)
	}
}

// A job is complete when its connector is; the sidecar beside it then has nothing
// under way, and must not make the pod wait for drain.
func TestTerminationOfAnIdleSidecar(t *testing.T) {
	sidecar := newSidecar(t, startStreamOrigin(t))
	sidecar.run(t, "secret-token", "credential", "set", "stream", "--url", "https://stream.example/", "--authorization", "bearer", "--token-file", "-")
	sidecar.start(t)
	// A tunnel stays open, as a connector's library leaves it.
	response, err := sidecar.httpClient(t, false).Get("https://stream.example/down?size=10")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()

	began := time.Now()
	sidecar.signal(t, syscall.SIGTERM)
	if err := sidecar.end(t, 10*time.Second); err != nil {
		t.Errorf("pillion ended with %v", err)
	}
	took := time.Since(began)
	t.Logf("it took %.1f s to end", took.Seconds())
	if took > 6*time.Second { // 2 on a machine that has time
		t.Errorf("with nothing under way it took %s to end", took)
	}
}
