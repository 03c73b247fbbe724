package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"pillion/creds"
	"pillion/creds/credstest"
	"pillion/creds/filestore"
)

// TestKilledWhileWriting: a store whose writer and reader are killed with
// SIGKILL, at whatever moment, opens, and holds every write that was confirmed.
// There is a kill after every 40 writes or so.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	writes := credstest.Often(1000)
	state := filepath.Join(t.TempDir(), "state")
	environment := append(os.Environ(), "PILLION_STATE="+state, "PILLION_PROXY_LISTEN=127.0.0.1:0", "PILLION_METRICS_LISTEN=127.0.0.1:0", "PILLION_SFTP_LISTEN=off")
	start := func(name string, args ...string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = environment
		return cmd
	}
	random := rand.New(rand.NewPCG(1, 2))
	last := -1
	rounds := 0
	for ; last+1 < writes; rounds++ {
		server := start("pillion", "run")
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		writer := start("writer", strconv.Itoa(last+1))
		writer.Stderr = os.Stderr
		out, err := writer.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		killAt := last + 1 + random.IntN(80)
		for n := range lines(out) {
			if n > last {
				last = n
			}
			if n == killAt {
				// Both at once, while the writer is at its next write.
				_ = server.Process.Kill()
				_ = writer.Process.Kill()
			}
		}
		_, _ = server.Process.Kill(), server.Wait()
		_ = writer.Wait()
		holdsEverything(t, state, last)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d writes confirmed in %d rounds", last+1, rounds)
}

// holdsEverything: of each credential the last confirmed value, or the one
// behind it, which was written and not confirmed any more.
func holdsEverything(t *testing.T, state string, last int) {
	t.Helper()
	store, err := filestore.Open(filepath.Join(state, "store.age"), filepath.Join(state, "key.txt"))
	if err != nil {
		t.Fatalf("after %d: %v", last, err)
	}
	defer store.Close()
	live := &creds.Live{Store: store}
	if err := live.Reload(context.Background()); err != nil {
		t.Fatalf("after %d: %v", last, err)
	}
	for _, bad := range live.Bad() {
		t.Errorf("after %d: %s cannot be read: %s", last, bad.Name, bad.Problem)
	}
	for n := max(0, last-writtenCredentials+1); n <= last; n++ {
		name := fmt.Sprintf("c%d", n%writtenCredentials)
		c, ok := live.Table().ByName(name)
		if !ok {
			t.Errorf("after %d: %s is lost", last, name)
			continue
		}
		unconfirmed := last + 1
		if got := c.Token.Reveal(); got != strconv.Itoa(n) && !(unconfirmed%writtenCredentials == n%writtenCredentials && got == strconv.Itoa(unconfirmed)) {
			t.Errorf("after %d: %s holds %s, confirmed was %d", last, name, got, n)
		}
	}
}
