package filestore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pillion/creds"
	"pillion/creds/credstest"
)

func TestEightProcessesCount(t *testing.T) {
	store := mustOpen(t, state(t))
	dir := filepath.Dir(store.Path())
	start := write(t, store, "tokens/counter", `{"n":0}`, 0)
	runAll(t, 8, "count", dir)
	record, err := store.Get(t.Context(), "tokens/counter")
	all := 8 * countedEach()
	if err != nil || record.Data.Reveal() != fmt.Sprintf(`{"n":%d}`, all) || record.Version != start+all {
		t.Errorf("counted to %s at version %d, want %d (%v)", record.Data.Reveal(), record.Version, all, err)
	}
	wantFiles(t, dir, "key.txt", "store.age", "store.age.lock")
}

// All of them find nothing; one makes the key, and all use it.
func TestEightProcessesAtFirstStart(t *testing.T) {
	dir := state(t)
	runAll(t, 8, "open and end", dir)
	mustOpen(t, dir)
	wantFiles(t, dir, "key.txt", "store.age", "store.age.lock")
}

func runAll(t *testing.T, n int, name, dir string) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		cmd := part(t.Context(), t, name, dir)
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		})
	}
	wg.Wait()
}

// Whenever a writer is killed, the store opens and holds what was confirmed.
func TestKilledWritersLoseNothing(t *testing.T) {
	rounds := credstest.Often(20)
	dir := state(t)
	mustOpen(t, dir)
	confirmed := map[int]bool{}
	next := 0
	for round := range rounds {
		for _, n := range writeAndKill(t, dir, next) {
			confirmed[n] = true
			next = max(next, n+1)
		}
		store := mustOpen(t, dir)
		checkConfirmed(t, store, confirmed)
		wantFiles(t, dir, "key.txt", "store.age", "store.age.lock")
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	t.Logf("%d confirmed writes outlived %d kills", len(confirmed), rounds)
}

// writeAndKill lets a process write from number first on and kills it after some
// confirmed writes and a random time more, at whatever it then does. Nothing
// waits for that time: it is the experiment.
func writeAndKill(t *testing.T, dir string, first int) (confirmed []int) {
	t.Helper()
	cmd := part(t.Context(), t, "write", dir)
	cmd.Stdin = strings.NewReader(strconv.Itoa(first) + "\n")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	killAt := rand.IntN(30)
	kill := func() { _ = cmd.Process.Kill() }
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatalf("the writer says %q", lines.Text())
		}
		confirmed = append(confirmed, n)
		if len(confirmed) == killAt+1 {
			time.AfterFunc(time.Duration(rand.IntN(8000))*time.Microsecond, kill)
		}
	}
	_ = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the writer ended by itself: %v", cmd.ProcessState)
	}
	return confirmed
}

// A first start that is killed leaves something that the next one can go on from.
func TestKilledFirstStart(t *testing.T) {
	for range credstest.Often(30) {
		dir := state(t)
		cmd := part(t.Context(), t, "open and end", dir)
		check(t, cmd.Start())
		timer := time.AfterFunc(time.Duration(rand.IntN(25_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // killed or not
		timer.Stop()
		write(t, mustOpen(t, dir), "secrets/a", `{}`, 0)
		wantFiles(t, dir, "key.txt", "store.age", "store.age.lock")
	}
}

func checkConfirmed(t *testing.T, store *Store, confirmed map[int]bool) {
	t.Helper()
	index, err := store.Get(t.Context(), creds.KeyIndex)
	if err != nil {
		t.Fatal(err)
	}
	for n := range confirmed {
		key, data := killRecord(n)
		record, err := store.Get(t.Context(), key)
		if err != nil || record.Data.Reveal() != data {
			t.Errorf("confirmed record %d is not as written (%v)", n, err)
		}
		if !strings.Contains(index.Data.Reveal(), fmt.Sprintf(`"kill-%04d":`, n)) {
			t.Errorf("confirmed record %d is not in the index", n)
		}
	}
}

// holdLock starts a process that holds the lock until release is called.
func holdLock(t *testing.T, dir string) (release func()) {
	t.Helper()
	cmd := part(t.Context(), t, "hold lock", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	return sync.OnceFunc(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	store := mustOpen(t, state(t))
	version := write(t, store, "secrets/a", `{"n":1}`, 0)
	release := holdLock(t, filepath.Dir(store.Path()))
	defer release()

	// Reading needs no lock, and a new process needs none to open.
	if _, err := mustOpen(t, filepath.Dir(store.Path())).Get(t.Context(), "secrets/a"); err != nil {
		t.Error(err)
	}
	for range 5 { // each waits behind the last one's blocked attempt as well
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := store.CAS(ctx, "secrets/a", creds.NewSecret(`{"n":2}`), version)
			ended <- err
		}()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) || !errors.Is(err, creds.ErrStoreUnavailable) {
			t.Errorf("the wait ended with %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := store.Delete(ctx, "secrets/a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the wait ended with %v", err)
	}

	release()
	if next := write(t, store, "secrets/a", `{"n":3}`, version); next != version+1 {
		t.Errorf("a write that was given up has been made: version %d follows %d", next, version)
	}
}

// A lock on a file that is gone excludes nobody.
func TestRemovedLockFileIsNoticed(t *testing.T) {
	store := mustOpen(t, state(t))
	old := flock(store.lockPath())
	if old.err != nil {
		t.Fatal(old.err)
	}
	if err := os.Remove(store.lockPath()); err != nil {
		t.Fatal(err)
	}
	if isAt(old.file, store.lockPath()) {
		t.Error("the removed file is still taken for the lock")
	}
	write(t, store, "secrets/a", `{}`, 0)
	if isAt(old.file, store.lockPath()) {
		t.Error("the new file is taken for the old one")
	}
	_ = old.file.Close()
}
