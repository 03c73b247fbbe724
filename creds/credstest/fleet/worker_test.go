package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"pillion/creds/credstest"
	"pillion/creds/vaultstore"
)

// workerSetup is what a worker process reads first, as one line of JSON.
type workerSetup struct {
	Kind       string // one of kinds
	First      int    // number of its first sidecar
	Sidecars   int
	Refreshers int    // how many of them, the first ones, are refreshers
	Dir        string // its state, which outlives it

	Vault, Mount string
	Refresher    login // of those that may use grants/
	Reader       login

	Provider   credstest.OIDC
	Resource   string
	Credential string

	NoJournal bool
	Crash     float64 // share of claims, of journalled answers and of written ones that it dies after
	DieInside float64 // share of token requests that it dies in, when the provider is done
}

// login is one of Vault's login approle.
type login struct{ RoleID, SecretIDFile string }

// tally is what a worker counts. It sends what it has counted since the last time
// as a line of JSON, several times a second and before it dies by its own hand.
type tally struct {
	OK      int   // answered 200
	Healed  int   // of them, after a 401 to the token before
	Refused int   // 401, the second one where there was another token to try
	Without int   // not sent, for want of a token
	Longest int64 `json:",omitempty"` // milliseconds that a request waited for its token

	Died   int            // by their own hand
	Blind  int            // claims over a holder that is silent
	Vault  int            // requests to Vault
	Events map[string]int `json:",omitempty"` // of package token, by kind
	Notes  map[string]int `json:",omitempty"` // why there was no token
}

func (t *tally) add(o tally) {
	t.OK, t.Healed, t.Refused, t.Without = t.OK+o.OK, t.Healed+o.Healed, t.Refused+o.Refused, t.Without+o.Without
	t.Longest = max(t.Longest, o.Longest)
	t.Died, t.Blind, t.Vault = t.Died+o.Died, t.Blind+o.Blind, t.Vault+o.Vault
	t.Events, t.Notes = addCounts(t.Events, o.Events), addCounts(t.Notes, o.Notes)
}

func addCounts(to, from map[string]int) map[string]int {
	for name, n := range from {
		if to == nil {
			to = map[string]int{}
		}
		to[name] += n
	}
	return to
}

// sidecar gets tokens its own way.
type sidecar interface {
	// token returns what a request carries.
	token(ctx context.Context) (bearer, error)
	// refused is for a 401 to b; false says that there is no other token to try.
	refused(ctx context.Context, b bearer) (bearer, bool)
}

// bearer is the content of an Authorization field.
type bearer struct{ header, fingerprint string }

// kinds of sidecars.
var kinds = map[string]func(context.Context, *worker, int) (sidecar, error){
	"alone":   newAlone,
	"cas":     newChecked,
	"shipped": newKeeping,
}

// worker is the process of some sidecars.
type worker struct {
	workerSetup
	client *http.Client // to the resource server

	mu      sync.Mutex
	counted tally
}

// runWorker is the main of a worker process. It ends with its standard input.
func runWorker() error {
	input := bufio.NewReader(os.Stdin)
	line, err := input.ReadBytes('\n')
	if err != nil {
		return err
	}
	w := &worker{client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	if err := json.Unmarshal(line, &w.workerSetup); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, input)
		stop()
	}()
	var running sync.WaitGroup
	for i := range w.Sidecars {
		running.Go(func() { w.runSidecar(ctx, i) })
	}
	running.Go(func() {
		every(ctx, 200*time.Millisecond, w.send)
	})
	running.Wait()
	return nil
}

// every calls do now and again until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// send tells the parent what was counted since the last time.
func (w *worker) send() {
	w.mu.Lock()
	defer w.mu.Unlock()
	line, err := json.Marshal(w.counted)
	if err != nil {
		panic(err)
	}
	w.counted = tally{}
	_, _ = os.Stdout.Write(append(line, '\n'))
}

func (w *worker) count(how func(t *tally)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	how(&w.counted)
}

// dies ends the process as the kernel would, in that share of the calls.
func (w *worker) dies(share float64) {
	if rand.Float64() >= share {
		return
	}
	w.count(func(t *tally) { t.Died++ })
	w.send()
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until it arrives
}

// runSidecar starts a sidecar and sends 4 requests a second by it.
func (w *worker) runSidecar(ctx context.Context, i int) {
	s, err := kinds[w.Kind](ctx, w, i)
	if err != nil {
		w.count(func(t *tally) { t.Notes = addCounts(t.Notes, map[string]int{"start: " + err.Error(): 1}) })
		return
	}
	pause(ctx, rand.N(250*time.Millisecond))
	every(ctx, 250*time.Millisecond, func() { w.request(ctx, s) })
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// request sends one, and one more after a 401 if there is another token.
func (w *worker) request(ctx context.Context, s sidecar) {
	waiting, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	begin := time.Now()
	b, err := s.token(waiting)
	waited := time.Since(begin).Milliseconds()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.count(func(t *tally) {
			t.Without++
			t.Longest = max(t.Longest, waited)
			t.Notes = addCounts(t.Notes, map[string]int{err.Error(): 1})
		})
		return
	}
	status := w.get(ctx, b)
	healed := false
	if status == http.StatusUnauthorized {
		if again, ok := s.refused(waiting, b); ok {
			status = w.get(ctx, again)
			healed = status == http.StatusOK
		}
	}
	if ctx.Err() != nil {
		return
	}
	w.count(func(t *tally) {
		t.Longest = max(t.Longest, waited)
		switch status {
		case http.StatusOK:
			t.OK++
			if healed {
				t.Healed++
			}
		case http.StatusUnauthorized:
			t.Refused++
		default:
			t.Notes = addCounts(t.Notes, map[string]int{"the resource server answers " + strconv.Itoa(status): 1})
		}
	})
}

// get asks the resource server, and returns its status; 0 is no answer.
func (w *worker) get(ctx context.Context, b bearer) int {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.Resource, nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", b.header)
	response, err := w.client.Do(r)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// store logs in to Vault, each sidecar on its own.
func (w *worker) store(l login) (*vaultstore.Store, error) {
	environment := func(string) string { return "" }
	config := vaultstore.Config{Address: w.Vault, Mount: w.Mount, Auth: vaultstore.Auth{
		Method: "approle", RoleID: l.RoleID, SecretIDFile: l.SecretIDFile,
	}}.WithEnvironment(environment)
	client, err := vaultstore.New(config, environment)
	if err != nil {
		return nil, err
	}
	client.OnRequest = func(string, int, time.Duration) { w.count(func(t *tally) { t.Vault++ }) }
	return client.Store(""), nil
}

// state is the directory of a sidecar, the same after a restart.
func (w *worker) state(i int) (string, error) {
	dir := filepath.Join(w.Dir, fmt.Sprintf("sidecar-%d", w.First+i))
	return dir, os.MkdirAll(dir, 0o700)
}
